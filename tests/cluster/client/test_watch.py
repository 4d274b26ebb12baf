# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches that end in every way a real API server ends them: the replica follows, and nothing goes missing meanwhile."""
import os
import re
import signal

from lab import lab_test, say
from rig import API_PORT, KINDS
from topology import wait_for
from world import slices


@lab_test(smoke=True)
def test_follows(r):
    """Made, changed, deleted, made again under the same name."""
    r.start()
    with r.disturbed():
        r.api.create(r.other(), r.node(4))
        r.settled()
        r.api.patch("/api/v1/namespaces/default/services/other-0", {"metadata": {"annotations": {"slipstream/exclude": "true"}}})
        r.settled()
        r.api.delete(r.other())
        r.settled()
        again = r.other(1)
        again["metadata"]["name"] = "other-0"
        r.api.create(again)
        r.settled()
        r.api.delete(r.node(4))
    assert not any(r.relisted.values()), r.relisted


@lab_test(smoke=True)
def test_connection_cut(r):
    """Watches go on where they were: what happened meanwhile arrives, without a list."""
    r.start()
    r.api.create(r.other(1), r.node(4), *slices("other-1", r.pod))  # a watch that brought nothing within its first second waits
    r.settled()
    starts = r.agent.counts("watch_starts_total", "resource")
    with r.disturbed():
        r.relay.cut()
        r.api.create(r.other())
        r.api.delete(r.node(3))
    assert not any(r.relisted.values()), r.relisted
    again = {k: v - starts[k] for k, v in r.agent.counts("watch_starts_total", "resource").items()}
    assert again == dict.fromkeys(KINDS, 1), again


@lab_test(smoke=True)
def test_server_killed(r):
    """SIGKILL. The new server may have forgotten the versions: lists are allowed, an empty replica is none."""
    r.start(port=API_PORT)
    with r.disturbed():
        r.restart_api(kill=True, between=lambda: wait_for("refused", lambda: r.agent.failures().get("connect"), 20))
        r.api.create(r.other())
        r.api.delete(r.node(3))
    assert all(v <= 1 for v in r.relisted.values()), r.relisted


@lab_test(smoke=True)
def test_server_shut_down(r):
    """SIGTERM: requests end one by one, then the port refuses."""
    r.start(port=API_PORT)
    with r.disturbed():
        r.restart_api()
        r.api.create(r.other())
        r.api.delete(r.node(3))
    assert all(v <= 1 for v in r.relisted.values()), r.relisted


def compacted(r):
    """The agent is away; the server restarts and etcd is compacted, and objects come and go before and after that."""
    with r.disturbed():
        lists = r.agent.lists()
        for p in (r.agent.process, r.replica.process):
            os.kill(p.pid, signal.SIGSTOP)
        r.relay.cut()
        r.api.create(r.other(), r.node(4))
        r.api.delete(r.node(3))
        r.restart_api(kill=True, between=r.compact)
        r.api.delete(r.node(4))
        r.api.create(r.other(1), r.web(external=("198.51.100.79",)))
        for p in (r.agent.process, r.replica.process):
            os.kill(p.pid, signal.SIGCONT)
        # endpointslices did not change: that the replica holds them again says nothing of a list
        wait_for("all listed again", lambda: all(n > lists[k] for k, n in r.agent.lists().items()), 30)
    assert r.relisted == dict.fromkeys(KINDS, 1), r.relisted
    assert r.agent.failures().get("expired", 0) >= len(KINDS), r.agent.failures()


@lab_test(smoke=True)
def test_compacted(r):
    """410. One list per resource; what was deleted meanwhile is gone, the rest was there all the time."""
    r.start()
    compacted(r)


WATCHLIST = "kubernetes:\n  initialList: watchlist\n"


@lab_test(smoke=True)
def test_watchlist(r):
    """The initial list as a watch; cut, it goes on as one; after a 410 it is begun anew."""
    def served():
        """How many the server has served, by resource."""
        text = r.api.call("GET", "/metrics")[1]
        found = re.findall(r'^apiserver_watch_list_duration_seconds_count\{.*resource="(\w+)".*\} (\d+)', text, re.M)
        return {k: int(n) for k, n in found if k in KINDS}
    before = served()
    r.start(WATCHLIST)
    after = served()
    assert all(after[k] == before.get(k, 0) + 2 for k in KINDS), (before, after)  # agent and replica
    with r.disturbed():
        r.relay.cut()
        r.api.create(r.other(2))
        r.api.delete(r.node(2))
    assert not any(r.relisted.values()) and served() == after, (r.relisted, served())
    compacted(r)


@lab_test(smoke=True)
def test_endpoints_instead_of_slices(r):
    """A server without discovery.k8s.io/v1: Endpoints are read; its warning that they are deprecated is told once."""
    # such a server looks for slices itself and never calls itself ready
    r.restart_api("--runtime-config=discovery.k8s.io/v1=false", ready="/readyz?exclude=informer-sync")
    r.rules(r.role + [{"apiGroups": [""], "resources": ["endpoints"], "verbs": ["get", "list", "watch"]}])
    endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", "namespace": "default"},
                 "subsets": [{"addresses": [{"ip": "10.0.2.12"}, {"ip": "10.0.2.11"}], "notReadyAddresses": [{"ip": "10.0.2.13"}],
                              "ports": [{"name": "tcp", "port": 8080}]}]}
    r.api.create(endpoints)
    r.start(slices_from="endpoints")
    assert r.replica.states[-1]["endpointslices"]["default/web"]["endpoints"] == ["10.0.2.11 ready", "10.0.2.12 ready", "10.0.2.13 -"]
    with r.disturbed():
        r.relay.cut()
        r.api.create({**endpoints, "metadata": {"name": "lb", "namespace": "default"}})
    assert not any(r.relisted.values()), r.relisted
    r.api.delete(endpoints)
    r.settled()
    assert r.agent.tail().count("deprecated") == 1, r.agent.tail()
    r.api.delete({**endpoints, "metadata": {"name": "lb", "namespace": "default"}})


@lab_test(smoke=True)
def test_forbidden(r):
    """The right to services is taken away and given back: said with verb and resource; the others go on, the replica stays,
    and nobody has to restart anything."""
    r.start()
    without = [{**r.role[0], "resources": ["nodes"]}] + r.role[1:]
    with r.disturbed():
        r.rules(without)
        r.relay.cut()
        wait_for("services forbidden", lambda: "services" in r.agent.problems(), 20)
        problem = r.agent.problems()["services"]
        assert "403" in problem and "services" in problem and "watch" in problem, problem
        r.api.create(r.other(), r.node(4))
        wait_for("node n4", lambda: "n4" in r.replica.states[-1]["nodes"], 20)
        assert "default/other-0" not in r.replica.states[-1]["services"]
        assert r.agent.get("/readyz")[0] == 200 and set(r.agent.problems()) == {"services"}
        wait_for("problem told", lambda: "403" in r.agent.tail() and any("403" in p for p in r.replica.problems), 30)
        r.rules(r.role)
    assert not any(r.relisted.values()), r.relisted
    assert not r.agent.problems()


@lab_test(smoke=True)
def test_http1(r):
    """A server without HTTP/2: a connection per watch, all else the same."""
    r.restart_api("--disable-http2-serving")
    r.start()
    connections = r.agent.metrics()["slipstream_source_connections_total"]
    assert connections == 3, connections
    with r.disturbed():
        r.relay.cut()
        r.api.create(r.other())
        r.api.delete(r.node(3))
    assert not any(r.relisted.values()), r.relisted


@lab_test(smoke=True)
def test_goaway(r):
    """--goaway-chance: the server asks for another connection with one answer in 50. Nobody lists again for that, and the
    streams that are under way stay good."""
    r.restart_api("--goaway-chance=0.02")
    r.start()
    met = 0
    for i in range(60):
        r.agent.kill()
        r.agent.start()
        wait_for("watching", lambda: all(r.agent.counts("watch_starts_total", "resource").values()), 10)
        if r.agent.metrics()["slipstream_source_connections_total"] > 1:
            met += 1
            with r.disturbed():
                r.api.create(r.other(i))
            assert not any(r.relisted.values()) and not r.agent.failures(), (r.relisted, r.agent.failures())
        assert r.agent.lists() == dict.fromkeys(KINDS, 1), r.agent.lists()
        if met == 2:
            break
    assert met, "60 starts and no GOAWAY"


@lab_test()
def test_silent_peer(r):
    """Packets are lost and no RST comes: the connection is given up within a minute, and that a new one fails is told; all is
    made good when packets pass again."""
    r.start()
    starts = r.agent.counts("watch_starts_total", "resource")
    with r.disturbed():
        r.silence(True)
        try:
            noticed = wait_for("noticed", lambda: r.agent.counts("watch_starts_total", "resource") != starts, 75, 0.5)
            told = wait_for("told", lambda: r.agent.failures().get("connect"), 60, 0.5)
            r.api.create(r.other())
        finally:
            r.silence(False)
    say("    ", f"given up after {noticed:.0f} s, told {told:.0f} s later")
    assert noticed <= 60, f"noticed after {noticed:.0f} s"
    assert not any(r.relisted.values()), r.relisted

# SPDX-License-Identifier: GPL-2.0-or-later
"""Endpoints that vanish: their UDP connections end, by kube-proxy's deletion or ours; TCP of endpoints that drain goes on.

The client sends from one socket all the time. Bounds are ten times the second that the design gives."""
import signal
import time

import lab
from harness import Transfer, Unreachable
from lab import lab_test
from topology import wait_for
from world import service, slices

# one for each test that asks who its endpoints are: kube-proxy may still have those of the test before
SERVICES = {"dns": ("10.96.0.53", "fd96::53"), "last": ("10.96.0.54", "fd96::54"),
            "drain-v4": ("10.96.0.55", "fd96::55"), "drain-v6": ("10.96.0.56", "fd96::56")}
BOUND = 10
CLIENTS = {"n1": ("p11", ("p21", "p22")), "n2": ("p21", ("p11", "p12"))}  # of a node, and pods of the other
MODES = (("nftables", "n1"), ("iptables", "n2"))  # of the nodes' kube-proxies, see world.py


def serve(w, *pods, name="dns", conditions=None):
    w.want(service(name, *SERVICES[name], type="ClusterIP"), *slices(name, *pods, conditions=conditions))


def talk(w, node, v, n=2, name="dns"):
    """A Service of `n` endpoints on the other node and a client that talks to it, offloaded: the connection, the endpoint
    that it was given, and the others."""
    client, names = CLIENTS[node]
    pods = [w.pods[p] for p in names[:n]]
    serve(w, *pods, name=name)
    w.proxy_knows(node, SERVICES[name][v])
    for p in pods:
        w.proxy_knows(node, p.ips[v])
    c = w.open(client, SERVICES[name][v], 80, mode="udp-beat")
    wait_for(f"{c.what}: offloaded on {node}", lambda: len(w.offloaded_to(node, c.port)) == 1, BOUND)
    chosen = w.offloaded_to(node, c.port).pop()
    mine = next(p for p in pods if p.ips[v] == chosen)
    return c, mine, [p for p in pods if p is not mine]


def reach(w, address):
    """A connection of p11, once the Service has got to where it is needed."""
    def answers():
        try:
            return w.client("p11", "rr 1", address, 80)
        except Unreachable:
            return False
    wait_for(f"{address} port 80 answers", answers, 60, 0.3)
    return w.open("p11", address, 80)


def silence(w, pod):
    """Its server answers no more until the next test, as that of a pod that is gone."""
    pod.server.send_signal(signal.SIGSTOP)
    w.later(lambda: pod.server.send_signal(signal.SIGCONT))


def moved(w, node, v, c, mine, others, text):
    """Off the fast path to `mine`; on it to one of the others, which answers."""
    took = wait_for(f"{c.what}: not offloaded to {mine.ips[v]} on {node}", lambda: mine.ips[v] not in w.offloaded_to(node, c.port), BOUND)
    wait_for(f"{c.what}: offloaded to another endpoint on {node}", lambda: w.offloaded_to(node, c.port) == {others[0].ips[v]}, BOUND)
    c.answers()
    wait_for(f"{c.what}: answers", lambda: c.answers() > 0, BOUND, 0.2)
    lab.say("    ", f"{text}: off the fast path {took:.2f} s after kubectl's answer")


def ended(w, node):
    return w.agents[node].metrics()['slipstream_flows_ended_total{reason="endpoint"}']


@lab_test(fails="none", families=True)
def test_udp_endpoint_removed(w, v):
    """The pod still answers: whoever deletes first, in the end the client is with the other endpoint."""
    for mode, node in MODES:
        c, mine, others = talk(w, node, v)
        serve(w, *others)
        moved(w, node, v, c, mine, others, mode)
        c.abort()


@lab_test(agent=True, families=True)
def test_udp_endpoint_removed_by_kube_proxy_alone(w, v):
    """kube-proxy's deletion ends what is offloaded: with kubernetes.endpoints off the agent ends nothing."""
    if w.control != "agent":
        return
    for mode, node in MODES:
        w.agent(node, "kubernetes: {endpoints: 'off'}\n")
        c, mine, others = talk(w, node, v)
        serve(w, *others)
        moved(w, node, v, c, mine, others, f"{mode} alone")
        assert ended(w, node) == 0
        c.abort()


@lab_test(fails="none static cut", families=True, smoke=True)
def test_udp_endpoint_gone_without_kube_proxy(w, v):
    """kube-proxy stands still, its rules still have both endpoints, and the pod answers no more."""
    node = "n1"
    c, mine, others = talk(w, node, v)
    before = ended(w, node) if w.control == "agent" else 0
    w.proxies[node].send_signal(signal.SIGSTOP)
    w.later(lambda: w.proxies[node].send_signal(signal.SIGCONT))
    silence(w, mine)
    serve(w, *others)
    took = wait_for(f"{c.what}: not offloaded to {mine.ips[v]}", lambda: mine.ips[v] not in w.offloaded_to(node, c.port), BOUND)
    lab.say("    ", f"agent alone: off the fast path {took:.2f} s after kubectl's answer")
    time.sleep(2)
    assert mine.ips[v] not in w.offloaded_to(node, c.port), "offloaded again to an endpoint that is gone"
    if w.control == "agent":
        assert ended(w, node) >= before + 1


@lab_test(fails="none static cut")
def test_last_udp_endpoint_gone(w):
    """Of a Service without any other endpoint kube-proxy deletes nothing (cleanup.go): that is left to the agent."""
    for mode, node in MODES:
        c, mine, _ = talk(w, node, 0, n=1, name="last")
        silence(w, mine)
        serve(w, name="last")
        took = wait_for(f"{c.what}: not offloaded to {mine.ips[0]} on {node}", lambda: not w.offloaded_to(node, c.port), BOUND)
        lab.say("    ", f"last endpoint, kube-proxy in {mode} mode: off the fast path {took:.2f} s after kubectl's answer")
        c.abort()


@lab_test(fails="none", families=True)
def test_tcp_of_an_endpoint_that_drains(w, v):
    """A rolling update under a long transfer: its endpoint terminates, serves no more, leaves its slice, and is
    replaced; the transfer stays offloaded and whole through it, and new connections go to the new pod."""
    node, old, new, name = "n1", w.pods["p21"], w.pods["p22"], ("drain-v4", "drain-v6")[v]
    serve(w, old, name=name)
    c = reach(w, SERVICES[name][v])
    transfer = Transfer(c)
    draining = {"ready": False, "serving": True, "terminating": True}
    stages = (("alone", (old,), {}), ("with its successor", (old, new), {}), ("terminating", (old, new), {old.name: draining}),
              ("serving no more", (old, new), {old.name: {**draining, "serving": False}}), ("out of the slice", (new,), {}),
              ("without a Service", None, {}))
    for stage, pods, conditions in stages:
        if pods:
            serve(w, *pods, name=name, conditions=conditions)
            w.proxy_knows(node, pods[-1].ips[v])
        else:
            w.want()
        time.sleep(2.5)  # a flush, and the second look
        transfer.moves()
        assert w.offloaded_to(node, c.port) == {old.ips[v]}, f"{stage}: the transfer is not offloaded to {old.ips[v]}"
    transfer.finish()
    lab.say("    ", f"transfer: {transfer.rounds * 60000 / 1e6:.0f} MB there and back through a rolling update")
    # and now the pod really goes
    serve(w, new, name=name)
    w.later(lambda: w.topology.add_pod(old.node, old.index))
    w.topology.del_pod(old)
    fresh = reach(w, SERVICES[name][v])
    fresh.rr(200)
    assert w.offloaded_to(node, fresh.port) == {new.ips[v]}

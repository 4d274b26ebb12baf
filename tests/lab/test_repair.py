# SPDX-License-Identifier: GPL-2.0-or-later
"""What others do to our table, a second agent, an agent that is killed at any moment, the borders of a transaction."""
import json
import os
import random
import re
import subprocess
import time

from harness import Agent
from lab import lab_test
from test_agent import as_planned, table
from test_live import FOLLOW, in_set
from topology import PORT, CommandError, inside, nft, run, wait_for

T = "inet slipstream"
KINDS = ("table", "flowtable", "set", "element", "chain", "device", "counter", "foreign")


def bare(node="n1"):
    """Our table without handles; "" while there is none, or half of one is being listed."""
    try:
        return sorted(re.sub(r'"handle": \d+,? ?', "", json.dumps(o)) for o in table(node))
    except CommandError:
        return ""


def repairs(a):
    m = a.metrics()
    return {k: m[f'slipstream_repairs_total{{kind="{k}"}}'] for k in KINDS}


def repaired(a, before):
    """Kinds that were repaired since, each once."""
    now = repairs(a)
    return {k for k in KINDS if now[k] == before[k] + 1} | {f"{k} {now[k] - before[k]:.0f} times" for k in KINDS
                                                           if now[k] not in (before[k], before[k] + 1)}


EDITS = (
    ("table", f"delete table {T}"),
    ("table", f"add table {T} {{ flags dormant; }}"),
    ("element", f"add element {T} cluster-ips4 {{ 10.96.77.77 }}"),
    ("element", f"delete element {T} cluster-ips4 {{ 10.96.0.10 }}"),
    ("element", f"flush set {T} pairs"),
    ("set chain", f"flush chain {T} forward\ndelete set {T} pairs"),
    ("chain", f"flush chain {T} classify"),
    ("chain", f"insert rule {T} managed accept"),
    ("chain", f"add chain {T} forward {{ policy drop; }}"),
    ("device", f"delete flowtable {T} fastpath {{ hook ingress priority 0; devices = {{ eth0 }}; }}"),
    ("device", f"add flowtable {T} fastpath {{ hook ingress priority 0; devices = {{ lo }}; counter; }}"),
    ("flowtable", f"add flowtable {T} fastpath {{ hook ingress priority 0; devices = {{ eth0 }}; }}"),  # no counter any more
    ("flowtable chain", f"flush chain {T} accelerate\ndelete flowtable {T} fastpath"),
    ("counter chain", f"flush chain {T} classify\ndelete counter {T} other"),
    ("foreign", f"add set {T} mine {{ type ipv4_addr; }}\nadd chain {T} mine\nadd rule {T} mine ip saddr @mine accept"),
)
NO_EDITS = (f"add element {T} cluster-ips4 {{ 10.96.77.77 }}\ndelete element {T} cluster-ips4 {{ 10.96.77.77 }}",
            f"reset counters table {T}")


@lab_test(agent=True, topologies="bridge routed", smoke=True)
def test_repairs(lab):
    """Each edit is undone and counted by its kind, and named with its actor; a connection goes on through all of them."""
    a = lab.agents["n1"]
    c = lab.open("p11", lab.pods["p21"].ips[0], PORT)
    c.rr(20)
    before, told = bare(), os.path.getsize(a.log)
    for text in NO_EDITS:
        counted = repairs(a)
        nft("n1", text)
        time.sleep(0.5)
        assert not repaired(a, counted) and bare() == before, f"{text}: {repaired(a, counted)}"
    for kinds, text in EDITS:
        counted = repairs(a)
        nft("n1", text)
        try:
            wait_for("repaired", lambda: repaired(a, counted) == set(kinds.split()), FOLLOW)
        except AssertionError as e:
            raise AssertionError(f"{text}: {e}: {repaired(a, counted)}\n{a.tail()}") from None
        assert bare() == before, f"{text}: the table differs: {set(bare()) ^ set(before)}"
        c.rr(20)
    c.rr(20)
    assert lab.offloaded("n1", c.port), "not offloaded any more"
    c.close()
    with open(a.log, encoding="utf-8") as f:
        f.seek(told)
        told = re.findall(r"was changed by nft \(pid \d+\); repaired: (\S+)", f.read())
    assert told[:2] == ["table", "table"] and len(told) >= 8, f"told: {told}"  # ten per minute are; others may have been
    lab.dirty()  # its counters are not the kernel's any more


@lab_test(agent=True, topologies="bridge")
def test_repair_storm(lab):
    """The whole ruleset is flushed every 100 ms: repaired in between, at most twice a second, and whole in the end."""
    a = lab.agents["n1"]
    before, counted, began = bare(), repairs(a), time.monotonic()
    script = "for i in $(seq 15); do nft flush ruleset; sleep 0.1; done"
    with inside("n1"):
        storm = subprocess.Popen(("bash", "-c", script))
    assert storm.wait(60) == 0
    lab.topology.program(lab.cluster.services)
    lab.topology.count_slow_path("n1")
    wait_for("the table as it was", lambda: bare() == before, FOLLOW)
    n, took = repairs(a)["table"] - counted["table"], time.monotonic() - began
    assert 2 <= n <= 2 * took + 2, f"{n} repairs in {took:.1f} s"
    # two actors at once: both are named, unless each was repaired by itself. The log has said ten repairs of this minute.
    with inside("n1"):
        both = [subprocess.Popen(("nft", "add", "element", "inet", "slipstream", "cluster-ips4", "{ 10.96.77.%d }" % i)) for i in (1, 2)]
    assert not any(p.wait(20) for p in both)
    wait_for("the table as it was", lambda: bare() == before, FOLLOW)
    def named():
        return set(re.findall(r"nft \(pid (\d+)\)", json.loads(a.get("/status")[1])["sync"]["lastRepairBy"]))
    wait_for("their names", lambda: {str(p.pid) for p in both} <= named() or repairs(a)["element"] == counted["element"] + 2, FOLLOW)
    lab.dirty()


@lab_test(agent=True, topologies="bridge")
def test_verification(lab):
    """Once a minute the kernel is looked at; nothing differs, nothing is sent."""
    a = lab.agents["n1"]
    def looked():
        return a.metrics()["slipstream_last_verification_timestamp_seconds"]
    before, sent = looked(), a.metrics()["slipstream_netlink_messages_total"]
    assert before > 0, "never verified"
    wait_for("a verification", lambda: looked() > before, 70, 2)
    assert 55 <= looked() - before <= 90, f"{looked() - before:.0f} s after the one before"
    assert a.metrics()["slipstream_netlink_messages_total"] == sent, "messages were sent"


class Second(Agent):
    """Another agent in the same namespace."""
    listen = 19501

    def __init__(self, lab, first, name="second"):
        super().__init__(lab, first.node, first.config + f"listen: 127.0.0.1:{self.listen}\n", first.manifests, name)
        lab.later(self.kill)

    def get(self, path):
        text = run(self.node, "curl", "-s", "-w", "\n%{http_code}", f"http://127.0.0.1:{self.listen}{path}", check=False)
        body, _, status = text.rpartition("\n")
        if status == "000":
            raise OSError("nobody listens")
        return int(status), body


@lab_test(agent=True, topologies="bridge routed", fails="cut", smoke=True)
def test_second_agent(lab):
    """It waits, says so, and takes over when the first one is killed: no message, no packet on the slow path."""
    first = lab.agents["n1"]
    c = lab.open("p11", lab.pods["p21"].ips[0], PORT)
    c.rr(50)
    before, slow = table(), lab.slow_packets("n1")
    second = Second(lab, first).start()  # ready, although it waits: a rolling update goes on by that
    assert second.metrics()["slipstream_waiting"] == 1
    wait_for("who has the node", lambda: f"node n1, pid {first.process.pid}" in second.tail(), FOLLOW)
    assert f"pid {first.process.pid}" in second.get("/")[1], second.get("/")[1]
    try:
        run("n1", lab.program, "cleanup")
        raise AssertionError("cleanup removed the table of a running agent")
    except CommandError as e:
        assert f"an agent runs on this node: slipstream" in str(e), e
    assert table() == before, "the table changed"
    first.kill()
    wait_for("the second one took over", lambda: second.metrics()["slipstream_waiting"] == 0 and
             second.metrics()["slipstream_ready"] == 1, FOLLOW)
    c.rr(50)
    assert table() == before, "the table changed when the second agent took over"
    assert second.metrics()["slipstream_netlink_messages_total"] == 0, "messages were sent"
    assert lab.offloaded("n1", c.port), "not offloaded any more"
    slow = lab.slow_packets("n1") - slow
    assert slow == 0, f"{slow} packets on the slow path"
    c.close()
    # a third one, which cannot even listen, follows the second
    third = Second(lab, first, "third")
    with inside("n1"), open(third.log, "a", encoding="utf-8") as log:
        third.process = subprocess.Popen(third.argv("run"), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    wait_for("it waits", lambda: f"pid {second.process.pid}; waiting" in third.tail(), FOLLOW)
    address = lab.cluster.service("plain").lb_ips[0]
    second.kill()
    lab.cluster.change("plain", lb=True)
    wait_for("the third one works", lambda: in_set("loadbalancer-ips4", address), FOLLOW)
    wait_for("it listens", third.ready, FOLLOW)
    assert third.metrics()["slipstream_waiting"] == 0
    third.kill()


def names(text):
    """What objects a table has."""
    return sorted(re.findall(r"^\t(?:set|chain|flowtable|counter) \S+", text, re.M))


def listed():
    return run("n1", "nft", "list", "table", "inet", "slipstream")


@lab_test(agent=True, topologies="bridge routed", smoke=True)
def test_killed_at_any_moment(lab):
    """kill -9 while Services and pods come and go: never half a table, the connection stays offloaded, and what the last one
    leaves is what is planned."""
    seed = int(os.environ.get("SEED", "5"))
    dice = random.Random(seed)
    a = lab.agents["n1"]
    whole = names(listed())
    c = lab.open("p11", lab.pods["p21"].ips[0], PORT)
    c.rr(20)
    pod = None
    for n in range(5):
        a.kill()
        with inside("n1"), open(a.log, "a", encoding="utf-8") as log:
            a.process = subprocess.Popen(a.argv("run"), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + dice.uniform(0, 1.5)
        turn = 0
        while time.monotonic() < end:
            lab.cluster.change("plain", lb=turn % 2 == 0)
            if turn % 4 == 1:
                pod = lab.topology.del_pod(pod) if pod else lab.topology.add_pod("n1", 3)
            turn += 1
            time.sleep(dice.uniform(0, 0.05))
        a.kill()
        assert names(listed()) == whole, f"seed {seed}, kill {n}: half a table: {set(names(listed())) ^ set(whole)}"
        c.rr(20)
        assert lab.offloaded("n1", c.port), f"seed {seed}, kill {n}: not offloaded any more"
    if pod:
        lab.topology.del_pod(pod)
    a.start()
    wait_for(f"seed {seed}: what is planned is programmed", lambda: as_planned(lab)[0] == as_planned(lab)[1], FOLLOW, 0.5)
    c.rr(50)
    assert lab.offloaded("n1", c.port), "not offloaded any more"
    c.close()


@lab_test(agent=True, topologies="bridge", smoke=True)
def test_transactions(lab):
    """Borders, errors and generations before this kernel: tests/lab/batches.c says which."""
    run(None, "ip", "netns", "add", "batches")
    lab.later(lambda: run(None, "ip", "netns", "del", "batches"))
    run("batches", "ip", "-batch", "-", input="".join(f"link add d{i} type dummy\n" for i in range(600)))
    for part in ("borders", "errors", "generation"):
        try:
            run("batches", os.path.join(os.path.dirname(lab.program), "batches"), part)
        except CommandError as e:
            raise AssertionError(str(e)) from None

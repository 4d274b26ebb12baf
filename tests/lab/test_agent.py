# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent's own life: restarts, repair, cleanup, configuration, plan; what the kernel holds is read with nft."""
import json
import re
import time

from lab import lab_test
from test_live import FOLLOW, flowtable_devices
from topology import PORT, CommandError, ip, nft, run, wait_for


def table(node="n1", ns=None):
    """Our table as JSON without counts, handles included."""
    text = run(ns or node, "nft", "-j", "list", "table", "inet", "slipstream")
    objects = json.loads(text)["nftables"][1:]
    for o in objects:
        if "counter" in o:
            o["counter"].pop("packets", None)
            o["counter"].pop("bytes", None)
        for e in o.get("rule", {}).get("expr", []):
            if isinstance(e, dict) and isinstance(e.get("counter"), dict):
                e["counter"].update(packets=0, bytes=0)
        if "set" in o and isinstance(o["set"].get("elem"), list):
            o["set"]["elem"].sort(key=json.dumps)
    return objects


def exists(node="n1", what=("inet", "slipstream")):
    try:
        run(node, "nft", "list", "table", *what)
        return True
    except CommandError:
        return False


def restart(lab, end):
    """Ends the agent on n1 by end(agent), starts it again: nothing is sent, nothing changes, the flow stays offloaded."""
    a = lab.agents["n1"]
    c = lab.open("p11", lab.pods["p21"].ips[0], PORT)
    c.rr(50)
    assert lab.offloaded("n1", c.port), "not offloaded"
    before, slow, inserts = table(), lab.slow_packets("n1"), lab.inserts("n1")
    end(a)
    c.rr(50)
    assert table() == before, "the table changed at the end of the agent"
    a.start()
    c.rr(50)
    assert table() == before, "the table changed by the second start"
    sent = a.metrics()["slipstream_netlink_messages_total"]
    assert sent == 0, f"{sent} messages sent by the second start"
    assert lab.offloaded("n1", c.port), "the connection is not offloaded any more"
    assert lab.inserts("n1") == inserts, "inserted again"
    slow = lab.slow_packets("n1") - slow
    assert slow == 0, f"{slow} packets of an offloaded connection on the slow path"
    assert a.inserts() == inserts, "the metrics do not go on from the kernel's counters"
    c.close()


@lab_test(agent=True, smoke=True)
def test_restart(lab):
    def end(a):
        took, rc = a.stop()
        assert rc == 0, f"status {rc} after SIGTERM"
        assert took < 10, f"{took:.1f} s from SIGTERM to the end"
    restart(lab, end)


@lab_test(agent=True)
def test_kill_and_start(lab):
    restart(lab, lambda a: a.kill())


@lab_test(agent=True, topologies="bridge")
def test_exit_with_cleanup(lab):
    a = lab.agent("n1", "onExit: cleanup\n")
    assert exists()
    a.stop()
    assert not exists(), "the table is still there"


FOREIGN = """
table inet slipstream2 {
    flowtable fastpath { hook ingress priority 5; devices = { "eth0" }; counter; }
    chain forward { type filter hook forward priority 301; meta mark 0x99 flow add @fastpath counter; }
}
table ip slipstream {
    chain forward { type filter hook forward priority 302; counter; }
}
"""


def foreign(node="n1"):
    return run(node, "nft", "-s", "list", "table", "inet", "slipstream2") + run(node, "nft", "-s", "list", "table", "ip", "slipstream")


def with_foreign(lab):
    nft("n1", FOREIGN)
    lab.later(lambda: run("n1", "nft", "-f", "-", input="delete table inet slipstream2\ndelete table ip slipstream\n"))
    return foreign()


@lab_test(agent=True, smoke=True)
def test_cleanup_removes_only_ours(lab):
    before = with_foreign(lab)
    lab.agents["n1"].stop()
    assert "would remove" in run("n1", lab.program, "cleanup", "--dry-run")
    assert exists(), "--dry-run removed the table"
    assert "removed" in run("n1", lab.program, "cleanup")
    assert not exists(), "the table is still there"
    assert foreign() == before, "a foreign table changed"
    assert "nothing to remove" in run("n1", lab.program, "cleanup")


@lab_test(agent=True, topologies="bridge")
def test_cleanup_leaves_a_table_of_our_name_that_is_not_ours(lab):
    lab.dirty()
    nft("n1", "table inet slipstream { }\ndelete table inet slipstream\n")
    nft("n1", """table inet slipstream {
        comment "somebody else"
        chain forward { type filter hook forward priority 0; }
    }""")
    run("n1", lab.program, "cleanup", check=False)
    assert exists(), "somebody else's table was removed"


@lab_test(agent=True, smoke=True)
def test_disabled_removes_and_enabled_restores(lab):
    """By the configuration file, while the agent runs; connections go on."""
    a = lab.agents["n1"]
    before = with_foreign(lab)
    c = lab.open("p11", lab.pods["p21"].ips[0], PORT)
    c.rr(50)
    a.write_config(lab.default_config + "enabled: false\n")
    wait_for("no table", lambda: not exists(), FOLLOW)
    c.rr(50)
    assert not lab.offloaded("n1", c.port), "still offloaded"
    a.write_config(lab.default_config)
    wait_for("a table", exists, FOLLOW)
    wait_for("eth0 in the flowtable", lambda: "eth0" in flowtable_devices(), FOLLOW)
    c.rr(50)
    assert lab.offloaded("n1", c.port), "not offloaded again"
    c.close()
    assert foreign() == before, "a foreign table changed"
    lab.dirty()  # its counters are not the kernel's any more


@lab_test(agent=True, topologies="bridge")
def test_bad_configuration_keeps_the_old_one(lab):
    a = lab.agents["n1"]
    before = table()
    a.write_config(lab.default_config + "traffic: {pod-to-pod: {engine: of}}\n")
    wait_for("a failed reload", lambda: a.metrics()['slipstream_config_reloads_total{result="failure"}'] == 1, FOLLOW)
    assert table() == before, "the table changed"
    assert "config.yaml:3" in a.tail(), f"no file and line in the log: {a.tail()}"
    a.write_config(lab.default_config + "traffic: {pod-to-pod: {engine: off}}\n")
    wait_for("another table", lambda: table() != before, FOLLOW)
    lab.not_accelerated("p11", lab.pods["p21"].ips[0], PORT)


@lab_test(agent=True, smoke=True)
def test_ruleset_flushed_by_somebody_else(lab):
    """`nft flush ruleset` takes everything; ours is back within a second."""
    a = lab.agents["n1"]
    before = [json.dumps(o) for o in table()]
    nft("n1", "delete table inet slipstream")
    wait_for("the table again", exists, FOLLOW)
    wait_for("devices again", lambda: "eth0" in flowtable_devices(), FOLLOW)
    def bare(objects):
        return sorted(re.sub(r'"handle": \d+', "", o) for o in objects)
    assert bare(json.dumps(o) for o in table()) == bare(before), "the table differs from before"
    wait_for("the repair counted", lambda: a.metrics()['slipstream_repairs_total{kind="table"}'] == 1, FOLLOW)
    lab.dirty()


@lab_test(agent=True, topologies="bridge")
def test_rule_deleted_by_somebody_else(lab):
    before = table()
    handle = next(o["rule"]["handle"] for o in before if o.get("rule", {}).get("chain") == "forward")
    run("n1", "nft", "delete", "rule", "inet", "slipstream", "forward", "handle", str(handle))
    wait_for("the rule again", lambda: len(table()) == len(before), FOLLOW)
    lab.accelerated("p11", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1}, content=False)


def as_planned(lab):
    """The text of `plan`, as a real nft lists it after loading it where its devices exist; and the table of the agent."""
    a = lab.agents["n1"]
    text = run("n1", *a.argv("plan"))
    run("n1", "nft", "-c", "-f", "-", input=text)
    programmed = run("n1", "nft", "-s", "list", "table", "inet", "slipstream")
    run(None, "ip", "netns", "add", "scratch")
    try:
        links = json.loads(run("n1", "ip", "-j", "link"))
        ip("scratch", *(f"link add {x['ifname']} index {x['ifindex']} type dummy" for x in links if x["ifname"] != "lo"))
        nft("scratch", text)
        loaded = run("scratch", "nft", "-s", "list", "table", "inet", "slipstream")
    finally:
        run(None, "ip", "netns", "del", "scratch")
    return loaded, programmed


@lab_test(agent=True, smoke=True)
def test_plan_is_what_is_programmed(lab):
    """The text of `plan` loads to the very table of the agent."""
    loaded, programmed = as_planned(lab)
    assert loaded == programmed, "plan loads to:\n" + "\n".join(
        x for x in loaded.splitlines() if x not in programmed.splitlines()) + "\nbut programmed is:\n" + "\n".join(
        x for x in programmed.splitlines() if x not in loaded.splitlines())


@lab_test(agent=True, smoke=True)
def test_idle(lab):
    """Nothing happens: nothing is sent, and the process does not wake up."""
    a = lab.agents["n1"]
    def switches():
        with open(f"/proc/{a.process.pid}/status", encoding="ascii") as f:
            return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", f.read(), re.M).group(1))
    sent = a.metrics()["slipstream_netlink_messages_total"]
    time.sleep(1)
    before = switches()
    time.sleep(8)
    woke = switches() - before
    assert woke <= 1, f"{woke} wake-ups in 8 s"
    assert a.metrics()["slipstream_netlink_messages_total"] == sent, "messages were sent"


@lab_test(agent=True, smoke=True, families=True)
def test_flows_and_bytes(lab, v):
    """The gauge of offloaded flows and the sums of bytes and packets, against what went over the wire."""
    a = lab.agents["n1"]
    before = {k: a.typed(f"slipstream_offloaded_{k}") for k in ("bytes_total", "packets_total")}
    c = lab.open("c", lab.cluster.service("local").lb_ips[v], 80)
    c.rr(2000)
    kind = "external-to-loadbalancer"
    wait_for("the flow shown", lambda: a.typed("slipstream_offloaded_flows")[kind] >= 1, 5, 0.5)
    wait_for("its bytes shown", lambda: a.typed("slipstream_offloaded_bytes_total")[kind] - before["bytes_total"][kind]
             >= 2 * 2000 * 64, 5, 0.5)
    packets = a.typed("slipstream_offloaded_packets_total")[kind] - before["packets_total"][kind]
    assert 4000 <= packets <= 6500, f"{packets} packets counted of 2000 round trips"
    c.close()
    # since 6.14 a closed connection stays in the flowtable until its 30 s are over
    wait_for("the flow gone", lambda: a.typed("slipstream_offloaded_flows")[kind] == 0, 45, 0.5)


@lab_test(agent=True, topologies="bridge antrea", smoke=True)
def test_status(lab):
    """`status` in both forms, run where the agent listens."""
    text = run("n1", lab.program, "status")
    assert "external-to-loadbalancer" in text and "eth0" in text, text
    status = json.loads(run("n1", lab.program, "status", "-o", "json"))
    kind = json.dumps(status)
    assert ("antrea" if lab.topology.kind == "antrea" else "kube-proxy") in kind, kind

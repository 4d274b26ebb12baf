# SPDX-License-Identifier: GPL-2.0-or-later
"""The agent over a table that another version of it made, newer or older: changed in one transaction, no flow leaves the fast path."""
import contextlib
import json
import os
import re
import subprocess
import threading

from lab import lab_test
from test_agent import table
from topology import PORT, inside, ip, nft, run, wait_for

LAYOUT_1 = os.path.join(os.path.dirname(os.path.realpath(__file__)), "data", "table-layout-1.nft")


@contextlib.contextmanager
def monitor(lab, node):
    """What `nft monitor` prints while the block runs, as a list of lines; complete behind it."""
    said, name = [], f"{lab.folder}/{node}.monitor"
    def lines():
        with open(name, encoding="ascii") as f:
            return f.read().splitlines()
    def seen():
        """A transaction of our own, until it is heard of."""
        nft(node, "table inet marker { }\ndelete table inet marker\n")
        return any("marker" in x for x in lines())
    with open(name, "w", encoding="ascii") as out, inside(node):
        p = subprocess.Popen(("stdbuf", "-oL", "nft", "monitor"), stdout=out, stderr=out)
    lab.later(p.kill)
    wait_for("nft monitor listens", seen, 20)
    skip = len(lines())
    yield said
    count = lines().count("delete table inet marker")
    nft(node, "table inet marker { }\ndelete table inet marker\n")
    wait_for("nft monitor is done", lambda: lines().count("delete table inet marker") > count, 20)
    p.kill()
    said += lines()[skip:]


def flows_of(lab):
    """Open connections of n1, offloaded: both families, both protocols, with and without NAT."""
    p21, local = lab.pods["p21"], lab.cluster.service("local")
    flows = [lab.open("p11", p21.ips[0], PORT), lab.open("p11", p21.ips[1], PORT), lab.open("p11", p21.ips[0], PORT, udp=True),
             lab.open("p12", lab.cluster.service("remote").cluster_ips[0], 80), lab.open("c", local.lb_ips[0], 80)]
    for c in flows:
        c.rr(50)
        assert lab.offloaded("n1", c.port), f"{c.what}: not offloaded by the other version's table"
    return flows


def bare(objects):
    """The table without handles and the owner's remark."""
    text = sorted(re.sub(r'"handle": \d+', "", json.dumps(o)) for o in objects if "table" not in o)
    return text


def fastpath():
    """Our flowtable with its handle."""
    return [o for o in table() if o.get("flowtable", {}).get("name") == "fastpath"]


def transactions(said):
    """[(program, lines)] of each transaction in what the monitor said, markers left out."""
    found, lines = [], []
    for line in said:
        m = re.match(r"# new generation \d+ by process \d+ \((.*)\)", line)
        if not m:
            lines.append(line)
            continue
        if not any("marker" in x for x in lines):
            found.append((m.group(1), lines))
        lines = []
    return found


def adopts(lab, text, kept=True):
    """The agent on n1 starts over the table 'text'; when it is ready, the table is its own. kept: its flowtable and flows stay."""
    a = lab.agents["n1"]
    own = bare(table())
    a.stop()
    nft("n1", "table inet slipstream { }\ndelete table inet slipstream\n" + text)
    flows, slow = flows_of(lab), lab.slow_packets("n1")
    before, counted = fastpath(), lab.inserts("n1")
    assert sum(counted.values()) >= len(flows), counted
    with monitor(lab, "n1") as said:
        starting = threading.Thread(target=a.start)
        starting.start()
        while starting.is_alive():
            for c in flows:
                c.rr(20)
                assert not kept or lab.offloaded("n1", c.port), f"{c.what}: left the fast path"
        starting.join()
        assert a.alive() and a.ready(), a.tail()
    did = transactions(said)
    assert [program for program, _ in did] == ["slipstream"], "not one transaction:\n" + "\n".join(said)
    if kept:
        assert not any(re.match("delete (table|flowtable)", x) for x in did[0][1]), "the flowtable was lost:\n" + "\n".join(said)
        assert fastpath() == before, "not the same flowtable"
        assert lab.slow_packets("n1") == slow, f"{lab.slow_packets('n1') - slow} packets on the slow path"
        assert lab.inserts("n1").items() <= counted.items(), f"the counts of inserts are not what they were: {lab.inserts('n1')}, {counted}"
    assert bare(table()) == own, "the table is not what the agent makes from nothing"
    for c in flows:
        c.rr(50)
        assert lab.offloaded("n1", c.port), f"{c.what}: not offloaded any more"
        c.close()
    a.stop()
    a.start()
    assert a.metrics()["slipstream_netlink_messages_total"] == 0, "the next start had something to do"
    lab.dirty()


@lab_test(agent=True, topologies="bridge", smoke=True)
def test_table_of_an_older_version(lab):
    with open(LAYOUT_1, encoding="ascii") as f:
        adopts(lab, f.read())


def later_version(text):
    """`plan`'s text as a later version might have it: other objects, other types and properties of those we know."""
    text = text.replace('comment "slipstream"', 'comment "slipstream of a later version"')
    text = text.replace("priority 300", "priority 310").replace("meta mark 0", "meta mark & 0xff == 0")
    text = re.sub(r"set checked-uplinks \{[^}]*\}", "set checked-uplinks { type ifname; elements = { \"eth9\" }; }", text)
    return text.rstrip().removesuffix("}") + """
    flowtable second { hook ingress priority 7; counter; }
    counter shortcuts { }
    set bare-ports { type inet_service; elements = { 7, 9 }; }
    chain extra {
        ip daddr vmap @verdicts
        ip saddr vmap { 192.0.2.1 : goto classify, 192.0.2.2 : accept }
        tcp dport { 7, 9 } counter name shortcuts
        tcp dport 11 flow add @second
    }
    map verdicts { type ipv4_addr : verdict; elements = { 192.0.2.7 : goto accelerate }; }
    chain late {
        type filter hook forward priority 400; policy accept;
        tcp dport @bare-ports goto extra
        udp dport { 7, 9 } jump {
            counter name shortcuts
        }
    }
}
"""


@lab_test(agent=True, topologies="bridge", smoke=True)
def test_table_of_a_later_version(lab):
    """As after a roll-back."""
    adopts(lab, later_version(run("n1", *lab.agents["n1"].argv("plan"))))


@lab_test(agent=True, topologies="bridge")
def test_table_with_another_flowtable(lab):
    """Where the flowtable itself has other properties it is replaced in that transaction; connections go on."""
    text = run("n1", *lab.agents["n1"].argv("plan")).replace("hook ingress priority 0", "hook ingress priority 5")
    adopts(lab, text, kept=False)


@lab_test(agent=True, topologies="bridge")
def test_anonymous_objects_in_our_table(lab):
    """Somebody's rules with sets and chains that have no names: these go with their rules, and no flow is disturbed."""
    before = table()
    c = lab.open("p11", lab.pods["p21"].ips[0], PORT)
    c.rr(50)
    slow = lab.slow_packets("n1")
    rules = """tcp dport { 7, 9 } jump {
            ip saddr { 192.0.2.8, 192.0.2.10 } accept
        }
        """
    nft("n1", f"""table inet slipstream {{
        chain extra {{
        {rules}
        }}
        chain forward {{
        {rules} tcp dport {{ 7, 9 }} goto extra
        }}
    }}""")
    wait_for("the table as before", lambda: bare(table()) == bare(before), 10)
    assert [o for o in table() if "flowtable" in o] == [o for o in before if "flowtable" in o], "not the same flowtable"
    c.rr(50)
    assert lab.offloaded("n1", c.port) and lab.slow_packets("n1") == slow
    c.close()

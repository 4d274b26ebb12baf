#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""The show of deploy/quickstart: runs in a guest or in namespaces of its own, with the topologies of tests/lab."""
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(TOP, "tests", "lab"))
sys.modules.setdefault("lab", __import__("lab"))
import topology  # noqa: E402
from harness import Lab  # noqa: E402
from topology import NODES, inside, node_ips, run  # noqa: E402

GUEST = os.path.exists("/guest")  # see tests/lab/vm
ROUNDS = 1500


def say(text=""):
    for line in text.splitlines() or [""]:
        print(f"show|{line}" if GUEST else line, flush=True)


def cases(lab, shape):
    """(name, node that is looked at, where from, address, port): the bench's, the second node's part, and Antrea's own."""
    from bench import cases as all_cases
    for name, *way in all_cases(lab):
        yield (name, "n1", *way)
    remote = lab.cluster.service("remote")
    yield "node-to-pod (second node of a NodePort)", "n2", "c", node_ips("n1")[0], remote.node_port


def measure(lab, node, ns, address, port):
    """Round trips per second of a long connection, and how many packets of it the slow path of `node` saw."""
    c = lab.open(ns, address, port)
    c.rr(50)
    slow = lab.slow_packets(node)
    took = c.rr(ROUNDS)
    slow = lab.slow_packets(node) - slow
    c.close()
    return ROUNDS / took, slow


def main(shape, build):
    topology.PATIENCE = 1000
    lab = Lab("quickstart", shape, "none", build)
    say(f"\nTwo nodes ({shape}), two pods on each, a client outside. {ROUNDS} round trips per line, at first without slipstream.\n")
    before = {name: measure(lab, *way) for name, *way in cases(lab, shape)}
    lab.control = "agent"
    for node in NODES:
        lab.agent(node)
    say("slipstream runs on both nodes: slipstream run --manifests DIR --node n1 (and n2).\n")
    say(f"{'':52}{'round trips/s':>22}{'':9}{'packets on the slow path':>26}")
    held = []
    for name, node, ns, address, port in cases(lab, shape):
        rate, slow = measure(lab, node, ns, address, port)
        b_rate, b_slow = before[name]
        say(f"{name:52}{f'{b_rate:.0f} -> {rate:.0f}':>22}{(rate / b_rate - 1) * 100:+8.0f}%{f'{b_slow} -> {slow}':>26}")
        held.append(lab.open(ns, address, port))
    for c in held:
        c.rr(50)
    say("\nFlows of n1 as conntrack has them (IPv4, [OFFLOAD]):\n")
    for line in lab.conntrack("n1"):
        if line.startswith("ipv4") and "OFFLOAD]" in line:
            say("  " + " ".join(w for w in line.split()[2:] if not re.match(r"(mark|zone|use|packets|bytes)=|\\d+$", w)))
    say("\nslipstream status on n1:\n")
    a = lab.agents["n1"]
    with inside("n1"):
        say(subprocess.run((lab.program, "status", "--config", a.config_file), capture_output=True, text=True).stdout)
    say("The ruleset that it programmed (nft list table inet slipstream), without the sets:\n")
    inside_set = False
    for line in run("n1", "nft", "list", "table", "inet", "slipstream").splitlines():
        inside_set = inside_set or line.startswith("\tset ")
        if line and not inside_set:
            say(line.replace("\t", "  "))
        if line == "\t}":
            inside_set = False
    for c in held:
        c.close()
    lab.close()


if __name__ == "__main__":
    main(*sys.argv[1:3])

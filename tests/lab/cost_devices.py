#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""cost_devices: what a pod that comes or goes costs, in instruction-counted guest time (`vm -i`: one guest instruction is 1 ns).

    tests/lab/cost_devices.py [--kernel trixie] [--build build] [--part node] [--part flows]

node: instructions of the agent, kernel included, from the pod's first notification to the end of its work, on nodes with many pods
and with routes to many peers. Fails when 5,000 routes make it more than 1.5 times as much.
flows: the same under offloaded flows, the time that taking a device away takes its caller, and how many packets of the
present flows go over the slow path for it.
"""
import argparse
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
TIMES, LIMIT = 5, 1.5
PARTS = ("node", "flows")
FLOWS = 10000


def row(part, what, *cells):
    print("cost-row", "|".join((part, what) + tuple(str(c) for c in cells)), flush=True)


def spent(agent):
    with open(f"/proc/{agent.process.pid}/schedstat", encoding="ascii") as f:
        return int(f.read().split()[0])


def settle(agent):
    """Until the agent has nothing to do."""
    before, quiet = spent(agent), 0
    while quiet < 3:
        time.sleep(0.1)
        now = spent(agent)
        quiet = quiet + 1 if now == before else 0
        before = now


def cost_of(agent, change, *args):
    """Thousands of the agent's instructions for a change."""
    settle(agent)
    before = spent(agent)
    change(*args)
    settle(agent)
    return (spent(agent) - before) / 1000


# ---- node

def node_part(build):
    from cost import Node
    from topology import ip
    node, made = Node(build, 10), [100]

    def pods(n):
        ip("n1", *(line for i in range(made[0], made[0] + n) for line in (
            f"link add vp{i} type veth peer name xp{i}", f"link set xp{i} up", f"link set vp{i} up",
            f"route add 10.0.1.{i % 250 + 1}/32 dev vp{i} metric {i}")))
        made[0] += n

    def away():
        made[0] -= 1
        ip("n1", f"link del vp{made[0]}")

    def measure(what):
        came, went = [], []
        for _ in range(TIMES):
            came.append(cost_of(node.agent, pods, 1))
            went.append(cost_of(node.agent, away))
        row("node", what, round(statistics.median(came)), round(statistics.median(went)))
    measure("1 pod, 3 nodes")
    pods(250)
    measure("250 pods")
    ip("n1", *(f"route add 10.{100 + i // 250}.{i % 250}.0/24 via 192.168.0.{2 + i % 250} dev eth0" for i in range(5000)))
    measure("250 pods, 5,000 routes")
    node.write("more.json", *(dict(node.node(3), metadata={"name": f"m{i}"}, spec={"podCIDRs": [f"10.{100 + i // 250}.{i % 250}.0/24"]},
                                   status={"addresses": [{"type": "InternalIP", "address": f"172.16.{i // 250}.{i % 250}"}]})
                              for i in range(5000)))
    measure("250 pods, 5,000 nodes with a route each")
    node.agent.stop()


# ---- flows

class Flows:
    """UDP connections of p11, each of them offloaded."""

    def __init__(self, lab, n):
        from topology import PORT, inside
        self.lab, self.sockets = lab, []
        resource.setrlimit(resource.RLIMIT_NOFILE, (n + 100, n + 100))
        with inside("p11"):
            for _ in range(n):
                s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                s.settimeout(3000)
                s.connect((lab.pods["p21"].ips[0], PORT))
                self.sockets.append(s)
        self.round()
        self.round()

    def round(self):
        """One round trip on each: packets of them that took the slow path."""
        before = self.lab.slow_packets("n1")
        for s in self.sockets:
            s.send(b"E" * 64)
            s.recv(64)
        return self.lab.slow_packets("n1") - before

    def offloaded(self):
        return sum("OFFLOAD]" in line for line in self.lab.conntrack("n1") if "udp" in line)


def flows_part(kernel, build):
    from fleet import Fleet
    from harness import Lab
    lab = Lab(kernel, "routed", "none", build)
    lab.control = "agent"
    lab.before()
    agent, fleet = lab.agents["n1"], Fleet(lab)
    for n in (0, FLOWS):
        flows, figures = Flows(lab, n), {}
        last = flows.round()
        offloaded = flows.offloaded()
        for _ in range(TIMES):
            def note(name, value):
                figures.setdefault(name, []).append(value)

            def timed(name, function, *args):
                began = time.monotonic()
                function(*args)
                note(name, (time.monotonic() - began) * 1000)
            note("agent adds", cost_of(agent, timed, "add", fleet.add, 20))
            note("slow after add", flows.round())
            note("agent removes", cost_of(agent, timed, "remove", lambda: fleet.host.delete(fleet.pods.pop().index)))
            note("slow after remove", flows.round())
        median = {k: statistics.median(v) for k, v in figures.items()}
        row("flows", f"{n}", offloaded, last, round(median["agent adds"]), round(median["agent removes"]), f"{median['add']:.2f}",
            f"{median['remove']:.2f}", round(median["slow after add"]), round(median["slow after remove"]), flows.offloaded())
        for s in flows.sockets:
            s.close()
    lab.close()


def guest(kernel, part, build):
    sys.modules.setdefault("lab", __import__("lab"))
    import topology
    topology.PATIENCE = 1000
    node_part(build) if part == "node" else flows_part(kernel, build)


HEADS = {"node": ("node", "pod added", "pod removed"),
         "flows": ("flows opened", "offloaded", "slow-path packets of a round trip each", "agent, device added (1000 instructions)",
                   "agent, device removed", "adding the pod (ms)", "removing its device (ms)", "slow-path packets of a round trip each after the addition",
                   "after the removal", "offloaded at the end")}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kernel", action="append", choices=("bookworm", "trixie", "sid"))
    p.add_argument("--part", action="append", choices=PARTS)
    p.add_argument("--build", default=os.path.join(TOP, "build"))
    p.add_argument("--guest", nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.guest:
        return guest(*args.guest)
    from lab import prepare
    failed = 0
    env = dict(os.environ, MEM="1536", VM_TIMEOUT=os.environ.get("VM_TIMEOUT", "1500"))
    for kernel, folder in prepare(args, args.kernel or ("trixie",)).items():
        for part in args.part or PARTS:
            text = subprocess.run((os.path.join(HERE, "vm"), "-i", folder, os.path.join(HERE, "cost_devices.py"), "--guest", kernel, part,
                                   os.path.abspath(args.build)), capture_output=True, text=True, errors="replace", env=env).stdout
            rows = [x.split("|")[1:] for x in re.findall(r"cost-row (.*)", text)]
            if len(rows) != {"node": 4, "flows": 2}[part]:
                print(f"cost_devices: {kernel}, {part} failed:\n{text[-2500:]}")
                return 1
            print(f"{kernel}\n\n| " + " | ".join(HEADS[part]) + " |\n|" + "---|" * len(HEADS[part]))
            for cells in rows:
                print("| " + " | ".join(cells) + " |")
            print(flush=True)
            if part == "node":
                bad = sum(float(rows[2][i]) > LIMIT * float(rows[1][i]) for i in (1, 2))
                print(f"{2 - bad} passed, {bad} failed", flush=True)
                failed += bad
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

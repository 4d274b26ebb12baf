#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""cost: instructions that the agent executes for one change, in its own code and in the kernel for it, in a small and in a
large cluster (`vm -i`: one guest instruction is 1 ns): from its first look at the change to the kernel's answer.

    tests/lab/cost.py [--kernel trixie] [--size 100,100 --size 10000,100 --size 100,5000] [--build build]

A size is a number of Services and one of Nodes. Prints a Markdown table per kernel and fails when a change costs more than 1.5
times as much with one of the sizes as with the first one, or takes more messages. Each figure is the median of several changes.
Reading the object is not in it: manifests, which drive this, are read by the folder.
"""
import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
TIMES, LIMIT = 7, 1.5
CHANGES = ("Service replaced", "Service removed", "endpoint added", "Node added", "pod added")


class Node:
    """n1 with an uplink and one pod; what harness.Agent asks of a lab."""

    def __init__(self, build, services, nodes):
        from harness import Agent
        from topology import ip, run
        self.program, self.folder = os.path.join(build, "slipstream"), tempfile.mkdtemp()
        self.manifests = f"{self.folder}/manifests"
        os.makedirs(self.manifests)
        run(None, "ip", "netns", "add", "n1")
        ip("n1", "link set lo up", "link add eth0 type dummy", "link set eth0 up", "addr add 192.168.0.11/24 dev eth0",
           "route add default via 192.168.0.1 dev eth0")
        self.pod(1)
        self.write("nodes.json", *(self.node(i) for i in range(1, nodes + 1)))
        self.write("services.json", *(o for i in range(services) for o in self.service(i)))
        self.agent = Agent(self, "n1", "", self.manifests).start()

    def write(self, name, *objects):
        import json
        temporary = f"{self.folder}/{name}"
        with open(temporary, "w", encoding="ascii") as f:
            json.dump({"apiVersion": "v1", "kind": "List", "items": objects}, f)
        os.rename(temporary, f"{self.manifests}/{name}")

    @staticmethod
    def pod(i):
        from topology import ip
        ip("n1", f"link add vp{i} type veth peer name xp{i}", f"link set xp{i} up", f"link set vp{i} up", f"route add 10.64.1.{i}/32 dev vp{i}")

    @staticmethod
    def node(i):
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{i}"},
                "spec": {"podCIDRs": [f"10.{64 + i // 256}.{i % 256}.0/24"]},
                "status": {"addresses": [{"type": "InternalIP", "address": f"192.168.{i // 200}.{10 + i % 200}"}]}}

    @staticmethod
    def service(i, endpoints=1):
        """Of type LoadBalancer with its ingress IP; with a nodePort as long as Kubernetes' default range, 2,768 ports, has one."""
        address = f"10.96.{i // 250}.{1 + i % 250}"
        yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{i}", "namespace": "default"},
               "spec": {"type": "LoadBalancer", "clusterIP": address, "clusterIPs": [address],
                        "ports": [{"protocol": "TCP", "port": 80, "nodePort": 30000 + i if i < 2700 else 20000 + i if i >= 20000 else 0}]},
               "status": {"loadBalancer": {"ingress": [{"ip": f"203.0.{i // 250}.{1 + i % 250}"}]}}}
        yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
               "metadata": {"name": f"s{i}-a", "namespace": "default", "labels": {"kubernetes.io/service-name": f"s{i}"}},
               "endpoints": [{"addresses": [f"10.64.2.{1 + e}"], "conditions": {"ready": True}} for e in range(endpoints)],
               "ports": [{"protocol": "TCP", "port": 80}]}

    def change(self, what, i):
        if what == "Service replaced":
            self.write("change.json", *self.service(20000 + i))
        elif what == "Service removed":
            self.write("change.json")
        elif what == "endpoint added":
            self.write("change.json", *self.service(20000, endpoints=2 + i))
        elif what == "Node added":
            self.write("node.json", self.node(6000 + i))
        else:
            self.pod(10 + i)

    def spent(self):
        with open(f"/proc/{self.agent.process.pid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0])

    def settle(self):
        """Until the agent has nothing to do."""
        before, quiet = self.spent(), 0
        while quiet < 5:
            time.sleep(0.1)
            now = self.spent()
            quiet = quiet + 1 if now == before else 0
            before = now

    def measure(self, what):
        """(thousands of instructions, messages) of one change."""
        sync, messages = [], []
        for i in range(TIMES):
            if what == "Service removed":
                self.change("Service replaced", i)
                self.settle()
            before = self.agent.metrics()
            self.change(what, i)
            self.settle()
            after = self.agent.metrics()
            def moved(name):
                return after[f"slipstream_{name}"] - before[f"slipstream_{name}"]
            steps = moved("sync_duration_seconds_count")
            assert steps == 1, f"{what}: {steps} synchronisations"
            sync.append(moved("sync_duration_seconds_sum") * 1e6)
            messages.append(moved("netlink_messages_total"))
        return statistics.median(sync), statistics.median(messages)


def guest(kernel, size, build):
    sys.modules.setdefault("lab", __import__("lab"))
    import topology
    topology.PATIENCE = 1000
    node = Node(build, *map(int, size.split(",")))
    for what in CHANGES:
        print(f"cost-row {what}:", *node.measure(what), flush=True)
    node.agent.stop()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kernel", action="append", choices=("bookworm", "trixie", "sid"))
    p.add_argument("--size", action="append", metavar="SERVICES,NODES")
    p.add_argument("--build", default=os.path.join(TOP, "build"))
    p.add_argument("--guest", nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.guest:
        return guest(*args.guest)
    from lab import prepare
    sizes, failed = args.size or ("100,100", "10000,100", "100,5000"), 0
    env = dict(os.environ, MEM="1024", VM_TIMEOUT=os.environ.get("VM_TIMEOUT", "2400"))
    for kernel, folder in prepare(args, args.kernel or ("trixie",)).items():
        rows = {}
        for size in sizes:
            text = subprocess.run((os.path.join(HERE, "vm"), "-i", folder, os.path.join(HERE, "cost.py"), "--guest", kernel, size,
                                   os.path.abspath(args.build)), capture_output=True, text=True, errors="replace", env=env).stdout
            found = re.findall(r"cost-row (.*): (\S+) (\S+)", text)
            if len(found) != len(CHANGES):
                print(f"cost: {kernel} with {size} failed:\n{text[-2000:]}")
                return 1
            for what, *figures in found:
                rows.setdefault(what, []).append([float(x) for x in figures])
        print(f"{kernel}, thousands of instructions\n")
        print("| change | messages |" + "".join(" {} Services, {} Nodes |".format(*n.split(",")) for n in sizes) + " ratio |")
        print("|---|---|" + "---|" * (len(sizes) + 1))
        bad = 0
        for what, cells in rows.items():
            ratio = max(cost for cost, _ in cells) / cells[0][0]
            print(f"| {what} | {cells[-1][1]:.0f} |" + "".join(f" {cost:.0f} |" for cost, _ in cells) + f" {ratio:.2f} |")
            bad += ratio > LIMIT or any(messages != cells[0][1] for _, messages in cells)
        print(f"\n{len(rows) - bad} passed, {bad} failed", flush=True)
        failed += bad
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

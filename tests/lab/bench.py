#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""bench: what slipstream gains per traffic type, in instruction-counted guest time (`vm -i`: one guest instruction is 1 ns, so
the figures are path lengths and only their ratios mean something).

    tests/lab/bench.py [--kernel trixie] [--topology bridge] [--topology routed] [--build build]

Prints a Markdown table per kernel and topology: round trips (RR) and connections of one round trip (CRR) per second, without
and with slipstream on both nodes.
"""
import argparse
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
RR, CRR = 1500, 150


def cases(lab):
    from topology import PORT, WORLD, node_ips
    local, remote = lab.cluster.service("local"), lab.cluster.service("remote")
    p21 = lab.pods["p21"]
    yield "pod-to-pod", "p11", p21.ips[0], PORT
    yield "pod-to-pod, IPv6", "p11", p21.ips[1], PORT
    yield "pod-to-service", "p11", remote.cluster_ips[0], 80
    yield "external-to-loadbalancer, local endpoint", "c", local.lb_ips[0], 80
    yield "external-to-loadbalancer, endpoint on another node", "c", remote.lb_ips[0], 80
    yield "external-to-externalip, local endpoint", "c", local.external_ips[0], 80
    yield "external-to-nodeport, local endpoint", "c", node_ips("n1")[0], local.node_port
    yield "external-to-nodeport, endpoint on another node", "c", node_ips("n1")[0], remote.node_port
    yield "pod-to-external", "p11", WORLD[0], PORT
    yield "other (a pod's own address)", "c", lab.pods["p11"].ips[0], PORT


def measure(lab):
    """{case: (RR, CRR)}; a short run first, so that neighbours are known and memory is warm."""
    figures = {}
    for name, ns, address, port in cases(lab):
        rates = []
        for mode, n in (("rr", RR), ("crr", CRR)):
            lab.client(ns, f"{mode} {n // 10}", address, port)
            rates.append(float(lab.client(ns, f"{mode} {n}", address, port).split()[3]))
        figures[name] = rates
    return figures


def guest(kernel, topology, build):
    sys.modules.setdefault("lab", __import__("lab"))
    import topology as limits
    limits.PATIENCE = 1000
    from harness import Lab
    lab = Lab(kernel, topology, "none", build)
    without = measure(lab)
    lab.control = "agent"
    lab.before()
    with_agent = measure(lab)
    print(f"bench-table {topology}, Linux {os.uname().release}")
    print("bench-table")
    print("bench-table | traffic | RR without | with | gain | CRR without | with | gain |")
    print("bench-table |---|---|---|---|---|---|---|")
    for name, (rr, crr) in without.items():
        rr2, crr2 = with_agent[name]
        print(f"bench-table | {name} | {rr:.0f} | {rr2:.0f} | {100 * (rr2 / rr - 1):+.1f} % "
              f"| {crr:.0f} | {crr2:.0f} | {100 * (crr2 / crr - 1):+.1f} % |", flush=True)
    print("bench-table")
    lab.close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--kernel", action="append", choices=("bookworm", "trixie", "sid"))
    p.add_argument("--topology", action="append", choices=("bridge", "routed", "antrea"))
    p.add_argument("--build", default=os.path.join(TOP, "build"))
    p.add_argument("--guest", nargs=3, help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.guest:
        return guest(*args.guest)
    from lab import prepare
    there = prepare(args, args.kernel or ("trixie",))
    jobs = [(k, t) for k in there for t in args.topology or ("bridge", "routed")]
    env = dict(os.environ, MEM="1024", VM_TIMEOUT=os.environ.get("VM_TIMEOUT", "1200"))
    running = [(j, subprocess.Popen((os.path.join(HERE, "vm"), "-i", there[j[0]], os.path.join(HERE, "bench.py"), "--guest", *j,
                                     os.path.abspath(args.build)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                    errors="replace", env=env)) for j in jobs]
    failed = 0
    for job, process in running:
        text = process.communicate()[0]
        lines = re.findall(r"bench-table ?(.*)", text)
        print("\n".join(lines) if lines else f"bench: {'/'.join(job)} failed:\n{text[-2000:]}", flush=True)
        failed += not lines
    return 1 if failed or not jobs else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""The cluster ring: a real etcd and kube-apiserver on this machine, in two parts.

`client`: what becomes of the agent's watches and credentials when an API server restarts, forgets, refuses or falls silent;
in a network namespace of its own (client/).

`guest`: in a guest of the lab two nodes with a real kube-proxy each (nftables mode on n1, iptables mode on n2) and
slipstream, driven by kubectl alone. Outside, this builds Kubernetes' programs (`build`), starts the control plane
(`control`) and boots the guest; inside (--guest) it runs the tests of test_*.py in this folder. Controls as in the lab ring;
`cut` drops the agents' packets to the API server after their first sync.
"""
import argparse
import collections
import importlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
LAB = os.path.join(TOP, "tests", "lab")
sys.path[:0] = [HERE, LAB]
import lab  # noqa: E402
sys.modules.setdefault("lab", lab)

CACHE = os.environ.get("SLIPSTREAM_CACHE") or os.path.expanduser("~/.cache/slipstream")
# not QEMU's own 10.0.2.0/24: that is the pod CIDR of n2
NETWORK = "-nic user,model=virtio-net-pci,net=172.31.255.0/24,host=172.31.255.2,dhcpstart=172.31.255.15"


def parse(argv):
    p = argparse.ArgumentParser(prog="tests/cluster/run", description="slipstream's cluster ring: a real API server and real kube-proxies drive it.")
    p.add_argument("--part", choices=("client", "guest"), help="default: both")
    p.add_argument("--kernel", default="trixie", choices=lab.KERNELS)
    p.add_argument("--control", choices=("agent",) + lab.CONTROLS, action="append", help="default: the agent, then the smoke set under `none` and `cut`")
    p.add_argument("--full", action="store_true", help="the client part with what takes minutes (a large cluster); the controls run every test, not only the smoke set")
    p.add_argument("-k", metavar="TEXT", help="only tests with TEXT (a regular expression) in their name")
    p.add_argument("--build", default=os.path.join(TOP, "build"), metavar="DIR", help="where slipstream is (default: build)")
    p.add_argument("-v", action="store_true", help="everything the guest prints")
    p.add_argument("--guest", nargs=6, help=argparse.SUPPRESS, metavar=("KERNEL", "CONTROL", "BUILD", "STATE", "RELAY", "SET"))
    return p.parse_args(argv)


def free_ports():
    """The first of three loopback ports in a row that nobody listens on: API server, etcd, etcd's peers."""
    for port in range(16443, 16743, 3):
        try:
            for p in range(port, port + 3):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", p))
            return port
        except OSError:
            continue
    raise SystemExit("cluster: no three free ports from 16443 on")


class Kubectl(socketserver.StreamRequestHandler):
    """kubectl on this side of the guest, where it takes 0.1 s instead of several: one JSON line {argv, input} in, one
    {status, stdout, stderr} out."""

    def handle(self):
        ask = json.loads(self.rfile.readline())
        p = subprocess.run([os.path.join(CACHE, "bin", "kubectl"), "--kubeconfig", self.server.kubeconfig] + ask["argv"],
                           input=ask["input"] or "", capture_output=True, text=True)
        self.wfile.write(json.dumps({"status": p.returncode, "stdout": p.stdout, "stderr": p.stderr}).encode() + b"\n")


def client(args):
    """The client part, without a guest."""
    argv = ["unshare", "--net", sys.executable, "-B", os.path.join(HERE, "client", "client.py"), os.path.abspath(args.build),
            "all" if args.full else "smoke"] + ([args.k] if args.k else [])
    subprocess.run(("cmake", "--build", args.build, "--target", "replica"), check=True, stdout=subprocess.DEVNULL)
    return lab.results_of(argv, "cluster/client", args)


def boot(args, folder, control, chosen, port):
    """One control plane and one guest; Counter of the results."""
    title = f"cluster/{args.kernel}" + ("" if control == "agent" else f"/{control}")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slipstream-cp-") as parent:
        state = os.path.join(parent, "cp")
        env = dict(os.environ, CP_PORT=str(port), CP_ETCD=str(port + 1), MEM="3072", NET=NETWORK,
                   VM_TIMEOUT=os.environ.get("VM_TIMEOUT", "1500"))
        subprocess.run((os.path.join(HERE, "control"), "up", state), env=env, check=True)
        relay = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Kubectl)
        relay.daemon_threads, relay.kubeconfig = True, os.path.join(state, "admin.kubeconfig")
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        try:
            argv = [os.path.join(LAB, "vm"), folder, os.path.join(HERE, "ring.py"), "--guest", args.kernel, control,
                    os.path.abspath(args.build), state, str(relay.server_address[1]), chosen] + (["-k", args.k] if args.k else [])
            results = lab.results_of(argv, title, args, env)
        finally:
            relay.shutdown()
            subprocess.run((os.path.join(HERE, "control"), "down", state), env=env, check=False)
    print(f"{title}: {results['PASS']} of {sum(results.values())} in {time.monotonic() - began:.0f} s", flush=True)
    return results


def outside(args):
    subprocess.run((os.path.join(HERE, "build"),), check=True)
    program = os.path.join(args.build, "slipstream")
    if not os.access(program, os.X_OK) and args.control != ["none"]:
        print(f"cluster: no {program} (build it, or name its folder with --build)")
        return 1
    total = collections.Counter()
    if args.part != "guest" and not args.control:
        total += client(args)
    if args.part != "client":
        there = lab.prepare(args, (args.kernel,))
        if args.kernel not in there:
            total["SKIP"] += 1
        for control in args.control or ["agent", "none", "cut"] if there else []:
            smoke = control != "agent" and not args.control and not args.full
            total += boot(args, there[args.kernel], control, "smoke" if smoke else "all", free_ports())
    print(f"{total['PASS']} passed, {total['FAIL']} failed, {total['SKIP']} skipped")
    return 0 if total["PASS"] and not total["FAIL"] else 1


def guest(args):
    from world import World  # needs the guest
    kernel, control, build, state, relay, chosen = args.guest
    for name in sorted(os.listdir(HERE)):
        if name.startswith("test_") and name.endswith(".py"):
            importlib.import_module(name[:-3])
    began = time.monotonic()
    world = World(kernel, control, build, state, int(relay))
    lab.say("    ", f"world up in {time.monotonic() - began:.1f} s")
    for case in lab.CASES:
        if not lab.applies(case, args.k, chosen, control):
            continue
        t = time.monotonic()
        verdict, text = lab.run_case(world, case, control)
        lab.say(verdict, f"{case.name} ({time.monotonic() - t:.1f} s){': ' if text else ''}{text}")
    world.close()
    lab.say("DONE", f"{time.monotonic() - began:.0f} s in the guest")
    return 0


if __name__ == "__main__":
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the control plane ends with us
    sys.exit(guest(options) if options.guest else outside(options))

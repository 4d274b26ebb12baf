#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""The e2e ring: `kubectl apply` on a cluster with real kubelets, and what becomes of it.

A maker (makers/) makes the cluster; with --kubeconfig it is one that is there. The tests (test_*.py, in the order of their
files and lines) know a cluster by its kubeconfig, and its nodes through a privileged pod of theirs (kube.py), so that they
are the same for all makers. What only a maker can do (a machine outside the cluster, a node that is lost, a signing key that
changes) is in the cluster.json that it leaves; tests that need it are skipped without it.
"""
import argparse
import collections
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
CACHE = os.environ.get("SLIPSTREAM_CACHE") or os.path.expanduser("~/.cache/slipstream")
sys.path.insert(0, HERE)
MAKERS = ("local",)
PROGRAMS = {"local": ("kube-apiserver", "etcd", "kubelet", "kube-proxy", "kube-controller-manager", "kube-scheduler", "containerd")}
NEXT = ("0.1.1", "upgrade")  # version and commit of the image that the tests upgrade to

TESTS = []


class Skip(Exception):
    """The test cannot run on this cluster, for a reason that lies in the cluster."""


def test(function):
    TESTS.append(function)
    return function


def parse(argv):
    p = argparse.ArgumentParser(prog="tests/e2e/run", description="slipstream's e2e ring: kubectl apply on a cluster with real kubelets.")
    p.add_argument("--maker", choices=MAKERS, help="makes the cluster, and removes it afterwards (default: local)")
    p.add_argument("--kubeconfig", metavar="FILE", help="a cluster that is there, without slipstream; both images and the tools' image must be on its nodes (see --images)")
    p.add_argument("--images", action="store_true", help="only build the image archives that a cluster needs, and print them")
    p.add_argument("--keep", metavar="STATE", help="make images and cluster in folder STATE unless they are there, and leave them there (makers/MAKER down STATE/cluster ends it)")
    p.add_argument("-k", metavar="TEXT", default="", help="only tests with TEXT (a regular expression) in their name; each can run alone")
    p.add_argument("--full", action="store_true", help="idle for 10 minutes, and with what else takes minutes")
    p.add_argument("--build", metavar="DIR", help=argparse.SUPPRESS)  # as the other rings have it: the image is what runs here
    p.add_argument("--inside", metavar="JSON", help=argparse.SUPPRESS)
    return p.parse_args(argv)


def tools_image(folder):
    """An image with what the tests need on a node and in pods: a shell, nft, conntrack, ip, and the lab's traffic program."""
    root = os.path.join(folder, "tools")
    flow = os.path.join(folder, "flow")
    subprocess.run(("cc", "-O2", "-Wall", "-Wextra", "-o", flow, os.path.join(TOP, "tests", "lab", "flow.c")), check=True)
    os.makedirs(os.path.join(root, "bin"))
    os.makedirs(os.path.join(root, "tmp"))
    shutil.copy(shutil.which("busybox"), os.path.join(root, "bin", "busybox"))
    for applet in subprocess.run((shutil.which("busybox"), "--list"), capture_output=True, text=True, check=True).stdout.split():
        if applet not in ("busybox", "ip"):
            os.symlink("busybox", os.path.join(root, "bin", applet))
    for program in ("nft", "conntrack", "ip", flow):
        path = os.path.realpath(shutil.which(program) or program)
        shutil.copy(path, os.path.join(root, "bin", os.path.basename(program)))
        for library in re.findall(r"(/\S+) \(0x", subprocess.run(("ldd", path), capture_output=True, text=True, check=True).stdout):
            os.makedirs(root + os.path.dirname(library), exist_ok=True)
            shutil.copy(os.path.realpath(library), root + library)
    import archive
    archive.write(os.path.join(folder, "tools.tar"), "localhost/slipstream-e2e:1", root, {"Env": ["PATH=/bin"]})
    return os.path.join(folder, "tools.tar"), flow


def images(folder):
    """(archives to load, path of the traffic program, root folder of slipstream's image)"""
    arch = subprocess.run(("dpkg", "--print-architecture"), capture_output=True, text=True, check=True).stdout.strip()
    image = os.path.join(TOP, "tests", "deploy", "image")
    made = [subprocess.run((image,) + more + (arch,), stdout=subprocess.PIPE, text=True, check=True).stdout.split() for more in ((), ("--as",) + NEXT)]
    tools, flow = tools_image(folder)
    return [m[1] for m in made] + [tools], flow, made[0][2]


def why_not(maker):
    """Why this machine cannot run `maker`, or None."""
    if os.geteuid():
        return "needs root"
    needs = {"local": ("runc", "qemu-system-x86_64", "unshare", "nsenter", "prometheus")}[maker]
    for program in needs:
        if not shutil.which(program):
            return f"no {program} on PATH"
    if maker == "local":
        if not os.path.exists("/usr/lib/cni/ptp"):
            return "no CNI plugins in /usr/lib/cni (Debian: containernetworking-plugins)"
        with open("/proc/mounts", encoding="utf-8") as f:
            if not re.search(r" cgroup2? ", f.read()):
                return "no cgroups are mounted"
        if not os.path.exists("/dev/net/tun"):
            return "no /dev/net/tun"
        if subprocess.run(("unshare", "--net", "--mount", "--pid", "--fork", "true"), capture_output=True).returncode:
            return "no namespaces may be made"
    return None


def make(args, maker, program, work, state):
    """The cluster, with the images on its nodes: what `inside` is told. None when there is none."""
    began = time.monotonic()
    archives, flow, root = images(work)
    print(f"e2e: images built in {time.monotonic() - began:.0f} s", flush=True)
    if args.images:
        print("\n".join(archives))
        return None
    cluster = {"enter": [], "kubeconfig": args.kubeconfig}
    if maker:
        subprocess.run([os.path.join(TOP, "tests", "cluster", "build"), *PROGRAMS[maker]], check=True)
        began = time.monotonic()
        if subprocess.run((program, "up", state, *archives)).returncode:
            raise SystemExit("e2e: no cluster\n0 passed, 1 failed")
        print(f"e2e: cluster up in {time.monotonic() - began:.0f} s", flush=True)
        with open(os.path.join(state, "cluster.json"), encoding="utf-8") as f:
            cluster = json.load(f)
        cluster.update(maker=program, state=state)
    cluster.update(flow=flow, root=root, archive=archives[0], next=NEXT, full=args.full)
    return cluster


def outside(args):
    maker = None if args.kubeconfig else args.maker or "local"
    work = os.path.abspath(args.keep) if args.keep else tempfile.mkdtemp(prefix="slipstream-e2e-")
    state, spec = os.path.join(work, "cluster"), os.path.join(work, "inside.json")
    program = os.path.join(HERE, "makers", maker) if maker else None
    try:
        reason = maker and not args.images and why_not(maker)
        if reason:
            print(f"e2e: cannot run here: {reason}\n0 passed, 0 failed, 1 skipped")
            return 0
        if not (args.keep and os.path.exists(spec)):
            os.makedirs(work, exist_ok=True)
            cluster = make(args, maker, program, work, state)
            if args.images:
                work = None
                return 0
            with open(spec, "w", encoding="utf-8") as f:
                json.dump(cluster, f)
        with open(spec, encoding="utf-8") as f:
            enter = json.load(f)["enter"]
        return subprocess.run(enter + [sys.executable, "-B", os.path.join(HERE, "ring.py"), "--inside", spec, "-k", args.k]).returncode
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if not args.keep:
            if program and os.path.exists(state):
                subprocess.run((program, "down", state))
            if work:
                shutil.rmtree(work, ignore_errors=True)


def inside(args):
    import kube
    for name in sorted(n for n in os.listdir(HERE) if re.match(r"test_\w+\.py$", n)):
        importlib.import_module(name[:-3])
    with open(args.inside, encoding="utf-8") as f:
        cluster = kube.Cluster(json.load(f))
    results = collections.Counter()
    try:
        for function in TESTS:
            if not re.search(args.k, function.__name__):
                continue
            began = time.monotonic()
            try:
                function(cluster)
                result = "passed"
            except Skip as e:
                result = f"does not apply: {e}"
            except Exception as e:
                result = "failed"
                text = str(e) if isinstance(e, AssertionError) else traceback.format_exc()
                print("    " + (text + "\n" + cluster.describe()).strip().replace("\n", "\n    "))
            results[result.split(":")[0]] += 1
            print(f"{function.__name__[5:]}: {result} [{time.monotonic() - began:.1f} s]", flush=True)
    finally:
        cluster.close()
    print(f"{results['passed']} passed, {results['failed']} failed")
    return 0 if results["passed"] and not results["failed"] else 1


def interrupted(signum, frame):
    raise KeyboardInterrupt


def main():
    sys.modules["ring"] = sys.modules["__main__"]
    signal.signal(signal.SIGTERM, interrupted)
    args = parse(sys.argv[1:])
    try:
        return inside(args) if args.inside else outside(args)
    except KeyboardInterrupt:
        print("e2e: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())

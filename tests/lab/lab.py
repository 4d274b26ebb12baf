#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab ring: slipstream on stock Debian kernels, with real packets. Outside it boots a guest per kernel and topology
(`vm`), inside the guest (--guest) it builds the topology and runs the tests of tests/lab/test_*.py.

A control stands in for the agent: `none` (nothing), `static` (a bare `flow add` over all devices that were there at the
start), `cut` (the agent, whose manifests never change after its start). A test declares the controls that it must fail
under; with --control, doing so is what passes.
"""
import argparse
import collections
import concurrent.futures
import importlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
KERNELS = ("bookworm", "trixie", "sid")
TOPOLOGIES = ("bridge", "routed", "antrea")
CONTROLS = ("none", "static", "cut")

Case = collections.namedtuple("Case", "name function topologies fails agent smoke args")
CASES = []


def lab_test(topologies="bridge routed antrea", fails="", agent=False, smoke=False, families=False):
    """Declares a test.

    fails: controls under which it must fail, or a dict {control: kernels}; agent: it is about the agent itself, so there is
    nothing to run without one; smoke: also part of the short set; families: once with v=0 (IPv4), once with v=1."""
    def declare(function):
        what = fails if isinstance(fails, dict) else {c: KERNELS for c in fails.split()}
        for v in (0, 1) if families else (None,):
            name = function.__name__[5:] + ("" if v is None else ("-v4", "-v6")[v])
            args = {} if v is None else {"v": v}
            CASES.append(Case(name, function, topologies.split(), what, agent, smoke, args))
        return function
    return declare


# ---- outside

def parse(argv):
    p = argparse.ArgumentParser(prog="tests/lab/run", description="slipstream's lab ring: real packets on stock kernels in QEMU.",
                                epilog="Without --kernel, --topology and --control: all on trixie, a smoke set on bookworm "
                                "and sid, and a sample of the controls; --full: everything everywhere.")
    p.add_argument("--kernel", action="append", choices=KERNELS)
    p.add_argument("--topology", action="append", choices=TOPOLOGIES)
    p.add_argument("--control", choices=CONTROLS)
    p.add_argument("-k", metavar="TEXT", help="only tests with TEXT (a regular expression) in their name")
    p.add_argument("--build", default=os.path.join(TOP, "build"), metavar="DIR", help="where slipstream is (default: build)")
    p.add_argument("--smoke", action="store_true", help="only the smoke set")
    p.add_argument("--full", action="store_true")
    p.add_argument("-j", type=int, default=os.cpu_count() or 1, metavar="N", help="guests at a time")
    p.add_argument("-v", action="store_true", help="everything the guest prints")
    p.add_argument("--guest", nargs=5, help=argparse.SUPPRESS, metavar=("KERNEL", "TOPOLOGY", "CONTROL", "BUILD", "SET"))
    return p.parse_args(argv)


def jobs(args):
    """(kernel, topology, control, set) of every boot."""
    if args.kernel or args.topology or args.control:
        for k in args.kernel or ("trixie",):
            for t in args.topology or TOPOLOGIES:
                yield (k, t, args.control or "agent", "smoke" if args.smoke else "all")
    elif args.full:
        for k in KERNELS:
            for t in TOPOLOGIES:
                for c in ("agent",) + CONTROLS:
                    yield (k, t, c, "smoke" if args.smoke else "all")
    else:
        for t in TOPOLOGIES:
            yield ("trixie", t, "agent", "smoke" if args.smoke else "all")
        yield ("bookworm", "bridge", "agent", "smoke")
        yield ("sid", "routed", "agent", "smoke")
        yield ("trixie", "bridge", "none", "smoke")
        yield ("trixie", "routed", "static", "smoke")
        yield ("bookworm", "bridge", "static", "smoke")
        yield ("trixie", "bridge", "cut", "smoke")


def prepare(args, kernels):
    """Compiles the traffic tool and sees to the kernels; which of them are there."""
    os.makedirs(os.path.join(args.build, "lab"), exist_ok=True)
    subprocess.run(("cc", "-O2", "-Wall", "-Wextra", "-o", os.path.join(args.build, "lab", "flow"),
                    os.path.join(HERE, "flow.c")), check=True)
    if os.path.exists(os.path.join(args.build, "CMakeCache.txt")):
        subprocess.run(("cmake", "--build", args.build, "--target", "batches"), stdout=subprocess.DEVNULL, check=True)
    cache = os.environ.get("SLIPSTREAM_CACHE") or os.path.expanduser("~/.cache/slipstream")
    there = {}
    for kernel in kernels:
        folder = os.path.join(cache, "kernels", kernel)
        p = subprocess.run((os.path.join(HERE, "fetch-kernel"), kernel, folder), capture_output=True, text=True)
        if p.returncode:
            print(f"lab: no kernel {kernel}: {p.stderr.strip()[-300:]}")
        else:
            there[kernel] = folder
            print(f"lab: {kernel} is Linux {p.stdout.strip()}")
    return there


PRINT = threading.Lock()


def results_of(argv, title, args, env=None):
    """Runs it, prints what its tests say and what a kernel cries, counts them: PASS, FAIL, SKIP."""
    results, done = collections.Counter(), False
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=env) as p:
        try:
            for line in p.stdout:
                line = line.rstrip()
                m = re.match(r"lab-(PASS|FAIL|SKIP|DONE|    ) ?(.*)", line)
                if m and m.group(1) == "DONE":
                    done = True
                elif m and m.group(1).strip():
                    results[m.group(1)] += 1
                if m or args.v or re.search(r"Kernel panic|BUG:|Oops|WARNING: CPU|unregister_netdevice", line):
                    with PRINT:
                        print(f"{title}: {line[4:] if m else line}", flush=True)
        finally:
            if not done:
                p.terminate()
    if not done:
        results["FAIL"] += 1
        with PRINT:
            print(f"{title}: FAIL ended before its tests did (status {p.returncode}; -v shows what it printed)")
    return results


def boot(args, folder, job):
    """One guest; Counter of its results."""
    kernel, topology, control, chosen = job
    title = f"{kernel}/{topology}" + ("" if control == "agent" else f"/{control}")
    began = time.monotonic()
    env = dict(os.environ, CPUS="1", MEM="1024", VM_TIMEOUT=os.environ.get("VM_TIMEOUT", "1500"))
    argv = [os.path.join(HERE, "vm"), folder, os.path.join(HERE, "lab.py"), "--guest", kernel, topology, control,
            os.path.abspath(args.build), chosen] + (["-k", args.k] if args.k else [])
    results = results_of(argv, title, args, env)
    with PRINT:
        print(f"{title}: {results['PASS']} of {sum(results.values())} in {time.monotonic() - began:.0f} s", flush=True)
    return results


def outside(args):
    work = list(jobs(args))
    there = prepare(args, sorted({j[0] for j in work}))
    total = collections.Counter()
    program = os.path.join(args.build, "slipstream")
    if not os.access(program, os.X_OK) and any(j[2] in ("agent", "cut") for j in work):
        print(f"lab: no {program} (build it, or name its folder with --build)")
        return 1
    with concurrent.futures.ThreadPoolExecutor(max(1, args.j)) as pool:
        futures = []
        for job in work:
            if job[0] in there:
                futures.append(pool.submit(boot, args, there[job[0]], job))
            else:
                total["SKIP"] += 1
        for f in futures:
            total += f.result()
    print(f"{total['PASS']} passed, {total['FAIL']} failed, {total['SKIP']} skipped")
    return 0 if total["PASS"] and not total["FAIL"] else 1


# ---- inside

def say(kind, text):
    for i, line in enumerate(text.splitlines()):
        print(f"lab-{kind if i == 0 else '    '} {line}", flush=True)


def expire(signum, frame):
    raise AssertionError("the test took longer than 120 s")


def run_case(lab, case, control):
    """PASS or FAIL, and why."""
    must_fail = lab.kernel in case.fails.get(control, ())
    signal.signal(signal.SIGALRM, expire)
    signal.alarm(120)
    try:
        lab.before()
        case.function(lab, **case.args)
        return ("FAIL", f"passes under control {control}, where it must fail") if must_fail else ("PASS", "")
    except Exception as e:  # whatever a test raises is its result
        signal.alarm(0)
        # without an agent every packet arrives: what does not is the lab's own fault
        if must_fail and isinstance(e, AssertionError) and not (control == "none" and type(e).__name__ == "Unreachable"):
            return "PASS", f"fails as it must: {str(e).splitlines()[0][:150] if str(e) else 'assertion'}"
        where = "".join(traceback.format_exception(e)[-4:])[-1500:]
        return "FAIL", f"{type(e).__name__}: {e}\n{where}\n{lab.describe()}"
    finally:
        signal.alarm(0)


def applies(case, pattern, chosen, control):
    """Whether a run with this -k, this set (all or smoke) and this control has the case."""
    if pattern and not re.search(pattern, case.name) or chosen == "smoke" and not case.smoke:
        return False
    return not (case.agent and control in ("none", "static"))


def guest(args):
    from harness import Lab  # needs the guest
    kernel, topology, control, build, chosen = args.guest
    for name in sorted(os.listdir(HERE)):
        if name.startswith("test_") and name.endswith(".py"):
            importlib.import_module(name[:-3])
    began = time.monotonic()
    lab = Lab(kernel, topology, control, build)
    say("    ", f"topology up in {time.monotonic() - began:.1f} s")
    for case in CASES:
        if topology not in case.topologies or not applies(case, args.k, chosen, control):
            continue
        t = time.monotonic()
        verdict, text = run_case(lab, case, control)
        if verdict == "FAIL":
            lab.dirty()
        say(verdict, f"{case.name} ({time.monotonic() - t:.1f} s){': ' if text else ''}{text}")
    lab.close()
    say("DONE", f"{time.monotonic() - began:.0f} s in the guest")
    return 0


def main():
    # one module object, whether started as a program or imported by a test
    sys.modules["lab"] = sys.modules["__main__"]
    args = parse(sys.argv[1:])
    return guest(args) if args.guest else outside(args)


if __name__ == "__main__":
    sys.exit(main())

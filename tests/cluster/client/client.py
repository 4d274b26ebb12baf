#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""The client part of the cluster ring: the agent's API client against a real kube-apiserver and everything that happens to
one. No guest: all of it runs on the loopback device of a network namespace of its own, which ring.py makes.

    client.py BUILD [smoke|all] [PATTERN]

Prints what a guest of the rings prints.
"""
import importlib
import os
import signal
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE), os.path.join(os.path.dirname(os.path.dirname(HERE)), "lab")]
import lab  # noqa: E402


def main(build, chosen="smoke", pattern=None):
    from rig import Rig
    for name in sorted(os.listdir(HERE)):
        if name.startswith("test_") and name.endswith(".py"):
            importlib.import_module(name[:-3])
    cases = [c for c in lab.CASES if lab.applies(c, pattern, chosen, "agent")]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="slipstream-client-") as folder:
        rig = Rig(folder, build) if cases else None
        try:
            for case in cases:
                t = time.monotonic()
                verdict, text = lab.run_case(rig, case, "agent")
                lab.say(verdict, f"{case.name} ({time.monotonic() - t:.1f} s){': ' if text else ''}{text}")
        finally:
            if rig:
                rig.close()
    lab.say("DONE", f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the control plane ends with us
    main(*sys.argv[1:])

# SPDX-License-Identifier: GPL-2.0-or-later
"""`kubectl apply`: pods on every node, as the manifest says; and what they are on a node whose kernel cannot."""
import os
import re
import time

from kube import MANIFEST, until
from ring import Skip, test

IDLE_CPU_MAX = 0.01  # of one CPU, with kubelet's probes: ten times what is meant by none


@test
def test_apply_rolls_out_on_every_node(cluster):
    began = time.monotonic()
    cluster.kubectl("apply", "--server-side", "-f", MANIFEST)
    cluster.rolled_out()
    cluster.figure(f"kubectl apply to ready on {len(cluster.nodes)} nodes: {time.monotonic() - began:.0f} s")
    for node in cluster.nodes.values():
        pod = node.pod("slipstream")
        state, = pod["status"]["containerStatuses"]
        assert state["ready"] and state["restartCount"] == 0, f"{node.name}: {state}"
        assert pod["status"]["podIP"] == pod["status"]["hostIP"], "not on the node's address"


@test
def test_process_has_what_the_manifest_gives_it(cluster):
    """Asked of the kernel, not of the manifest."""
    cluster.installed()
    for node in cluster.nodes.values():
        pid = node.agent_pid()
        status = dict(re.findall(r"^(\w+):\s+(\S+)", node.run(f"cat /proc/{pid}/status"), re.M))
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 1 << 12, f"{node.name}: more than CAP_NET_ADMIN: {status}"
        assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", f"{node.name}: {status}"
        root = next(line for line in node.run(f"cat /proc/{pid}/mounts").splitlines() if line.split()[1] == "/")
        assert "ro" in root.split()[3].split(","), f"{node.name}: the root file system can be written: {root}"
        cluster.figure(f"RSS of the agent on {node.name}: {int(status['VmRSS']) / 1024:.1f} MiB (peak {int(status['VmHWM']) / 1024:.1f})")
    size = sum(os.lstat(os.path.join(d, f)).st_size for d, _, files in os.walk(cluster.spec["root"]) for f in files)
    cluster.figure(f"image: {size / 1e6:.1f} MB unpacked, {os.stat(cluster.spec['archive']).st_size / 1e6:.1f} MB as an archive")


@test
def test_kernel_without_flowtables_is_said(cluster):
    """Ready, nothing programmed, and the reason in log, status, metric and Event."""
    for node in cluster.without():
        state, = node.pod("slipstream")["status"]["containerStatuses"]
        assert state["ready"], f"{node.name}: {state}"
        assert not node.table(), f"{node.name}: has a table"
        reason = node.status()["features"]["reason"]
        assert "no flowtable" in reason, reason
        assert f"this kernel cannot accelerate: {reason}" in node.log(), node.log()
        assert node.metrics()["slipstream_flowtable_supported"] == 0
        until(f"{node.name}: Event with the reason ({node.events()})",
              lambda: any(r == "AccelerationDegraded" and reason in note for r, note in node.events()), 60)


@test
def test_kernel_without_flowtables_costs_nothing(cluster):
    nodes, window = cluster.without(), 120 if cluster.spec["full"] else 30
    before = {n: ticks(n) for n in nodes}
    time.sleep(window)
    for node in nodes:
        used = (ticks(node) - before[node]) / 100
        cluster.figure(f"CPU of an agent that cannot accelerate, {node.name}: {used:.2f} s in {window} s, kubelet's probes included")
        assert used <= IDLE_CPU_MAX * window, f"{node.name}: {used} s of CPU in {window} s"


def ticks(node):
    fields = node.run(f"cat /proc/{node.agent_pid()}/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@test
def test_modules_appear(cluster):
    """The agent looks again every 60 s: it starts to accelerate without a restart."""
    cluster.needs("withheld")
    cluster.installed()
    for name, path in cluster.spec["withheld"].items():
        node = cluster.nodes[name]
        if node.accelerates():
            raise Skip(f"the modules are there already on {name}")
        pid = node.agent_pid()
        began = time.monotonic()
        node.run(f"rm /host{path}")
        until(f"{name}: table inet slipstream", node.table, 90)
        cluster.figure(f"modules installed to programmed: {time.monotonic() - began:.0f} s (looked for every 60 s)")
        assert node.agent_pid() == pid, f"{name}: the agent was restarted"
        assert "flow add @fastpath" in node.table(), node.table()
        assert node.metrics()["slipstream_flowtable_supported"] == 1
        until(f"{name}: Event AccelerationEnabled", lambda: "AccelerationEnabled" in [r for r, _ in node.events()], 60)

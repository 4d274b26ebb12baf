# SPDX-License-Identifier: GPL-2.0-or-later
"""A running installation: scraped, labelled, killed, upgraded, with new tokens, without a node."""
import contextlib
import json
import os
import re
import socket
import subprocess
import tempfile
import time

import yaml

from kube import CACHE, MANIFEST, PODMONITOR, run, until
from ring import test

GAP_MAX = 10.0  # s without an answer on an open connection: ten times what is promised
IDLE_WAKEUPS_MAX = 0.2  # per second


@contextlib.contextmanager
def traffic(cluster, node, what):
    """An offloaded connection each way of `node` in use all the while; it must live, and is told to have had no gap."""
    peer = cluster.peer(node)
    open_ones = [cluster.connect(node, "steady 20", cluster.service(peer)[0][0], 80)]
    if cluster.spec.get("client"):
        open_ones.append(cluster.connect(None, "steady 20", node.addresses()[0], cluster.service(node)[1]["TCP"]))
    yield
    gaps = [float(c.end()[-1]) for c in open_ones]
    cluster.figure(f"{what}: longest time without an answer on an open connection {max(gaps) * 1000:.0f} ms")
    assert max(gaps) <= GAP_MAX, f"{what}: {gaps} s without an answer"


def handle(node):
    """The kernel's number of our table: the same as long as it is the same table."""
    return re.search(r"table inet slipstream \{ # handle (\d+)", node.run("nft -a list table inet slipstream")).group(1)


@test
def test_metrics_are_reached_in_every_way(cluster):
    """At the node's address, through the API server, and by a real Prometheus with what the PodMonitor says."""
    cluster.installed()
    for node in cluster.nodes.values():
        pod = node.pod("slipstream")["metadata"]["name"]
        build = 'slipstream_build_info{{version="0.1.0"'
        assert build in node.get("/metrics"), f"{node.name}: not at its address"
        assert build in cluster.kubectl("get", "--raw", f"/api/v1/namespaces/slipstream/pods/{pod}:19500/proxy/metrics"), f"{node.name}: not by proxy"
    cluster.kubectl("apply", "--server-side", "-f", os.path.join(CACHE, "bin", "podmonitor-crd"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/podmonitors.monitoring.coreos.com")
    cluster.kubectl("apply", "--server-side", "-f", PODMONITOR)
    monitor = cluster.get("podmonitor", "slipstream", "slipstream")
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            listen = f"127.0.0.1:{s.getsockname()[1]}"
        with open(f"{folder}/prometheus.yml", "w", encoding="utf-8") as f:
            yaml.safe_dump(scrape_config(monitor, cluster.spec["kubeconfig"]), f)
        with open(f"{folder}/log", "w", encoding="utf-8") as log:
            p = subprocess.Popen(("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                                  f"--web.listen-address={listen}"), stdout=log, stderr=log)
        try:
            def up():
                text = run("curl", "-s", "--noproxy", "*", f"http://{listen}/api/v1/query?query=up", check=False)
                return {r["metric"].get("node") for r in json.loads(text or "{}").get("data", {}).get("result", []) if r["value"][1] == "1"}
            until("every node is up for Prometheus", lambda: up() == set(cluster.nodes), 40, 1)
        finally:
            p.kill()
            p.wait()
    cluster.kubectl("delete", "-f", PODMONITOR)


def scrape_config(monitor, kubeconfig):
    """What the Prometheus operator makes of this PodMonitor."""
    endpoint, = monitor["spec"]["podMetricsEndpoints"]
    label = "__meta_kubernetes_pod_label_"
    relabel = [{"source_labels": [label + re.sub(r"\W", "_", k)], "regex": v, "action": "keep"} for k, v in monitor["spec"]["selector"]["matchLabels"].items()]
    relabel.append({"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": endpoint["port"], "action": "keep"})
    relabel += [{"source_labels": r["sourceLabels"], "target_label": r["targetLabel"]} for r in endpoint["relabelings"]]
    return {"scrape_configs": [{
        "job_name": "slipstream", "scrape_interval": "1s", "metrics_path": endpoint["path"], "relabel_configs": relabel,
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": kubeconfig, "namespaces": {"names": [monitor["metadata"]["namespace"]]}}]}]}


@test
def test_label_takes_a_node_out_and_back(cluster):
    node = cluster.accelerated()
    with traffic(cluster, node, "label slipstream/acceleration"):
        began = time.monotonic()
        cluster.kubectl("label", "node", node.name, "slipstream/acceleration=disabled")
        until("no table", lambda: not node.table(), 10, 0.05)
        took = time.monotonic() - began
        assert took <= 10, f"{took:.1f} s: promised is 1 s"
        cluster.figure(f"label to table removed: {took:.1f} s, kubectl included")
        until("AccelerationDisabled", lambda: "AccelerationDisabled" in [r for r, _ in node.events()], 20)
        cluster.kubectl("label", "node", node.name, "slipstream/acceleration-")
        until("table again", node.table, 10)
        status = node.pod("slipstream")["status"]["containerStatuses"][0]
        assert status["ready"] and status["restartCount"] == 0, status


@test
def test_killed_agent_is_started_again_and_nothing_notices(cluster):
    """By kill -9 (kubelet starts the container again), and by deleting the pod (the DaemonSet makes another)."""
    node = cluster.accelerated()
    table = handle(node)
    with traffic(cluster, node, "agent killed, pod deleted"):
        pod = node.pod("slipstream")
        restarts = pod["status"]["containerStatuses"][0]["restartCount"]
        node.run(f"kill -9 {node.agent_pid()}")

        def again():
            state = node.pod("slipstream")["status"]["containerStatuses"][0]
            return state["ready"] and state["restartCount"] == restarts + 1
        until("kubelet starts it again", again, 60)
        assert handle(node) == table, "the table was made anew"
        cluster.kubectl("-n", "slipstream", "delete", "pod", pod["metadata"]["name"])
        cluster.rolled_out()
        assert node.pod("slipstream")["metadata"]["uid"] != pod["metadata"]["uid"]
        assert handle(node) == table, "the table was made anew"


@test
def test_upgrade_and_rollback_with_traffic(cluster):
    node = cluster.accelerated()
    table, (version, commit) = handle(node), cluster.spec["next"]
    with open(MANIFEST, encoding="utf-8") as f:
        text = f.read()

    def everywhere(commit):
        found = {re.search(r'build_info\{version="[^"]*",commit="([^"]*)"', n.get("/metrics")).group(1) for n in cluster.nodes.values()}
        assert found == {commit}, f"{found} run, not {commit}"
    old = node.status()["commit"]
    began = time.monotonic()
    with traffic(cluster, node, "rolling upgrade and rollback"):
        cluster.kubectl("apply", "--server-side", "-f", "-", input=text.replace("slipstream:0.1.0", f"slipstream:{version}"))
        cluster.rolled_out()
        everywhere(commit)
        assert handle(node) == table, "the upgrade made the table anew"
        cluster.figure(f"rolling upgrade of {len(cluster.nodes)} nodes: {time.monotonic() - began:.0f} s")
        cluster.kubectl("-n", "slipstream", "rollout", "undo", "daemonset/slipstream")
        cluster.rolled_out()
        everywhere(old)
        assert handle(node) == table, "the rollback made the table anew"


@test
def test_service_account_token_rotates(cluster):
    """kubelet brings a new token, by a new key; then the API server refuses the old ones, and ends every connection."""
    cluster.needs("maker")
    cluster.needs("rotates")
    node = cluster.accelerated()
    path = "/var/run/secrets/kubernetes.io/serviceaccount/token"

    def token(n):
        return n.run(f"cat /proc/{n.agent_pid()}/root{path}")
    old, pids = {n: token(n) for n in cluster.nodes.values()}, {n: n.agent_pid() for n in cluster.nodes.values()}
    cluster.maker("rotate-key")
    for n in cluster.nodes.values():
        # kubelet asks for a token 12 minutes before the hour that it has is over, or when it has none: when it starts
        with contextlib.suppress(AssertionError, OSError):
            n.run("kill $(pidof kubelet)")
        n.forget_shells()
    for n in cluster.nodes.values():
        def new():
            try:
                return token(n) != old[n]
            except (AssertionError, OSError):
                return False
        until(f"{n.name}: another token", new, 60, 1)
    cluster.maker("retire-key")
    refused = run(*cluster.kubectl_argv("--token", old[node].strip(), "get", "nodes"), check=False)
    assert not refused, "the API server takes the old token"
    cluster.kubectl("-n", "e2e", "create", "service", "clusterip", "after-rotation", "--tcp=80:80")
    address = cluster.get("service", "after-rotation", "e2e")["spec"]["clusterIP"]
    until("the agent follows with the new token", lambda: address in node.table(), 60, 1)
    for n in cluster.nodes.values():
        assert n.agent_pid() == pids[n], f"{n.name}: the agent was restarted"
    cluster.kubectl("-n", "e2e", "delete", "service", "after-rotation")


@test
def test_node_is_lost_and_comes_back(cluster):
    """Its pods' network leaves the rules when its Node does; connections of the others do not notice."""
    cluster.needs("loses")
    node = cluster.accelerated()
    lost = next(cluster.nodes[n] for n in cluster.spec["loses"] if n != node.name and n != cluster.peer(node).name)
    cidr = lost.pod_cidrs()[0]
    until(f"{cidr} in the table", lambda: cidr in node.table(), 10)
    with traffic(cluster, node, f"{lost.name} lost"):
        cluster.maker("stop-node", lost.name)
        lost.forget_shells()
        until(f"{lost.name} not ready", lambda: any(c["type"] == "Ready" and c["status"] != "True" for c in cluster.get("node", lost.name)["status"]["conditions"]), 60, 1)
        assert cidr in node.table(), "a node that is merely away was forgotten"
        cluster.kubectl("delete", "node", lost.name)
        until(f"{cidr} out of the table", lambda: cidr not in node.table(), 10)
    cluster.maker("start-node", lost.name)
    until(f"{cidr} in the table again", lambda: cidr in node.table(), 30)
    until(f"{lost.name} ready", lambda: any(c["type"] == "Ready" and c["status"] == "True" for c in cluster.get("node", lost.name)["status"]["conditions"]), 60, 1)
    cluster.kubectl("-n", "e2e", "rollout", "status", "daemonset/probe", "--timeout=300s")
    cluster.rolled_out()
    assert not lost.table()


@test
def test_idle_agent_sleeps(cluster):
    """Wake-ups without kubelet's probes: they are taken out of the manifest for the time."""
    node = cluster.accelerated()
    patch = [{"op": "remove", "path": f"/spec/template/spec/containers/0/{p}"} for p in ("livenessProbe", "readinessProbe", "startupProbe")]
    cluster.kubectl("-n", "slipstream", "patch", "daemonset", "slipstream", "--type=json", "-p", json.dumps(patch))
    cluster.rolled_out()
    until(f"{node.name}: programmed", lambda: node.status()["ready"], 60)
    time.sleep(15)  # what it does in its first seconds, an Event among them, is not idleness
    window, nodes = 600 if cluster.spec["full"] else 60, list(cluster.nodes.values())
    before = {n: wakeups(n) for n in nodes}
    time.sleep(window)
    rates = {n.name: (wakeups(n) - before[n]) / window for n in nodes}
    cluster.figure(f"wake-ups of an idle agent over {window} s: " + ", ".join(f"{rate:.3f}/s on {n}" for n, rate in rates.items()))
    cluster.install()
    assert max(rates.values()) <= IDLE_WAKEUPS_MAX, rates


def wakeups(node):
    text = node.run(f"cat /proc/{node.agent_pid()}/task/*/status")
    return sum(int(n) for n in re.findall(r"^(?:non)?voluntary_ctxt_switches:\s+(\d+)", text, re.M))

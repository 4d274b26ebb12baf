# SPDX-License-Identifier: GPL-2.0-or-later
"""A canary, a manifest that cannot work, the way out; and how long it is from kubectl to the first offloaded connection."""
import json
import time

from kube import CLEANUP, MANIFEST, SERVER_PORT, until
from ring import test


def pods(cluster):
    items = cluster.json("-n", "slipstream", "get", "pods", "-l", "app.kubernetes.io/name=slipstream")["items"]
    return {i["spec"]["nodeName"] for i in items}


@test
def test_canary_runs_on_labelled_nodes_only(cluster):
    node = cluster.accelerated()
    patch = {"spec": {"template": {"spec": {"nodeSelector": {"slipstream-canary": "true"}}}}}
    cluster.kubectl("label", "node", node.name, "slipstream-canary=true")
    try:
        cluster.kubectl("-n", "slipstream", "patch", "daemonset", "slipstream", "-p", json.dumps(patch))
        cluster.rolled_out()
        until("pods on the canary alone", lambda: pods(cluster) == {node.name}, 60)
        assert node.table(), "the canary is not programmed"
    finally:
        cluster.kubectl("label", "node", node.name, "slipstream-canary-")
        cluster.kubectl("-n", "slipstream", "patch", "daemonset", "slipstream", "--type=json", "-p",
                        json.dumps([{"op": "remove", "path": "/spec/template/spec/nodeSelector/slipstream-canary"}]))
    until("pods on every node again", lambda: pods(cluster) == set(cluster.nodes), 60)
    cluster.rolled_out()


@test
def test_delete_is_clean_and_leaves_the_rules(cluster):
    """Deleted without the clean-up: as README says, the rules stay, and no object does."""
    node = cluster.accelerated()
    cluster.kubectl("delete", "--timeout=240s", "-f", MANIFEST)
    kinds = "namespace,clusterrole,clusterrolebinding,role,rolebinding,daemonset,configmap,serviceaccount,pod"
    left = cluster.kubectl("get", kinds, "-A", "-l", "app.kubernetes.io/name=slipstream", "-o", "name")
    assert not left.strip(), left
    assert "flow add @fastpath" in node.table(), "no table: README says that it stays"


@test
def test_without_its_capability_it_is_not_ready_and_says_so(cluster):
    """A manifest that lost NET_ADMIN does not pass for a good one."""
    node = cluster.accelerated()
    patch = [{"op": "remove", "path": "/spec/template/spec/containers/0/securityContext/capabilities/add"}]
    cluster.kubectl("-n", "slipstream", "patch", "daemonset", "slipstream", "--type=json", "-p", json.dumps(patch))
    cluster.kubectl("-n", "slipstream", "delete", "pod", node.pod("slipstream")["metadata"]["name"])

    def said():
        try:
            return "CAP_NET_ADMIN" in node.log()
        except AssertionError:
            return False
    until("the log names CAP_NET_ADMIN", said, 60)
    time.sleep(6)  # a readiness probe's period
    assert not node.pod("slipstream")["status"]["containerStatuses"][0]["ready"], "ready without its capability"
    cluster.install()


@test
def test_clean_up_removes_the_rules_on_every_node(cluster):
    """deploy/README.md, Uninstall."""
    node = cluster.accelerated()
    before = {n: n.run("nft list tables") for n in cluster.nodes.values()}
    held = cluster.connect(node, "steady 20", cluster.service(cluster.peer(node))[0][0], 80)
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", CLEANUP)
    cluster.rolled_out()
    for n in cluster.nodes.values():
        assert not n.table(), f"{n.name}: the table is there"
        assert n.run("nft list tables") == before[n].replace("table inet slipstream\n", ""), f"{n.name}: another table went, too"
    cluster.kubectl("delete", "--timeout=240s", "-f", CLEANUP)
    assert not node.table()
    held.end()


@test
def test_first_offloaded_connection(cluster):
    """From kubectl apply, the image being there, to a connection that is offloaded."""
    node = cluster.accelerated()
    test_clean_up_removes_the_rules_on_every_node(cluster)
    address = cluster.pod_addresses(cluster.peer(node))[0]
    began = time.monotonic()
    cluster.kubectl("apply", "--server-side", "-f", MANIFEST)
    offloaded = False
    while not offloaded:
        c = cluster.connect(node, "hold", address, SERVER_PORT).opened()
        c.rr(2)
        c.line()
        offloaded = node.offloaded().get(c.port)
        assert time.monotonic() - began < 240, "nothing is offloaded"
        c.end()
    cluster.figure(f"kubectl apply to the first offloaded connection: {time.monotonic() - began:.1f} s")
    cluster.rolled_out()

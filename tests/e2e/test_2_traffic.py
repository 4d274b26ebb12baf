# SPDX-License-Identifier: GPL-2.0-or-later
"""Every traffic type that a cluster with kube-proxy has, checked from outside: content, conntrack, packets on the slow path."""
import collections
import time

from kube import SERVER_PORT, TYPES, external, ingress, until
from ring import test

ROUNDS, PERIOD = 100, 200  # round trips of each connection, ms between two
SLOW_MAX = 20  # packets of an offloaded connection on the slow path, both directions, handshake and close included

# masquerading: the node that gives the connection another client port before `node` sees it
Case = collections.namedtuple("Case", "name source address port udp type masquerading")


def cases(cluster, node):
    """What there is to accelerate on `node`; of the types of controller/README.md only Antrea's own is missing."""
    peer, i = cluster.peer(node), cluster.number(node)
    pods, peers_pods, client = cluster.pod_addresses(node), cluster.pod_addresses(peer), cluster.client_addresses()
    _, ports = cluster.service(node)
    peers_ips, peers_ports = cluster.service(peer)
    for v in (0, 1):
        if not pods[v] or not peers_pods[v]:
            continue
        for protocol in ("TCP", "UDP"):
            def case(name, source, address, port, type_, masquerading=None):
                return Case(f"{name} v{'46'[v]} {protocol}", source, address, port, protocol == "UDP", type_, masquerading)
            yield case("to a pod", node, peers_pods[v], SERVER_PORT, "pod-to-pod")
            yield case("from a pod", peer, pods[v], SERVER_PORT, "pod-to-pod")
            yield case("to a ClusterIP", node, peers_ips[v], 80, "pod-to-service")
            if not client[v]:
                continue
            yield case("LoadBalancer", None, ingress(i)[v], 80, "external-to-loadbalancer")
            yield case("external IP", None, external(i)[v], 80, "external-to-externalip")
            yield case("nodePort", None, node.addresses()[v], ports[protocol], "external-to-nodeport")
            yield case("nodePort, endpoint elsewhere", None, node.addresses()[v], peers_ports[protocol], "external-to-nodeport")
            yield case("nodePort elsewhere, endpoint here", None, peer.addresses()[v], ports[protocol], "node-to-pod", peer)
            yield case("pod to the world", node, client[v], SERVER_PORT, "pod-to-external")
            yield case("a pod's own address from outside", None, pods[v], SERVER_PORT, "other")


def accelerated(cluster, node, chosen):
    """All of them at once; AssertionError with what is not as it should be."""
    content = [cluster.connect(c.source, "send 100000", c.address, c.port) for c in chosen if not c.udp]
    for c in content:  # equal both ways
        c.end()
    last = None
    while last != (now := node.inserts()):  # closing connections may be inserted once more
        last = now
    node.watch_slow_path()
    before = node.inserts()
    opened = [(c, cluster.connect(c.source, f"{'udp-' if c.udp else ''}steady {PERIOD}", c.address, c.port)) for c in chosen]
    for _, connection in opened:
        connection.opened()
    time.sleep(ROUNDS * PERIOD / 1000)
    offloaded, slow, inserts, wrong, packets = node.offloaded(), node.slow_packets(), node.inserts(), [], 0
    for c, connection in opened:
        port = c.masquerading.translated(connection.port) if c.masquerading else connection.port
        rounds = int(connection.end()[1])
        packets += slow.get(port, 0)
        if not offloaded.get(port):
            wrong.append(f"{c.name}: not offloaded")
        elif slow.get(port, 0) > SLOW_MAX or rounds < ROUNDS / 2:
            wrong.append(f"{c.name}: {slow.get(port, 0)} packets on the slow path, {rounds} round trips")
    assert not wrong, f"on {node.name}: " + "; ".join(wrong)
    wanted = collections.Counter(c.type for c in chosen)
    moved = {t: n - before[t] for t, n in inserts.items() if n != before[t]}
    assert moved == wanted, f"inserts on {node.name} moved by {moved}, not {dict(wanted)}"
    until("the metrics are the kernel's counters", lambda: metrics(node) == node.inserts(), 20)
    cluster.figure(f"traffic on {node.name}: {len(chosen)} connections of {len(wanted)} types at once, on average {packets / len(chosen):.1f} packets each on "
                   "the slow path")


def metrics(node):
    found = node.metrics()
    return {t: int(found.get(f'slipstream_offload_inserts_total{{type="{t}"}}', 0)) for t in TYPES}


@test
def test_every_traffic_type_is_accelerated(cluster):
    node = cluster.accelerated()
    accelerated(cluster, node, list(cases(cluster, node)))
    cluster.close_connections()


@test
def test_without_slipstream_that_test_fails(cluster):
    """The check checks: on a node where slipstream is switched off everything arrives, and nothing is accelerated."""
    node = cluster.accelerated()
    cluster.kubectl("label", "node", node.name, "slipstream/acceleration=disabled", "--overwrite")
    try:
        until("no table", lambda: not node.table(), 10)
        chosen = [c for c in cases(cluster, node) if " v4 TCP" in c.name]
        try:
            accelerated(cluster, node, chosen)
        except AssertionError as e:
            assert str(e).count("not offloaded") == len(chosen), e
        else:
            raise AssertionError("passes without slipstream")
    finally:
        cluster.close_connections()
        cluster.kubectl("label", "node", node.name, "slipstream/acceleration-")
    until("table again", node.table, 20)

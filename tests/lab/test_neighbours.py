# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbours that are flushed or fail under offloaded flows. The fast path of Linux 7.2 takes a neighbour's hardware address as it
finds it, and resolves none: without an agent such a flow sends to nobody. (One neighbour that is deleted, or collected:
test_kernel.py.)"""
from lab import lab_test
from test_kernel import STALL, TRAP, goes_on
from topology import PORT, WORLD, ip, node_ips, run


@lab_test(topologies="routed", fails=TRAP, smoke=True)
def test_all_neighbours_flushed(lab):
    """`ip neigh flush all` on the node, in the middle of several connections, both families: pods' and the uplink's next hops."""
    flows = [lab.open(ns, WORLD[v], PORT) for ns in ("p11", "p12") for v in (0, 1)]
    for c in flows:
        c.rr(50)
        assert lab.offloaded("n1", c.port), f"{c.what}: not offloaded"
    for _ in range(2):
        run("n1", "ip", "-4", "neigh", "flush", "all")
        run("n1", "ip", "-6", "neigh", "flush", "all")
        for c in flows:
            c.rr(50, STALL)
    for c in flows:
        assert lab.offloaded("n1", c.port), f"{c.what}: not offloaded any more"
        c.close()


@lab_test(topologies="bridge routed", fails=TRAP)
def test_peer_neighbour_deleted(lab):
    """The next hop towards a peer's pods. (The peer offloads nothing: its hooks take packets with any hardware address.)"""
    peer = node_ips("n2")[0]
    if "n2" in lab.agents:
        lab.agents["n2"].kill()
    for table in ("slipstream", "static"):
        run("n2", "nft", "delete", "table", "inet", table, check=False)
    goes_on(lab, peer, "eth0", lambda: ip("n1", f"neigh del {peer} dev eth0"), lab.pods["p21"].ips[0])


@lab_test(topologies="routed", fails="none")
def test_pod_neighbour_failed(lab):
    """A neighbour that did not answer for a while: its address is used on, and asked for anew."""
    pod = lab.pods["p11"]
    goes_on(lab, pod.ips[0], pod.device, lambda: ip("n1", f"neigh change {pod.ips[0]} dev {pod.device} nud failed"))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel follows the cluster and the node: Services, pods, NICs. Time bounds are ten times what the design says."""
import os

from cluster import Service, yaml
from lab import lab_test
from topology import CLIENT_IPS, CommandError, PORT, ip, node_ips, pod_cidrs, run, sysctl, wait_for

FOLLOW = 10.0  # seconds; 1 s in the design


def in_set(name, address):
    try:
        run("n1", "nft", "get", "element", "inet", "slipstream", name, "{ %s }" % address)
        return True
    except CommandError:
        return False


def wait_set(lab, name, address, there=True):
    """Until the agent on n1 has the address in its set, or not; without an agent the traffic alone decides."""
    if lab.agents:
        wait_for(f"{address} {'' if there else 'not '}in {name}", lambda: in_set(name, address) == there, FOLLOW)


def flowtable_devices(node="n1"):
    text = run(node, "nft", "list", "flowtable", "inet", "slipstream", "fastpath")
    inside = text.partition("devices = {")[2].partition("}")[0]
    return {d.strip().strip('"') for d in inside.split(",")} - {""}


def pairs():
    """The pairs as names; a device that is gone is a bare number."""
    return run("n1", "nft", "list", "set", "inet", "slipstream", "pairs")


@lab_test(fails="none cut", smoke=True, families=True)
def test_loadbalancer_ip_added_and_removed(lab, v):
    """Of no type as long as the API does not know the address; it moves to its type, and back, and nothing else moves."""
    address = lab.cluster.service("plain").lb_ips[v]
    name = f"loadbalancer-ips{(4, 6)[v]}"
    lab.accelerated("c", address, 80, {"other": 1}, content=False)
    lab.cluster.change("plain", lb=True)
    wait_set(lab, name, address)
    lab.accelerated("c", address, 80, {"external-to-loadbalancer": 1}, content=False)
    lab.cluster.change("plain", lb=False)
    wait_set(lab, name, address, False)
    lab.accelerated("c", address, 80, {"other": 1}, content=False)


@lab_test(fails="none static cut", families=True)
def test_service_excluded_and_back(lab, v):
    address = lab.cluster.service("local").external_ips[v]
    name = f"excluded-ips{(4, 6)[v]}"
    lab.accelerated("c", address, 80, {"external-to-externalip": 1}, content=False)
    lab.cluster.change("local", annotations={"slipstream/exclude": "true"})
    wait_set(lab, name, address)
    lab.not_accelerated("c", address, 80, content=False)
    lab.cluster.change("local", annotations={})
    wait_set(lab, name, address, False)
    lab.accelerated("c", address, 80, {"external-to-externalip": 1}, content=False)


@lab_test(topologies="bridge routed", fails="none static", smoke=True, families=True)
def test_pod_added_and_removed(lab, v):
    """A new pod's device is in the flowtable within a second; a connection of another pod does not notice."""
    old = lab.open("p11", lab.pods["p21"].ips[v], PORT)
    old.rr(20)
    slow = lab.slow_packets("n1")
    pod = lab.topology.add_pod("n1", 3)

    def remove():
        if pod.name in lab.pods:
            lab.topology.del_pod(pod)
    lab.later(remove)
    if lab.agents:
        took = wait_for(f"{pod.device} in the flowtable", lambda: pod.device in flowtable_devices(), FOLLOW)
        assert took < FOLLOW
    old.rr(200)
    assert lab.offloaded("n1", old.port) or lab.control == "none", "the old connection is not offloaded any more"
    slow = lab.slow_packets("n1") - slow
    assert slow <= 10, f"{slow} packets of the old connection on the slow path"
    lab.accelerated(pod.name, lab.pods["p21"].ips[v], PORT, {"pod-to-pod": 1})
    slow = lab.slow_packets("n1")
    remove()
    if lab.agents:
        wait_for(f"{pod.device} out of the flowtable", lambda: pod.device not in flowtable_devices(), FOLLOW)
    old.rr(200)
    slow = lab.slow_packets("n1") - slow
    assert slow <= 10, f"{slow} packets of the old connection on the slow path after the pod went"
    old.close()


@lab_test(topologies="bridge routed", fails={"none": ("bookworm", "trixie", "sid"), "static": ("bookworm", "trixie")}, families=True)
def test_pod_replaced(lab, v):
    """Another pod with the same address and device name."""
    lab.topology.del_pod(lab.pods["p12"])
    pod = lab.topology.add_pod("n1", 2)
    if lab.agents:
        wait_for(f"{pod.device} in the flowtable", lambda: pod.device in flowtable_devices(), FOLLOW)
        if lab.topology.name == "routed":
            wait_for(f"{pod.device} in a pair", lambda: f'"{pod.device}"' in pairs(), FOLLOW)
    lab.accelerated("p12", lab.pods["p21"].ips[v], PORT, {"pod-to-pod": 1}, content=False)


@lab_test(fails={"none": ("bookworm", "trixie", "sid"), "static": ("bookworm", "trixie")}, families=True)
def test_nic_replaced(lab, v):
    """The uplink goes away and comes back under its name, with addresses and routes."""
    ip("n1", "link del eth0")
    lab.topology.cable("n1", "eth0", "02:00:00:00:00:01", 0)
    sysctl("n1", "net/ipv4/conf/eth0/rp_filter=0")
    ip("n1", *(f"addr add {node_ips('n1')[f]}/{(24, 64)[f]} dev eth0{' nodad' if f else ''}" for f in (0, 1)),
       *(f"route add default via {CLIENT_IPS[f]} dev eth0" for f in (0, 1)),
       *(f"route add {pod_cidrs('n2')[f]} via {node_ips('n2')[f]} dev eth0" for f in (0, 1)))
    if lab.agents:
        wait_for("eth0 in the flowtable", lambda: "eth0" in flowtable_devices(), FOLLOW)
        wait_for("eth0 in a pair", lambda: '"eth0"' in pairs(), FOLLOW)
    lab.accelerated("p11", lab.pods["p21"].ips[v], PORT, {"pod-to-pod": 1})


@lab_test(fails="none", families=True)
def test_bad_objects_keep_the_rest(lab, v):
    """A file with an object that is not what the schema says, beside one that is right."""
    good = Service("extra", 14, lab.pods["p11"], lb=True)
    bad = Service("bad", 15, lab.pods["p11"], lb=True).manifest()
    bad["spec"]["ports"] = "none at all"
    bad["spec"]["clusterIPs"] = ["10.96.0.300"]
    name = f"loadbalancer-ips{(4, 6)[v]}"
    lab.later(lambda: os.unlink(os.path.join(lab.cluster.folder, "bad.yaml")))
    lab.cluster.write_file("bad.yaml", yaml(bad) + "---\n" + yaml(good.manifest()))
    if lab.control == "agent":
        wait_set(lab, name, good.lb_ips[v])
        failures = lab.agents["n1"].metrics().get('slipstream_source_failures_total{reason="object"}', 0)
        assert failures >= 1, "the bad object is not counted"
    lab.accelerated("c", lab.cluster.service("local").lb_ips[v], 80, {"external-to-loadbalancer": 1})


@lab_test(topologies="bridge", agent=True)
def test_missing_device_in_the_configuration(lab):
    lab.agent("n1", "interfaces: {uplinks: [eth0, eth9]}\n")
    m = lab.agents["n1"].metrics()
    missing = sum(n for k, n in m.items() if k.startswith("slipstream_devices{") and 'state="missing"' in k)
    assert missing == 1, f"{missing} devices are missing"
    lab.accelerated("p11", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1})
    # it comes, and is used
    ip("n1", "link add eth9 type dummy", "link set eth9 up")
    lab.later(lambda: ip("n1", "link del eth9"))
    wait_for("eth9 in the flowtable", lambda: "eth9" in flowtable_devices(), FOLLOW)


FAR = "198.18.7.1"  # reached over the uplink of the next two tests only


def far_world(lab, device, gateway):
    """A server behind `gateway`, routed over `device` of n1."""
    ip("c", f"addr add {FAR}/32 dev lo")
    server = lab.topology.serve("c", FAR)
    ip("n1", f"route add {FAR}/32 via {gateway} dev {device}")

    def undo():
        server.kill()
        server.wait()
        lab.topology.servers.remove(server)
        ip("c", f"addr del {FAR}/32 dev lo")
    lab.later(undo)
    if lab.agents:
        wait_for(f"{device} in the flowtable", lambda: device in flowtable_devices(), FOLLOW)
        wait_for(f"{device} in a pair", lambda: f'"{device}"' in pairs(), FOLLOW)


@lab_test(topologies="bridge routed", fails="none")
def test_vlan_uplink(lab):
    """A VLAN device becomes an uplink: it is in the flowtable, not the NIC below it."""
    for ns, address in (("n1", "192.168.7.11"), ("c", "192.168.7.100")):
        ip(ns, "link add link eth1 name eth1.7 type vlan id 7", f"addr add {address}/24 dev eth1.7", "link set eth1.7 up")
    lab.later(lambda: (ip("n1", "link del eth1.7"), ip("c", "link del eth1.7")))
    far_world(lab, "eth1.7", "192.168.7.100")
    if lab.agents:
        assert "eth1" not in flowtable_devices()
    lab.accelerated("p11", FAR, PORT, {"pod-to-external": 1})


@lab_test(topologies="bridge routed", fails="none static")
def test_bond_uplink(lab):
    """A bond over the second NIC becomes an uplink: the bond is in the flowtable, not its member."""
    ip("n1", "link add bond0 type bond mode active-backup miimon 100", "addr del 192.168.1.11/24 dev eth1",
       "link set eth1 down", "link set eth1 master bond0", "link set bond0 up", "addr add 192.168.1.11/24 dev bond0")

    def undo():
        ip("n1", "link del bond0", "link set eth1 up", "addr replace 192.168.1.11/24 dev eth1",
           "addr replace fd00:1::11/64 dev eth1 nodad")
    lab.later(undo)
    far_world(lab, "bond0", "192.168.1.100")
    if lab.agents:
        assert "eth1" not in flowtable_devices()
    lab.accelerated("p11", FAR, PORT, {"pod-to-external": 1})

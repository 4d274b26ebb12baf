# SPDX-License-Identifier: GPL-2.0-or-later
"""What must not be offloaded, and works: switched off, excluded, foreign, or a trap that a bare `flow add` falls into."""
import dataclasses
import re

from lab import lab_test
from topology import NODES, PORT, WORLD, ip, nft, run, sysctl


def config(lab, text, node="n1"):
    lab.agent(node, text)


@lab_test(fails="static", smoke=True, families=True)
def test_type_switched_off(lab, v):
    config(lab, "traffic:\n  external-to-loadbalancer: {engine: off}\n")
    s = lab.cluster.service("local")
    lab.not_accelerated("c", s.lb_ips[v], 80)


@lab_test(fails="none static", families=True)
def test_type_switched_off_leaves_the_others(lab, v):
    config(lab, "traffic:\n  external-to-loadbalancer: {engine: off}\n")
    s = lab.cluster.service("local")
    lab.not_accelerated("c", s.lb_ips[v], 80)
    lab.accelerated("c", s.external_ips[v], 80, {"external-to-externalip": 1})


@lab_test(fails="static", families=True)
def test_other_switched_off(lab, v):
    config(lab, "traffic:\n  other: {engine: off}\n")
    lab.not_accelerated("c", lab.pods["p11"].ips[v], PORT)


@lab_test(fails="static", smoke=True, families=True)
def test_excluded_service(lab, v):
    lab.not_accelerated("c", lab.cluster.service("excluded").lb_ips[v], 80)


@lab_test(fails="static", families=True, topologies="bridge routed")
def test_excluded_service_by_node_port(lab, v):
    from topology import node_ips
    lab.not_accelerated("c", node_ips("n1")[v], lab.cluster.service("excluded").node_port)


@lab_test(fails="static", families=True, topologies="bridge routed")
def test_excluded_service_from_a_pod(lab, v):
    """Its cluster IP, with the endpoint on the other node."""
    lab.cluster.change("excluded", endpoint=lab.pods["p21"])
    if lab.control not in ("none", "static"):
        lab.agent("n1")
    lab.not_accelerated("p11", lab.cluster.service("excluded").cluster_ips[v], 80)


@lab_test(fails="static", smoke=True, families=True)
def test_excluded_cidr(lab, v):
    """Either end of a connection in the CIDR excludes it, and only that."""
    config(lab, "exclude: {cidrs: [%s]}\n" % ("198.18.0.0/24", "2001:db8:18::/64")[v])
    lab.not_accelerated("p11", WORLD[v], PORT)
    lab.not_accelerated("p12", WORLD[v], PORT, udp=True)


@lab_test(fails="none", families=True)
def test_excluded_cidr_leaves_the_others(lab, v):
    config(lab, "exclude: {cidrs: [%s]}\n" % ("198.18.0.0/24", "2001:db8:18::/64")[v])
    lab.accelerated("p11", lab.pods["p21"].ips[v], PORT, {"pod-to-pod": 1})


@lab_test(fails="static", smoke=True, families=True)
def test_one_way_udp(lab, v):
    """Unreplied datagrams stay on the slow path: nothing of it is worth a flow."""
    before, slow = lab.inserts("n1"), lab.slow_packets("n1")
    lab.client("p11", "udp-oneway 300", lab.pods["p21"].ips[v], PORT)
    slow = lab.slow_packets("n1") - slow
    assert slow >= 300, f"only {slow} of 300 datagrams on the slow path"
    lab.check_inserts("n1", before, {})


def foreign_network(lab, kind):
    """A network that is no pod's: a bridge with a port, as a container runtime has it, or one veth, as a VPN."""
    ns, device = f"x{kind}", f"vx{kind}"
    if ns not in lab.__dict__:
        setattr(lab, ns, True)
        lab.topology.namespace(ns)
        ip(None, f"link add {device} netns n1 type veth peer name eth0 netns {ns}")
        net = {"docker": 17, "vpn": 18}[kind]
        inner = device
        if kind == "docker":
            ip("n1", "link add docker0 type bridge mcast_snooping 0", "link set docker0 up",
               f"link set {device} master docker0")
            inner = "docker0"
        ip("n1", f"link set {device} up", f"addr add 172.{net}.0.1/24 dev {inner}",
           f"addr add fd{net}::1/64 dev {inner} nodad")
        ip(ns, "link set eth0 up", f"addr add 172.{net}.0.2/24 dev eth0", f"addr add fd{net}::2/64 dev eth0 nodad",
           f"route add default via 172.{net}.0.1", f"route add default via fd{net}::1")
        sysctl("n1", f"net/ipv4/conf/{inner}/rp_filter=0")
        ip("c", f"route add 172.{net}.0.0/24 via 192.168.0.11", f"route add fd{net}::/64 via fd00::11")
        lab.topology.serve(ns)
        if lab.control == "static":
            devices = lab.topology.forwarding_devices
            lab.topology.forwarding_devices = lambda node: devices(node) + ([device] if node == "n1" else [])
            lab.static("n1")
    return ns, (f"172.{ {'docker': 17, 'vpn': 18}[kind] }.0.2", f"fd{ {'docker': 17, 'vpn': 18}[kind] }::2")


@lab_test(fails="static", smoke=True, families=True)
def test_docker_like_bridge(lab, v):
    ns, addresses = foreign_network(lab, "docker")
    lab.not_accelerated("c", addresses[v], PORT)
    lab.not_accelerated(ns, WORLD[v], PORT)


@lab_test(fails="static", families=True)
def test_vpn_like_device(lab, v):
    ns, addresses = foreign_network(lab, "vpn")
    lab.not_accelerated("c", addresses[v], PORT)
    lab.not_accelerated(ns, WORLD[v], PORT)


@lab_test(fails={"static": ("bookworm", "trixie")}, smoke=True)
def test_asymmetric_return(lab):
    """In by eth1 from a client that is routed over eth0: the reply leaves by eth0. Offloaded, it is a black hole on 6.1 and
    6.12 (nft_flow_route looks the reply's route up with oif = ingress device, and takes it for on-link)."""
    ip("c", "addr add 198.18.1.1/32 dev lo", "route add 203.0.113.10/32 via 192.168.1.11 src 198.18.1.1")
    lab.later(lambda: ip("c", "route del 203.0.113.10/32 via 192.168.1.11", "addr del 198.18.1.1/32 dev lo"))
    s = lab.cluster.service("local")
    lab.client("c", "send 200000", s.lb_ips[0], 80)
    c = lab.open("c", s.lb_ips[0], 80)
    c.rr(500)
    if lab.control == "agent":
        assert not lab.offloaded("n1", c.port), "offloaded"
    c.close()


@lab_test(fails="none", topologies="bridge routed")
def test_asymmetric_client_over_the_right_nic(lab):
    """The same client address in by the NIC that leads back to it: offloaded."""
    ip("c", "addr add 198.18.1.1/32 dev lo", "route add 203.0.113.10/32 via 192.168.0.11 src 198.18.1.1")
    lab.later(lambda: ip("c", "route del 203.0.113.10/32 via 192.168.0.11", "addr del 198.18.1.1/32 dev lo"))
    lab.accelerated("c", lab.cluster.service("local").lb_ips[0], 80, {"external-to-loadbalancer": 1})


@lab_test(topologies="bridge routed", fails="static", smoke=True)
def test_marked_flow(lab):
    """A pod's traffic that policy routing sends out of a second uplink with that one's address."""
    ip("n1", "rule add fwmark 1 table 100", "route add default via 192.168.1.100 dev eth1 table 100")
    nft("n1", """table ip egress {
        chain marking { type filter hook prerouting priority mangle; ip saddr %s ip daddr 198.18.0.1 meta mark set 1; }
        chain translation { type nat hook postrouting priority srcnat - 1; oifname "eth1" snat to 192.168.1.11; }
    }""" % lab.pods["p12"].ips[0])
    def undo():
        ip("n1", "rule del fwmark 1 table 100", "route del default via 192.168.1.100 dev eth1 table 100")
        run("n1", "nft", "delete", "table", "ip", "egress")
    lab.later(undo)
    config(lab, "traffic:\n  pod-to-external: {engine: flowtable}\n")
    lab.client("p12", "send 200000", WORLD[0], PORT)
    c = lab.open("p12", WORLD[0], PORT)
    c.rr(500)
    lines = [x for x in lab.conntrack("n1") if f"sport={c.port} " in x]
    assert any("dst=192.168.1.11" in x for x in lines), f"not by eth1: {lines}"
    assert not lab.offloaded("n1", c.port), "offloaded"
    c.close()
    # the reply direction is unmarked: nothing of it may get in by the back door
    lab.client("p12", "crr 20", WORLD[0], PORT)


@lab_test(topologies="bridge", fails="static", smoke=True)
def test_same_bridge(lab):
    """br_netfilter shows bridged packets to the forward hook; offloading them turns L2 into L3 (TTL 63) for no gain."""
    run("p11", "nft", "-f", "-", input="""table ip probe { }
delete table ip probe
table ip probe {
    counter routed { }
    chain input { type filter hook input priority 0; tcp dport 8080 ip ttl < 64 counter name routed; }
}
""")
    lab.not_accelerated("p12", lab.pods["p11"].ips[0], PORT)
    text = run("p11", "nft", "list", "counter", "ip", "probe", "routed")
    routed = int(re.search(r"packets (\d+)", text).group(1))
    assert routed == 0, f"{routed} packets with a decremented TTL"


@lab_test(topologies="bridge", fails="none", families=True)
def test_same_bridge_service(lab, v):
    """A Service whose endpoint is on the same bridge: translated, so routed, so offloaded."""
    lab.accelerated("p12", lab.cluster.service("local").cluster_ips[v], 80, {"pod-to-service": 1})


@lab_test(topologies="bridge", fails="none", families=True)
def test_hairpin(lab, v):
    """A pod that reaches itself through its Service: translated twice, so routed, so offloaded."""
    lab.accelerated("p11", lab.cluster.service("local").cluster_ips[v], 80, {"pod-to-service": 1})


@lab_test(topologies="routed", fails="static", families=True)
def test_pods_of_one_node(lab, v):
    """Routed pods of one node: no uplink is involved, so it is not ours; works."""
    lab.not_accelerated("p12", lab.pods["p11"].ips[v], PORT)


@lab_test(topologies="bridge", fails="none")
def test_untracked(lab):
    """NOTRACK keeps a pod's connections out of conntrack, and so out of any flowtable; they work, and others are offloaded."""
    for node in NODES:
        nft(node, """table ip untracked {
            chain prerouting { type filter hook prerouting priority raw; ip saddr %s notrack; ip daddr %s notrack; }
        }""" % ((lab.pods["p12"].ips[0],) * 2))
        lab.later(lambda node=node: run(node, "nft", "delete", "table", "ip", "untracked"))
    address = lab.pods["p21"].ips[0]
    before, slow = lab.inserts("n1"), lab.slow_packets("n1")
    lab.client("p12", "send 200000", address, PORT)
    c = lab.open("p12", address, PORT)
    c.rr(200)
    source = f"src={lab.pods['p12'].ips[0]} "
    assert not any(source in x and f"sport={c.port} " in x for x in lab.conntrack("n1")), "tracked: the test tests nothing"
    slow = lab.slow_packets("n1") - slow
    assert slow >= 400, f"only {slow} packets of 200 round trips on the slow path"
    c.close()
    lab.check_inserts("n1", before, {})
    lab.accelerated("p11", address, PORT, {"pod-to-pod": 1})


@lab_test(topologies="bridge routed", fails="none static")
def test_ipv6_only_cluster(lab):
    """Nodes, Services and pods' networks that are IPv6 alone: all of theirs is offloaded; IPv4 has a meaning to the node only, and
    networks of its own stay as they are."""
    ns, _ = foreign_network(lab, "docker")
    lab.cluster.set_nodes(families=(1,))
    lab.later(lab.dirty)
    lab.later(lab.cluster.set_nodes)
    lab.cluster.set([dataclasses.replace(s, families=(1,)) for s in lab.cluster.services])
    for node in NODES:
        lab.agent(node)
    lab.accelerated("p11", lab.pods["p21"].ips[1], PORT, {"pod-to-pod": 1}, content=False)
    lab.accelerated("c", lab.cluster.service("local").lb_ips[1], 80, {"external-to-loadbalancer": 1}, content=False)
    lab.not_accelerated(ns, WORLD[0], PORT, content=False)
    if lab.agents:
        text = run("n1", "nft", "list", "table", "inet", "slipstream")
        inside = {name: re.findall(r"(?:\d+\.){3}\d+", body) for name, body in re.findall(r"set (\S+) \{(.*?)\n\t\}", text, re.S)}
        assert "loadbalancer-ips6" in inside, f"no sets read: {list(inside)}"
        inside = {name: found for name, found in inside.items() if found and name != "node-addresses4"}
        assert not inside, f"IPv4 addresses in {inside}"

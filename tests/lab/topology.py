# SPDX-License-Identifier: GPL-2.0-or-later
"""Topologies of the lab: two nodes n1 and n2, a client c and a switch sw as network namespaces, IPv4 and IPv6.

            c (client, router to the world)          sw: a plain L2 switch per network
            | eth0 192.168.0.100  | eth1 192.168.1.100
    --------+---------------------+--------
       | eth0 .11    (eth1 .11)      | eth0 .12
      n1                             n2
       p11 p12                        p21 p22        pods, 10.0.NODE.1INDEX

Three shapes of a node: `bridge` (pods on ports of cni0), `routed` (one host veth per pod with a /32 and a /128 route),
`antrea` (pods on a real Open vSwitch, host side an internal port antrea-gw0; see ovs.py). eth1 of n1 exists, but nothing
is routed over it unless a test does so.

What kube-proxy does on a host is done by a table `kube-proxy` per family, written from the same list of Services that the
agent gets as manifests (cluster.py).
"""
import contextlib
import ctypes
import os
import subprocess
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PORT = 8080  # every server of the lab
PATIENCE = 1  # bench multiplies every time limit: where the guest's clock skips idle time, reading a file takes minutes
NODES = ("n1", "n2")
NODE_INDEX = {"n1": 1, "n2": 2}
WORLD = ("198.18.0.1", "2001:db8:18::1")  # beyond the default route, on c
SERVICE_NETS = ("203.0.113.0/24", "198.51.100.0/24", "10.96.0.0/16", "2001:db8:113::/64", "2001:db8:51::/64", "fd96::/112")


class CommandError(Exception):
    pass


@contextlib.contextmanager
def inside(ns):
    """This thread, and what it starts, in the network namespace 'ns'."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/run/netns/{ns}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if LIBC.setns(there, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {ns}")
        try:
            yield
        finally:
            LIBC.setns(here, CLONE_NEWNET)
    finally:
        os.close(here)
        os.close(there)


def run(ns, *argv, input=None, check=True):
    """A command in a namespace; its standard output. CommandError with all it said when it fails."""
    with inside(ns) if ns else contextlib.nullcontext():
        p = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=60 * PATIENCE)
    if check and p.returncode:
        raise CommandError(f"{ns}: {' '.join(argv)}: status {p.returncode}: {(p.stderr or p.stdout).strip()[:800]}")
    return p.stdout


def ip(ns, *lines):
    """`ip -batch` in a namespace: one process for many lines."""
    text = "\n".join(lines) + "\n"
    with inside(ns) if ns else contextlib.nullcontext():
        p = subprocess.run(("ip", "-batch", "-"), input=text, capture_output=True, text=True, timeout=60 * PATIENCE)
    if p.returncode:
        raise CommandError(f"{ns}: ip: {p.stderr.strip()[:500]}\n{text}")


def nft(ns, text):
    run(ns, "nft", "-f", "-", input=text)


def sysctl(ns, *settings):
    """Settings as "net/ipv4/ip_forward=1"."""
    with inside(ns):
        for setting in settings:
            key, value = setting.split("=")
            with open("/proc/sys/" + key, "w", encoding="ascii") as f:
                f.write(value)


def forward(ns, *devices):
    """'ns' is a router, without a reverse path filter on the devices."""
    sysctl(ns, "net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1",
           *(f"net/ipv4/conf/{d}/rp_filter=0" for d in ("all",) + devices))


def wait_for(what, condition, seconds=10.0, step=0.05):
    """Until condition() is true; returns how long it took. AssertionError with 'what' after 'seconds'."""
    began = time.monotonic()
    seconds *= PATIENCE
    while not condition():
        assert time.monotonic() - began < seconds, f"after {seconds} s still not: {what}"
        time.sleep(step)
    return time.monotonic() - began


class Pod:
    def __init__(self, node, index):
        self.node, self.index = node, index
        self.name = f"p{NODE_INDEX[node]}{index}"
        self.ns = self.name
        self.ips = (f"10.0.{NODE_INDEX[node]}.1{index}", f"fd10:0:{NODE_INDEX[node]}::1{index}")
        self.device = f"v{self.name}"
        self.server = None


def node_ips(node):
    return (f"192.168.0.1{NODE_INDEX[node]}", f"fd00:0::1{NODE_INDEX[node]}")


def pod_cidrs(node):
    return (f"10.0.{NODE_INDEX[node]}.0/24", f"fd10:0:{NODE_INDEX[node]}::/64")


CLIENT_IPS = ("192.168.0.100", "fd00:0::100")


def masquerade(node):
    """What a CNI does for its pods' traffic to the world."""
    return "".join(f"""
table {family} cni {{ }}
flush table {family} cni
table {family} cni {{
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        {family} saddr {pod_cidrs(node)[v]} {family} daddr != {{ {pods}, {nodes} }} masquerade
    }}
}}
""" for v, family, pods, nodes in ((0, "ip", "10.0.0.0/16", "192.168.0.0/23"), (1, "ip6", "fd10::/16", "fd00::/16")))


def kube_proxy(node, services):
    """Tables `kube-proxy` of a node: DNAT by the first packet's destination, and masquerade by a mark that only the first
    packet carries (0x4000, as the real one has it)."""
    text = masquerade(node)
    for v, family in ((0, "ip"), (1, "ip6")):
        rules = []
        for s in services:
            pod = s.endpoint
            if not pod:
                continue
            target = f"{pod.ips[v]}:{PORT}" if v == 0 else f"[{pod.ips[v]}]:{PORT}"
            mark = "" if s.local else "meta mark set meta mark | 0x4000 "
            for address in s.external(v):
                rules.append(f"{family} daddr {address} meta l4proto {{ tcp, udp }} th dport 80 {mark}dnat to {target}")
            rules.append(f"{family} daddr {s.cluster_ips[v]} meta l4proto {{ tcp, udp }} th dport 80 "
                         f"{family} saddr {pod.ips[v]} meta mark set meta mark | 0x4000")  # hairpin
            rules.append(f"{family} daddr {s.cluster_ips[v]} meta l4proto {{ tcp, udp }} th dport 80 dnat to {target}")
            rules.append(f"{family} daddr {node_ips(node)[v]} meta l4proto {{ tcp, udp }} th dport {s.node_port} "
                         f"{mark}dnat to {target}")
        lines = "\n        ".join(rules)
        text += f"""
table {family} kube-proxy {{ }}
flush table {family} kube-proxy
table {family} kube-proxy {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        {lines}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        meta mark & 0x4000 == 0x4000 meta mark set meta mark ^ 0x4000 masquerade
    }}
}}
"""
    return text


class Topology:
    """The base: everything but the pods' side of a node."""

    kind = "kube-proxy"
    name = ""

    def gateway_mac(self, node):
        """MAC of Antrea's gateway; there is none here."""
        return ""

    def __init__(self, flow):
        self.flow = flow
        self.pods = {}
        self.servers = []

    def namespace(self, ns):
        run(None, "ip", "netns", "add", ns)
        ip(ns, "link set lo up")
        sysctl(ns, *(f"net/ipv6/conf/{w}/{k}=0" for w in ("all", "default") for k in ("accept_dad", "router_solicitations")))

    def cable(self, ns, device, mac, network):
        """A NIC of 'ns' on the switch of 'network'."""
        port = f"{ns}-{device}"
        ip(None, f"link add {port} netns sw type veth peer name {device} netns {ns} address {mac}")
        ip("sw", f"link set {port} master net{network} up")
        ip(ns, f"link set {device} up")

    def up(self):
        for ns in ("sw", "c") + NODES:
            self.namespace(ns)
        for n in (0, 1):
            ip("sw", f"link add net{n} type bridge mcast_snooping 0", f"link set net{n} up")
        for i, ns in ((1, "n1"), (2, "n2"), (100, "c")):
            self.cable(ns, "eth0", f"02:00:00:00:00:{i:02x}", 0)
            ip(ns, f"addr add 192.168.0.{i if i == 100 else 10 + i}/24 dev eth0",
               f"addr add fd00:0::{i if i == 100 else 10 + i}/64 dev eth0 nodad")
        for i, ns in ((1, "n1"), (100, "c")):
            self.cable(ns, "eth1", f"02:00:00:01:00:{i:02x}", 1)
            ip(ns, f"addr add 192.168.1.{i if i == 100 else 10 + i}/24 dev eth1",
               f"addr add fd00:1::{i if i == 100 else 10 + i}/64 dev eth1 nodad")
        ip("c", f"addr add {WORLD[0]}/32 dev lo", f"addr add {WORLD[1]}/128 dev lo nodad")
        for net in SERVICE_NETS[:2] + SERVICE_NETS[3:5]:
            ip("c", f"route add {net} via {node_ips('n1')[':' in net]}")
        # pods are reachable from outside by their own addresses, too (type `other`)
        for node in NODES:
            for v in (0, 1):
                ip("c", f"route add {pod_cidrs(node)[v]} via {node_ips(node)[v]}")
        for node in NODES:
            peer = "n2" if node == "n1" else "n1"
            forward(node, "eth0", "default")
            for v in (0, 1):
                ip(node, f"route add default via {CLIENT_IPS[v]} dev eth0",
                   f"route add {pod_cidrs(peer)[v]} via {node_ips(peer)[v]} dev eth0")
            self.node_up(node)
            for index in (1, 2):
                self.add_pod(node, index)
            self.count_slow_path(node)
        forward("n1", "eth1")
        forward("c", "eth0", "eth1")
        # addresses on c's lo are behind a router for everybody: no ARP answers for them, nor requests from them
        sysctl("c", "net/ipv4/conf/all/arp_ignore=1", "net/ipv4/conf/all/arp_announce=2")
        for address in WORLD:
            self.serve("c", address)

    def count_slow_path(self, node):
        """Packets to and from Services and servers that the forward hook saw: what a flowtable spared is missing here."""
        nft(node, f"""table inet probe {{
            counter slow {{ }}
            chain forward {{
                type filter hook forward priority -150; policy accept;
                meta l4proto {{ tcp, udp }} th sport {{ 80, {PORT}, 30000-30999 }} counter name slow
                meta l4proto {{ tcp, udp }} th dport {{ 80, {PORT}, 30000-30999 }} counter name slow
            }}
        }}""")

    def serve(self, ns, address="::"):
        with inside(ns):
            p = subprocess.Popen((self.flow, "server", address, str(PORT)), stdout=subprocess.PIPE, text=True)
        assert p.stdout.readline() == "ready\n", f"no server in {ns}"
        self.servers.append(p)
        return p

    def add_pod(self, node, index):
        pod = Pod(node, index)
        self.namespace(pod.ns)
        self.pod_up(pod)
        pod.server = self.serve(pod.ns)
        self.pods[pod.name] = pod
        return pod

    def del_pod(self, pod):
        self.pod_down(pod)
        pod.server.kill()
        pod.server.wait()
        self.servers.remove(pod.server)
        run(None, "ip", "netns", "del", pod.ns)
        del self.pods[pod.name]

    def pod_down(self, pod):
        """As a CNI does: the host side goes before the namespace does."""
        ip(pod.node, f"link del {pod.device}")

    def forwarding_devices(self, node):
        """What a hand-written flowtable would name at this moment."""
        devices = ["eth0"] + (["eth1"] if node == "n1" else [])
        return devices + [p.device for p in self.pods.values() if p.node == node]

    def node_up(self, node):
        raise NotImplementedError

    def pod_up(self, pod):
        raise NotImplementedError

    def program(self, services):
        """Makes the hosts do what kube-proxy does; connections that are there keep their translation."""
        for node in NODES:
            nft(node, kube_proxy(node, services))


class Bridge(Topology):
    name = "bridge"

    def node_up(self, node):
        n = NODE_INDEX[node]
        ip(node, f"link add cni0 address 02:00:00:00:0{n}:fe type bridge mcast_snooping 0", "link set cni0 up",
           f"addr add 10.0.{n}.1/24 dev cni0", f"addr add fd10:0:{n}::1/64 dev cni0 nodad")
        sysctl(node, "net/bridge/bridge-nf-call-iptables=1", "net/bridge/bridge-nf-call-ip6tables=1")

    def pod_up(self, pod):
        n = NODE_INDEX[pod.node]
        ip(None, f"link add {pod.device} netns {pod.node} type veth peer name eth0 netns {pod.ns} "
           f"address 02:00:00:00:0{n}:1{pod.index}")
        ip(pod.node, f"link set {pod.device} master cni0 up", f"link set {pod.device} type bridge_slave hairpin on")
        ip(pod.ns, "link set eth0 up", f"addr add {pod.ips[0]}/24 dev eth0", f"addr add {pod.ips[1]}/64 dev eth0 nodad",
           f"route add default via 10.0.{n}.1", f"route add default via fd10:0:{n}::1")


class Routed(Topology):
    name = "routed"

    def node_up(self, node):
        pass

    def pod_up(self, pod):
        n = NODE_INDEX[pod.node]
        mac = f"02:00:00:00:1{n}:1{pod.index}"
        ip(None, f"link add {pod.device} netns {pod.node} address {mac} type veth peer name eth0 netns {pod.ns} "
           f"address 02:00:00:00:0{n}:1{pod.index}")
        ip(pod.node, f"link set {pod.device} up", f"addr add fe80::1/64 dev {pod.device} nodad",
           f"route add {pod.ips[0]}/32 dev {pod.device}", f"route add {pod.ips[1]}/128 dev {pod.device}")
        sysctl(pod.node, f"net/ipv4/conf/{pod.device}/proxy_arp=1", f"net/ipv4/conf/{pod.device}/rp_filter=0")
        ip(pod.ns, "link set eth0 up", f"addr add {pod.ips[0]}/32 dev eth0", f"addr add {pod.ips[1]}/128 dev eth0 nodad",
           "route add 169.254.1.1 dev eth0", "route add default via 169.254.1.1 dev eth0",
           "route add default via fe80::1 dev eth0")

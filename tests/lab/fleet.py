# SPDX-License-Identifier: GPL-2.0-or-later
"""A node full of pods: 250 on n1, whose inner ends share one namespace, where each speaks by its own device and address."""
import os
import socket
import struct

from rtnl import Rtnl, attr
from topology import inside, ip, run, sysctl

FULL = 250
NS = "fleet"
GROUP = 77  # of the outer ends


class FleetPod:
    def __init__(self, number, last):
        self.number, self.last = number, last
        self.index = 1000 + number
        self.device = f"f{number}"
        self.address = f"10.0.1.{last}"
        self.mac = "02:f0:00:00:%02x:%02x" % divmod(number, 256)


class Echo:
    """A connection whose content is checked, and that has patience; of a pod of the fleet, or from anywhere."""

    def __init__(self, ns, address, port, pod=None, seconds=20):
        with inside(ns):
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.settimeout(seconds)
        if pod:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, f"e{pod.number}".encode())
            self.socket.bind((pod.address, 0))
        self.socket.connect((address, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"E" + bytes(15))
        self.port = self.socket.getsockname()[1]
        self.sent = 0

    def rr(self, rounds):
        for _ in range(rounds):
            self.sent += 1
            message = struct.pack("!Q", self.sent) * 8
            self.socket.sendall(message)
            answer = b""
            while len(answer) < len(message):
                piece = self.socket.recv(len(message) - len(answer))
                assert piece, "connection ended"
                answer += piece
            assert answer == message, "answer differs"

    def close(self):
        self.socket.close()


class Fleet:
    def __init__(self, lab):
        self.bridge = lab.topology.name == "bridge"
        self.pods, self.made = [], 0
        run(None, "ip", "netns", "add", NS)
        lab.later(self.close)
        sysctl(NS, "net/ipv6/conf/all/disable_ipv6=1", "net/ipv6/conf/default/disable_ipv6=1", "net/ipv4/conf/all/arp_ignore=1",
               "net/ipv4/conf/all/rp_filter=0", "net/ipv4/conf/default/rp_filter=0")
        ip(NS, "link set lo up")
        self.host, self.inner = Rtnl("n1"), Rtnl(NS)
        self.ns = os.open(f"/run/netns/{NS}", os.O_RDONLY | os.O_CLOEXEC)
        with inside("n1"):
            self.cni0 = socket.if_nametoindex("cni0") if self.bridge else 0

    def add(self, last):
        """A pod with the address 10.0.1.LAST: what a CNI does, in its order."""
        p = FleetPod(self.made, last)
        self.made += 1
        outer = "02:f1" + p.mac[5:]
        self.host.add_veth(p.index, p.device, outer, f"e{p.number}", p.mac, self.ns)
        gateway, gateway_mac = ("10.0.1.1", "02:00:00:00:01:fe") if self.bridge else ("169.254.1.1", outer)
        self.inner.up(p.index)
        self.inner.address(p.index, p.address, 32)
        self.inner.route(p.index, gateway=gateway, metric=p.number + 1)
        self.inner.neighbour(p.index, gateway, gateway_mac)
        self.host.up(p.index, attr(27, GROUP))
        if self.bridge:
            self.host.master(p.index, self.cni0)
        else:
            self.host.route(p.index, p.address)
        self.pods.append(p)
        return p

    def fill(self):
        for last in [*range(2, 11), *range(14, 255)]:
            self.add(last)
        assert len(self.pods) == FULL
        return self

    def replace(self):
        """The oldest pod goes; another one gets its address, behind another port."""
        old = self.pods.pop(0)
        self.host.delete(old.index)
        return self.add(old.last)

    def add_many(self, first, n):
        """'n' more devices of pods, with a route each and nothing behind them."""
        for i in range(first, first + n):
            index = 10000 + i
            self.host.add("dummy", index, f"d{i}", attr(27, GROUP))
            self.host.up(index)
            self.host.route(index, f"fd10:0:1::{i + 0x1000:x}")

    def connect(self, pod, address, port, seconds=20):
        return Echo(NS, address, port, pod, seconds)

    def devices(self):
        return {p.device for p in self.pods}

    def close(self):
        run("n1", "ip", "link", "del", "group", str(GROUP), check=False)
        os.close(self.ns)
        run(None, "ip", "netns", "del", NS)

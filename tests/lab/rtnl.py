# SPDX-License-Identifier: GPL-2.0-or-later
"""rtnetlink without a process per change: what a test needs that makes and takes away hundreds of devices, fast."""
import os
import socket
import struct

from topology import inside

NEWLINK, DELLINK, NEWADDR, NEWROUTE, NEWNEIGH = 16, 17, 20, 24, 28
REQUEST, ACK, REPLACE, EXCL, CREATE = 1, 4, 0x100, 0x200, 0x400
UP = 1


def attr(kind, data):
    if isinstance(data, str):
        data = data.encode() + b"\0"
    elif isinstance(data, int):
        data = struct.pack("=I", data)
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def mac_bytes(text):
    return bytes.fromhex(text.replace(":", ""))


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Rtnl:
    """One socket in a namespace; every request is answered before the next. OSError with what the kernel says."""

    def __init__(self, ns):
        with inside(ns):
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        self.socket.bind((0, 0))
        self.sequence = 0

    def request(self, kind, flags, body):
        self.sequence += 1
        self.socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags | REQUEST | ACK, self.sequence, 0) + body)
        code = struct.unpack_from("=i", self.socket.recv(65536), 16)[0]
        if code:
            raise OSError(-code, f"rtnetlink message {kind}: {os.strerror(-code)}")

    def link(self, index, *attributes, flags=0, change=0, create=False):
        self.request(NEWLINK, CREATE | EXCL if create else 0, struct.pack("=BxHiII", 0, 0, index, flags, change) + b"".join(attributes))

    def add(self, kind, index, name, *attributes, data=b""):
        info = attr(1, kind) + (attr(2, data) if data else b"")
        self.link(index, attr(3, name), attr(18, info), *attributes, create=True)

    def add_veth(self, index, name, mac, peer_name, peer_mac, peer_ns):
        """The peer has the same index in the namespace 'peer_ns', a descriptor."""
        peer = struct.pack("=BxHiII", 0, 0, index, 0, 0) + attr(3, peer_name) + attr(1, mac_bytes(peer_mac)) + attr(28, peer_ns)
        self.add("veth", index, name, attr(1, mac_bytes(mac)), data=attr(1, peer))

    def up(self, index, *attributes):
        self.link(index, *attributes, flags=UP, change=UP)

    def master(self, index, master):
        self.link(index, attr(10, master))

    def move(self, index, ns):
        """To the namespace of the descriptor 'ns'."""
        self.link(index, attr(28, ns))

    def delete(self, index):
        self.request(DELLINK, 0, struct.pack("=BxHiII", 0, 0, index, 0, 0))

    def address(self, index, address, length):
        packed = socket.inet_pton(family_of(address), address)
        self.request(NEWADDR, CREATE | EXCL, struct.pack("=BBBBI", family_of(address), length, 0, 0, index) + attr(2, packed) + attr(1, packed))

    def route(self, index, destination=None, gateway=None, metric=None):
        """To a host, or by a gateway that needs no route of its own; 'destination' None: the default route."""
        family = family_of(destination or gateway)
        body = struct.pack("=BBBBBBBBI", family, len(socket.inet_pton(family, destination)) * 8 if destination else 0, 0, 0, 254, 4,
                           0 if gateway or family == socket.AF_INET6 else 253, 1, 4 if gateway else 0) + attr(4, index)
        for kind, value in ((1, destination), (5, gateway)):
            if value:
                body += attr(kind, socket.inet_pton(family, value))
        self.request(NEWROUTE, CREATE | EXCL, body + (attr(6, metric) if metric is not None else b""))

    def neighbour(self, index, address, mac):
        """For ever."""
        self.request(NEWNEIGH, CREATE | REPLACE, struct.pack("=BxHiHBB", family_of(address), 0, index, 0x80, 0, 0) +
                     attr(1, socket.inet_pton(family_of(address), address)) + attr(2, mac_bytes(mac)))

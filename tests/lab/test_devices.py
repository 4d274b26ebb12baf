# SPDX-License-Identifier: GPL-2.0-or-later
"""Devices come, go, change their names, leave for a moment: the flowtable follows, and nobody else's connection minds."""
import os
import re
import signal
import socket
import threading
import time

from fleet import FULL, Fleet
from harness import SLOW_MAX
from lab import lab_test, say
from rtnl import Rtnl
from test_live import FOLLOW, flowtable_devices, pairs
from topology import CLIENT_IPS, PORT, inside, ip, nft, node_ips, pod_cidrs, run, sysctl, wait_for

CHURN, RATE = 40, 20  # pods replaced, per second


class Arrivals(threading.Thread):
    """When each device came into our flowtable on n1, from the kernel's notifications."""

    def __init__(self):
        super().__init__(daemon=True)
        with inside("n1"):
            self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.socket.bind((0, 1 << 6))  # NFNLGRP_NFTABLES
        self.seen = {}
        self.start()

    def run(self):
        while True:
            data = self.socket.recv(1 << 16)
            if b"fastpath\0" in data:
                for name in re.findall(rb"[a-z][a-z0-9]*(?=\0)", data):
                    self.seen.setdefault(name.decode(), time.monotonic())


class Steady(threading.Thread):
    """Round trips on a connection of p11 as long as it is wanted, whose packets on the slow path are counted."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.lab, self.rounds, self.stop, self.problem = lab, 0, False, None
        self.connection = lab.open("p11", lab.pods["p21"].ips[0], PORT)
        self.connection.rr(50)
        match = f"ip {{}} {lab.pods['p11'].ips[0]} tcp {{}} {self.connection.port} counter name slow"
        nft("n1", f"""table inet steady {{
            counter slow {{ }}
            chain forward {{
                type filter hook forward priority -150; policy accept;
                {match.format("saddr", "sport")}
                {match.format("daddr", "dport")}
            }}
        }}""")
        lab.later(lambda: run("n1", "nft", "delete", "table", "inet", "steady"))
        self.start()

    def run(self):
        try:
            while not self.stop:
                self.connection.rr(100)
                self.rounds += 100
                time.sleep(0.05)
        except Exception as e:  # handed on by end()
            self.problem = e

    def end(self):
        """Packets on the slow path."""
        self.stop = True
        self.join()
        assert not self.problem, f"the long connection: {self.problem}"
        text = run("n1", "nft", "list", "counter", "inet", "steady", "slow")
        return int(re.search(r"packets (\d+)", text).group(1))


def has_devices(names, there=True):
    """Whether all of them (or none) are in the flowtable. (Asked for one flowtable by its name, the kernel answers in a page, and
    with more devices than fit nft(8) says that there is none.)"""
    text = run("n1", "nft", "list", "flowtables")
    ours = text.partition("table inet slipstream {")[2].partition("\n}")[0]
    devices = set(re.findall(r"[\w.]+", ours.partition("devices = {")[2].partition("}")[0]))
    return names <= devices if there else not names & devices


def figures(lab):
    m = lab.agents["n1"].metrics()
    return {k: n for k, n in m.items() if re.search(r'result="failed"|sync_failures|state="failed"', k)}


def slow_of(lab, pod, echo, rounds):
    """Packets on the slow path of n1 that 'rounds' cost a pod of the fleet."""
    before = lab.slow_packets("n1")
    echo.rr(rounds)
    return lab.slow_packets("n1") - before


@lab_test(topologies="bridge routed", fails="none static")
def test_churn(lab):
    """A node with 250 pods, of which some are replaced all the time: every new one is accelerated, no connection breaks, an old one
    pays what the kernel takes for its FIB changes: two packets per direction. Then, where routes lead to them, more devices than fit
    into one message."""
    before, address = lab.agents and figures(lab), lab.pods["p21"].ips[0]
    arrivals = Arrivals()
    began = time.monotonic()
    fleet = Fleet(lab).fill()
    say("    ", f"{FULL} pods in {time.monotonic() - began:.1f} s")
    if lab.agents:
        wait_for("all pods in the flowtable", lambda: has_devices(fleet.devices()), FOLLOW)
    steady = Steady(lab)
    echoes, late, began = [], 0.0, time.monotonic()
    for i in range(CHURN):
        time.sleep(max(0.0, began + i / RATE - time.monotonic()))
        pod = fleet.replace()
        if i % 5 == 0:
            echoes.append((pod, time.monotonic(), fleet.connect(pod, address, PORT)))
            echoes[-1][2].rr(3)
    took = time.monotonic() - began
    if lab.agents:
        wait_for("all pods in the flowtable", lambda: has_devices(fleet.devices()), FOLLOW)
        late = max(arrivals.seen[p.device] - t for p, t, _ in echoes)
        assert late < FOLLOW, f"a device came into the flowtable {late:.1f} s after its pod's first connection"
    slow = steady.end()
    # link up, carrier, down, unregistered; and the route
    changes = CHURN * (4 if fleet.bridge else 6)
    say("    ", f"{CHURN} pods replaced in {took:.1f} s ({CHURN / took:.1f} per second); last device {late:.2f} s after its pod's first connection; "
        f"{slow} of {2 * steady.rounds} packets of the long connection on the slow path")
    assert slow <= 4 * changes, f"{slow} packets of the long connection on the slow path by {changes} FIB changes"
    for pod, _, echo in echoes:
        echo.rr(5)
        assert lab.offloaded("n1", echo.port), f"{pod.device}: not offloaded"
    slow = slow_of(lab, *echoes[-1][::2], 100)
    assert slow <= SLOW_MAX, f"{slow} packets of a new pod's connection on the slow path"
    for _, _, echo in echoes:
        echo.close()
    if lab.agents:
        assert figures(lab) == before, f"failures: {figures(lab)} after {before}"
        if not fleet.bridge:
            many(lab, fleet)


def many(lab, fleet):
    """600 devices, a message holds 255; at once over an empty table; and all gone at once."""
    fleet.add_many(0, 600 - FULL)
    everything = fleet.devices() | {f"d{i}" for i in range(600 - FULL)}
    wait_for("600 devices in the flowtable", lambda: has_devices(everything), FOLLOW)
    a = lab.agent("n1")
    assert has_devices(everything), "not all devices are in a new flowtable"
    a.stop()
    a.start()
    sent = a.metrics()["slipstream_netlink_messages_total"]
    assert sent == 0, f"{sent} messages sent by a start over what was there"
    run("n1", "ip", "link", "del", "group", "77")
    wait_for("none of them in the flowtable", lambda: has_devices(everything, False), FOLLOW)
    assert not any(figures(lab).values()), f"failures: {figures(lab)}"
    lab.accelerated("p11", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1}, content=False)


@lab_test(topologies="bridge routed", fails={"none": ("bookworm", "trixie", "sid"), "static": ("bookworm", "trixie")}, smoke=True)
def test_device_away_for_a_moment(lab):
    """A pod's device leaves the node's namespace and comes back, as it was, before the agent looks: up to 6.15 its hook is gone."""
    pod, a = lab.pods["p12"], lab.agents.get("n1")
    run(None, "ip", "netns", "add", "elsewhere")
    lab.later(lambda: run(None, "ip", "netns", "del", "elsewhere"))
    host, away = Rtnl("n1"), Rtnl("elsewhere")
    with inside("n1"):
        index = socket.if_nametoindex(pod.device)
        cni0 = socket.if_nametoindex("cni0") if lab.topology.name == "bridge" else 0
    places = [os.open(f"/run/netns/{ns}", os.O_RDONLY | os.O_CLOEXEC) for ns in ("elsewhere", "n1")]
    if a:
        a.process.send_signal(signal.SIGSTOP)
    try:
        host.move(index, places[0])
        away.move(index, places[1])
        host.up(index)
        if cni0:
            host.master(index, cni0)
            ip("n1", f"link set {pod.device} type bridge_slave hairpin on")
        else:
            ip("n1", f"addr add fe80::1/64 dev {pod.device} nodad", f"route add {pod.ips[0]}/32 dev {pod.device}",
               f"route add {pod.ips[1]}/128 dev {pod.device}")
            sysctl("n1", f"net/ipv4/conf/{pod.device}/proxy_arp=1", f"net/ipv4/conf/{pod.device}/rp_filter=0")
    finally:
        for fd in places:
            os.close(fd)
        if a:
            a.process.send_signal(signal.SIGCONT)
    if a:
        wait_for(f"{pod.device} in the flowtable", lambda: pod.device in flowtable_devices(), FOLLOW)
    lab.accelerated("p12", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1}, content=False)


@lab_test(topologies="bridge routed", fails="none")
def test_device_renamed(lab):
    """A pod's device gets another name, as udev and CNIs do, with a connection open: it stays offloaded."""
    pod = lab.pods["p12"]
    c = lab.open("p12", lab.pods["p21"].ips[0], PORT)
    c.rr(50)
    old = pod.device

    def rename(name):
        ip("n1", f"link set {pod.device} name {name}") if lab.kernel != "bookworm" else rename_down(name)
        pod.device = name
        if lab.agents:
            wait_for(f"{name} in the flowtable", lambda: name in flowtable_devices() and old not in flowtable_devices() - {name}, FOLLOW)

    def rename_down(name):  # up to 6.1 a device has to be down
        routes = [] if lab.topology.name == "bridge" else [f"route add {pod.ips[v]}/{(32, 128)[v]} dev {name}" for v in (0, 1)]
        ip("n1", f"link set {pod.device} down", f"link set {pod.device} name {name}", f"link set {name} up", *routes)
    lab.later(lambda: rename(old))
    rename("renamed0")
    c.rr(50)
    slow = lab.slow_packets("n1")
    c.rr(200)
    slow = lab.slow_packets("n1") - slow
    assert slow <= SLOW_MAX, f"{slow} packets on the slow path"
    c.close()
    lab.accelerated("p12", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1}, content=False)
    if lab.agents:
        assert not any(figures(lab).values()), f"failures: {figures(lab)}"


@lab_test(topologies="bridge routed", fails="none static")
def test_uplink_replaced_by_another(lab):
    """A new NIC gets the address and the routes; the old one goes. An open connection goes on, offloaded again."""
    c = lab.open("p11", lab.pods["p21"].ips[0], PORT)
    c.rr(50)

    def move(old, new, mac):
        lab.topology.cable("n1", new, mac, 0)
        sysctl("n1", f"net/ipv4/conf/{new}/rp_filter=0")
        ip("n1", *(f"addr del {node_ips('n1')[f]}/{(24, 64)[f]} dev {old}" for f in (0, 1)),
           *(f"addr add {node_ips('n1')[f]}/{(24, 64)[f]} dev {new}{' nodad' if f else ''}" for f in (0, 1)),
           *(f"route replace default via {CLIENT_IPS[f]} dev {new}" for f in (0, 1)),
           *(f"route replace {pod_cidrs('n2')[f]} via {node_ips('n2')[f]} dev {new}" for f in (0, 1)), f"link del {old}")
        # as keepalived and ifup do: neighbours hear of the new hardware address
        for ns in ("n2", "c"):
            for address in node_ips("n1"):
                run(ns, "ip", "neigh", "flush", address, "dev", "eth0", check=False)
        if lab.agents:
            wait_for(f"{new} in the flowtable", lambda: {new} == flowtable_devices() & {old, new}, FOLLOW)
            wait_for(f"{new} in a pair", lambda: f'"{new}"' in pairs(), FOLLOW)
    lab.later(lambda: move("eth2", "eth0", "02:00:00:00:00:01"))
    move("eth0", "eth2", "02:00:00:00:00:a1")
    c.rr(50)
    slow = lab.slow_packets("n1")
    c.rr(200)
    slow = lab.slow_packets("n1") - slow
    assert lab.offloaded("n1", c.port), f"{c.what}: not offloaded again"
    assert slow <= SLOW_MAX, f"{slow} packets on the slow path"
    c.close()
    lab.accelerated("p11", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1}, content=False)


@lab_test(topologies="antrea", fails={"none": ("bookworm", "trixie", "sid"), "static": ("bookworm", "trixie")})
def test_internal_port_made_anew(lab):
    """Open vSwitch takes antrea-gw0 away and makes it again, as a restart of ovs-vswitchd with a new datapath does."""
    t = lab.topology
    t.vsctl("n1", "del-port", "br-int", "antrea-gw0")
    t.gateway_up("n1")
    t.program(lab.cluster.services)
    if lab.agents:
        wait_for("antrea-gw0 in the flowtable", lambda: "antrea-gw0" in flowtable_devices(), FOLLOW)
        wait_for("antrea-gw0 in a pair", lambda: '"antrea-gw0"' in pairs(), FOLLOW)
    lab.accelerated("p11", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1}, content=False)

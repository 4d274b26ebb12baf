# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel does to offloaded flows and to the flowtable: neighbours that go, routes that come and go, devices refused."""
import select
import subprocess

from harness import SLOW_MAX
from lab import KERNELS, lab_test
from test_live import FOLLOW, flowtable_devices
from topology import CLIENT_IPS, CommandError, PORT, WORLD, inside, ip, nft, run, wait_for

STALL = 5.0  # seconds in which an open connection has to go on


def pod_side(lab):
    """The device on n1 whose neighbour p11 is."""
    return "antrea-gw0" if lab.topology.name == "antrea" else lab.pods["p11"].device


def neighbour(node, address, device):
    return run(node, "ip", "neigh", "show", address, "dev", device, "nud", "all").strip()


def goes_on(lab, address, device, lost, server=None):
    """A connection from p11 to `server`, a host that offloads nothing itself, goes on, offloaded, after lost() took `address`
    from the neighbours on `device`."""
    c = lab.open("p11", server or WORLD[":" in address], PORT)
    c.rr(50)
    assert lab.offloaded("n1", c.port), f"{c.what}: not offloaded"
    assert "lladdr" in neighbour("n1", address, device), f"{address} is no neighbour on {device}: the test tests nothing"
    before = lab.slow_packets("n1")
    lost()
    c.rr(200, STALL)
    assert lab.offloaded("n1", c.port), f"{c.what}: not offloaded any more"
    slow = lab.slow_packets("n1") - before
    assert slow <= SLOW_MAX, f"{c.what}: {slow} packets on the slow path"
    c.close()


# Linux 7.2 no longer resolves a neighbour on the fast path: a bare `flow add` sends to 00:00:00:00:00:00
TRAP = {"none": KERNELS, "static": ("sid",)}


@lab_test(topologies="bridge routed", fails=TRAP, smoke=True, families=True)
def test_uplink_neighbour_deleted(lab, v):
    """The uplink's gateway is removed from the neighbours in the middle of an offloaded connection."""
    goes_on(lab, CLIENT_IPS[v], "eth0", lambda: ip("n1", f"neigh del {CLIENT_IPS[v]} dev eth0"))


@lab_test(topologies="routed", fails=TRAP, smoke=True, families=True)
def test_pod_neighbour_deleted(lab, v):
    """The same with the pod. (Behind a bridge its MAC is part of the flow, on every kernel.)"""
    pod = lab.pods["p11"]
    goes_on(lab, pod.ips[v], pod.device, lambda: ip("n1", f"neigh del {pod.ips[v]} dev {pod.device}"))


@lab_test(topologies="routed antrea", fails=TRAP)
def test_pod_neighbour_collected(lab):
    """With more neighbours than gc_thresh1 the kernel collects what nobody used, and the fast path of 7.2 uses none."""
    address, device = lab.pods["p11"].ips[0], pod_side(lab)
    settings = [(None, "default/gc_thresh1", 0), (None, "default/base_reachable_time_ms", 2000),
                ("n1", f"{device}/gc_stale_time", 1), ("n1", f"{device}/base_reachable_time_ms", 1000)]
    for ns, name, value in settings:
        path = "net/ipv4/neigh/" + name
        old = run(ns, "cat", "/proc/sys/" + path).strip()
        run(ns, "sysctl", "-q", "-w", f"{path}={value}")
        lab.later(lambda ns=ns, path=path, old=old: run(ns, "sysctl", "-q", "-w", f"{path}={old}"))
    with inside("n1"):
        monitor = subprocess.Popen(("ip", "monitor", "neigh"), stdout=subprocess.PIPE, bufsize=0)
    lab.later(monitor.kill)

    def lost():
        line = b""
        ip("n1", f"neigh change {address} lladdr {neighbour('n1', address, device).split()[2]} dev {device} nud stale")
        while not line.startswith(f"Deleted {address} ".encode()):
            assert select.select((monitor.stdout,), (), (), 40)[0], f"{address} was not collected"
            line = monitor.stdout.readline()
    goes_on(lab, address, device, lost)


@lab_test(topologies="bridge routed", fails="none")
def test_route_churn(lab):
    """Routes to elsewhere come and go. Each change sends every IPv4 flow through the slow path once (rt_genid): at most two packets
    per direction, and it is offloaded again; content arrives whole."""
    address, changes = lab.pods["p21"].ips[0], 20
    c = lab.open("p11", address, PORT)
    c.rr(50)
    before = lab.slow_packets("n1")
    for i in range(changes):
        ip("n1", f"route {'del' if i % 2 else 'add'} 198.18.50.1/32 via {CLIENT_IPS[0]} dev eth0")
        c.rr(50)
    assert lab.offloaded("n1", c.port), f"{c.what}: not offloaded any more"
    slow = lab.slow_packets("n1") - before
    assert slow <= 4 * changes, f"{slow} packets on the slow path by {changes} changes"
    c.close()
    with inside("p11"):
        p = subprocess.Popen((lab.flow, "client", "send", "4000000", address, str(PORT)), stderr=subprocess.PIPE, text=True)
    for i in range(changes):
        ip("n1", f"route {'del' if i % 2 else 'add'} 198.18.50.1/32 via {CLIENT_IPS[0]} dev eth0")
    said = p.communicate(timeout=60)[1]
    assert p.returncode == 0, f"a transfer during the changes: {said.strip()}"


HOOKS = 1024  # MAX_HOOK_COUNT, net/netfilter/core.c: what a device has room for; one more is refused (E2BIG)


@lab_test(topologies="bridge", fails="none static", smoke=True)
def test_refused_device(lab):
    """A device that the kernel refuses costs only itself, says so, and is taken when it can be."""
    device = lab.pods["p12"].device
    chains = "\n".join(f"chain c{i} {{ type filter hook ingress device {device} priority 10; }}" for i in range(HOOKS))
    lab.dirty()
    nft("n1", "table inet slipstream { }\ndelete table inet slipstream\ntable inet static { }\ndelete table inet static\n")
    nft("n1", f"table netdev full {{\n{chains}\n}}")
    lab.later(lambda: run("n1", "nft", "-f", "-", input="table netdev full { }\ndelete table netdev full\n"))
    try:
        lab.static("n1") if lab.control == "static" else lab.agent("n1")
    except CommandError as e:
        raise AssertionError(str(e)) from None
    a = lab.agents.get("n1")
    lab.accelerated("p11", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1})
    if a:
        assert flowtable_devices() == {"eth0", lab.pods["p11"].device}, flowtable_devices()
        failed = {k: n for k, n in a.metrics().items() if k.startswith("slipstream_devices{") and 'state="failed"' in k}
        assert sum(failed.values()) == 1, f"not one failed device: {failed}"
        lines = [x for x in run("n1", lab.program, "status").splitlines() if device in x]
        assert any("refused by the kernel: Argument list too long" in x for x in lines), f"status says {lines}"
    lab.client("p12", "send 200000", lab.pods["p21"].ips[0], PORT)
    nft("n1", "delete table netdev full")
    if a:
        wait_for(f"{device} in the flowtable", lambda: device in flowtable_devices(), FOLLOW)
    lab.accelerated("p12", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1})


@lab_test(agent=True, topologies="bridge", smoke=True)
def test_hardware_offload_falls_back(lab):
    """`hardwareOffload: auto` where no device has hardware for it: in software, with the reason, and no flow is disturbed."""
    a = lab.agents["n1"]
    c = lab.open("p11", lab.pods["p21"].ips[0], PORT)
    c.rr(50)
    slow = lab.slow_packets("n1")
    a.write_config(lab.default_config + "flowtable: {hardwareOffload: auto}\n")
    wait_for("the reason in status", lambda: "refused it: Operation not supported" in run("n1", lab.program, "status"), FOLLOW)
    c.rr(50)
    assert lab.offloaded("n1", c.port) and lab.slow_packets("n1") == slow, "the flow was disturbed"
    c.close()
    assert a.metrics()["slipstream_hardware_offload"] == 0
    assert "offload" not in run("n1", "nft", "list", "flowtable", "inet", "slipstream", "fastpath")
    assert not any("probe" in x and "slipstream" in x for x in run("n1", "nft", "list", "tables").splitlines()), "a table of the probe is left"
    assert {"eth0", lab.pods["p11"].device} <= flowtable_devices(), flowtable_devices()
    lab.accelerated("p11", lab.pods["p21"].ips[0], PORT, {"pod-to-pod": 1})

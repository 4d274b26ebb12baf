# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP of endpoints that vanish, where nobody but the agent ends it: a pod's own address, without Service NAT on the host."""
import signal
import time

import lab as ring
from lab import lab_test
from topology import PORT, wait_for

BOUND = 10.0  # seconds; 1 s in the design


@lab_test(fails="none static cut", smoke=True, families=True)
def test_udp_to_a_pod_that_vanishes(lab, v):
    """The client sends on: the connection leaves the fast path, stays off it, and comes back with an answer only."""
    pod = lab.pods["p21"]
    address = pod.ips[v]
    other = lab.open("p11", lab.pods["p22"].ips[v], PORT, mode="udp-beat")
    tcp = lab.open("p11", address, PORT)
    tcp.rr(200)
    c = lab.open("p11", address, PORT, mode="udp-beat")
    for x in (c, other):
        wait_for(f"{x.what}: offloaded", lambda: lab.offloaded_to("n1", x.port), BOUND)
    pod.server.send_signal(signal.SIGSTOP)
    lab.later(lambda: pod.server.send_signal(signal.SIGCONT))
    bytes_before = sum(lab.agents["n1"].typed("slipstream_offloaded_bytes_total").values()) if lab.agents else 0
    lab.cluster.change("remote", endpoint=None)
    took = wait_for(f"{c.what}: not offloaded", lambda: not lab.offloaded_to("n1", c.port), BOUND)
    ring.say("    ", f"off the fast path after {took:.2f} s")
    c.answers()
    # neither a packet that raced nor the next one of the client brings it back
    time.sleep(2)
    assert not lab.offloaded_to("n1", c.port), "offloaded again, although nobody answers"
    assert c.answers() == 0
    # nobody else was touched: another pod, and TCP of the same one
    assert lab.offloaded_to("n1", other.port) == {lab.pods["p22"].ips[v]}
    assert lab.offloaded_to("n1", tcp.port) == {address}, "TCP was ended"
    if lab.agents:
        m = lab.agents["n1"].metrics()
        assert m['slipstream_flows_ended_total{reason="endpoint"}'] >= 1
        assert m['slipstream_flow_end_failures_total{reason="unsupported"}'] == 0
        assert sum(lab.agents["n1"].typed("slipstream_offloaded_bytes_total").values()) >= bytes_before
    # a pod that answers again is a connection like any other
    pod.server.send_signal(signal.SIGCONT)
    wait_for(f"{c.what}: offloaded again", lambda: lab.offloaded_to("n1", c.port) == {address}, BOUND)
    tcp.rr(200)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A large cluster: what it costs to read and to follow it."""
import os
import signal
import time

import lab
from fill import Churn, fill
from lab import lab_test
from rig import KINDS
from topology import wait_for

NODES, SERVICES, ENDPOINTS = 5000, 10000, 100000
TICKS = os.sysconf("SC_CLK_TCK")


def cpu(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid):
    """Resident now, and at the most, in MB."""
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        values = dict(line.split(":", 1) for line in f)
    return tuple(int(values[k].split()[0]) / 1024 for k in ("VmRSS", "VmHWM"))


def measure(r, title, config):
    """A start until everything is known; then a minute of changes."""
    r.stop()
    began = time.monotonic()
    agent = r.start_agent(config)
    def known():
        return all(v > 0 for v in agent.counts("lists_total", "resource").values())
    wait_for("synced", known, 120, 0.02)
    took, pid = time.monotonic() - began, agent.process.pid
    counts = agent.counts("objects", "kind")
    assert counts["nodes"] == NODES + 3 and counts["services"] == SERVICES + 3, counts
    received, used = agent.metrics()["slipstream_source_bytes_received_total"], cpu(pid)
    rss, peak = memory(pid)
    lab.say("    ", f"{title}: synced after {took:.2f} s, CPU {used:.2f} s, received {received / 1e6:.1f} MB, RSS {rss:.1f} MB, "
                    f"peak {peak:.1f} MB; {counts}")
    return agent, peak


def churned(r, title, agent):
    events = sum(agent.counts("watch_events_total", "resource").values())
    received, used = agent.metrics()["slipstream_source_bytes_received_total"], cpu(agent.process.pid)
    churn = Churn(r.api, NODES, SERVICES, 60)
    churn.start()
    churn.join()
    assert churn.done == 75 * 60, churn.done
    wait_for("every event", lambda: sum(agent.counts("watch_events_total", "resource").values()) >= events + churn.done, 30)
    used, received = cpu(agent.process.pid) - used, agent.metrics()["slipstream_source_bytes_received_total"] - received
    rss, peak = memory(agent.process.pid)
    lab.say("    ", f"{title}: {churn.done} changes in {churn.took:.0f} s, CPU {used:.2f} s, received {received / 1e6:.1f} MB, RSS {rss:.1f} MB, "
                    f"peak {peak:.1f} MB")


@lab_test()
def test_scale(r):
    """5,000 nodes, 10,000 Services, 100,000 endpoints. Printed for the eye; what is asserted is that each object is what the
    server says, that memory follows what is kept and not the answers, and that nothing is listed twice."""
    signal.alarm(1500)
    for n, took in fill(r.api, NODES, SERVICES, ENDPOINTS):
        lab.say("    ", f"{n} objects made in {took:.0f} s")
    answers = sum(len(r.api.call("GET", p)[1]) for p in ("/api/v1/nodes", "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"))
    for title, config in (("gzip", ""), ("watchlist", "kubernetes:\n  initialList: watchlist\n")):
        agent, peak = measure(r, title, config)
        assert peak * 2 ** 20 < answers / 3, f"peak {peak:.1f} MB, the answers are {answers / 2 ** 20:.0f} MB"
        churned(r, title, agent)
        assert agent.lists() == dict.fromkeys(KINDS, 1), agent.lists()
        assert not agent.failures(), agent.failures()
    lab.say("    ", f"the three lists are {answers / 1e6:.0f} MB of JSON")
    r.start()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Events on the Node, as a real API server keeps them."""
from lab import lab_test
from topology import wait_for

EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
NODE = "/api/v1/nodes/n1"


def switch(r, off):
    r.api.patch(NODE, {"metadata": {"labels": {"slipstream/acceleration": "disabled" if off else None}}})


def mine(r, *reasons):
    return [e for e in r.api.get(EVENTS)["items"] if e["reason"] in reasons and e["reportingController"] == "slipstream"]


def clear(r):
    switch(r, False)
    for e in mine(r, *{e["reason"] for e in r.api.get(EVENTS)["items"]}):
        r.api.must("DELETE", f"{EVENTS}/{e['metadata']['name']}")


@lab_test(smoke=True)
def test_events_on_the_node(r):
    """Where `kubectl describe node` looks (the uid is the Node's name); the second of the same is counted in the first."""
    clear(r)
    try:
        r.start_agent()
        # Whichever this kernel is good for; a missing flowtable is told when it has lasted 10 s.
        wait_for("first Event", lambda: mine(r, "AccelerationEnabled", "AccelerationDegraded"), 20)
        switch(r, True)
        wait_for("Event", lambda: mine(r, "AccelerationDisabled"), 10)
        event = mine(r, "AccelerationDisabled")[0]
        assert event["type"] == "Normal" and "slipstream/acceleration" in event["note"], event
        assert event["regarding"] == {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1"}, event
        switch(r, False)
        wait_for("counted", lambda: any(e.get("series") for e in mine(r, "AccelerationEnabled", "AccelerationDegraded")), 20)
        switch(r, True)
        wait_for("counted", lambda: (mine(r, "AccelerationDisabled")[0].get("series") or {}).get("count") == 2, 10)
        assert len(mine(r, "AccelerationDisabled")) == 1
        counts = r.agent.counts("events_total", "result")
        assert counts == {"sent": 2, "aggregated": 2, "limited": 0, "displaced": 0, "failed": 0}, counts
    finally:
        clear(r)


@lab_test(smoke=True)
def test_events_not_allowed(r):
    """Said once, with the right that is missing; all else works."""
    clear(r)
    r.rules([rule for rule in r.role if rule["apiGroups"] != ["events.k8s.io"]])
    try:
        switch(r, True)
        r.start()
        wait_for("refused", lambda: r.agent.counts("events_total", "result")["failed"] == 1, 10)
        with open(r.agent.log, encoding="utf-8") as f:
            assert f.read().count("allow create and patch of events in events.k8s.io") == 1
        with r.disturbed():
            r.api.create(r.other())
    finally:
        clear(r)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What the API says, the kernel does: objects made, changed and deleted with kubectl, NAT by real kube-proxies."""
import json
import os
import re
import subprocess
import time

from lab import lab_test
from topology import PORT, inside, node_ips, run, wait_for
from world import API, service, slices

IPS = ("10.96.0.77", "fd96::77")
LB = ("203.0.113.77", "2001:db8:113::77")
EXTERNAL = ("198.51.100.77", "2001:db8:51::77")


def web(w, pod, **fields):
    """Service default/web with the endpoint 'pod', known to kube-proxy and (where there is one) to the agent of n1."""
    pod = w.pods[pod]
    w.want(service("web", *IPS, **fields), *slices("web", pod))
    for node in ("n1", "n2"):
        w.proxy_knows(node, pod.ips[0])
    for v in (0, 1):
        w.follows("n1", f"cluster-ips{4 + 2 * v}", IPS[v])


@lab_test(fails="none", families=True)
def test_pod_to_pod(w, v):
    w.accelerated("p11", w.pods["p21"].ips[v], PORT, {"pod-to-pod": 1})


@lab_test(fails="none cut", families=True)
def test_pod_to_service(w, v):
    web(w, "p21", node_port=30077)
    w.accelerated("p11", IPS[v], 80, {"pod-to-service": 1})


@lab_test(fails="none cut")
def test_pod_to_service_udp(w):
    web(w, "p21", node_port=30077)
    w.accelerated("p11", IPS[0], 80, {"pod-to-service": 1}, udp=True)


@lab_test(fails="none cut", families=True, smoke=True)
def test_nodeport_over_another_node(w, v):
    """In by n1's NodePort, masqueraded, to a pod of n2: both nodes accelerate it, each under its own type."""
    web(w, "p21", node_port=30077)
    w.accelerated("c", node_ips("n1")[v], 30077, {"external-to-nodeport": 1})
    w.accelerated("c", node_ips("n1")[v], 30077, {"node-to-pod": 1}, node="n2")


@lab_test(fails="none cut", families=True)
def test_nodeport_of_a_node_in_iptables_mode(w, v):
    web(w, "p11", node_port=30077)
    w.follows("n2", "nodeports", '{"concat": ["tcp", 30077]}')
    w.accelerated("c", node_ips("n2")[v], 30077, {"external-to-nodeport": 1}, node="n2")


@lab_test(fails="none cut", families=True, smoke=True)
def test_loadbalancer(w, v):
    web(w, "p21", type="LoadBalancer", lb=LB)
    w.proxy_knows("n1", LB[0])
    w.follows("n1", f"loadbalancer-ips{4 + 2 * v}", LB[v])
    w.accelerated("c", LB[v], 80, {"external-to-loadbalancer": 1})


@lab_test(fails="none cut", families=True)
def test_loadbalancer_with_local_policy(w, v):
    """externalTrafficPolicy: Local: no masquerade, the pod sees the client."""
    web(w, "p11", type="LoadBalancer", lb=LB, policy="Local")
    w.proxy_knows("n1", LB[0])
    w.follows("n1", f"loadbalancer-ips{4 + 2 * v}", LB[v])
    w.accelerated("c", LB[v], 80, {"external-to-loadbalancer": 1})


@lab_test(fails="none cut", families=True)
def test_external_ip(w, v):
    web(w, "p21", external_ips=EXTERNAL)
    w.proxy_knows("n1", EXTERNAL[0])
    w.accelerated("c", EXTERNAL[v], 80, {"external-to-externalip": 1})


@lab_test(fails="none cut", smoke=True)
def test_loadbalancer_ip_moves_traffic_to_its_counter(w):
    """One address: first only an externalIP, then a LoadBalancer ingress IP as well, then not any more."""
    web(w, "p21", type="LoadBalancer", external_ips=EXTERNAL)
    w.touched("service/web")
    w.proxy_knows("n1", EXTERNAL[0])
    w.accelerated("c", EXTERNAL[0], 80, {"external-to-externalip": 1})
    w.patch_status("service/web", {"loadBalancer": {"ingress": [{"ip": EXTERNAL[0]}]}})
    w.follows("n1", "loadbalancer-ips4", EXTERNAL[0])
    w.accelerated("c", EXTERNAL[0], 80, {"external-to-loadbalancer": 1})
    w.patch_status("service/web", {"loadBalancer": None})
    w.follows("n1", "loadbalancer-ips4", gone=(EXTERNAL[0],))
    w.accelerated("c", EXTERNAL[0], 80, {"external-to-externalip": 1})


@lab_test(fails="none static cut", smoke=True)
def test_excluded_service(w):
    """The annotation takes new connections off the fast path, its removal brings them back."""
    web(w, "p21", node_port=30077)
    w.touched("service/web")
    w.kubectl("annotate", "service/web", "slipstream/exclude=true")
    w.follows("n1", "excluded-ips4", IPS[0])
    w.not_accelerated("p11", IPS[0], 80)
    w.kubectl("annotate", "service/web", "slipstream/exclude-")
    w.follows("n1", "excluded-ips4", gone=(IPS[0],))
    w.accelerated("p11", IPS[0], 80, {"pod-to-service": 1})


@lab_test(fails="cut", agent=True, smoke=True)
def test_node_comes_and_goes(w):
    w.create_node("n3", ("192.168.0.13", "fd00:0::13"), ("10.0.3.0/24", "fd10:0:3::/64"))
    w.later(lambda: w.kubectl("delete", "node/n3", "--ignore-not-found", check=False))
    w.follows("n1", "peer-nodes4", "192.168.0.13")
    assert '{"prefix": {"addr": "10.0.3.0", "len": 24}}' in w.elements("n1", "remote-pods4")
    w.kubectl("delete", "node/n3")
    w.follows("n1", "peer-nodes4", gone=("192.168.0.13",))
    assert '{"prefix": {"addr": "10.0.3.0", "len": 24}}' not in w.elements("n1", "remote-pods4")


@lab_test(fails="cut", agent=True, smoke=True)
def test_a_change_sends_only_itself(w):
    """And disturbs no flow: a connection of another Service stays offloaded through it."""
    web(w, "p21", node_port=30077)
    c = w.open("p11", IPS[0], 80)
    c.rr(200)
    before, slow = w.agents["n1"].metrics()["slipstream_netlink_messages_total"], w.slow_packets("n1")
    w.add(service("other", "10.96.0.78", "fd96::78"), *slices("other", w.pods["p22"]))
    w.follows("n1", "cluster-ips6", "fd96::78")
    sent = w.agents["n1"].metrics()["slipstream_netlink_messages_total"] - before
    # cluster-ips4, cluster-ips6, nodeports: one message each, perhaps not in one transaction
    assert 1 <= sent <= 3, f"{sent} messages for one Service"
    c.rr(1000)
    assert w.offloaded("n1", c.port)
    assert w.slow_packets("n1") - slow <= 2, f"{w.slow_packets('n1') - slow} packets on the slow path"


@lab_test(agent=True)
def test_one_connection_carries_all_watches(w):
    if w.control == "cut":
        return
    ports = w.agent_ports("n1")
    assert len(ports) == 1, f"connections from local ports {ports}"
    status = w.agents["n1"].metrics()
    assert status["slipstream_source_connections_total"] == 1, status["slipstream_source_connections_total"]
    for resource in ("nodes", "services", "endpointslices"):
        assert status[f'slipstream_watch_starts_total{{resource="{resource}"}}'] >= 1


@lab_test(agent=True)
def test_plan_with_every_credential(w):
    """`plan` reads the API server with a token, with a client certificate and as in a pod; the text is the same, names the
    cluster's objects, and nft accepts it where the devices are."""
    if w.control != "agent":
        return
    web(w, "p21", node_port=30077)
    with open(f"{w.state}/guest-agent.kubeconfig", encoding="utf-8") as f:
        port = re.search(r"https://[^:]+:(\d+)", f.read()).group(1)
    in_pod = {"KUBERNETES_SERVICE_HOST": API, "KUBERNETES_SERVICE_PORT": port, "SLIPSTREAM_SERVICEACCOUNT": f"{w.state}/sa"}
    texts = {}
    for name, options, env in (("token", ("--kubeconfig", f"{w.state}/guest-agent.kubeconfig"), {}),
                               ("certificate", ("--kubeconfig", f"{w.state}/guest-admin.kubeconfig"), {}),
                               ("pod", (), in_pod)):
        with inside("n1"):
            p = subprocess.run((w.program, "plan", "--node", "n1") + options, env={**os.environ, "HOME": "/nowhere", **env},
                               capture_output=True, text=True, timeout=60)
        assert p.returncode == 0, f"{name}: {p.stderr}"
        texts[name] = p.stdout
    assert texts["token"] == texts["certificate"] == texts["pod"]
    assert IPS[0] in texts["pod"] and "30077" in texts["pod"] and "192.168.0.12" in texts["pod"]
    run("n1", "nft", "-c", "-f", "-", input=texts["pod"])


@lab_test(fails="cut", agent=True)
def test_event_to_kernel(w):
    """How long a Service takes from kubectl's answer to the kernel (bound: 1 s with its tenfold margin)."""
    took = []
    for i in range(3):
        ip4, ip6 = f"10.96.0.{100 + i}", f"fd96::{100 + i}"
        w.add(service(f"timed-{i}", ip4, ip6))
        began = time.monotonic()
        w.follows("n1", "cluster-ips4", ip4)
        took.append(time.monotonic() - began)
    assert max(took) < 10, took


@lab_test(fails="cut", agent=True)
def test_service_without_endpoints_is_named(w):
    w.add(service("lonely", "10.96.0.79", "fd96::79"))
    w.follows("n1", "cluster-ips4", "10.96.0.79")
    wait_for("warning about default/lonely", lambda: "default/lonely" in json.dumps(w.agents["n1"].status()), 5)


@lab_test(fails="cut", agent=True)
def test_api_server_away(w):
    """Cut off from the API server: ready, programmed, accelerating; and it catches up afterwards."""
    web(w, "p21", node_port=30077)
    w.cut("n1")
    try:
        w.add(service("meanwhile", "10.96.0.80", "fd96::80"))
        time.sleep(2)
        assert w.agents["n1"].get("/readyz")[0] == 200 and w.agents["n1"].get("/healthz")[0] == 200
        w.accelerated("p11", IPS[0], 80, {"pod-to-service": 1})
        assert "10.96.0.80" not in w.elements("n1", "cluster-ips4")
    finally:
        w.uncut("n1")
    wait_for("the Service made meanwhile", lambda: "10.96.0.80" in w.elements("n1", "cluster-ips4"), 60)


@lab_test(agent=True)
def test_event_of_the_start(w):
    """What `kubectl describe node` lists once acceleration has started."""
    def events():
        text = w.kubectl("get", "events.events.k8s.io", "-n", "default", "-o", "json")
        return [e for e in json.loads(text)["items"] if e["regarding"]["name"] == "n1" and e["reason"] == "AccelerationEnabled"]
    wait_for("Event AccelerationEnabled of n1", events, 20)

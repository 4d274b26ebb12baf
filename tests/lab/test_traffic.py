# SPDX-License-Identifier: GPL-2.0-or-later
"""Every traffic type, in every topology that has it: content, [OFFLOAD], packets of the slow path, and its own counter."""
from lab import lab_test
from topology import PORT, WORLD, node_ips


def address(lab, what, v):
    s = lab.cluster.service("remote" if what.startswith("remote") else "local")
    return {"lb": s.lb_ips, "ext": s.external_ips, "cluster": s.cluster_ips, "node": node_ips("n1")}[what.split("-")[-1]][v]


@lab_test(fails="none", smoke=True, families=True)
def test_pod_to_pod(lab, v):
    lab.accelerated("p11", lab.pods["p21"].ips[v], PORT, {"pod-to-pod": 1})


@lab_test(fails="none", families=True)
def test_pod_to_pod_second_node(lab, v):
    lab.accelerated("p11", lab.pods["p21"].ips[v], PORT, {"pod-to-pod": 1}, node="n2")


@lab_test(fails="none", families=True)
def test_pod_to_pod_udp(lab, v):
    lab.accelerated("p12", lab.pods["p22"].ips[v], PORT, {"pod-to-pod": 1}, udp=True)


@lab_test(topologies="bridge routed", fails="none", smoke=True, families=True)
def test_pod_to_service(lab, v):
    lab.accelerated("p11", address(lab, "remote-cluster", v), 80, {"pod-to-service": 1})


@lab_test(topologies="antrea", fails="none", families=True)
def test_pod_to_service_in_ovs(lab, v):
    """The host sees pod addresses only."""
    lab.accelerated("p11", address(lab, "remote-cluster", v), 80, {"pod-to-pod": 1})


@lab_test(topologies="bridge routed", fails="none", families=True)
def test_pod_to_service_udp(lab, v):
    lab.accelerated("p11", address(lab, "remote-cluster", v), 80, {"pod-to-service": 1}, udp=True)


@lab_test(fails="none", smoke=True, families=True)
def test_external_to_loadbalancer(lab, v):
    lab.accelerated("c", address(lab, "local-lb", v), 80, {"external-to-loadbalancer": 1})


@lab_test(fails="none", families=True)
def test_external_to_loadbalancer_udp(lab, v):
    lab.accelerated("c", address(lab, "local-lb", v), 80, {"external-to-loadbalancer": 1}, udp=True)


@lab_test(topologies="bridge routed", fails="none", families=True)
def test_external_to_loadbalancer_over_another_node(lab, v):
    lab.accelerated("c", address(lab, "remote-lb", v), 80, {"external-to-loadbalancer": 1})


@lab_test(topologies="antrea", fails="none", smoke=True, families=True)
def test_external_to_service(lab, v):
    """In by the LoadBalancer address, and out again with the virtual source to the endpoint of another node."""
    lab.accelerated("c", address(lab, "remote-lb", v), 80, {"external-to-loadbalancer": 1, "external-to-service": 1})


@lab_test(fails="none", families=True)
def test_external_to_externalip(lab, v):
    lab.accelerated("c", address(lab, "local-ext", v), 80, {"external-to-externalip": 1})


@lab_test(fails="none", smoke=True, families=True)
def test_external_to_nodeport(lab, v):
    lab.accelerated("c", address(lab, "local-node", v), lab.cluster.service("local").node_port, {"external-to-nodeport": 1})


@lab_test(fails="none", families=True)
def test_external_to_nodeport_udp(lab, v):
    lab.accelerated("c", address(lab, "local-node", v), lab.cluster.service("local").node_port, {"external-to-nodeport": 1},
                    udp=True)


@lab_test(topologies="bridge routed", fails="none", families=True)
def test_external_to_nodeport_over_another_node(lab, v):
    lab.accelerated("c", address(lab, "remote-node", v), lab.cluster.service("remote").node_port, {"external-to-nodeport": 1})


@lab_test(fails="none", smoke=True, families=True)
def test_node_to_pod(lab, v):
    """The second node of a flow that the first one masqueraded."""
    lab.accelerated("c", address(lab, "remote-node", v), lab.cluster.service("remote").node_port, {"node-to-pod": 1}, node="n2")


@lab_test(fails="none", smoke=True, families=True)
def test_pod_to_external(lab, v):
    lab.accelerated("p11", WORLD[v], PORT, {"pod-to-external": 1})


@lab_test(fails="none", families=True)
def test_other(lab, v):
    """A pod's own address from outside: of no type, and offloaded all the same."""
    lab.accelerated("c", lab.pods["p11"].ips[v], PORT, {"other": 1})


@lab_test(fails="none", families=True, topologies="bridge routed")
def test_many_short_connections(lab, v):
    """Each is inserted once; content is checked."""
    before = lab.inserts("n1")
    lab.client("p11", "crr 50", address(lab, "remote-cluster", v), 80)
    if before is None:
        c = lab.open("p11", address(lab, "remote-cluster", v), 80)
        c.rr(10)
        assert lab.offloaded("n1", c.port), "not offloaded"
    lab.check_inserts("n1", before, {"pod-to-service": 50})

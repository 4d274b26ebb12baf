# SPDX-License-Identifier: GPL-2.0-or-later
"""The cluster that the lab's manifests tell of: Nodes, Services and EndpointSlices, one list for the agent and for the NAT."""
import dataclasses
import json
import os

from topology import NODES, NODE_INDEX, PORT, node_ips, pod_cidrs


FAMILIES = ("IPv4", "IPv6")


@dataclasses.dataclass
class Service:
    name: str
    index: int
    endpoint: object  # Pod or None
    lb: bool = False
    external_ip: bool = False
    local: bool = True  # externalTrafficPolicy
    annotations: dict = dataclasses.field(default_factory=dict)
    families: tuple = (0, 1)  # of the manifests; the NAT has both

    @property
    def cluster_ips(self):
        return (f"10.96.0.{self.index}", f"fd96::{self.index}")

    @property
    def lb_ips(self):
        return (f"203.0.113.{self.index}", f"2001:db8:113::{self.index}")

    @property
    def external_ips(self):
        return (f"198.51.100.{self.index}", f"2001:db8:51::{self.index}")

    @property
    def node_port(self):
        return 30000 + self.index

    def external(self, v):
        """Addresses that answer from outside, whatever they are called in the API: the NAT of the test never changes when a
        test moves an address from one field to another."""
        return (self.lb_ips[v], self.external_ips[v])

    def manifest(self):
        ports = [{"name": p.lower(), "protocol": p, "port": 80, "targetPort": PORT, "nodePort": self.node_port}
                 for p in ("TCP", "UDP")]
        ips = [self.cluster_ips[v] for v in self.families]
        spec = {"type": "LoadBalancer" if self.lb else "NodePort", "clusterIP": ips[0], "clusterIPs": ips,
                "ipFamilies": [FAMILIES[v] for v in self.families],
                "ipFamilyPolicy": "RequireDualStack" if len(ips) == 2 else "SingleStack",
                "externalTrafficPolicy": "Local" if self.local else "Cluster", "ports": ports}
        if self.external_ip:
            spec["externalIPs"] = [self.external_ips[v] for v in self.families]
        status = {"loadBalancer": {"ingress": [{"ip": self.lb_ips[v]} for v in self.families]} if self.lb else {}}
        return {"apiVersion": "v1", "kind": "Service", "spec": spec, "status": status,
                "metadata": {"name": self.name, "namespace": "default", "annotations": self.annotations}}

    def slices(self):
        if not self.endpoint:
            return
        for v in self.families:
            family = FAMILIES[v]
            yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
                   "metadata": {"name": f"{self.name}-{family.lower()}", "namespace": "default",
                                "labels": {"kubernetes.io/service-name": self.name}},
                   "endpoints": [{"addresses": [self.endpoint.ips[v]], "nodeName": self.endpoint.node,
                                  "conditions": {"ready": True, "serving": True, "terminating": False}}],
                   "ports": [{"name": p.lower(), "protocol": p, "port": PORT} for p in ("TCP", "UDP")]}


def default_services(pods):
    return [Service("local", 10, pods["p11"], lb=True, external_ip=True),
            Service("remote", 11, pods["p21"], lb=True, external_ip=True, local=False),
            Service("excluded", 12, pods["p11"], lb=True, annotations={"slipstream/exclude": "true"}),
            Service("plain", 13, pods["p11"])]  # its addresses answer, but the API has only cluster IP and node port


def nodes(kind, gateway_mac, families=(0, 1)):
    for node in NODES:
        a = {}
        ips, cidrs = ([of(node)[v] for v in families] for of in (node_ips, pod_cidrs))
        if kind == "antrea":
            a = {"node.antrea.io/mac-address": gateway_mac(node), "node.antrea.io/transport-addresses": ",".join(ips)}
        yield {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "annotations": a},
               "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
               "status": {"addresses": [{"type": "InternalIP", "address": x} for x in ips] +
                          [{"type": "Hostname", "address": node}]}}


def yaml(value, indent=0):
    """YAML in block style, of what json.dumps takes; strings are quoted."""
    pad = "  " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{json.dumps(k)}:{nested(v, indent)}" for k, v in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{pad}-{nested(v, indent)}" for v in value)
    return pad + json.dumps(value) + "\n"


def nested(value, indent):
    if isinstance(value, (dict, list)) and value:
        return "\n" + yaml(value, indent + 1)
    return " " + json.dumps(value) + "\n"


class Cluster:
    """A folder of manifests, kept equal to a list of Services."""

    def __init__(self, folder, topology):
        self.folder, self.topology = folder, topology
        os.makedirs(folder, exist_ok=True)
        self.services = []
        self.set_nodes()
        self.reset()

    def reset(self):
        self.set(default_services(self.topology.pods))

    def set_nodes(self, families=(0, 1)):
        """The Nodes, with addresses of these families."""
        kind, mac = self.topology.kind, self.topology.gateway_mac
        self.write_file("nodes.yaml", "---\n".join(yaml(n) for n in nodes(kind, mac, families)))

    def set(self, services):
        """These Services from now on, in the manifests and in the NAT. Returns whether anything differed."""
        before = getattr(self, "written", None)
        text = "---\n".join(yaml(x) for s in services for x in (s.manifest(), *s.slices()))
        self.services = services
        if text != before:
            self.topology.program(services)
            self.write_file("services.yaml", text)
            self.written = text
        return text != before

    def change(self, name, **fields):
        """One Service with other fields."""
        self.set([dataclasses.replace(s, **fields) if s.name == name else s for s in self.services])

    def service(self, name):
        return next(s for s in self.services if s.name == name)

    def write_file(self, name, text):
        """As a ConfigMap update does: the new file is complete when it gets its name."""
        temporary = os.path.join(self.folder, "." + name)
        with open(temporary, "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(temporary, os.path.join(self.folder, name))

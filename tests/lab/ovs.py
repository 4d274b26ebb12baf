# SPDX-License-Identifier: GPL-2.0-or-later
"""Antrea's shape of a node: pods on Open vSwitch, which does the Service NAT; the host sees antrea-gw0, an internal port.

One ovsdb-server and ovs-vswitchd per node, in the node's network namespace. The flows are a short version of Antrea's
pipeline with its addresses: frontends are translated in conntrack zone 1; what comes in by the gateway and has its endpoint
on another node gets the virtual source 169.254.0.253 in zone 2 and goes back out by the gateway; the host translates
NodePorts to 169.254.0.252 and masquerades 169.254.0.253 (antrea: pkg/agent/config/service_config.go,
docs/design/ovs-pipeline.md).
"""
import os

from topology import NODE_INDEX, NODES, PORT, Topology, forward, ip, masquerade, nft, node_ips, pod_cidrs, run

VIRTUAL_MAC = "aa:bb:cc:dd:ee:ff"
NODEPORT_IPS = ("169.254.0.252", "fc01::aabb:ccdd:eefe")
SNAT_IPS = ("169.254.0.253", "fc01::aabb:ccdd:eeff")
GATEWAY = "antrea-gw0"


class Antrea(Topology):
    name = "antrea"
    kind = "antrea"

    def gateway_mac(self, node):
        return f"02:00:00:00:0{NODE_INDEX[node]}:fe"

    def ovs(self, node, *argv, input=None):
        return run(node, "env", f"OVS_RUNDIR=/run/ovs-{node}", f"OVS_DBDIR=/run/ovs-{node}", f"OVS_LOGDIR=/run/ovs-{node}",
                   f"OVS_SYSCONFDIR=/run/ovs-{node}", *argv, input=input)

    def vsctl(self, node, *argv):
        return self.ovs(node, "ovs-vsctl", f"--db=unix:/run/ovs-{node}/db.sock", *argv)

    def node_up(self, node):
        folder = f"/run/ovs-{node}"
        os.makedirs(folder)
        self.ovs(node, "ovsdb-tool", "create", f"{folder}/conf.db", "/usr/share/openvswitch/vswitch.ovsschema")
        self.ovs(node, "ovsdb-server", f"--remote=punix:{folder}/db.sock", f"--pidfile={folder}/ovsdb-server.pid",
                 f"--log-file={folder}/ovsdb-server.log", "--detach", "--no-chdir", f"{folder}/conf.db")
        self.vsctl(node, "--no-wait", "init")
        self.ovs(node, "ovs-vswitchd", f"unix:{folder}/db.sock", f"--pidfile={folder}/ovs-vswitchd.pid",
                 f"--log-file={folder}/ovs-vswitchd.log", "--detach", "--no-chdir")
        self.vsctl(node, "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=system")
        self.gateway_up(node)

    def gateway_up(self, node):
        n = NODE_INDEX[node]
        self.vsctl(node, "add-port", "br-int", GATEWAY, "--", "set", "interface", GATEWAY, "type=internal",
                   f'mac="{self.gateway_mac(node)}"')
        forward(node, GATEWAY)
        ip(node, f"link set {GATEWAY} up", f"addr add 10.0.{n}.1/24 dev {GATEWAY}",
           f"addr add fd10:0:{n}::1/64 dev {GATEWAY} nodad",
           f"route add {SNAT_IPS[0]}/32 dev {GATEWAY} scope link", f"route add {SNAT_IPS[1]}/128 dev {GATEWAY}",
           *(f"neigh replace {a} lladdr {VIRTUAL_MAC} dev {GATEWAY} nud permanent" for a in SNAT_IPS),
           *(f"route add {NODEPORT_IPS[v]} via {SNAT_IPS[v]} dev {GATEWAY} onlink" for v in (0, 1)))

    def pod_up(self, pod):
        n = NODE_INDEX[pod.node]
        ip(None, f"link add {pod.device} netns {pod.node} type veth peer name eth0 netns {pod.ns} "
           f"address 02:00:00:00:0{n}:1{pod.index}")
        ip(pod.node, f"link set {pod.device} up")
        self.vsctl(pod.node, "add-port", "br-int", pod.device)
        ip(pod.ns, "link set eth0 up", f"addr add {pod.ips[0]}/24 dev eth0", f"addr add {pod.ips[1]}/64 dev eth0 nodad",
           f"route add default via 10.0.{n}.1", f"route add default via fd10:0:{n}::1")

    def pod_down(self, pod):
        self.vsctl(pod.node, "del-port", "br-int", pod.device)
        super().pod_down(pod)

    def forwarding_devices(self, node):
        return ["eth0"] + (["eth1"] if node == "n1" else []) + [GATEWAY]

    def program(self, services):
        for node in NODES:
            text = masquerade(node)
            for v, family in ((0, "ip"), (1, "ip6")):
                ports = ", ".join(str(s.node_port) for s in services)
                text += f"""
table {family} antrea-nat {{ }}
flush table {family} antrea-nat
table {family} antrea-nat {{
    chain prerouting {{
        type nat hook prerouting priority dstnat;
        {family} daddr {node_ips(node)[v]} meta l4proto {{ tcp, udp }} th dport {{ {ports} }} dnat to {NODEPORT_IPS[v]}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat;
        {family} saddr {SNAT_IPS[v]} masquerade
    }}
}}
"""
            nft(node, text)
            ip(node, *(f"route replace {a} via {SNAT_IPS[v]} dev {GATEWAY} onlink"
                       for s in services for v in (0, 1) for a in s.external(v)))
            self.ovs(node, "ovs-ofctl", "-O", "OpenFlow13", "replace-flows", "br-int", "-", input="\n".join(self.flows(node, services)) + "\n")

    def flows(self, node, services):
        gateway_mac = self.gateway_mac(node)
        peer = NODES[1 - NODES.index(node)]
        yield "table=0,priority=0,actions=NORMAL"
        local = [p for p in self.pods.values() if p.node == node]
        for v, (dst, src, protocols) in enumerate((("nw_dst", "nw_src", ("tcp", "udp")), ("ipv6_dst", "ipv6_src", ("tcp6", "udp6")))):
            family = ("ip", "ipv6")[v]
            for p in protocols:
                for s in services:
                    if not s.endpoint:
                        continue
                    to = s.endpoint.ips[v] if v == 0 else f"[{s.endpoint.ips[v]}]"
                    frontends = [(a, 80) for a in s.external(v) + (s.cluster_ips[v],)] + [(NODEPORT_IPS[v], s.node_port)]
                    for address, port in frontends:
                        yield (f"table=0,priority=200,{p},{dst}={address},tp_dst={port},"
                               f"actions=ct(commit,zone=1,nat(dst={to}:{PORT}),table=1)")
                yield (f"table=0,priority=195,{p},in_port={GATEWAY},{dst}={SNAT_IPS[v]},actions=ct(nat,zone=2,table=4)")
                yield (f"table=0,priority=190,{p},in_port={GATEWAY},{src}={pod_cidrs(peer)[v]},tp_src={PORT},"
                       "actions=ct(nat,zone=1,table=2)")
                for pod in local:
                    yield (f"table=0,priority=190,{p},in_port={pod.device},{src}={pod.ips[v]},tp_src={PORT},"
                           "actions=ct(nat,zone=1,table=2)")
            # 1: a frontend was translated; 2: an answer; both to a local pod, or out by the gateway
            for pod in local:
                mac = f"02:00:00:00:0{NODE_INDEX[node]}:1{pod.index}"
                for table in (1, 2):
                    yield f"table={table},priority=200,{family},{dst}={pod.ips[v]},actions=mod_dl_dst:{mac},output:{pod.device}"
            yield (f"table=1,priority=150,{family},in_port={GATEWAY},"
                   f"actions=ct(commit,zone=2,nat(src={SNAT_IPS[v]}),table=5)")
            for table in (1, 2):
                yield f"table={table},priority=100,{family},actions=mod_dl_dst:{gateway_mac},output:{GATEWAY}"
            yield f"table=4,{family},actions=ct(nat,zone=1,table=5)"
            yield f"table=5,{family},actions=mod_dl_src:{VIRTUAL_MAC},mod_dl_dst:{gateway_mac},IN_PORT"

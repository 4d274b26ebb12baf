# SPDX-License-Identifier: GPL-2.0-or-later
"""Inside the guest: the lab's `routed` topology with a way to the API server, a real kube-proxy per node, agents that read
the API, and kubectl."""
import json
import os
import socket
import subprocess

from harness import Agent, Lab
from topology import CommandError, NODES, Routed, inside, ip, nft, node_ips, pod_cidrs, run, wait_for

CACHE = os.environ.get("SLIPSTREAM_CACHE") or os.path.expanduser("~/.cache/slipstream")
API, API_OF_PROXIES = "172.31.255.2", "172.31.255.3"  # one server, see control
PROXY_MODES = {"n1": "nftables", "n2": "iptables"}


class ApiAgent(Agent):
    """`slipstream run` with a kubeconfig."""

    def __init__(self, world, node, config, kubeconfig):
        self.kubeconfig = kubeconfig
        super().__init__(world, node, config, None)

    def argv(self, verb, *more):
        return (self.lab.program, verb, "--kubeconfig", self.kubeconfig, "--node", self.node, "--config", self.config_file) + more

    def status(self):
        code, text = self.get("/status")
        assert code == 200, f"/status: {code}"
        return json.loads(text)


class World(Lab):
    """A Lab whose cluster is a real one. Tests make objects with apply() and remove them before the next test begins."""

    def __init__(self, kernel, control, build, state, relay):
        self.kernel, self.control, self.state, self.relay = kernel, control, state, relay
        self.program = os.path.join(build, "slipstream")
        self.flow = os.path.join(build, "lab", "flow")
        self.folder = "/run/lab"
        os.makedirs(self.folder)
        for module in ("br_netfilter", "nf_conntrack_netlink", "nft_flow_offload", "nf_flow_table_inet", "virtio_net"):
            subprocess.run(("modprobe", module), check=True)
        self.topology = Routed(self.flow)
        self.topology.up()
        self.pods = self.topology.pods
        self.agents, self.connections, self.undo, self.proxies, self.applied = {}, [], [], {}, {}
        self.way_to_api()
        for n in NODES:
            self.create_node(n)
        for n in NODES:
            self.start_proxy(n)
        if control == "static":
            for n in NODES:
                self.static(n)
        elif control != "none":
            for n in NODES:
                self.agent(n)
        if control == "cut":
            for n in NODES:
                self.cut(n)

    def way_to_api(self):
        """The client's namespace is the nodes' router: from there over a veth to the guest itself, masqueraded."""
        nic = next(d for d in sorted(os.listdir("/sys/class/net")) if os.path.exists(f"/sys/class/net/{d}/device"))
        ip(None, f"addr add 172.31.255.15/24 dev {nic}", f"link set {nic} up",
           "link add api0 type veth peer name api0 netns c", "addr add 10.255.0.1/30 dev api0", "link set api0 up",
           "route add 192.168.0.0/16 via 10.255.0.2")
        ip("c", "addr add 10.255.0.2/30 dev api0", "link set api0 up", f"route add {API}/32 via 10.255.0.1",
           f"route add {API_OF_PROXIES}/32 via 10.255.0.1")
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as f:
            f.write("1")
        nft(None, f"""table ip way {{
            chain pre {{ type nat hook prerouting priority -100; ip daddr {API_OF_PROXIES} dnat to {API}; }}
            chain post {{ type nat hook postrouting priority 100; oifname {nic} masquerade; }}
        }}""")

    # -- kubectl

    def kubectl(self, *argv, input=None, check=True):
        """kubectl as cluster-admin, run outside the guest (see ring.py)."""
        with socket.create_connection((API, self.relay), timeout=90) as s, s.makefile("rwb") as f:
            f.write(json.dumps({"argv": argv, "input": input}).encode() + b"\n")
            f.flush()
            answer = json.loads(f.readline())
        if check and answer["status"]:
            raise CommandError(f"kubectl {' '.join(argv)}: {answer['stderr'].strip()}")
        return answer["stdout"]

    def want(self, *objects):
        """Exactly these objects of ours, with their status, from now on; what is there already is left alone."""
        wanted = {(o["kind"].lower(), o["metadata"]["name"]): o for o in objects}
        gone = [f"{k}/{n}" for k, n in self.applied if (k, n) not in wanted]
        if gone:
            self.kubectl("delete", "--ignore-not-found", "--wait=false", *gone)
        new = {k: o for k, o in wanted.items() if self.applied.get(k) != o}
        if new:
            self.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(new.values())}))
        for (kind, name), o in new.items():
            if kind == "service":
                self.patch_status(f"{kind}/{name}", o.get("status") or {"loadBalancer": None})
        self.applied = wanted

    def add(self, *objects):
        """These objects beside those that are there."""
        self.want(*self.applied.values(), *objects)

    def touched(self, *what):
        """The test changed these by kubectl itself: they are made anew before the next test."""
        self.later(lambda: (self.kubectl("delete", "--ignore-not-found", "--wait=false", *what, check=False),
                            [self.applied.pop(tuple(w.split("/")), None) for w in what]))

    def patch_status(self, what, status):
        self.kubectl("patch", what, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))

    def create_node(self, name, addresses=None, cidrs=None):
        addresses, cidrs = addresses or node_ips(name), cidrs or pod_cidrs(name)
        self.kubectl("apply", "-f", "-", input=json.dumps({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {"podCIDR": cidrs[0], "podCIDRs": list(cidrs)}}))
        self.patch_status(f"node/{name}", {"addresses": [{"type": "InternalIP", "address": a} for a in addresses]})

    def start_proxy(self, node):
        log = open(f"{self.folder}/kube-proxy-{node}.log", "w", encoding="utf-8")
        with inside(node), log:
            self.proxies[node] = subprocess.Popen(
                (os.path.join(CACHE, "bin", "kube-proxy"), "--kubeconfig", f"{self.state}/guest-proxy.kubeconfig",
                 "--hostname-override", node, "--cluster-cidr", "10.0.0.0/16,fd10::/32", "--proxy-mode", PROXY_MODES[node],
                 "--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-timeout-established=0",
                 "--conntrack-tcp-timeout-close-wait=0"), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for(f"kube-proxy of {node} ready", lambda: self.proxy_ready(node), 90, 0.5)

    def proxy_ready(self, node):
        assert self.proxies[node].poll() is None, f"kube-proxy of {node} ended: {self.proxy_log(node)}"
        return run(node, "curl", "-s", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:10256/healthz", check=False) == "200"

    def proxy_log(self, node):
        with open(f"{self.folder}/kube-proxy-{node}.log", encoding="utf-8", errors="replace") as f:
            return f.read()[-800:]

    def proxy_knows(self, node, text):
        """Until the NAT that kube-proxy programmed on `node` names 'text'."""
        def known():
            if PROXY_MODES[node] == "nftables":
                return text in run(node, "nft", "list", "ruleset", check=False)
            return text in run(node, "iptables-save", "-t", "nat") + run(node, "ip6tables-save", "-t", "nat")
        wait_for(f"kube-proxy of {node} programmed {text}", known, 60, 0.3)

    # -- agents

    def agent(self, node, config=None, kubeconfig=None):
        if self.control in ("none", "static"):
            return None
        old = self.agents.get(node)
        if old:
            old.kill()
        text = self.default_config + config if config else self.default_config
        a = ApiAgent(self, node, text, kubeconfig or f"{self.state}/guest-agent.kubeconfig")
        self.agents[node] = a
        return a.start()

    def cut(self, node):
        """The agent's packets to the API server are lost from here on; kube-proxy uses the other address."""
        nft(node, f"table ip cut {{ chain out {{ type filter hook output priority -200; ip daddr {API} drop; }}\n}}")

    def uncut(self, node):
        run(node, "nft", "delete", "table", "ip", "cut")

    def agent_ports(self, node):
        """Local ports of the agent's TCP connections to the API server."""
        pid = self.agents[node].process.pid
        lines = run(node, "ss", "-tnpH", "dst", API).splitlines()
        return [line.split()[3].rsplit(":", 1)[1] for line in lines if f"pid={pid}," in line]

    def before(self):
        for c in self.connections:
            c.abort()
        self.connections = []
        while self.undo:
            self.undo.pop()()
        if self.control == "agent":
            for node in NODES:
                a = self.agents.get(node)
                if not a or not a.alive() or a.config != self.default_config:
                    self.agent(node)

    def elements(self, node, name):
        """Elements of one of our sets, from outside."""
        out = run(node, "nft", "-j", "list", "set", "inet", "slipstream", name, check=False)
        if not out:
            return set()
        for o in json.loads(out)["nftables"]:
            if "set" in o:
                return {e if isinstance(e, (str, int)) else json.dumps(e) for e in o["set"].get("elem", [])}
        return set()

    def follows(self, node, name, *elements, gone=()):
        """Until the kernel's set holds 'elements' and none of 'gone'."""
        if self.control in ("none", "static"):
            return
        def condition():
            now = self.elements(node, name)
            return set(elements) <= now and not set(gone) & now
        wait_for(f"set {name} on {node} has {elements} and not {gone} ({self.elements(node, name)})", condition, 10)

    def close(self):
        self.dirty()
        for p in self.proxies.values():
            p.kill()
            p.wait()

    def describe(self):
        text = super().describe()
        for node in self.proxies:
            text += f"\n--- kube-proxy {node}: {self.proxy_log(node)}"
        return text


def service(name, ip4, ip6, node_port=None, type="NodePort", external_ips=(), lb=(), annotations=None, policy="Cluster"):
    """A dual-stack Service with port 80 over TCP and UDP, and no selector: its endpoints are slices of the test."""
    ports = [{"name": p.lower(), "protocol": p, "port": 80, "targetPort": 8080, **({"nodePort": node_port} if node_port else {})}
             for p in ("TCP", "UDP")]
    spec = {"type": type, "clusterIP": ip4, "clusterIPs": [ip4, ip6], "ipFamilyPolicy": "RequireDualStack",
            "ipFamilies": ["IPv4", "IPv6"], "ports": ports}
    if type != "ClusterIP":
        spec["externalTrafficPolicy"] = policy
    if external_ips:
        spec["externalIPs"] = list(external_ips)
    status = {"loadBalancer": {"ingress": [{"ip": a} for a in lb]}} if lb else {}
    return {"apiVersion": "v1", "kind": "Service", "spec": spec, "status": status,
            "metadata": {"name": name, "namespace": "default", "annotations": annotations or {}}}


def slices(name, *pods, conditions=None):
    """Of these pods, ready, or with the conditions of {pod's name: conditions}."""
    for v, family in enumerate(("IPv4", "IPv6")):
        yield {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": family,
               "metadata": {"name": f"{name}-{family.lower()}", "namespace": "default",
                            "labels": {"kubernetes.io/service-name": name}},
               "endpoints": [{"addresses": [p.ips[v]], "nodeName": p.node, "conditions": (conditions or {}).get(p.name, {"ready": True})}
                             for p in pods],
               "ports": [{"name": p.lower(), "protocol": p, "port": 8080} for p in ("TCP", "UDP")]}

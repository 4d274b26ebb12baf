# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test holds in its hands: the cluster by kubectl, its nodes by a shell in a privileged pod on each, traffic."""
import json
import os
import re
import select
import subprocess
import tempfile
import time

import ring

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
CACHE = os.environ.get("SLIPSTREAM_CACHE") or os.path.expanduser("~/.cache/slipstream")
KUBECTL = os.path.join(CACHE, "bin", "kubectl")
DEPLOY = os.path.join(TOP, "deploy")
MANIFEST, CLEANUP, PODMONITOR = (os.path.join(DEPLOY, n) for n in ("slipstream.yaml", "cleanup.yaml", "podmonitor.yaml"))
SERVER_PORT = 8080
PATIENCE = 4  # how much longer than it takes on a quiet machine anything may take before a test gives up on it
TYPES = ("pod-to-pod", "pod-to-service", "external-to-loadbalancer", "external-to-externalip", "external-to-nodeport",
         "external-to-service", "node-to-pod", "pod-to-external", "other")
FLOW_WAIT = "60"  # s without an answer that `flow` bears; how long they were is the tests' to judge


class CommandError(AssertionError):
    pass


def until(what, condition, seconds, step=0.3):
    """Waits until condition() is true; returns it. AssertionError with 'what' after 'seconds', and patience."""
    seconds *= PATIENCE
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"after {seconds} s still not: {what}"
        time.sleep(step)


def run(*argv, input=None, check=True, timeout=300):
    p = subprocess.run(argv, input=input, capture_output=True, text=True, timeout=timeout)
    if check and p.returncode:
        raise CommandError(f"{' '.join(argv)}: status {p.returncode}: {(p.stderr or p.stdout).strip()[:1500]}")
    return p.stdout


class Shell:
    """A shell that stays open, so that a command costs what it costs and not a start of kubectl."""

    def __init__(self, argv):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.n = 0

    def run(self, command, check=True, timeout=30):
        self.n += 1
        timeout *= PATIENCE
        mark = f"--done-{self.n} "
        self.process.stdin.write(f"{command}\necho; echo '{mark}'$?\n".encode())
        self.process.stdin.flush()
        data, end = b"", time.monotonic() + timeout
        while True:
            m = re.search(rf"^{mark}(\d+)\n".encode(), data, re.M)
            if m:
                break
            assert select.select((self.process.stdout,), (), (), max(0, end - time.monotonic()))[0], f"no answer within {timeout} s: {command}"
            piece = os.read(self.process.stdout.fileno(), 65536)
            if not piece:
                raise BrokenPipeError(f"the shell ended: {data.decode(errors='replace')[-500:]}")
            data += piece
        text = data[:m.start()].decode(errors="replace").removesuffix("\n")
        if check and m.group(1) != b"0":
            raise CommandError(f"{command}: status {int(m.group(1))}: {text.strip()[-1500:]}")
        return text

    def close(self):
        self.process.kill()
        self.process.wait()


class Connection:
    """`flow client` (hold, steady, udp-steady, send ...) on the machine outside."""

    def __init__(self, argv, what):
        self.what, self.port, self.at = what, None, 0
        self.out = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=self.out, stderr=subprocess.STDOUT, text=True,
                                        env=dict(os.environ, FLOW_WAIT=FLOW_WAIT))

    def lines(self):
        """What it has printed, and whether that is all."""
        over = self.process.poll()
        self.out.seek(0)
        return self.out.read().splitlines(), over

    def write(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def close_input(self):
        self.process.stdin.close()

    def abort(self):
        self.process.kill()
        self.process.wait()

    def line(self, seconds=30):
        """The next line that it prints, in words."""
        def there():
            lines, over = self.lines()
            assert len(lines) > self.at or over is None, f"{self.what}: ended with status {over}: {' '.join(lines[-2:])}"
            return lines if len(lines) > self.at else None
        lines = until(f"{self.what}: an answer", there, seconds, 0.1)
        self.at += 1
        assert not lines[self.at - 1].startswith("flow: "), f"{self.what}: {lines[self.at - 1]}"
        return lines[self.at - 1].split()

    def opened(self):
        self.port = int(self.line()[1])
        return self

    def rr(self, rounds):
        self.write(f"{rounds}\n")

    def end(self, seconds=30):
        """End of its standard input, and of itself; AssertionError unless all went well. Its last line, in words."""
        self.close_input()
        until(f"{self.what}: its end", lambda: self.lines()[1] is not None, seconds, 0.1)
        lines, status = self.lines()
        assert status == 0, f"{self.what}: status {status}: {' '.join(lines[-2:])}"
        return lines[-1].split() if lines else []


class PodConnection(Connection):
    """The same in a pod, behind one shell for all of them: a start of kubectl each is more than a small node bears."""

    def __init__(self, shell, arguments, what):
        self.what, self.port, self.at, self.shell = what, None, 0, shell
        self.name = f"/tmp/{time.monotonic_ns()}"
        n, self.listens = self.name, arguments[0] in ("hold", "steady", "udp-steady")
        if self.listens:  # one that holds the pipe open for as long as the input lasts
            shell.run(f"mkfifo {n}.in; sleep 3600 >{n}.in & echo $! >{n}.writer")
        shell.run(f"(FLOW_WAIT={FLOW_WAIT} flow client {' '.join(arguments)} <{n + '.in' if self.listens else '/dev/null'} >{n}.out 2>&1; echo $? >{n}.status) &")

    def lines(self):
        text = self.shell.run(f"cat {self.name}.status 2>/dev/null; echo =; cat {self.name}.out 2>/dev/null", check=False)
        status, _, out = text.partition("=\n")
        return out.splitlines(), int(status) if status.strip() else None

    def write(self, text):
        self.shell.run(f"echo {text.strip()} >{self.name}.in")

    def close_input(self):
        if self.listens:
            self.shell.run(f"kill $(cat {self.name}.writer)", check=False)

    abort = close_input


class Node:
    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.shell = self.pod_shell = self.known = None

    def addresses(self):
        """(IPv4 or None, IPv6 or None); they do not change."""
        if not self.known:
            found = [a["address"] for a in self.cluster.get("node", self.name)["status"]["addresses"] if a["type"] == "InternalIP"]
            self.known = tuple(of_family(found, v) for v in (0, 1))
        return self.known

    def pod_cidrs(self):
        found = self.cluster.get("node", self.name)["spec"].get("podCIDRs", [])
        return tuple(of_family(found, v) for v in (0, 1))

    def pod(self, app):
        """The pod of `app` on this node that runs."""
        namespace, selector = ("slipstream", "app.kubernetes.io/name=slipstream") if app == "slipstream" else ("e2e", f"app={app}")
        items = self.cluster.json("-n", namespace, "get", "pods", "-l", selector, "--field-selector", f"spec.nodeName={self.name}")["items"]
        alive = [i for i in items if "deletionTimestamp" not in i["metadata"]]
        assert len(alive) == 1, f"{len(alive)} pods of {app} on {self.name}"
        return alive[0]

    def open_shell(self, what):
        return Shell(self.cluster.kubectl_argv("-n", "e2e", "exec", "-i", what, "--", "sh"))

    def run(self, command, check=True, timeout=30):
        """A shell command on the node: its network and processes, its files below /host."""
        if self.shell is None:
            self.shell = self.open_shell(self.pod("probe")["metadata"]["name"])
        try:
            return self.shell.run(command, check, timeout)
        except CommandError:
            raise
        except (OSError, AssertionError):
            self.forget_shells()
            raise

    def traffic_shell(self):
        """A shell in the pod of this node."""
        if self.pod_shell is None or self.pod_shell.process.poll() is not None:
            self.pod_shell = self.open_shell(f"deployment/traffic-{self.name}")
        return self.pod_shell

    def forget_shells(self):
        for shell in (self.shell, self.pod_shell):
            if shell:
                shell.close()
        self.shell = self.pod_shell = None

    def accelerates(self):
        """Whether the kernel takes a flowtable, asked by nft and not by us."""
        return self.run("nft 'add table inet e2e-try; add flowtable inet e2e-try f { hook ingress priority 0; }; delete table inet e2e-try' 2>&1 || echo no").strip() == ""

    def table(self):
        """Our table as nft prints it, or ''."""
        return self.run("nft list table inet slipstream 2>/dev/null", check=False)

    def agent_pid(self):
        """Of the agent that runs; waits until there is exactly one."""
        found = []

        def one():
            found[:] = self.run("pidof slipstream", check=False).split()
            return len(found) == 1
        until(f"{self.name}: one process slipstream", one, 30)
        return int(found[0])

    def get(self, path):
        """From the agent, at the node's address."""
        address = next(a for a in self.addresses() if a)
        return run("curl", "-s", "--noproxy", "*", "--max-time", str(5 * PATIENCE), f"http://{address}:19500{path}")

    def metrics(self):
        return {m.group(1): float(m.group(2)) for m in re.finditer(r"^([a-z]\S*(?:\{[^}]*\})?) (\S+)$", self.get("/metrics"), re.M)}

    def status(self):
        return json.loads(self.get("/status"))

    def log(self):
        return self.cluster.kubectl("-n", "slipstream", "logs", self.pod("slipstream")["metadata"]["name"])

    def events(self):
        """Reasons and notes of the agent's Events on this Node."""
        items = self.cluster.json("-n", "default", "get", "events.events.k8s.io", "--field-selector", f"regarding.name={self.name}")["items"]
        return [(i["reason"], i.get("note", "")) for i in items if i.get("reportingController") == "slipstream"]

    def inserts(self):
        """By type, from the kernel's counters."""
        found = re.findall(r"counter (\S+) \{\s*packets (\d+)", self.run("nft list counters table inet slipstream 2>/dev/null", check=False))
        return {t: 0 for t in TYPES} | {name.strip('"'): int(n) for name, n in found}

    def conntrack(self):
        return self.run("conntrack -L -f ipv4 2>/dev/null; conntrack -L -f ipv6 2>/dev/null").splitlines()

    def offloaded(self):
        """Connections in conntrack: {port: whether offloaded}, by every port that either side of a NAT sees."""
        ports = {}
        for line in self.conntrack():
            for port in re.findall(r" [sd]port=(\d+)", line):
                ports[int(port)] = ports.get(int(port), False) or "OFFLOAD]" in line
        return ports

    def translated(self, port):
        """The port that a server sees of the client port `port` that this node masquerades."""
        for line in self.conntrack():
            found = re.findall(r" sport=(\d+) dport=(\d+)", line)
            if len(found) == 2 and found[0][0] == str(port):
                return int(found[1][1])
        raise AssertionError(f"{self.name}: no connection with client port {port}")

    def watch_slow_path(self):
        """Counts, in a table of the test's own, the packets that the forward hook sees of each connection."""
        self.run("""nft -f - <<'E'
table inet e2e {
}
delete table inet e2e
table inet e2e {
  set slow {
    type inet_service
    size 65535
    flags dynamic
  }
  chain forward {
    type filter hook forward priority -150
    policy accept
    meta l4proto tcp update @slow { ct original proto-src counter }
    meta l4proto udp update @slow { ct original proto-src counter }
  }
}
E
""")

    def slow_packets(self):
        """{client port: packets}"""
        return {int(p): int(n) for p, n in re.findall(r"(\d+) counter packets (\d+)", self.run("nft -n list set inet e2e slow"))}


class Cluster:
    def __init__(self, spec):
        self.spec = spec
        self.objects_are_there = False
        self.server = None
        self.connections = []
        self.nodes = {n["metadata"]["name"]: Node(self, n["metadata"]["name"]) for n in self.json("get", "nodes")["items"]
                      if not any(t["key"] == "node-role.kubernetes.io/control-plane" for t in n["spec"].get("taints", []))}

    # -- kubectl

    def kubectl_argv(self, *argv):
        return [KUBECTL, "--kubeconfig", self.spec["kubeconfig"], *argv]

    def kubectl(self, *argv, input=None, check=True):
        return run(*self.kubectl_argv(*argv), input=input, check=check)

    def json(self, *argv):
        return json.loads(self.kubectl(*argv, "-o", "json"))

    def get(self, kind, name, namespace="default"):
        return self.json("-n", namespace, "get", kind, name)

    # -- the maker

    def needs(self, what):
        """Skips a test that needs what this cluster does not have."""
        if not self.spec.get(what):
            raise ring.Skip(f"this cluster has no '{what}'")

    def maker(self, verb, *argv):
        return run(self.spec["maker"], verb, self.spec["state"], *argv)

    def figure(self, text):
        """What is measured and quoted."""
        print("    figure: " + text, flush=True)

    # -- slipstream

    def install(self, manifest=MANIFEST):
        """As README says; until every node has it."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", manifest)
        self.rolled_out()

    def rolled_out(self, seconds=300):
        self.kubectl("-n", "slipstream", "rollout", "status", "daemonset/slipstream", f"--timeout={seconds}s")

    def installed(self):
        """For a test that needs it: slipstream, and what the tests bring along, on every node."""
        self.bring_along()
        if not self.kubectl("-n", "slipstream", "get", "daemonset", "slipstream", "--ignore-not-found").strip():
            self.install()

    def without(self):
        """The nodes whose kernels have no flowtables, at this moment. Skips the test when there is none."""
        self.installed()
        found = [n for n in self.nodes.values() if not n.accelerates()]
        if not found:
            raise ring.Skip("every node's kernel has flowtables")
        return found

    def accelerated(self):
        """A node that accelerates, programmed; with the modules that a maker may have withheld. Skips the test when there is none."""
        self.installed()
        for name in self.spec.get("withheld", {}):
            self.nodes[name].run(f"rm -f /host{self.spec['withheld'][name]}")
        node = next((n for n in self.nodes.values() if n.accelerates()), None)
        if not node:
            raise ring.Skip("no node's kernel has flowtables")
        until(f"{node.name}: table inet slipstream", node.table, 90)
        return node

    def peer(self, node):
        return next(n for n in self.nodes.values() if n is not node)

    # -- what the tests bring along

    def bring_along(self):
        if self.objects_are_there:
            return
        with open(os.path.join(HERE, "objects.yaml"), encoding="utf-8") as f:
            self.kubectl("apply", "-f", "-", input=f.read())
        items = [f(name, i) for i, name in enumerate(self.nodes, 1) for f in (deployment, service)]
        self.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        for i, name in enumerate(self.nodes, 1):
            status = {"loadBalancer": {"ingress": [{"ip": a} for a in ingress(i)]}}
            self.kubectl("-n", "e2e", "patch", f"service/on-{name}", "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
        self.kubectl("-n", "e2e", "rollout", "status", "daemonset/probe", "--timeout=300s")
        for name in self.nodes:
            self.kubectl("-n", "e2e", "rollout", "status", f"deployment/traffic-{name}", "--timeout=300s")
        self.objects_are_there = True
        if self.spec.get("client"):
            self.client_reaches()

    def client_reaches(self):
        """Routes of the machine outside to the pods and to the Services' addresses, and a server on it."""
        for v, prefix in ((0, 32), (1, 128)):
            for i, node in enumerate(self.nodes.values(), 1):
                if node.addresses()[v] and node.pod_cidrs()[v]:
                    self.client("ip", "route", "replace", node.pod_cidrs()[v], "via", node.addresses()[v])
                    for address in (ingress(i)[v], external(i)[v]):
                        self.client("ip", "route", "replace", f"{address}/{prefix}", "via", node.addresses()[v])
        self.server = subprocess.Popen(self.client_argv(self.spec["flow"], "server", "::", str(SERVER_PORT)), stdout=subprocess.PIPE, text=True)
        assert self.server.stdout.readline() == "ready\n", "no server on the machine outside"

    def client_argv(self, *argv):
        return self.spec["client"] + list(argv)

    def client(self, *argv):
        return run(*self.client_argv(*argv))

    def client_addresses(self):
        """(IPv4 or None, IPv6 or None) of the machine outside; none where there is none."""
        if not self.spec.get("client"):
            return None, None
        found = [a["local"] for link in json.loads(self.client("ip", "-j", "addr", "show", "scope", "global")) for a in link["addr_info"] if "local" in a]
        return tuple(of_family(found, v) for v in (0, 1))

    def pod_addresses(self, node):
        found = [a["ip"] for a in node.pod(f"traffic-{node.name}")["status"]["podIPs"]]
        return tuple(of_family(found, v) for v in (0, 1))

    def service(self, node):
        """(cluster IPs by family, {protocol: nodePort}) of the Service whose endpoint is on `node`."""
        spec = self.get("service", f"on-{node.name}", "e2e")["spec"]
        return tuple(of_family(spec["clusterIPs"], v) for v in (0, 1)), {p["protocol"]: p["nodePort"] for p in spec["ports"]}

    def number(self, node):
        return list(self.nodes).index(node.name) + 1

    # -- traffic

    def connect(self, source, mode, address, port):
        """`flow client MODE` from a node's pod, or (None) from the machine outside."""
        what = f"{source.name if source else 'outside'} -> {address} port {port} ({mode})"
        arguments = (*mode.split(), address, str(port))
        c = PodConnection(source.traffic_shell(), arguments, what) if source else Connection(self.client_argv(self.spec["flow"], "client", *arguments), what)
        self.connections.append(c)
        return c

    def close_connections(self):
        for c in self.connections:
            try:
                c.abort()
            except (AssertionError, OSError):
                pass  # its shell ended, and with the pod it, too
        self.connections = []

    # -- the end

    def describe(self):
        """For a failed test."""
        self.close_connections()
        text = self.kubectl("get", "nodes,pods", "-A", "-o", "wide", check=False)
        return text + self.kubectl("-n", "slipstream", "logs", "-l", "app.kubernetes.io/name=slipstream", "--tail=4", "--prefix", check=False)

    def close(self):
        self.close_connections()
        for n in self.nodes.values():
            n.forget_shells()
        if self.server:
            self.server.kill()
        if not self.spec.get("maker"):
            self.kubectl("delete", "namespace", "e2e", "--ignore-not-found", check=False)


def of_family(addresses, v):
    return next((a for a in addresses if (":" in a) == bool(v)), None)


def ingress(i):
    return f"203.0.113.{i}", f"2001:db8:113::{i}"


def external(i):
    return f"198.51.100.{i}", f"2001:db8:51::{i}"


def deployment(node, i):
    """The pod of one node that serves and asks."""
    labels = {"app": f"traffic-{node}"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": f"traffic-{node}", "namespace": "e2e"}, "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node}, "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "traffic", "image": "localhost/slipstream-e2e:1", "imagePullPolicy": "Never",
                            "command": ["flow", "server", "::", str(SERVER_PORT)]}]}}}}


def service(node, i):
    """TCP and UDP port 80 of that pod, by every kind of address that a Service can have."""
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"on-{node}", "namespace": "e2e"}, "spec": {
        "type": "LoadBalancer", "selector": {"app": f"traffic-{node}"}, "ipFamilyPolicy": "PreferDualStack", "externalIPs": list(external(i)),
        "ports": [{"name": p.lower(), "protocol": p, "port": 80, "targetPort": SERVER_PORT} for p in ("TCP", "UDP")]}}

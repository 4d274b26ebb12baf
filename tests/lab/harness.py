# SPDX-License-Identifier: GPL-2.0-or-later
"""What a test holds in its hands inside the guest: the topology, the cluster, the agents, connections and what they did."""
import http.client
import ipaddress
import os
import re
import select
import shutil
import subprocess
import threading
import time

import topology
from cluster import Cluster
from ovs import Antrea
from topology import Bridge, CommandError, NODES, Routed, inside, nft, run, wait_for

TYPES = ("pod-to-pod", "pod-to-service", "external-to-loadbalancer", "external-to-externalip", "external-to-nodeport",
         "external-to-service", "node-to-pod", "pod-to-external", "other")
ROUNDS = 500  # twice per test
SLOW_MAX = 20  # packets of an offloaded connection on the slow path, both directions, handshake and close included


class Unreachable(AssertionError):
    """Packets do not arrive, or arrive with other content."""


class Connection:
    """`flow client hold`: an open connection, on which the test asks for round trips."""

    def __init__(self, flow, ns, address, port, udp=False, mode=None):
        with inside(ns):
            self.process = subprocess.Popen((flow, "client", mode or ("udp-hold" if udp else "hold"), address, str(port)),
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise Unreachable(f"{ns} -> {address} port {port}: {self.process.stderr.read().strip()}")
        self.port = int(line.split()[1])
        self.what = f"{ns} port {self.port} -> {address} port {port}"

    def rr(self, rounds=ROUNDS, seconds=None, size=None):
        """Round trips; how long they took. 'seconds': for a connection that a test expects to stall. 'size': bytes of one."""
        self.process.stdin.write(f"{rounds} {size}\n" if size else f"{rounds}\n")
        self.process.stdin.flush()
        if seconds:
            readable = select.select((self.process.stdout,), (), (), seconds * topology.PATIENCE)[0]
            assert readable, f"{self.what}: stalled for {seconds} s"
        line = self.process.stdout.readline()
        if not line:
            raise Unreachable(f"{self.what}: {self.process.stderr.read().strip()}")
        return float(line.split()[2])

    def answers(self):
        """With mode udp-beat: how many came since the last call."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline().split()[1])

    def close(self):
        self.process.stdin.close()
        rc = self.process.wait(10)
        if rc:
            raise Unreachable(f"{self.what}: {self.process.stderr.read().strip()}")

    def abort(self):
        self.process.kill()
        self.process.wait()


class Transfer(threading.Thread):
    """A connection that carries as much as it can until it is told to finish(), its content compared."""

    def __init__(self, connection):
        super().__init__(daemon=True)
        self.connection, self.rounds, self.error, self.ending = connection, 0, None, False
        self.start()

    def run(self):
        try:
            while not self.ending:
                self.connection.rr(8, size=60000)
                self.rounds += 8
            self.connection.close()
        except Exception as e:  # whatever it is, the test has to know
            self.error = e

    def moves(self):
        """It has not been cut, and goes on."""
        before = self.rounds
        wait_for(f"{self.connection.what}: the transfer goes on", lambda: self.error or self.rounds > before + 8, 10)
        assert not self.error, f"the transfer was cut after {self.rounds} times 60,000 bytes: {self.error}"

    def finish(self):
        self.ending = True
        self.join(20)
        assert not self.is_alive() and not self.error, f"the transfer did not end well: {self.error}"


class Agent:
    """`slipstream run` in a node's namespace."""

    def __init__(self, lab, node, config, manifests, name=None):
        """name: of its files, where it is not the only one of its node."""
        self.lab, self.node, self.config, self.manifests = lab, node, config, manifests
        self.config_file = f"{lab.folder}/{name or node}.conf/config.yaml"
        self.log = f"{lab.folder}/{name or node}.log"
        self.process = None
        os.makedirs(os.path.dirname(self.config_file), exist_ok=True)
        self.write_config(config)

    def write_config(self, text):
        self.config = text
        temporary = self.config_file + ".new"
        with open(temporary, "w", encoding="utf-8") as f:
            f.write(text)
        os.rename(temporary, self.config_file)

    def place(self):
        """Where it runs, as a context."""
        return inside(self.node)

    def argv(self, verb, *more):
        return (self.lab.program, verb, "--manifests", self.manifests, "--node", self.node, "--config", self.config_file) + more

    def start(self):
        log = open(self.log, "a", encoding="utf-8")
        with inside(self.node), log:
            self.process = subprocess.Popen(self.argv("run"), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            wait_for(f"{self.node}: agent ready", self.ready, 20)
        except AssertionError as e:
            raise AssertionError(f"{e}: {self.tail()}") from None
        return self

    def ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.node}: agent ended with status {self.process.returncode}")
        try:
            return self.get("/readyz")[0] == 200
        except OSError:
            return False

    def tail(self):
        with open(self.log, encoding="utf-8", errors="replace") as f:
            return f.read()[-1500:]

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def get(self, path):
        """(status, text) over HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", 19500, timeout=5 * topology.PATIENCE)
        with self.place():
            connection.connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self):
        """{'name{labels}': value} of /metrics."""
        status, text = self.get("/metrics")
        assert status == 200, f"/metrics: {status}"
        return {m.group(1): float(m.group(2)) for m in re.finditer(r"^([a-z]\S*(?:\{[^}]*\})?) (\S+)$", text, re.M)}

    def typed(self, name):
        """One metric by traffic type."""
        m = self.metrics()
        return {t: m.get(f'{name}{{type="{t}"}}', 0.0) for t in TYPES}

    def inserts(self):
        return self.typed("slipstream_offload_inserts_total")

    def stop(self):
        """SIGTERM; how long it took, and its exit status."""
        began = time.monotonic()
        self.process.terminate()
        rc = self.process.wait(10)
        return time.monotonic() - began, rc

    def kill(self):
        if self.alive():
            self.process.kill()
            self.process.wait()


class Lab:
    def __init__(self, kernel, shape, control, build):
        self.kernel, self.control = kernel, control
        self.program = os.path.join(build, "slipstream")
        self.flow = os.path.join(build, "lab", "flow")
        self.folder = "/run/lab"
        os.makedirs(self.folder)
        for module in ("br_netfilter", "nf_conntrack_netlink", "nft_flow_offload", "nf_flow_table_inet", "openvswitch")[:None if shape == "antrea" else 4]:
            subprocess.run(("modprobe", module), check=True)
        self.topology = {"bridge": Bridge, "routed": Routed, "antrea": Antrea}[shape](self.flow)
        self.topology.up()
        self.pods = self.topology.pods
        self.cluster = Cluster(f"{self.folder}/manifests", self.topology)
        self.agents = {}
        self.connections = []
        self.undo = []

    # -- before and after a test

    default_config = "apiVersion: slipstream/v1alpha1\nkind: Configuration\n"

    def before(self):
        """Everything as a test may expect it: default Services, an agent with the default configuration on both nodes."""
        for c in self.connections:
            c.abort()
        self.connections = []
        while self.undo:
            self.undo.pop()()
        self.cluster.reset()
        if self.control == "static":
            for node in NODES:
                self.static(node)
        if self.control in ("none", "static"):
            return
        for node in NODES:
            a = self.agents.get(node)
            if not a or not a.alive() or a.config != self.default_config or a.manifests != self.manifests_folder(node):
                self.agent(node)

    def dirty(self):
        """The next test gets new agents over empty tables."""
        for a in self.agents.values():
            a.kill()

    def later(self, function):
        """Undone before the next test."""
        self.undo.append(function)

    def close(self):
        self.dirty()

    def describe(self):
        """For a failed test: what there is."""
        text = ""
        for node, a in self.agents.items():
            text += f"--- agent {node}:\n" + "\n".join(a.tail().splitlines()[-6:]) + "\n"
        text += "--- n1:\n" + run("n1", "nft", "list", "table", "inet", "slipstream", check=False).partition("chain managed")[0][-2500:]
        text += "--- conntrack of n1:\n" + "\n".join(x for x in self.conntrack("n1") if "TIME_WAIT" not in x)
        return text

    # -- the agent

    def manifests_folder(self, node):
        return f"{self.folder}/frozen-{node}" if self.control == "cut" else self.cluster.folder

    def agent(self, node, config=None):
        """A new agent over an empty table, with this configuration (default: only the two header lines)."""
        if self.control in ("none", "static"):
            return None
        old = self.agents.get(node)
        if old:
            old.kill()
        run(node, "nft", "-f", "-", input="table inet slipstream { }\ndelete table inet slipstream\n")
        folder = self.manifests_folder(node)
        if self.control == "cut":
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(self.cluster.folder, folder)
        a = Agent(self, node, self.default_config + config if config else self.default_config, folder)
        self.agents[node] = a
        return a.start()

    def static(self, node):
        devices = ", ".join(f'"{d}"' for d in self.topology.forwarding_devices(node))
        nft(node, f"""table inet static {{ }}
        delete table inet static
        table inet static {{
            flowtable f {{ hook ingress priority 0; devices = {{ {devices} }}; counter; }}
            chain forward {{
                type filter hook forward priority 300; policy accept;
                meta l4proto {{ tcp, udp }} flow add @f counter
            }}
        }}""")

    # -- what the kernel says

    def conntrack(self, node):
        """Lines of /proc/net/nf_conntrack of the host's zone."""
        with inside(node), open("/proc/thread-self/net/nf_conntrack", encoding="ascii") as f:
            return [line.strip() for line in f if not re.search(r"zone=[1-9]", line)]

    def offloaded_to(self, node, port):
        """Addresses of the endpoints of offloaded connections with this client port: where their replies come from."""
        lines = [line for line in self.conntrack(node) if "OFFLOAD]" in line and f" sport={port} " in line]
        return {str(ipaddress.ip_address(re.findall(r" src=(\S+)", line)[1])) for line in lines}

    def offloaded(self, node, port):
        """Whether there is an offloaded connection with this client port (on n2: or with the port that n1 masquerades it to).
        RuntimeError when there is no connection."""
        for _ in range(5):  # a walk over the table may miss an entry while others come and go
            ports = {str(port)}
            if node != "n1":
                ports.update(re.search(r".* dport=(\d+)", line).group(1) for line in self.conntrack("n1") if f" sport={port} " in line)
            lines = [line for line in self.conntrack(node) if ports & set(re.findall(r" sport=(\d+)", line))]
            if lines:
                return any("OFFLOAD]" in line for line in lines)
            time.sleep(0.05)
        raise RuntimeError(f"{node}: no connection with client port {port} in conntrack")

    def slow_packets(self, node):
        text = run(node, "nft", "list", "counter", "inet", "probe", "slow")
        return int(re.search(r"packets (\d+)", text).group(1))

    # -- traffic

    def open(self, ns, address, port, udp=False, mode=None):
        c = Connection(self.flow, ns, address, port, udp, mode)
        self.connections.append(c)
        return c

    def client(self, ns, mode, address, port):
        """One run of `flow client`; Unreachable with its reason when it failed."""
        try:
            return run(ns, self.flow, "client", *mode.split(), address, str(port))
        except CommandError as e:
            raise Unreachable(str(e)) from None

    def inserts(self, node):
        """Inserts by type, from the kernel's own counters: the agent reads them at most once a second."""
        if node not in self.agents:
            return None
        text = run(node, "nft", "list", "counters", "table", "inet", "slipstream")
        found = re.findall(r'counter (\S+) \{\s*packets (\d+)', text)
        return {t: 0 for t in TYPES} | {name.strip('"'): int(n) for name, n in found}

    def settled(self, node):
        """Until the counters of `node` stand still for 0.3 s."""
        last = None
        while last != (now := self.inserts(node)):
            last = now
            time.sleep(0.3)

    def check_inserts(self, node, before, expected):
        """The counters moved by exactly this since 'before', and /metrics follows. Nothing to check without an agent."""
        if before is None:
            return
        def moved():
            now = self.inserts(node)
            return {t: int(now[t] - before[t]) for t in TYPES if now[t] != before[t]}
        try:
            wait_for("", lambda: moved() == expected, 2)
        except AssertionError:
            raise AssertionError(f"{node}: inserts moved by {moved()}, not {expected}") from None
        wait_for(f"{node}: slipstream_offload_inserts_total equals the kernel's counters",
                 lambda: self.agents[node].inserts() == self.inserts(node), 5, 0.2)

    def accelerated(self, ns, address, port, inserts, node="n1", udp=False, rounds=ROUNDS, content=True):
        """Content arrives both ways, the connection is offloaded, the slow path sees next to nothing of it, and the counters
        of `node` move as 'inserts' ({type: n}) says and no others."""
        if content and not udp:
            self.client(ns, "send 200000", address, port)
            # a FIN and the last acknowledgements on two CPUs: the kernel may insert a closing connection once more
            self.settled(node)
        before, slow = self.inserts(node), self.slow_packets(node)
        c = self.open(ns, address, port, udp)
        c.rr(rounds)
        assert self.offloaded(node, c.port), f"{c.what}: not offloaded on {node}"
        c.rr(rounds)
        slow = self.slow_packets(node) - slow
        assert slow <= SLOW_MAX * max(1, sum(inserts.values())), f"{c.what}: {slow} packets on the slow path of {node}"
        self.check_inserts(node, before, inserts)
        c.close()

    def not_accelerated(self, ns, address, port, node="n1", udp=False, rounds=200, content=True):
        """It works, and every packet of it takes the slow path of `node`."""
        if content and not udp:
            self.client(ns, "send 200000", address, port)
        before, slow = self.inserts(node), self.slow_packets(node)
        c = self.open(ns, address, port, udp)
        c.rr(rounds)
        assert not self.offloaded(node, c.port), f"{c.what}: offloaded on {node}"
        slow = self.slow_packets(node) - slow
        assert slow >= 2 * rounds, f"{c.what}: only {slow} packets of {rounds} round trips on the slow path of {node}"
        c.close()
        self.check_inserts(node, before, {})

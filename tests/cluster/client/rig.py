# SPDX-License-Identifier: GPL-2.0-or-later
"""A real API server, the agent and the replica (replica.c) on the loopback device of one network namespace, with a relay in
between that can be cut."""
import base64
import contextlib
import http.client
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time

import harness
from topology import Pod, run, wait_for
from world import service, slices

CONTROL = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "control")
API_PORT, ETCD_PORT, RELAY_PORT = 16443, 12379, 16400
KINDS = ("nodes", "services", "endpointslices")
NAMESPACED = {"Service": "/api/v1/namespaces/{}/services", "Endpoints": "/api/v1/namespaces/{}/endpoints",
              "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices"}
LISTS = {"nodes": "/api/v1/nodes", "services": "/api/v1/services", "endpoints": "/api/v1/endpoints",
         "endpointslices": "/apis/discovery.k8s.io/v1/endpointslices"}
CONFIG = "apiVersion: slipstream/v1alpha1\nkind: Configuration\n"


class Api:
    """The API server as its administrator sees it, over one kept connection per thread."""

    def __init__(self, state):
        self.context = ssl.create_default_context(cafile=f"{state}/pki/ca.crt")
        self.context.load_cert_chain(f"{state}/pki/admin.crt", f"{state}/pki/admin.key")
        self.local = threading.local()

    def call(self, method, path, body=None, content="application/json"):
        """The answer's status and text."""
        for last in (False, True):
            connection = getattr(self.local, "connection", None)
            if not connection:
                self.local.connection = connection = http.client.HTTPSConnection("127.0.0.1", API_PORT, timeout=60, context=self.context)
            try:
                connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": content})
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except (OSError, http.client.HTTPException):  # the server was restarted since
                connection.close()
                self.local.connection = None
                if last:
                    raise
        return None

    def must(self, *argv, **more):
        status, text = self.call(*argv, **more)
        if status >= 300:
            raise RuntimeError(f"{argv[0]} {argv[1]}: {status} {text[:500]}")
        return json.loads(text)

    def get(self, path):
        return self.must("GET", path)

    def patch(self, path, body):
        return self.must("PATCH", path, body, content="application/merge-patch+json")

    @staticmethod
    def folder(o):
        kind = o["kind"]
        return LISTS["nodes"] if kind == "Node" else NAMESPACED[kind].format(o["metadata"]["namespace"])

    def create(self, *objects):
        """Makes them, or makes them what they are here; Services with their status."""
        for o in objects:
            path = f"{self.folder(o)}/{o['metadata']['name']}"
            if self.call("PATCH", path, o, content="application/merge-patch+json")[0] == 404:
                self.must("POST", self.folder(o), o)
            if o.get("status"):
                self.patch(f"{path}/status", {"status": o["status"]})

    def delete(self, *objects):
        for o in objects:
            self.must("DELETE", f"{self.folder(o)}/{o['metadata']['name']}")


class Relay:
    """Carries bytes between the agents and the API server until it is told not to."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", RELAY_PORT))
        self.sockets = set()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            near = self.listener.accept()[0]
            try:
                far = socket.create_connection(("127.0.0.1", API_PORT))
            except OSError:
                near.close()
                continue
            self.sockets |= {near, far}
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.copy, args=(a, b), daemon=True).start()

    def copy(self, a, b):
        with contextlib.suppress(OSError):
            while True:
                data = a.recv(1 << 16)
                if not data:
                    break
                b.sendall(data)
        self.end({a, b})

    def end(self, sockets):
        for s in sockets & self.sockets:
            self.sockets.discard(s)
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Every connection ends; new ones are taken."""
        self.end(set(self.sockets))


class Credentials:
    """A service account's folder as a pod has it."""

    def __init__(self, folder, state):
        self.folder, self.state = folder, state
        os.makedirs(folder)
        self.write("namespace", "slipstream")
        for name in ("token", "ca.crt"):
            with open(f"{state}/sa/{name}", encoding="ascii") as f:
                self.write(name, f.read())

    def write(self, name, text):
        """As the kubelet does it: whole or not at all."""
        with open(f"{self.folder}/{name}.new", "w", encoding="ascii") as f:
            f.write(text)
        os.rename(f"{self.folder}/{name}.new", f"{self.folder}/{name}")

    def token(self, api, seconds):
        """Writes a token that the server takes for so long, and 10 s more for requests whose token it has just checked. It
        allows for clocks that differ by a minute (go-jose's DefaultLeeway)."""
        def part(raw):
            return base64.urlsafe_b64encode(raw).rstrip(b"=")
        account = api.get("/api/v1/namespaces/slipstream/serviceaccounts/slipstream")["metadata"]
        issuer, now = "https://kubernetes.default.svc.cluster.local", int(time.time())
        claims = {"iss": issuer, "aud": [issuer], "iat": now - 3600, "nbf": now - 3600, "exp": now - 60 + seconds,
                  "sub": "system:serviceaccount:slipstream:slipstream",
                  "kubernetes.io": {"namespace": "slipstream", "serviceaccount": {"name": "slipstream", "uid": account["uid"]}}}
        text = b".".join(part(json.dumps(o).encode()) for o in ({"alg": "RS256", "typ": "JWT"}, claims))
        signature = subprocess.run(("openssl", "dgst", "-sha256", "-sign", f"{self.state}/pki/sa.key"), input=text,
                                   capture_output=True, check=True).stdout
        self.write("token", (text + b"." + part(signature)).decode())

    def environment(self, port):
        return {"PATH": os.environ["PATH"], "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port),
                "SLIPSTREAM_SERVICEACCOUNT": self.folder}


class PodAgent(harness.Agent):
    """`slipstream run` with a pod's credentials, in this namespace."""

    def __init__(self, rig, config, port, credentials):
        self.port, self.credentials = port, credentials
        super().__init__(rig, "n1", CONFIG + config, None)

    def start(self):
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen((self.lab.program, "run", "--node", "n1", "--config", self.config_file),
                                            env=self.credentials.environment(self.port), stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL)
        wait_for("agent ready", self.ready, 30)
        return self

    def place(self):
        return contextlib.nullcontext()

    def source(self):
        return json.loads(self.get("/status")[1])["source"]

    def counts(self, name, label):
        """A metric by the values of its one label."""
        prefix = f'slipstream_{name}{{{label}="'
        return {k[len(prefix):-2]: v for k, v in self.metrics().items() if k.startswith(prefix)}

    def lists(self):
        return self.counts("lists_total", "resource")

    def failures(self):
        return {k: v for k, v in self.counts("source_failures_total", "reason").items() if v}

    def problems(self):
        return {r["resource"]: r["problem"] for r in self.source()["resources"] if r["problem"]}


class Replica:
    """replica.c at work: every state that the replica was in, and every problem."""

    def __init__(self, rig, port, credentials):
        self.states, self.problems = [], []
        self.process = subprocess.Popen((rig.replica_program, f"{rig.folder}/n1.conf/config.yaml"), text=True,
                                        env=credentials.environment(port), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            o = json.loads(line)
            if "problem" in o:
                self.problems.append(o["problem"])
            else:
                self.states.append(o)

    def is_(self, truth):
        return bool(self.states) and all(self.states[-1][k] == truth[k] for k in KINDS) and len(self.states[-1]["synced"]) == 3

    def kill(self):
        self.process.kill()
        self.process.wait()


def canonical(addresses):
    return [str(ipaddress.ip_address(a)) for a in addresses]


def service_truth(s):
    spec, balancer = s["spec"], s.get("status", {}).get("loadBalancer") or {}
    numbers = {"TCP": 6, "UDP": 17, "SCTP": 132}
    return {"clusterIPs": canonical(spec.get("clusterIPs", [])), "externalIPs": canonical(spec.get("externalIPs", [])),
            "loadBalancerIPs": canonical(i["ip"] for i in balancer.get("ingress") or []),
            "ports": [f"{numbers[p['protocol']]}/{p['port']}/{p.get('nodePort', 0)}" for p in spec.get("ports", [])],
            "excluded": (s["metadata"].get("annotations") or {}).get("slipstream/exclude") == "true"}


def slice_truth(s):
    """Endpoints are one slice of their name with all addresses, sorted."""
    if "subsets" in s or s.get("kind") == "Endpoints":
        found = sorted({(ipaddress.ip_address(a["ip"]), "ready" if key == "addresses" else "-")
                        for sub in s.get("subsets") or [] for key in ("addresses", "notReadyAddresses") for a in sub.get(key) or []},
                       key=lambda e: (e[0].version, e[0]))
        return {"service": s["metadata"]["name"], "endpoints": [f"{a} {r}" for a, r in found]}
    return {"service": (s["metadata"].get("labels") or {}).get("kubernetes.io/service-name", ""),
            "endpoints": [f"{ipaddress.ip_address(a)} {'-' if e.get('conditions', {}).get('ready') is False else 'ready'}"
                          for e in s["endpoints"] or [] for a in e["addresses"]]}


class Rig:
    """What a test holds in its hands. `kernel` and describe() are what lab.run_case() asks for."""

    kernel = "any"

    def __init__(self, folder, build):
        self.folder, self.state, self.program = folder, f"{folder}/cp", os.path.join(build, "slipstream")
        self.replica_program = os.path.join(build, "replica")
        self.plain, self.agent, self.replica, self.credentials = True, None, None, 0
        subprocess.run(("ip", "link", "set", "lo", "up"), check=True)
        self.control("up")
        self.api, self.relay = Api(self.state), Relay()
        self.role = self.api.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/slipstream")["rules"]
        self.pod = Pod("n2", 1)
        self.objects()

    def control(self, verb, args="", ready="/readyz"):
        """`control`, whose API server then has these arguments as well and is waited for at this path."""
        subprocess.run((CONTROL, verb, self.state), check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "CP_PORT": str(API_PORT), "CP_ETCD": str(ETCD_PORT), "CP_ARGS": args, "CP_READY": ready})

    def restart_api(self, args="", kill=False, between=None, ready="/readyz"):
        if kill:
            with open(f"{self.state}/apiserver.pid", encoding="ascii") as f:
                os.kill(int(f.read()), signal.SIGKILL)
            wait_for("API server gone", lambda: not self.listening(), 10)
        self.control("stop-api")
        if between:
            between()
        self.control("start-api", args, ready)
        self.plain = not args

    @staticmethod
    def listening():
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", API_PORT)) == 0

    # -- objects

    def objects(self):
        """A small cluster of every kind of address."""
        for i in (1, 2, 3):
            self.api.create(self.node(i))
        for o in self.web(), *slices("web", self.pod), service("lb", "10.96.0.78", "fd96::78", type="LoadBalancer",
                                                               lb=("203.0.113.78", "2001:db8:113::78")):
            self.api.create(o)

    @staticmethod
    def node(i):
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{i}"},
                "spec": {"podCIDR": f"10.0.{i}.0/24", "podCIDRs": [f"10.0.{i}.0/24", f"fd10:0:{i}::/64"]},
                "status": {"addresses": [{"type": "InternalIP", "address": f"192.168.0.1{i}"}]}}

    @staticmethod
    def web(external=("198.51.100.77",)):
        return service("web", "10.96.0.77", "fd96::77", node_port=30077, external_ips=external)

    @staticmethod
    def other(i=0):
        return service(f"other-{i}", f"10.96.1.{i + 1}", f"fd96::1{i:03x}")

    def truth(self, slices_from="endpointslices"):
        """What the replica shall hold, by the API server's own lists."""
        def items(resource):
            return self.api.get(LISTS[resource])["items"]
        def name(o):
            return f"{o['metadata']['namespace']}/{o['metadata']['name']}"
        def ours(o):
            return "service.kubernetes.io/service-proxy-name" not in (o["metadata"].get("labels") or {})
        return {"nodes": {n["metadata"]["name"]: {"podCIDRs": n["spec"].get("podCIDRs", []),
                                                  "addresses": canonical(a["address"] for a in n["status"].get("addresses", [])
                                                                         if a["type"] in ("InternalIP", "ExternalIP"))}
                          for n in items("nodes")},
                "services": {name(s): service_truth(s) for s in items("services") if ours(s) and s["spec"].get("clusterIP") != "None"},
                "endpointslices": {name(s): slice_truth(s) for s in items(slices_from)}}

    # -- a test

    def before(self):
        self.stop()
        if not self.plain or not self.listening():
            self.restart_api()
        self.rules(self.role)
        kept = {"web", "lb", "kubernetes", "n1", "n2", "n3", "web-ipv4", "web-ipv6"}
        for resource, kind in (("services", "Service"), ("endpointslices", "EndpointSlice"), ("nodes", "Node")):
            for o in self.api.get(LISTS[resource])["items"]:
                if o["metadata"]["name"] not in kept:
                    self.api.delete({"kind": kind, **o})
        self.objects()

    def rules(self, rules):
        """What the agent may do. Role changes reach the authorizer by its own watch: within a second."""
        path = "/apis/rbac.authorization.k8s.io/v1/clusterroles/slipstream"
        if self.api.get(path)["rules"] != rules:
            self.api.patch(path, {"rules": rules})
            time.sleep(1)

    def start(self, config="", port=RELAY_PORT, replica_credentials=None, credentials=None, slices_from="endpointslices"):
        """Agent and replica, each synced."""
        self.slices_from = slices_from
        credentials = self.start_agent(config, port, credentials).credentials
        self.replica = Replica(self, port, replica_credentials or credentials)
        self.settled(20)
        return credentials

    def start_agent(self, config="", port=RELAY_PORT, credentials=None):
        self.agent = PodAgent(self, config, port, credentials or self.new_credentials())
        return self.agent.start()

    def new_credentials(self):
        self.credentials += 1
        return Credentials(f"{self.folder}/sa-{self.credentials}", self.state)

    def stop(self):
        for p in (self.agent, self.replica):
            if p:
                p.process.send_signal(signal.SIGCONT)
                p.kill()
        self.agent = self.replica = None

    def settled(self, seconds=60):
        """Until agent and replica hold what the API server holds; and that."""
        truth = self.truth(self.slices_from)
        counts = {k: len(truth[k]) for k in KINDS}
        wait_for(f"replica is {truth}", lambda: self.replica.is_(truth), seconds)
        wait_for(f"agent has {counts}", lambda: self.agent.counts("objects", "kind") == counts, seconds)
        return truth

    @contextlib.contextmanager
    def disturbed(self, seconds=60):
        """For what happens within: in the end agent and replica hold the truth again, and in between nothing went missing
        that is there before and after, and nothing had a content that it never had."""
        then, first, samples, over = self.settled(), len(self.replica.states), [], threading.Event()
        lists = self.agent.lists()
        sampler = threading.Thread(target=self.sample, args=(samples, over))
        sampler.start()
        try:
            yield
            now = self.settled(seconds)
        finally:
            over.set()
            sampler.join()
        for state in self.replica.states[first:]:
            for kind in KINDS:
                missing = (then[kind].keys() & now[kind].keys()) - state[kind].keys()
                assert not missing, f"{kind} {missing} went missing"
                for name, o in state[kind].items():
                    assert o in (then[kind].get(name), now[kind].get(name)) or name not in then[kind], f"{kind} {name}: {o}"
        assert samples, "/metrics was never answered"
        for m in samples:
            for kind in KINDS:
                low = len(then[kind].keys() & now[kind].keys())
                assert m[f'slipstream_objects{{kind="{kind}"}}'] >= low, f"{kind}: {m}"
            assert m["slipstream_ready"] == 1
        assert self.agent.alive()
        self.relisted = {k: v - lists[k] for k, v in self.agent.lists().items()}

    def sample(self, samples, over):
        agent = self.agent
        while True:
            with contextlib.suppress(OSError):  # it may be stopped
                samples.append(agent.metrics())
            if over.wait(0.05):
                return

    def compact(self):
        """etcd forgets everything but the present."""
        def etcd(path, body):
            c = http.client.HTTPConnection("127.0.0.1", ETCD_PORT, timeout=30)
            c.request("POST", path, json.dumps(body))
            answer = c.getresponse()
            text = answer.read()
            assert answer.status == 200, f"{path}: {text}"
            return json.loads(text)
        revision = etcd("/v3/kv/range", {"key": base64.b64encode(b"x").decode()})["header"]["revision"]
        etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    def silence(self, on):
        """Packets between relay and agents are lost, and nobody is told."""
        rules = f"table ip silence {{ chain in {{ type filter hook input priority 0; tcp dport {RELAY_PORT} drop; tcp sport {RELAY_PORT} drop; }}\n}}"
        run(None, "nft", "-f", "-", input=rules) if on else run(None, "nft", "delete", "table", "ip", "silence")

    def describe(self):
        agent = self.agent.tail() if self.agent else "no agent"
        return f"--- agent:\n{agent}\n--- replica: {self.replica.problems if self.replica else 'none'}"

    def close(self):
        self.stop()
        self.control("down")

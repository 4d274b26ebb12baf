# SPDX-License-Identifier: GPL-2.0-or-later
"""Fills an API server with a large cluster whose objects weigh what real ones do, and keeps it moving."""
import concurrent.futures
import hashlib
import random
import threading
import time

NAMESPACES = 20
MERGE = "application/merge-patch+json"


def digest(text, n):
    return hashlib.sha256(text.encode()).hexdigest()[:n]


def uid(text):
    h = digest(text, 32)
    return f"{h[:8]}-{h[8:12]}-4{h[13:16]}-a{h[17:20]}-{h[20:]}"


def zone(i):
    return "eu-west-1" + "abc"[i % 3]


def node_name(i):
    return f"ip-10-200-{i >> 8}-{i & 255}.eu-west-1.compute.internal"


def namespace(i):
    return f"team-{i % NAMESPACES:02}"


def service_name(i):
    return f"service-{i:05}"


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def node(i):
    """With the labels and annotations of a cloud's node, and the images that a kubelet reports."""
    name, z = node_name(i), zone(i)
    reasons = {"MemoryPressure": "KubeletHasSufficientMemory", "DiskPressure": "KubeletHasNoDiskPressure",
               "PIDPressure": "KubeletHasSufficientPID", "Ready": "KubeletReady"}
    capacity = {"cpu": "16", "memory": "64824432Ki", "ephemeral-storage": "209702892Ki", "pods": "110", "hugepages-1Gi": "0",
                "hugepages-2Mi": "0", "attachable-volumes-aws-ebs": "25"}
    images = []
    for k in range(26):
        repository = f"602401143452.dkr.ecr.eu-west-1.amazonaws.com/apps/team-{(i + k) % NAMESPACES:02}/service-{(i * 7 + k * 13) % 400:03}"
        images.append({"names": [f"{repository}@sha256:{digest(repository, 64)}", f"{repository}:v1.{k}.{i % 30}"],
                       "sizeBytes": 900000000 - k * 20000000})
    return {"apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "beta.kubernetes.io/arch": "amd64", "beta.kubernetes.io/instance-type": "m6i.4xlarge", "beta.kubernetes.io/os": "linux",
                "failure-domain.beta.kubernetes.io/region": "eu-west-1", "failure-domain.beta.kubernetes.io/zone": z,
                "k8s.io/cloud-provider-aws": "b4f1c1b8a5c8bb0d0f1f2ce6c3f4a5b6", "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "node.kubernetes.io/instance-type": "m6i.4xlarge",
                "topology.ebs.csi.aws.com/zone": z, "topology.kubernetes.io/region": "eu-west-1", "topology.kubernetes.io/zone": z,
                "node-pool": f"pool-{i % 7}"},
                "annotations": {"alpha.kubernetes.io/provided-node-ip": f"10.200.{i >> 8}.{i & 255}", "node.alpha.kubernetes.io/ttl": "300",
                                "csi.volume.kubernetes.io/nodeid": f'{{"ebs.csi.aws.com":"i-0{digest(name, 16)}"}}',
                                "volumes.kubernetes.io/controller-managed-attach-detach": "true"}},
            "spec": {"podCIDR": f"100.{64 + (i >> 8)}.{i & 255}.0/24", "podCIDRs": [f"100.{64 + (i >> 8)}.{i & 255}.0/24"],
                     "providerID": f"aws:///{z}/i-0{digest(name, 16)}"},
            "status": {"capacity": capacity, "allocatable": capacity, "images": images,
                       "conditions": conditions(reasons),
                       "addresses": [{"type": "InternalIP", "address": f"10.200.{i >> 8}.{i & 255}"},
                                     {"type": "InternalDNS", "address": name}, {"type": "Hostname", "address": name}],
                       "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
                       "nodeInfo": {"machineID": digest("m" + name, 32), "systemUUID": uid("s" + name), "bootID": uid("b" + name),
                                    "kernelVersion": "6.12.40-63.114.amzn2023.x86_64", "osImage": "Amazon Linux 2023.8.20250818",
                                    "containerRuntimeVersion": "containerd://2.1.4", "kubeletVersion": "v1.36.3", "kubeProxyVersion": "",
                                    "operatingSystem": "linux", "architecture": "amd64"}}}


def conditions(reasons):
    return [{"type": t, "status": "True" if t == "Ready" else "False", "reason": r, "message": f"kubelet: {r}",
             "lastHeartbeatTime": now(), "lastTransitionTime": now()} for t, r in reasons.items()]


def labels(i):
    n = service_name(i)
    return {"app.kubernetes.io/name": n, "app.kubernetes.io/instance": n + "-prod", "app.kubernetes.io/managed-by": "Helm",
            "app.kubernetes.io/version": f"1.{i % 40}.0", "helm.sh/chart": "service-2.14.1", "team": namespace(i)}


def service(i):
    """80 % ClusterIP, 10 % NodePort, 8 % LoadBalancer, 2 % externalIPs."""
    n, kind = service_name(i), i % 50
    o = {"apiVersion": "v1", "kind": "Service",
         "metadata": {"name": n, "namespace": namespace(i), "labels": labels(i),
                      "annotations": {"meta.helm.sh/release-name": n, "meta.helm.sh/release-namespace": namespace(i)}},
         "spec": {"type": "NodePort" if kind < 5 else "LoadBalancer" if kind < 9 else "ClusterIP",
                  "selector": {"app.kubernetes.io/name": n, "app.kubernetes.io/instance": n + "-prod"},
                  "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}}
    if i % 3 == 0 and kind >= 9:
        o["spec"]["ports"].append({"name": "metrics", "port": 9090, "targetPort": 9090, "protocol": "TCP"})
    if 5 <= kind < 9:
        o["status"] = {"loadBalancer": {"ingress": [{"ip": f"203.0.{i >> 8 & 255}.{i & 255}", "ipMode": "VIP"}]}}
    elif kind == 9:
        o["spec"]["externalIPs"] = [f"198.51.{i >> 8 & 255}.{i & 255}"]
    return o


def slices(services, endpoints, nodes):
    """Most Services are small, some have hundreds of endpoints; a slice has 100 at the most."""
    pod = 0
    for i in range(services):
        r = i % 100
        n = round((3 if r < 70 else 10 if r < 95 else 60 if r < 99 else 300) * endpoints / services / 10)
        for part in range(max(1, (n + 99) // 100)):
            k = min(100, n - 100 * part)
            yield slice_(i, part, pod, k, nodes)
            pod += k


def slice_(i, part, first, n, nodes):
    name = service_name(i)
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    if i % 3 == 0 and i % 50 >= 9:
        ports.append({"name": "metrics", "port": 9090, "protocol": "TCP"})
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
            "metadata": {"name": f"{name}-{digest(f'{i}/{part}', 5)}", "generateName": f"{name}-", "namespace": namespace(i),
                         "labels": {**labels(i), "kubernetes.io/service-name": name,
                                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"},
                         "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": now()},
                         "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": name, "uid": uid(name), "controller": True,
                                              "blockOwnerDeletion": True}]},
            "endpoints": [endpoint(name, namespace(i), k, nodes) for k in range(first, first + n)]}


def endpoint(service_, ns, k, nodes):
    where = k * 2654435761 % nodes
    pod = f"{service_}-{digest(service_, 10)}-{digest(str(k), 5)}"
    return {"addresses": [f"100.{64 + (k >> 16)}.{k >> 8 & 255}.{k & 255}"],
            "conditions": {"ready": True, "serving": True, "terminating": False}, "hints": {"forZones": [{"name": zone(where)}]},
            "nodeName": node_name(where), "zone": zone(where),
            "targetRef": {"kind": "Pod", "namespace": ns, "name": pod, "uid": uid(pod)}}


def fill(api, nodes, services, endpoints):
    """Makes it all, some requests at a time; yields how many objects took how long, per kind."""
    def make(o):
        api.must("POST", api.folder(o), o)
        if o["kind"] == "Service" and "status" in o:
            api.patch(f"{api.folder(o)}/{o['metadata']['name']}/status", {"status": o["status"]})
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i in range(NAMESPACES):
            api.must("POST", "/api/v1/namespaces", {"metadata": {"name": namespace(i)}})
        for objects in (map(node, range(nodes)), map(service, range(services)), slices(services, endpoints, nodes)):
            began = time.monotonic()
            n = sum(1 for _ in pool.map(make, objects))
            yield n, time.monotonic() - began


class Churn(threading.Thread):
    """So many updates per second of slices (one endpoint turns), Services (an annotation) and Nodes (a heartbeat)."""

    def __init__(self, api, nodes, services, seconds, rates=(50, 5, 20)):
        super().__init__()
        self.api, self.seconds, self.rates, self.done = api, seconds, rates, 0
        self.random = random.Random(1)
        page = "?limit=500"
        self.slices = api.get("/apis/discovery.k8s.io/v1/endpointslices" + page)["items"]
        self.nodes, self.services = nodes, services

    def slice(self, i):
        o = self.slices[i % len(self.slices)]
        if o["endpoints"]:
            c = o["endpoints"][0]["conditions"]
            c["ready"] = c["serving"] = not c["ready"]
        o["metadata"].pop("resourceVersion", None)
        o["metadata"].pop("managedFields", None)
        o["metadata"].setdefault("annotations", {})["endpoints.kubernetes.io/last-change-trigger-time"] = now()
        self.api.must("PUT", f"{self.api.folder({'kind': 'EndpointSlice', **o})}/{o['metadata']['name']}", o)

    def service(self, i):
        i %= self.services
        self.api.patch(f"/api/v1/namespaces/{namespace(i)}/services/{service_name(i)}",
                       {"metadata": {"annotations": {"example.com/changed": str(time.time_ns())}}})

    def heartbeat(self, i):
        reasons = {"MemoryPressure": "KubeletHasSufficientMemory", "DiskPressure": "KubeletHasNoDiskPressure",
                   "PIDPressure": "KubeletHasSufficientPID", "Ready": "KubeletReady"}
        self.api.patch(f"/api/v1/nodes/{node_name(i % self.nodes)}/status", {"status": {"conditions": conditions(reasons)}})

    def run(self):
        """One list of what is due when; four workers."""
        due = sorted((i / rate, what, i) for rate, what in zip(self.rates, ("slice", "service", "heartbeat"))
                     for i in range(int(rate * self.seconds)))
        began = time.monotonic()
        def do(job):
            time.sleep(max(0.0, began + job[0] - time.monotonic()))
            getattr(self, job[1])(job[2])
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            self.done = sum(1 for _ in pool.map(do, due))
        self.took = time.monotonic() - began

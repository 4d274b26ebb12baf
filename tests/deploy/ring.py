#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""The deploy ring: what deploy/ and the Dockerfile give, before a cluster has it.

chart: renders, is current, lints, refuses what is wrong, and knows exactly the configuration that the program knows.
image: builds for amd64 and arm64 without a registry, starts (arm64 under qemu-user), is small, holds no shell.
api:   a real API server takes the manifests, strictly; the image's program runs with the manifests' ServiceAccount, root
       file system and capability, and the audit log says what of its rights it used.
"""
import argparse
import collections
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback

import yaml

HERE = os.path.dirname(os.path.realpath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
DEPLOY = os.path.join(TOP, "deploy")
CHART = os.path.join(DEPLOY, "chart")
CACHE = os.environ.get("SLIPSTREAM_CACHE") or os.path.expanduser("~/.cache/slipstream")
HELM, KUBECTL, KUBECONFORM = (os.path.join(CACHE, "bin", n) for n in ("helm", "kubectl", "kubeconform"))
OVERLAYS = ("antrea", "kube-proxy")
SIZE_MAX = 25 * 1000 * 1000
ARGS = None
TESTS = []


class Skip(Exception):
    pass


def test(f):
    TESTS.append(f)
    return f


def run(*argv, ok=True, **kw):
    p = subprocess.run(argv, capture_output=True, text=True, **kw)
    if ok and p.returncode:
        raise AssertionError(f"{' '.join(argv)}: status {p.returncode}: {p.stderr.strip() or p.stdout.strip()}")
    return p


def template(*args, ok=True):
    return run(HELM, "template", "slipstream", CHART, "--namespace", "slipstream", "--kube-version", "1.36", *args, ok=ok)


def objects(text):
    return {f"{o['kind']}/{o['metadata']['name']}": o for o in yaml.safe_load_all(text) if o}


def values_file(folder, values):
    path = os.path.join(folder, "values.yaml")
    with open(path, "w") as f:
        yaml.safe_dump(values, f)
    return path


def config_answer(text):
    """What the program says of a configuration: None when it takes it. (`status` reads it and then finds no agent: 1, not 2.)"""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as f:
        f.write(text)
        f.flush()
        p = run(os.path.join(ARGS.build, "slipstream"), "status", "--config", f.name, ok=False, env={"HOST_IP": "127.0.0.1"})
    return p.stderr.strip() if p.returncode == 2 else None


def config_of(objs):
    return objs["ConfigMap/slipstream"]["data"]["config.yaml"]


# ---- chart

@test
def rendered_manifests_are_current():
    run(os.path.join(DEPLOY, "render"), "--check")


@test
def helm_lint_is_clean():
    run(HELM, "lint", "--strict", "--kube-version", "1.36", CHART)


def leaves(schema, path=()):
    if schema.get("type") == "object" and "properties" in schema:
        for k, v in schema["properties"].items():
            yield from leaves(v, path + (k,))
    else:
        yield path, schema


def nested(path, value):
    for k in reversed(path):
        value = {k: value}
    return value


def config_schema():
    with open(os.path.join(CHART, "values.schema.json")) as f:
        return json.load(f)["properties"]["config"]


def as_config(values):
    return "apiVersion: slipstream/v1alpha1\nkind: Configuration\n" + (yaml.safe_dump(values) if values else "")


@test
def chart_knows_the_keys_of_the_program():
    """In both directions: every key and word of the schema is taken by the program, and the program's own lists are the schema's."""
    schema = config_schema()

    def keys(at, path):
        answer = config_answer(as_config(nested(path + ("no-such-key",), 1)))
        said = set(re.search(r"no such key \(allowed: (.*)\)", answer).group(1).split(", "))
        mine = set(at["properties"]) | (set() if path else {"apiVersion", "kind", "listen"})
        assert said == mine, f"config.{'.'.join(path)}: the program knows {sorted(said)}, the chart {sorted(mine)}"
        for k, v in at["properties"].items():
            if v.get("type") == "object":
                keys(v, path + (k,))

    keys(schema, ())
    for path, leaf in leaves(schema):
        words = leaf.get("enum", [leaf["const"]] if "const" in leaf else [])
        for word in words:
            answer = config_answer(as_config(nested(path, word)))
            assert answer is None, f"the chart allows what the program refuses: {answer}"
        if words:
            answer = config_answer(as_config(nested(path, "no-such-word")))
            said = re.search(r"\(allowed: (.*)\)$", answer)
            if said:
                mine = {w for w in words if isinstance(w, str)}
                assert set(said.group(1).split(", ")) == mine, f"config.{'.'.join(path)}: {answer}; the chart has {sorted(mine)}"


BAD = [
    ({"config": {"bogus": 1}}, "bogus"),
    ({"config": {"listen": "0.0.0.0:1"}}, "listen"),
    ({"config": {"cluster": {"kind": "cilium"}}}, "/config/cluster/kind"),
    ({"config": {"cluster": {"localPodCIDRs": "10.0.0.0/8"}}}, "localPodCIDRs"),
    ({"config": {"traffic": {"pod-to-pods": {"engine": "auto"}}}}, "pod-to-pods"),
    ({"config": {"traffic": {"pod-to-pod": {"engine": "fast"}}}}, "/config/traffic/pod-to-pod/engine"),
    ({"config": {"exclude": {"cidrs": ["ten"]}}}, "/config/exclude/cidrs/0"),
    ({"config": {"enabled": "yes please"}}, "/config/enabled"),
    ({"config": {"log": {"level": "chatty"}}}, "/config/log/level"),
    ({"port": 0}, "/port"),
    ({"port": "http"}, "/port"),
    ({"image": {"tag": "latest"}}, "/image/tag"),
    ({"image": {"digest": "sha256:12"}}, "/image/digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"maxUnavailable": 0}, "/maxUnavailable"),
    ({"maxUnavailable": "10"}, "/maxUnavailable"),
    ({"nodeSelector": {"canary": True}}, "/nodeSelector/canary"),
    ({"tolerations": [{"operator": "Maybe"}]}, "/tolerations/0"),
    ({"resources": {"limits": {"memory": "much"}}}, "/resources/limits/memory"),
    ({"podMonitor": {"enable": True}}, "enable"),
    ({"podMonitor": {"interval": "often"}}, "/podMonitor/interval"),
    ({"privileged": True}, "privileged"),
    ({"cleanup": "on"}, "/cleanup"),
]


@test
def schema_refuses_what_is_wrong():
    with tempfile.TemporaryDirectory() as folder:
        for values, where in BAD:
            p = template("-f", values_file(folder, values), ok=False)
            assert p.returncode, f"helm takes {values}"
            assert where in p.stderr, f"{values}: helm does not name {where}: {p.stderr}"


@test
def every_value_has_its_effect():
    values = {
        "image": {"repository": "registry.example.org:5000/net/slipstream", "digest": "sha256:" + "a" * 64, "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}], "port": 19600,
        "config": {"cluster": {"kind": "antrea", "localPodCIDRs": ["10.1.0.0/16", "fd01::/64"]}, "traffic": {"pod-to-external": {"engine": False}},
                   "exclude": {"cidrs": ["192.0.2.0/24"]}, "kubernetes": {"endpoints": "endpoints"}, "onExit": "cleanup"},
        "nodeSelector": {"slipstream-canary": "true"}, "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {}}, "priorityClassName": "", "maxUnavailable": 2,
        "resources": {"requests": {"cpu": "20m"}, "limits": {"memory": "1Gi"}}, "podAnnotations": {"a": "b"}, "podLabels": {"c": "d"},
        "podMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "p"}}, "createNamespace": True, "cleanup": True,
    }
    with open(os.path.join(CHART, "values.yaml")) as f:
        missing = set(yaml.safe_load(f)) - set(values)
    assert not missing, f"values without a check: {missing}"
    with tempfile.TemporaryDirectory() as folder:
        objs = objects(template("-f", values_file(folder, values)).stdout)
        plain = objects(template().stdout)
    config = yaml.safe_load(config_of(objs))
    assert config_answer(config_of(objs)) is None and config_answer(config_of(plain)) is None
    assert config["listen"] == "node:19600" and config["enabled"] is False and config["cluster"] == values["config"]["cluster"]
    spec = objs["DaemonSet/slipstream"]["spec"]
    pod = spec["template"]["spec"]
    main, = pod["containers"]
    init, = pod["initContainers"]
    image = "registry.example.org:5000/net/slipstream@sha256:" + "a" * 64
    assert main["image"] == init["image"] == image and init["args"] == ["cleanup"] and main["imagePullPolicy"] == "Always"
    assert main["ports"][0]["containerPort"] == 19600 and main["resources"]["limits"] == {"memory": "1Gi"}
    assert pod["imagePullSecrets"] == [{"name": "pull"}] and pod["affinity"] == {"nodeAffinity": {}} and "priorityClassName" not in pod
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "slipstream-canary": "true"} and pod["tolerations"][0]["key"] == "a"
    assert spec["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == 2
    meta = spec["template"]["metadata"]
    assert meta["annotations"]["a"] == "b" and meta["labels"]["c"] == "d"
    assert meta["annotations"]["checksum/config"] != plain["DaemonSet/slipstream"]["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
    monitor = objs["PodMonitor/slipstream"]
    assert monitor["metadata"]["labels"]["release"] == "p" and monitor["spec"]["podMetricsEndpoints"][0]["interval"] == "15s"
    assert "Namespace/slipstream" in objs and "Namespace/slipstream" not in plain and "PodMonitor/slipstream" not in plain
    resources = sorted(r for rule in objs["ClusterRole/slipstream"]["rules"] for r in rule["resources"])
    assert resources == ["endpoints", "nodes", "services"], resources
    off = objects(template("--set", "config.kubernetes.endpoints=off").stdout)["ClusterRole/slipstream"]["rules"]
    assert sorted(r for rule in off for r in rule["resources"]) == ["nodes", "services"], off


@test
def pods_have_what_they_need_and_no_more():
    """What reviewers read, in each manifest that is applied; kube-linter's defaults among them."""
    texts = {n: open(os.path.join(DEPLOY, n)).read() for n in ("slipstream.yaml", "cleanup.yaml")}
    texts.update({n: run(KUBECTL, "kustomize", os.path.join(DEPLOY, "kustomize", n)).stdout for n in OVERLAYS})
    for name, text in texts.items():
        objs = objects(text)
        version = yaml.safe_load(open(os.path.join(CHART, "Chart.yaml")))["appVersion"]
        ds = objs["DaemonSet/slipstream"]
        pod = ds["spec"]["template"]["spec"]
        assert objs["Namespace/slipstream"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged", name
        assert ds["spec"]["selector"]["matchLabels"].items() <= ds["spec"]["template"]["metadata"]["labels"].items(), name
        assert pod["hostNetwork"] is True and not pod.get("hostPID") and not pod.get("hostIPC"), name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["serviceAccountName"] == "slipstream" and "ServiceAccount/slipstream" in objs, name
        assert [list(v) for v in pod["volumes"]] in ([["name", "configMap"]], [["configMap", "name"]]), f"{name}: {pod['volumes']}"
        for c in pod["containers"] + pod.get("initContainers", []):
            s = dict(c["securityContext"])
            assert s.pop("capabilities") == {"drop": ["ALL"], "add": ["NET_ADMIN"]}, name
            assert s == {"allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True, "runAsUser": 0, "runAsGroup": 0}, name
            assert c["image"] == "localhost/slipstream:" + version, name
            r = c["resources"]
            assert r["requests"]["cpu"] and r["requests"]["memory"] and r["limits"]["memory"] and "cpu" not in r["limits"], name
        main, = pod["containers"]
        assert {p: main[p]["httpGet"] for p in ("startupProbe", "livenessProbe", "readinessProbe")} == {
            "startupProbe": {"path": "/livez", "port": "metrics"}, "livenessProbe": {"path": "/livez", "port": "metrics"},
            "readinessProbe": {"path": "/readyz", "port": "metrics"}}, name
        assert all("subPath" not in m for m in main["volumeMounts"]), name
        for kind in ("ClusterRole", "Role"):
            for rule in objs[f"{kind}/slipstream"]["rules"]:
                assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], name
                assert kind == "Role" or set(rule["verbs"]) <= {"list", "watch"}, name
        # every exception of kube-linter has its reason in words
        ignored = {k: v for k, v in ds["metadata"]["annotations"].items() if k.startswith("ignore-check.kube-linter.io/")}
        assert all(len(v) > 20 for v in ignored.values()), ignored


@test
def overlays_configure_their_cluster():
    for name in OVERLAYS:
        text = run(KUBECTL, "kustomize", os.path.join(DEPLOY, "kustomize", name)).stdout
        config = config_of(objects(text))
        assert config_answer(config) is None, config_answer(config)
        assert yaml.safe_load(config)["cluster"]["kind"] == name and yaml.safe_load(config)["listen"] == "node:19500"


@test
def reference_names_every_value():
    """deploy/README.md has each value of the chart, and no other."""
    text = open(os.path.join(DEPLOY, "README.md")).read()
    section = text.split("### Values of the chart")[1].split("\n#")[0]
    said = set(re.findall(r"^\| `([A-Za-z.]+)`", section, re.M))
    with open(os.path.join(CHART, "values.yaml")) as f:
        values = yaml.safe_load(f)
    mine = set()
    for k, v in values.items():
        mine |= {f"{k}.{sub}" for sub in v} if isinstance(v, dict) and v and k in ("image", "podMonitor") else {k}
    assert said == mine, f"missing {sorted(mine - said)}, unknown {sorted(said - mine)}"


@test
def reference_names_every_right():
    """The RBAC table of deploy/README.md is the manifests' roles."""
    text = open(os.path.join(DEPLOY, "README.md")).read()
    said = set()
    for row in re.findall(r"^\| `(\w+)` \| `([\w.]*)` \| `([\w, ]+)` \| `([\w, ]+)` \|", text.split("### Rights")[1].split("\n#")[0], re.M):
        said |= {(row[0], row[1], r, v) for r in row[2].split(", ") for v in row[3].split(", ")}
    mine = {(o["kind"],) + right for o in objects(open(os.path.join(DEPLOY, "slipstream.yaml")).read()).values() for right in rights(o)}
    assert said == mine, f"missing {sorted(mine - said)}, unknown {sorted(said - mine)}"


def rights(role):
    return {(g, r, v) for rule in role.get("rules", []) for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


# ---- image

IMAGES = {}


def images():
    """arch -> (docker-archive, root folder); built once."""
    if "failed" in IMAGES:
        raise AssertionError("there is no image, see above")
    if not IMAGES:
        p = subprocess.run([os.path.join(HERE, "image")], stdout=subprocess.PIPE, text=True)
        if p.returncode:
            IMAGES["failed"] = None
            raise AssertionError("tests/deploy/image failed")
        for line in p.stdout.splitlines():
            arch, archive, root = line.split()
            IMAGES[arch] = (archive, root)
    return IMAGES


def files(root):
    for folder, _, names in os.walk(root):
        for n in names:
            yield os.path.join(folder, n)


@test
def image_is_small_and_holds_no_shell():
    for arch, (_, root) in images().items():
        size, programs, packages = 0, set(), set()
        for path in files(root):
            st = os.lstat(path)
            assert stat.S_ISREG(st.st_mode), f"{arch}: {path} is no file"
            assert not st.st_mode & (stat.S_ISUID | stat.S_ISGID), path
            size += st.st_size
            with open(path, "rb") as f:
                head = f.read(20)
            if head[:4] == b"\x7fELF":
                machine = int.from_bytes(head[18:20], "little")
                assert machine == {"amd64": 62, "arm64": 183}[arch], f"{path}: machine {machine}"
            name = path[len(root):]
            if not re.match(r"/usr/lib/[^/]+-linux-gnu/lib[^/]+\.so\.[0-9.]+$|/usr/share/doc/[^/]+/copyright$|/var/lib/dpkg/status.d/[^/]+$", name):
                programs.add(name)
            elif name.startswith("/var"):
                packages.add(os.path.basename(name))
        loader = {"amd64": "/lib64/ld-linux-x86-64.so.2", "arm64": "/lib/ld-linux-aarch64.so.1"}[arch]
        assert programs == {"/usr/bin/slipstream", "/etc/nsswitch.conf", loader}, f"{arch}: {programs}"
        assert {"libc6", "libcurl4", "libnftnl11"} <= packages, packages
        assert size <= SIZE_MAX, f"{arch}: {size} bytes unpacked"
        print(f"    {arch}: {size / 1e6:.1f} MB unpacked, {len(packages)} packages of libraries")


@test
def image_says_what_it_is():
    commit = run("git", "-C", TOP, "rev-parse", "--short", "HEAD").stdout.strip()
    version = yaml.safe_load(open(os.path.join(CHART, "Chart.yaml")))["appVersion"]
    for arch, (archive, _) in images().items():
        with tarfile.open(archive) as t:
            manifest = json.load(t.extractfile("manifest.json"))[0]
            config = json.load(t.extractfile(manifest["Config"]))
        labels = config["config"]["Labels"]
        assert config["architecture"] == arch and "localhost/slipstream:" + version in manifest["RepoTags"], manifest
        assert config["config"]["Entrypoint"] == ["/usr/bin/slipstream"] and config["config"]["Cmd"] == ["run"], config["config"]
        for name, value in {"title": "slipstream", "licenses": "GPL-2.0-or-later", "version": version, "revision": commit}.items():
            assert labels["org.opencontainers.image." + name] == value, labels


@test
def image_starts():
    commit = run("git", "-C", TOP, "rev-parse", "--short", "HEAD").stdout.strip()
    version = yaml.safe_load(open(os.path.join(CHART, "Chart.yaml")))["appVersion"]
    native = run("dpkg", "--print-architecture").stdout.strip()
    for arch, (_, root) in images().items():
        if arch == native:
            argv = ["chroot", root, "/usr/bin/slipstream"]
        else:
            argv = [f"qemu-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}[arch] }-static", "-L", root, root + "/usr/bin/slipstream"]
        lines = run(*argv, "version").stdout.splitlines()
        assert lines[0] == f"slipstream {version} ({commit})", lines
        assert any(re.match(r"libcurl \d", l) for l in lines) and len(lines) >= 6, lines
        p = run(*argv, "plan", "--manifests", "/", "--node", "n", "--facts", "/absent", ok=False)
        assert p.returncode == 1 and p.stderr.count("\n") == 1 and "/absent" in p.stderr, p.stderr


# ---- a real API server

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


AUDIT = """apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Metadata
  omitStages: [RequestReceived]
  users: ["system:serviceaccount:slipstream:slipstream"]
- level: None
"""


class Api:
    def __init__(self, folder):
        self.state, self.log = os.path.join(folder, "cp"), os.path.join(folder, "audit.log")
        policy = os.path.join(folder, "audit.yaml")
        with open(policy, "w") as f:
            f.write(AUDIT)
        self.port, etcd = 0, 0
        while abs(self.port - etcd) < 2:
            self.port, etcd = free_port(), free_port()
        self.env = dict(os.environ, CP_PORT=str(self.port), CP_ETCD=str(etcd),
                        CP_ARGS=f"--audit-policy-file={policy} --audit-log-path={self.log} --audit-log-mode=blocking")
        self.control("up")

    def control(self, verb):
        run(os.path.join(TOP, "tests", "cluster", "control"), verb, self.state, env=self.env)

    def kubectl(self, *argv, ok=True, text=None):
        return run(KUBECTL, "--kubeconfig", os.path.join(self.state, "admin.kubeconfig"), *argv, ok=ok, input=text)

    def forget_static_rights(self):
        """control gives the agent rights of its own; here the manifests shall."""
        self.kubectl("delete", "clusterrole,clusterrolebinding", "slipstream", "--ignore-not-found")

    def used(self):
        """(group, resource, verb) -> the status codes that the agent got."""
        found = collections.defaultdict(set)
        with open(self.log) as f:
            for line in f:
                e = json.loads(line)
                ref = e.get("objectRef") or {"apiGroup": "", "resource": e["requestURI"]}
                found[ref.get("apiGroup", ""), ref["resource"], e["verb"]].add(e.get("responseStatus", {}).get("code"))
        return found


API = None


def api():
    global API
    if API is None:
        folder = tempfile.mkdtemp(prefix="slipstream-deploy-")
        API = Api(folder)
        API.folder = folder
        API.forget_static_rights()
        API.kubectl("apply", "--server-side", "-f", os.path.join(CACHE, "bin", "podmonitor-crd"))
        API.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd/podmonitors.monitoring.coreos.com")
    return API


def applied():
    """argument lists of kubectl apply, as deploy/README.md gives them"""
    for name in ("slipstream.yaml", "cleanup.yaml", "podmonitor.yaml"):
        yield "-f", os.path.join(DEPLOY, name)
    for name in OVERLAYS:
        yield "-k", os.path.join(DEPLOY, "kustomize", name)


@test
def api_server_takes_the_manifests_strictly():
    for how in applied():
        p = api().kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", *how)
        assert "slipstream serverside-applied" in p.stdout and not p.stderr.strip(), f"{how}: {p.stdout}{p.stderr}"
    with open(os.path.join(DEPLOY, "slipstream.yaml")) as f:
        wrong = f.read().replace("hostNetwork: true", "hostnetwork: true")
    p = api().kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", ok=False, text=wrong)
    assert p.returncode and "hostnetwork" in p.stderr, "a misspelt key passes: the check does not check"


def closed(schema):
    """A schema in which only the properties that it names are allowed, as kubeconform's own schemas for -strict."""
    if isinstance(schema, list):
        return [closed(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string") is True:
        return {"type": ["string", "integer"]}
    out = {k: closed(v) for k, v in schema.items()}
    if isinstance(out.get("properties"), dict) and not out.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


def write_schemas(folder):
    """A file per kind in `folder`, made of what the API server says of itself; returns kubeconform's pattern for them."""
    def write(group, version, kind, schema):
        parts = [kind, group.split(".")[0], version] if group else [kind, version]
        with open(os.path.join(folder, "-".join(parts).lower() + ".json"), "w") as f:
            json.dump(schema, f)

    definitions = closed(json.loads(api().kubectl("get", "--raw", "/openapi/v2").stdout)["definitions"])
    for name, schema in definitions.items():
        for gvk in schema.get("x-kubernetes-group-version-kind", ()):
            if gvk["kind"] in ("Namespace", "ServiceAccount", "ConfigMap", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "DaemonSet"):
                write(gvk["group"], gvk["version"], gvk["kind"], {"$ref": f"#/definitions/{name}", "definitions": definitions})
    with open(os.path.join(CACHE, "bin", "podmonitor-crd")) as f:
        spec = yaml.safe_load(f)["spec"]
    for v in spec["versions"]:
        schema = v["schema"]["openAPIV3Schema"]
        schema["properties"]["metadata"] = {"$ref": "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
        write(spec["group"], v["name"], spec["names"]["kind"], {**closed(schema), "definitions": definitions})
    return os.path.join(folder, "{{.ResourceKind}}{{.KindSuffix}}.json")


@test
def kubeconform_is_clean():
    schemas = write_schemas(tempfile.mkdtemp(dir=api().folder))

    def conform(text):
        return run(KUBECONFORM, "-strict", "-summary", "-schema-location", schemas, "-", ok=False, input=text)

    for how, path in applied():
        text = api().kubectl("kustomize", path).stdout if how == "-k" else open(path).read()
        p = conform(text)
        assert not p.returncode and "Invalid: 0, Errors: 0, Skipped: 0" in p.stdout, f"{path}: {p.stdout}{p.stderr}"
        for kind, wrong in (("hostNetwork: true", "hostnetwork: true"), ("interval: 30s", "interval: [30]")):
            assert kind not in text or conform(text.replace(kind, wrong)).returncode, f"{path} with {wrong} passes: the check does not check"


@test
def apply_again_changes_nothing_and_delete_leaves_nothing():
    manifest = os.path.join(DEPLOY, "slipstream.yaml")
    kinds = "daemonset,configmap,serviceaccount,clusterrole,clusterrolebinding"

    def here():
        out = api().kubectl("get", kinds + ",role,rolebinding", "-A", "-l", "app.kubernetes.io/name=slipstream", "-o", "json").stdout
        return {f"{o['kind']}/{o['metadata'].get('namespace', '')}/{o['metadata']['name']}": o["metadata"]["resourceVersion"] for o in json.loads(out)["items"]}

    api().kubectl("apply", "--server-side", "-f", manifest)
    first = here()
    assert len(first) == 7, first
    api().kubectl("apply", "--server-side", "-f", manifest)
    assert here() == first, "applied again, something was written"
    # the clean-up replaces the agent in place, whoever edited the configuration meanwhile, and gives way to it again
    edited = json.dumps({"data": {"config.yaml": "apiVersion: slipstream/v1alpha1\nkind: Configuration\nonExit: keep\n"}})
    api().kubectl("-n", "slipstream", "patch", "configmap", "slipstream", "--field-manager=kubectl-edit", "-p", edited)
    p = api().kubectl("apply", "--server-side", "-f", os.path.join(DEPLOY, "cleanup.yaml"), ok=False)
    assert p.returncode and "conflict" in p.stderr, f"an edited configuration is overwritten: {p.stderr}"
    api().kubectl("apply", "--server-side", "--force-conflicts", "-f", os.path.join(DEPLOY, "cleanup.yaml"))
    config = json.loads(api().kubectl("-n", "slipstream", "get", "configmap", "slipstream", "-o", "json").stdout)["data"]["config.yaml"]
    assert "enabled: false" in config, config
    template = json.loads(api().kubectl("-n", "slipstream", "get", "ds", "slipstream", "-o", "json").stdout)["spec"]["template"]["spec"]
    assert template["initContainers"][0]["args"] == ["cleanup"], template
    api().kubectl("apply", "--server-side", "-f", manifest)
    template = json.loads(api().kubectl("-n", "slipstream", "get", "ds", "slipstream", "-o", "json").stdout)["spec"]["template"]["spec"]
    assert "initContainers" not in template, template
    # no controller runs here to finish a Namespace: delete all but it
    rest = "---\n".join(d for d in open(manifest).read().split("---\n") if "kind: Namespace" not in d)
    api().kubectl("delete", "--wait=true", "--timeout=30s", "-f", "-", text=rest)
    assert not here(), here()


# The agent as the manifest runs it: its image as a read-only root, its ServiceAccount's token, CAP_NET_ADMIN alone, a network
# namespace of its own in which the API server's port is relayed.

libc = ctypes.CDLL(None, use_errno=True)


def check(r):
    if r:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def pod_main(root, secrets, config, fd, port):
    """Runs in new net and mount namespaces (ring.py --pod)."""
    run("ip", "link", "set", "lo", "up")
    s = socket.socket()
    s.bind(("127.0.0.1", port))
    s.listen(64)
    with socket.socket(fileno=fd) as to:
        socket.send_fds(to, [b"x"], [s.fileno()])
    where = tempfile.mkdtemp(prefix="slipstream-root-")
    run("mount", "-t", "tmpfs", "tmpfs", where)
    run("cp", "-a", root + "/.", where)
    for source, target in ((secrets, "var/run/secrets/kubernetes.io/serviceaccount"), (config, "etc/slipstream")):
        os.makedirs(os.path.join(where, target))
        run("mount", "--bind", source, os.path.join(where, target))
    run("mount", "-o", "remount,ro", where)
    os.chroot(where)
    os.chdir("/")
    PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, CAP_NET_ADMIN = 24, 38, 12
    for cap in range(64):
        if cap != CAP_NET_ADMIN:
            libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0)
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    env = {"PATH": "/usr/bin", "NODE_NAME": "n1", "HOST_IP": "127.0.0.1", "SLIPSTREAM_CONFIG": "/etc/slipstream/config.yaml",
           "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(port)}
    os.execve("/usr/bin/slipstream", ["/usr/bin/slipstream", "run"], env)


def relay(listener, port, stop):
    """What is accepted in the pod's namespace goes to the API server in ours."""
    def pump(a, b):
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    listener.settimeout(0.2)
    while not stop.is_set():
        try:
            a, _ = listener.accept()
        except TimeoutError:
            continue
        a.setblocking(True)
        try:
            b = socket.create_connection(("127.0.0.1", port))
        except OSError:
            a.close()
            continue
        for pair in ((a, b), (b, a)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


@contextlib.contextmanager
def pod(root, secrets, config):
    ours, theirs = socket.socketpair()
    log = open(os.path.join(api().folder, "agent.log"), "w+")
    p = subprocess.Popen(["unshare", "--net", "--mount", "--propagation", "private", sys.executable, "-B", os.path.join(HERE, "ring.py"),
                          "--pod", root, secrets, config, str(theirs.fileno()), str(api().port)],
                         pass_fds=[theirs.fileno()], stdout=log, stderr=log)
    stop = threading.Event()
    try:
        theirs.close()
        ours.settimeout(30)
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
        if not fds:
            raise AssertionError("the pod did not start: " + open(log.name).read())
        threading.Thread(target=relay, args=(socket.socket(fileno=fds[0]), api().port, stop), daemon=True).start()
        p.log = log.name
        yield p
    except AssertionError as e:
        raise AssertionError(f"{e}; the agent said:\n{open(log.name).read()}")
    finally:
        if p.poll() is None:
            p.send_signal(signal.SIGTERM)
            p.wait(10)
        stop.set()
        log.close()


def fetch(p, path):
    return run("nsenter", "--net", "--target", str(p.pid), "curl", "-s", "--max-time", "5", "http://127.0.0.1:19500" + path, ok=False).stdout


def until(what, seconds=40):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        v = what()
        if v:
            return v
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds} s: {what.__doc__ or what.__name__}")


WORLD = """
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.5]}]
ports: [{port: 80}]
"""


@test
def rights_of_the_manifests_are_those_used():
    """A run that needs everything: first lists, changes, the API server away and back, Events on the Node, a graceful end."""
    a = api()
    native = run("dpkg", "--print-architecture").stdout.strip()
    manifest = objects(open(os.path.join(DEPLOY, "slipstream.yaml")).read())
    a.kubectl("apply", "--server-side", "-f", os.path.join(DEPLOY, "slipstream.yaml"))
    a.kubectl("apply", "--server-side", "-f", "-", text=WORLD)
    config, secrets = (os.path.join(a.folder, n) for n in ("config", "secrets"))
    os.makedirs(config)
    # a token of the ServiceAccount that is there now: another test may have deleted control's
    shutil.copytree(os.path.join(a.state, "sa"), secrets)
    with open(os.path.join(secrets, "token"), "w") as f:
        f.write(a.kubectl("-n", "slipstream", "create", "token", "slipstream").stdout)
    with open(os.path.join(config, "config.yaml"), "w") as f:
        f.write(config_of(manifest))
    with pod(images()[native][1], secrets, config) as p:
        def ready():
            assert p.poll() is None, "the agent ended: " + open(p.log).read()
            return fetch(p, "/readyz") == "ok\n"

        def objects_seen():
            r = json.loads(fetch(p, "/status") or "{}").get("source", {}).get("resources", [])
            return {x["resource"]: x["objects"] for x in r}

        until(ready, 120)
        caps = dict(re.findall(r"^(Cap\w+):\s+(\w+)$", open(f"/proc/{p.pid}/status").read(), re.M))
        assert int(caps["CapEff"], 16) == int(caps["CapBnd"], 16) == 1 << 12, caps
        before = objects_seen()
        assert before["services"] >= 1 and before["endpointslices"] == 1 and before["nodes"] == 1, before
        a.kubectl("create", "service", "clusterip", "other", "--tcp=80:80")
        until(lambda: objects_seen()["services"] == before["services"] + 1)
        a.control("stop-api")
        a.control("start-api")
        a.kubectl("delete", "service", "other")
        until(lambda: objects_seen().get("services") == before["services"], 90)

        def event():
            """an Event on the Node"""
            return json.loads(a.kubectl("get", "events.events.k8s.io", "-n", "default", "-o", "json").stdout)["items"]

        events = until(event)

        def told():
            return {(e["metadata"]["name"], (e.get("series") or {}).get("count")) for e in event()}

        for value in ("false", "true", "false"):  # an Event that repeats is patched
            seen = told()
            with open(os.path.join(config, "config.yaml"), "w") as f:
                f.write(config_of(manifest) + f"enabled: {value}\n")
            until(lambda: told() - seen)
        assert events[0]["regarding"]["kind"] == "Node" and events[0]["regarding"]["name"] == "n1", events[0]
        print("    Events:", ", ".join(sorted({e["reason"] for e in events})))
        p.send_signal(signal.SIGTERM)
        assert p.wait(10) == 0, open(p.log).read()
    used = a.used()
    # a server that has just started may not know its roles yet: refused is what was never allowed
    refused = {k: v for k, v in used.items() if v & {401, 403} and not v & {200, 201}}
    granted = rights(manifest["ClusterRole/slipstream"]) | rights(manifest["Role/slipstream"])
    assert not refused, f"refused: {refused}\n" + open(p.log).read()
    assert set(used) == granted, f"used and not granted: {set(used) - granted}, granted and never used: {granted - set(used)}"
    print("    used:", ", ".join(sorted(f"{v} {r}" for _, r, v in used)))
    a.kubectl("delete", "-f", "-", "--wait=false", text=WORLD)


def main():
    global ARGS
    p = argparse.ArgumentParser(prog="tests/deploy/run", description=__doc__.splitlines()[0])
    p.add_argument("--build", default=os.path.join(TOP, "build"), metavar="DIR", help="where slipstream is (default: build)")
    p.add_argument("-k", metavar="TEXT", default="", help="only tests with TEXT (a regular expression) in their name")
    p.add_argument("--pod", nargs=5, help=argparse.SUPPRESS)
    ARGS = p.parse_args()
    if ARGS.pod:
        root, secrets, config, fd, port = ARGS.pod
        return pod_main(root, secrets, config, int(fd), int(port))
    ARGS.build = os.path.abspath(ARGS.build)
    results = collections.Counter()
    try:
        for f in TESTS:
            if not re.search(ARGS.k, f.__name__):
                continue
            began = time.monotonic()
            try:
                f()
                result = "passed"
            except Skip as e:
                result = f"skipped: {e}"
            except Exception as e:
                result = "failed"
                print("    " + (str(e) if isinstance(e, AssertionError) else traceback.format_exc()).replace("\n", "\n    "))
            results[result.split(":")[0]] += 1
            print(f"{f.__name__}: {result} [{time.monotonic() - began:.1f} s]", flush=True)
    finally:
        if API is not None:
            API.control("down")
            shutil.rmtree(API.folder)
    print(f"{results['passed']} passed, {results['failed']} failed" + (f", {results['skipped']} skipped" if results["skipped"] else ""))
    return results["failed"] > 0 or not results["passed"]


if __name__ == "__main__":
    sys.exit(main())

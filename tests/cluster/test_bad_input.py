# SPDX-License-Identifier: GPL-2.0-or-later
"""What is wrong around the API is named with its mend; the rest works on and nothing that worked is removed."""
import json
import subprocess
import time

from lab import lab_test
from topology import inside, run, wait_for


def kubeconfig(w, name, change):
    """A copy of the agent's kubeconfig with change(text) applied."""
    with open(f"{w.state}/guest-agent.kubeconfig", encoding="utf-8") as f:
        text = change(f.read())
    path = f"{w.folder}/{name}.kubeconfig"
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def says(w, path, *words, node="n1"):
    """An agent of `node` with this kubeconfig over the rules that are there: it stays up, names the thing, and the table is
    what it was."""
    table = run(node, "nft", "list", "table", "inet", "slipstream")
    w.agents[node].kill()
    a = w.agents[node]
    a.kubeconfig = path
    log = open(a.log, "w", encoding="utf-8")
    with inside(node), log:
        a.process = subprocess.Popen(a.argv("run"), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_for(f"log with {words}: {a.tail()}", lambda: all(word in a.tail() for word in words), 30)
        assert a.alive(), "ended"
        assert run(node, "nft", "list", "table", "inet", "slipstream") == table, "the table changed"
        assert a.get("/readyz")[0] != 200
        assert w.agents["n1"].get("/livez")[0] == 200
    finally:
        w.dirty()
        w.agents.clear()


@lab_test(agent=True)
def test_unreachable_api_server(w):
    if w.control == "agent":
        says(w, kubeconfig(w, "unreachable", lambda t: t.replace("172.31.255.2:", "192.168.0.12:")), "192.168.0.12", "refused")


@lab_test(agent=True)
def test_wrong_ca(w):
    if w.control != "agent":
        return
    subprocess.run(("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=another-ca", "-keyout", f"{w.folder}/ca.key", "-out", f"{w.folder}/ca.crt"), check=True,
                   capture_output=True)
    def change(text):
        start = text.index("certificate-authority-data:")
        end = text.index("}", start)
        return text[:start] + f"certificate-authority: {w.folder}/ca.crt" + text[end:]
    says(w, kubeconfig(w, "wrong-ca", change), "certificate")


@lab_test(agent=True)
def test_unauthorized(w):
    if w.control == "agent":
        says(w, kubeconfig(w, "bad-token", lambda t: t.replace("{token: ", "{token: x")), "401")


@lab_test(agent=True)
def test_forbidden_resource(w):
    """No permission for services: named; nodes and endpointslices go on, and so does the kernel's table."""
    if w.control != "agent":
        return
    role = ["clusterrole/slipstream", "--type=json", "-p"]
    w.kubectl("patch", *role, json.dumps([{"op": "replace", "path": "/rules/0/resources", "value": ["nodes"]}]))
    w.later(lambda: w.kubectl("patch", *role, json.dumps([{"op": "replace", "path": "/rules/0/resources", "value": ["nodes", "services"]}])))
    time.sleep(1)
    says(w, f"{w.state}/guest-agent.kubeconfig", "services", "403")


@lab_test(agent=True)
def test_forbidden_endpointslices(w):
    """They are in no ruleset: a new agent over an empty table programs it all the same, and says what it may not read."""
    if w.control != "agent":
        return
    role = ["clusterrole/slipstream", "--type=json", "-p"]
    w.kubectl("patch", *role, json.dumps([{"op": "replace", "path": "/rules/1/resources", "value": ["nothing"]}]))
    w.later(lambda: w.kubectl("patch", *role, json.dumps([{"op": "replace", "path": "/rules/1/resources", "value": ["endpointslices"]}])))
    time.sleep(1)
    w.agents["n1"].kill()
    run("n1", "nft", "delete", "table", "inet", "slipstream")
    a = w.agent("n1")  # waits for /readyz
    assert "peer-nodes4" in run("n1", "nft", "list", "table", "inet", "slipstream")
    wait_for(f"403 of endpointslices: {a.tail()}", lambda: "endpointslices" in a.tail() and "403" in a.tail(), 30)
    w.dirty()


@lab_test(agent=True)
def test_bad_configuration_keeps_the_old_one(w):
    if w.control != "agent":
        return
    a = w.agents["n1"]
    table = run("n1", "nft", "list", "table", "inet", "slipstream")
    a.write_config(w.default_config + "exclude:\n  cidrs: [10.0.0.0/33]\n")
    wait_for(f"error with file and line: {a.tail()}", lambda: f"{a.config_file}:4" in a.tail() and "10.0.0.0/33" in a.tail(), 10)
    assert a.alive() and a.get("/readyz")[0] == 200
    assert run("n1", "nft", "list", "table", "inet", "slipstream") == table


@lab_test(agent=True)
def test_kubeconfig_that_is_none(w):
    path = f"{w.folder}/none.kubeconfig"
    with open(path, "w", encoding="utf-8") as f:
        f.write("apiVersion: v1\nkind: Config\ncurrent-context: nowhere\ncontexts: []\n")
    with inside("n1"):
        p = subprocess.run((w.program, "plan", "--kubeconfig", path, "--node", "n1"), capture_output=True, text=True, timeout=60)
    assert p.returncode in (1, 2), p.returncode
    assert len(p.stderr.strip().splitlines()) == 1 and f"{path}:3" in p.stderr and "nowhere" in p.stderr, p.stderr

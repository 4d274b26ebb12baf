# SPDX-License-Identifier: GPL-2.0-or-later
"""Tokens that expire, certificate authorities that change: files are read again, nothing is lost, nobody restarts."""
import os
import re
import subprocess
import time

from lab import lab_test
from topology import wait_for


@lab_test(smoke=True)
def test_token_expires(r):
    """One pod whose token is rotated in time, one whose token is rotated only after the server has refused it."""
    late, in_time = r.new_credentials(), r.new_credentials()
    late.token(r.api, 3)
    in_time.token(r.api, 3)
    r.start(credentials=late, replica_credentials=in_time)
    with r.disturbed():
        in_time.token(r.api, 600)
        time.sleep(3 + 10 + 1)
        r.relay.cut()
        wait_for("401", lambda: r.agent.failures().get("unauthorized"), 20)
        r.api.create(r.other())
        wait_for("problem", lambda: any("401" in p for p in r.agent.problems().values()), 5)
        assert r.agent.get("/readyz")[0] == 200
        wait_for("replica follows", lambda: "default/other-0" in r.replica.states[-1]["services"], 10)
        late.token(r.api, 600)
    assert not any(r.relisted.values()), r.relisted
    wait_for("no problem any more", lambda: not r.agent.problems(), 70)  # one backoff
    log = r.agent.tail()
    assert "401" in log and "eyJ" not in log


def certificate(r, name):
    """Another CA and a certificate of the API server by it: the CA's file."""
    pki = f"{r.folder}/{name}"
    os.makedirs(pki)
    def openssl(*argv):
        subprocess.run(("openssl",) + argv, check=True, capture_output=True, cwd=pki)
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *ec, "-days", "2", "-subj", f"/CN={name}", "-keyout", "ca.key", "-out", "ca.crt",
            "-addext", "keyUsage=critical,keyCertSign")
    openssl("req", *ec, "-subj", "/CN=kube-apiserver", "-keyout", "server.key", "-out", "server.csr")
    with open(f"{pki}/ext", "w", encoding="ascii") as f:
        f.write("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
            "-extfile", "ext", "-out", "server.crt")
    return pki


def text(path):
    with open(path, encoding="ascii") as f:
        return f.read()


@lab_test(smoke=True)
def test_ca_rotates(r):
    """The server's certificate comes from another CA from now on. Once with both in ca.crt before; once with a ca.crt that
    comes too late: a TLS failure, and the state is kept until it is there."""
    credentials = r.start()
    pki = f"{r.state}/pki"
    old = {n: text(f"{pki}/{n}") for n in ("ca.crt", "apiserver.crt", "apiserver.key")}
    def serve(crt, key):
        """The server reads its certificate again by itself."""
        for name, content in (("apiserver.key", key), ("apiserver.crt", crt)):
            with open(f"{pki}/{name}", "w", encoding="ascii") as f:
                f.write(content)
        def served():
            p = subprocess.run(("openssl", "s_client", "-connect", "127.0.0.1:16443"), input="", capture_output=True, text=True)
            return crt.strip() in p.stdout
        wait_for("server has the certificate", served, 60, 0.2)
    new = certificate(r, "new")
    r.api.context.load_verify_locations(f"{new}/ca.crt")
    try:
        with r.disturbed():
            credentials.write("ca.crt", old["ca.crt"] + text(f"{new}/ca.crt"))
            serve(text(f"{new}/server.crt"), text(f"{new}/server.key"))
            r.relay.cut()
            r.api.create(r.other(1))
        assert not any(r.relisted.values()) and not r.agent.failures().get("tls"), (r.relisted, r.agent.failures())
        with r.disturbed():
            credentials.write("ca.crt", text(f"{new}/ca.crt"))
            serve(old["apiserver.crt"], old["apiserver.key"])
            r.relay.cut()
            wait_for("TLS failure", lambda: r.agent.failures().get("tls"), 30)
            r.api.create(r.other(2))
            assert r.agent.get("/readyz")[0] == 200
            assert "certificate" in r.agent.tail(), r.agent.tail()
            credentials.write("ca.crt", old["ca.crt"])
        assert not any(r.relisted.values()), r.relisted
    finally:
        serve(old["apiserver.crt"], old["apiserver.key"])


@lab_test(smoke=True)
def test_system_authorities(r):
    """A kubeconfig without a CA: the server is trusted if the system trusts who signed its certificate, and only then."""
    bundle, kubeconfig = f"{r.folder}/authorities.crt", f"{r.folder}/without-ca.kubeconfig"
    with open(f"{r.state}/agent.kubeconfig", encoding="ascii") as f:
        config = re.sub(r", certificate-authority-data: [^}]*", "", f.read())
    assert "certificate-authority" not in config
    with open(kubeconfig, "w", encoding="ascii") as f:
        f.write(config)
    with open(bundle, "w", encoding="ascii") as f:
        f.write(text("/etc/ssl/certs/ca-certificates.crt") + text(f"{r.state}/pki/ca.crt"))
    plan = (r.program, "plan", "--kubeconfig", kubeconfig, "--node", "n1")
    p = subprocess.run(plan, capture_output=True, text=True, timeout=60)
    assert p.returncode and "certificate" in p.stderr, p.stderr
    # in a mount namespace of its own the system trusts that CA as well
    mount = f"mount --bind {bundle} /etc/ssl/certs/ca-certificates.crt && exec \"$@\""
    p = subprocess.run(("unshare", "--mount", "sh", "-c", mount, "sh") + plan, capture_output=True, text=True, timeout=60)
    assert p.returncode == 0, p.stderr

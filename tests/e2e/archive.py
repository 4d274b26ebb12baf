#!/usr/bin/python3 -B
# SPDX-License-Identifier: GPL-2.0-or-later
"""archive.py OUT NAME:TAG ROOT [CONFIG]: a docker-archive of one layer from the folder ROOT, without a registry or a builder.
CONFIG is the image's configuration as JSON (Entrypoint, Cmd, Env, ...)."""
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile


def anonymous(member):
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def write(out, reference, root, config=None):
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as t:
        for entry in sorted(os.listdir(root)):
            t.add(os.path.join(root, entry), arcname=entry, filter=anonymous)
    layer = layer.getvalue()
    digest = hashlib.sha256(layer).hexdigest()
    image = json.dumps({
        "architecture": subprocess.run(("dpkg", "--print-architecture"), capture_output=True, text=True, check=True).stdout.strip(),
        "os": "linux", "config": config or {}, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest]}}).encode()
    name = hashlib.sha256(image).hexdigest() + ".json"
    manifest = json.dumps([{"Config": name, "RepoTags": [reference], "Layers": [digest + "/layer.tar"]}]).encode()
    with tarfile.open(out, "w") as t:
        for path, content in ((digest + "/layer.tar", layer), (name, image), ("manifest.json", manifest)):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            t.addfile(member, io.BytesIO(content))


if __name__ == "__main__":
    write(*sys.argv[1:4], json.loads(sys.argv[4]) if len(sys.argv) > 4 else None)

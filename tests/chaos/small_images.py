"""Small images, and checks of their trees."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

from runtime.images.manifests import this_platform


def tar_of(files: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def tree_of(root: Path) -> dict[str, bytes]:
    """Path → description of the file."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = b"-> " + os.fsencode(os.readlink(path))
        else:
            found[name] = b"/" if path.is_dir() else path.read_bytes()
    return found


def docker_archive(path: Path) -> Path:
    """An archive as from `docker save`: two layers with files, a hard link, and a file that replaces another."""
    layers = [
        tar_of({"etc/motd": b"hello" * 4000, "bin/tool": b"#!" * 50_000}, links={"bin/other": "bin/tool"}),
        tar_of({"etc/motd": b"bye", "srv/data": bytes(range(256)) * 500}),
    ]
    config = {
        "architecture": this_platform().architecture,
        "os": "linux",
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
        "config": {"Cmd": ["/bin/tool"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": ["localhost/loaded:1"], "Layers": ["0.tar", "1.tar"]}]
    files = {"config.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(tar_of(files | {f"{n}.tar": layer for n, layer in enumerate(layers)}))
    return path

"""`load DIR`: the files that a directory names are read beneath it; files of the host are not."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store.store import ImageStore
from tests.kernel.images_support import directory, member, tar

pytestmark = pytest.mark.kernel

CONFIG = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}, "rootfs": {"type": "layers"}}


def load(root: Path, path: Path) -> Any:
    return asyncio.run(asyncio.wait_for(ImageClient(str(root)).load(str(path)), 60))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A docker archive, unpacked: manifest.json, a configuration and a layer, and secrets beside it."""
    import hashlib

    made = tmp_path / "archive"
    (made / "layers").mkdir(parents=True)
    layer = tar(directory("etc"), (member("etc/a"), b"a"))
    (made / "layers/one.tar").write_bytes(layer)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    config = {**CONFIG, "rootfs": {"type": "layers", "diff_ids": [digest]}}
    (made / "config.json").write_text(json.dumps(config))
    (tmp_path / "secret.tar").write_bytes(layer)
    (tmp_path / "secret.json").write_text(json.dumps(config))
    write(made)
    return made


def write(archive: Path, *, config: str = "config.json", layer: str = "layers/one.tar") -> None:
    listed = [{"Config": config, "RepoTags": ["localhost/x:1"], "Layers": [layer]}]
    (archive / "manifest.json").write_text(json.dumps(listed))


def test_files_and_links_inside_are_read(tmp_path: Path, archive: Path) -> None:
    (archive / "again").mkdir()
    (archive / "again/layer.tar").symlink_to("../layers/one.tar")  # as old versions of `docker save` write it
    write(archive, layer="again/layer.tar")
    (tmp_path / "link").symlink_to(archive)  # the directory itself may be named by a link
    (record,) = load(tmp_path / "store", tmp_path / "link")
    assert record.reference == "localhost/x:1"


@pytest.mark.parametrize("what", ["config", "layer"])
@pytest.mark.parametrize("how", ["absolute", "dots", "link", "parent", "magic"])
def test_files_of_the_host_are_not_read(tmp_path: Path, archive: Path, what: str, how: str) -> None:
    secret = tmp_path / ("secret.json" if what == "config" else "secret.tar")
    name = {
        "absolute": str(secret),
        "dots": f"../{secret.name}",
        "link": "link",
        "parent": f"parent/{secret.name}",
        "magic": f"magic/{secret.name}",
    }[how]
    (archive / "link").symlink_to(secret)
    (archive / "parent").symlink_to(tmp_path)
    (archive / "magic").symlink_to("/proc/self/cwd")
    write(archive, **{what: name})
    with pytest.raises(ImageError, match=f"its file {name} leads out of the directory"):
        load(tmp_path / "store", archive)
    assert ImageStore(str(tmp_path / "store")).list() == ()


def test_a_layout_reads_no_blob_of_the_host(tmp_path: Path, archive: Path) -> None:
    (archive / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (archive / "index.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(ImageError, match=r"its file index\.json leads out of the directory"):
        load(tmp_path / "store", archive)


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file_is_missing(tmp_path: Path, archive: Path, kind: str) -> None:
    (archive / "layers/one.tar").unlink()
    if kind == "fifo":
        os.mkfifo(archive / "layers/one.tar")
    else:
        (archive / "layers/one.tar").mkdir()
    with pytest.raises(ImageError, match=r"its layer layers/one\.tar is missing"):
        load(tmp_path / "store", archive)

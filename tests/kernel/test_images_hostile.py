"""Hostile images through the public entry points, and a real root file system compared with umoci's unpacking."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store.mounts import mount_image, unmount
from runtime.images.store.store import ImageRecord, ImageStore
from runtime.images.store.verify import check_store
from tests.kernel import images_support as support
from tests.kernel.images_support import directory, member, run, snapshot, tar, write_layout

pytestmark = pytest.mark.kernel
GOOD = tar(directory("etc"), (member("etc/good"), b"good" * 1000))


def load(root: Path, path: Path) -> list[ImageRecord]:
    async def go() -> list[ImageRecord]:
        client = ImageClient(str(root))
        try:
            return await client.load(str(path))
        finally:
            await client.close()

    return asyncio.run(go())


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("etc/passwd", "root" * 500)
    return out.getvalue()


def with_header(**fields: str) -> bytes:
    """A tar with one member whose pax header contradicts the member."""
    return tar((member("victim", pax_headers=fields), b"x"))


LAYERS: dict[str, tuple[bytes, str]] = {
    "climbing out": (tar((member("../out"), b"x")), r'"\.\./out".*contains'),
    "climbing out after good entries": (tar((member("good"), b"good"), (member("/out"), b"x")), r'"/out".*absolute'),
    "not tar at all": (b"#!/bin/sh\necho not a layer\n" * 100, "not a tar|checksum|header"),
    "a zip file": (zipped(), "not a tar|checksum|header|too short"),
    "gzip of no tar": (gzip.compress(b"hello" * 1000), "not a tar|checksum|header"),
    "cut short": (GOOD[:1500], "ends in the middle|too short"),
    "gzip cut short": (gzip.compress(GOOD)[:-20], "gzip stream"),
    "gzip with a broken sum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "gzip stream"),
    "gzip with rubbish behind it": (gzip.compress(GOOD) + b"rubbish", "gzip stream"),
    "a broken zstd": (b"\x28\xb5\x2f\xfd" + b"\xff" * 400, "zstd stream"),
    "an endless file": (with_header(size=str(1 << 62)), '"victim"|size|ends'),
    "a negative size": (with_header(size="-1"), "size|number"),
    "a sparse file of an exabyte": (
        with_header(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "victim",
                       "GNU.sparse.realsize": str(1 << 62)}), "victim|sparse"),
    "a name of 5000 bytes": (tar((member("n" * 5000), b"x")), "too long"),
    "a link of 5000 bytes": (tar(member("link", tarfile.SYMTYPE, linkname="l" * 5000)), '"link"'),
    "an attribute of 100 KB": (with_header(**{"SCHILY.xattr.user.big": "x" * 100_000}), '"victim"'),
    "an attribute that steers overlayfs": (
        with_header(**{"SCHILY.xattr.trusted.overlay.metacopy": "y"}), "would control overlayfs"),
    "a link of a layer below it cannot have": (tar(member("l", tarfile.LNKTYPE, linkname="etc/none")), '"l"'),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_nothing_of_a_hostile_layer_stays(tmp_path: Path, name: str) -> None:
    data, words = LAYERS[name]
    write_layout(tmp_path / "good", [GOOD], "localhost/good:1")
    load(tmp_path / "store", tmp_path / "good")
    write_hostile(tmp_path / "bad", [GOOD, data])
    outside = sorted(p.name for p in tmp_path.iterdir())
    before = everything(tmp_path / "store")
    with pytest.raises(ImageError, match=words) as caught:
        load(tmp_path / "store", tmp_path / "bad")
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert digest in str(caught.value), "the layer is named"
    left = everything(tmp_path / "store")
    new_blobs = {p for p in left - before if not p.startswith("blobs/")}
    assert new_blobs == set(), "no layer, no name, no leftover; blobs that are what they say may stay"
    assert sorted(p.name for p in tmp_path.iterdir()) == outside
    store = ImageStore(str(tmp_path / "store"))
    assert check_store(store, deep=True) == [] and [r.reference for r in store.list()] == ["localhost/good:1"]


def everything(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*")}


def write_hostile(path: Path, layers: list[bytes]) -> None:
    """Like write_layout, with the diff ids of what each layer decompresses to, as far as it does."""
    write_layout(path, layers, "localhost/bad:1")
    index = json.loads((path / "index.json").read_text())
    manifest_path = path / "blobs/sha256" / index["manifests"][0]["digest"][7:]
    manifest = json.loads(manifest_path.read_text())
    config = json.loads((path / "blobs/sha256" / manifest["config"]["digest"][7:]).read_text())
    diff_ids = [f"sha256:{hashlib.sha256(inflated(data)).hexdigest()}" for data in layers]
    config["rootfs"]["diff_ids"] = diff_ids
    manifest["config"] = put(path, manifest["config"], config)
    index["manifests"][0] = put(path, index["manifests"][0], manifest)
    (path / "index.json").write_text(json.dumps(index))


def put(path: Path, descriptor: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(document).encode()
    digest = hashlib.sha256(data).hexdigest()
    (path / "blobs/sha256" / digest).write_bytes(data)
    return {**descriptor, "digest": f"sha256:{digest}", "size": len(data)}


def inflated(data: bytes) -> bytes:
    try:
        return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    except (OSError, EOFError):
        return data


def edit(what: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        layer = manifest["layers"][0]
        if what == "larger":
            layer["size"] += 1
        elif what == "smaller":
            layer["size"] -= 1
        elif what == "twice":
            manifest["layers"].append(layer)
        elif what == "digest":
            layer["digest"] = "sha256:" + "1" * 64
        elif what == "path":
            layer["digest"] = "sha256:../../../etc/passwd"
        else:
            layer["mediaType"] = "application/zip"
        return manifest

    return change


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("larger", "bytes instead of"),
        ("smaller", "bytes instead of"),
        ("twice", "2 layers and the config 1 diff ids"),
        ("digest", "is missing"),
        ("path", "only sha256 is supported"),
        ("type", "application/zip"),
    ],
)
def test_a_manifest_that_lies(tmp_path: Path, what: str, words: str) -> None:
    path = tmp_path / "bad"
    write_layout(path, [GOOD], "localhost/bad:1")
    index = json.loads((path / "index.json").read_text())
    manifest = json.loads((path / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    index["manifests"][0] = put(path, index["manifests"][0], edit(what)(manifest))
    (path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ImageError, match=words):
        load(tmp_path / "store", path)
    assert ImageStore(str(tmp_path / "store")).list() == ()
    assert os.listdir(tmp_path / "store/layers") == os.listdir(tmp_path / "store/ingest") == []


def test_a_config_that_promises_another_layer(tmp_path: Path) -> None:
    path = tmp_path / "bad"
    write_layout(path, [GOOD], "localhost/bad:1")
    index = json.loads((path / "index.json").read_text())
    manifest = json.loads((path / "blobs/sha256" / index["manifests"][0]["digest"][7:]).read_text())
    config = json.loads((path / "blobs/sha256" / manifest["config"]["digest"][7:]).read_text())
    config["rootfs"]["diff_ids"] = ["sha256:" + "2" * 64]
    manifest["config"] = put(path, manifest["config"], config)
    index["manifests"][0] = put(path, index["manifests"][0], manifest)
    (path / "index.json").write_text(json.dumps(index))
    with pytest.raises(ImageError, match="the image's config lists sha256:2222"):
        load(tmp_path / "store", path)
    assert os.listdir(tmp_path / "store/layers") == []


PACKAGES = ("bash", "coreutils", "libc6", "passwd", "login", "util-linux", "tzdata", "perl-base", "tar")


@pytest.mark.skipif(
    bool(support.need("umoci", "dpkg", "tar")), reason="needs umoci, and a Debian to take files from"
)
def test_a_debian_root_is_unpacked_as_umoci_does(tmp_path: Path) -> None:
    """Files of this machine's packages: set-uid and set-gid programs, hard and symbolic links, special owners; in
    addition capabilities, attributes, holes, times before 1970. A second layer removes some of them."""
    root = tmp_path / "root"
    copy_packages(root)
    decorate(root)
    layers = [packed(root, tmp_path / "base.tar")]
    second = tmp_path / "second"
    for name in ("usr/share", "usr/bin", "etc", "decor"):
        (second / name).mkdir(parents=True)
    (second / "usr/share/.wh.doc").touch()
    (second / "usr/bin/.wh.[").touch()
    (second / "decor/.wh..wh..opq").touch()
    (second / "decor/only").write_text("only")
    (second / "etc/added").write_text("added")
    layers.append(packed(second, tmp_path / "second.tar"))
    ours = same_as_umoci(tmp_path, layers)
    assert len(ours) > 1000
    assert any("security.capability" in entry[7] for entry in ours.values())
    assert any(entry[0].startswith("-rws") for entry in ours.values())


@pytest.mark.skipif(bool(support.need("umoci", "debootstrap", "tar")), reason="needs umoci and debootstrap")
def test_what_debootstrap_makes_is_unpacked_as_umoci_does(tmp_path: Path) -> None:
    """The required packages of the stable release, unpacked by debootstrap --foreign, which runs none of them."""
    root = tmp_path / "root"
    made = subprocess.run(
        ["debootstrap", "--foreign", "--variant=minbase", "stable", str(root)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if "Failed getting release file" in made.stdout + made.stderr:
        pytest.skip("needs a Debian mirror")
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    decorate(root)
    ours = same_as_umoci(tmp_path, [packed(root, tmp_path / "root.tar")])
    assert len(ours) > 4000
    assert sum(entry[0].startswith("-rws") for entry in ours.values()) >= 5


def same_as_umoci(tmp_path: Path, layers: list[bytes]) -> dict[str, tuple[Any, ...]]:
    """Unpack an image of these layers with both tools and compare the results. Returns ours."""
    layout = tmp_path / "layout"
    write_layout(layout, layers, "localhost/debian:1")

    run("umoci", "unpack", "--image", f"{layout}:localhost/debian:1", str(tmp_path / "bundle"))
    (record,) = load(tmp_path / "store", layout)
    merged = tmp_path / "merged"
    merged.mkdir()
    mount_image(record.id, record.layers, str(merged))
    try:
        ours = snapshot(merged)
    finally:
        unmount(str(merged))
    theirs = snapshot(tmp_path / "bundle/rootfs")
    assert ours.keys() == theirs.keys()
    wrong = {
        name: (ours[name], theirs[name])
        for name in ours
        if comparable(ours[name]) != comparable(theirs[name])
    }
    assert wrong == {}
    return ours


def comparable(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    """Everything that must be equal. A directory's mtime is not compared: umoci's removals change it, overlayfs
    preserves the layer's."""
    return (*entry[:3], 0, *entry[4:]) if entry[0].startswith("d") else entry


def copy_packages(root: Path) -> None:
    listed = run("dpkg", "-L", *PACKAGES).splitlines()
    names = sorted(
        {name for name in listed if name.startswith("/") and os.path.lexists(name) and name != "/."}
    )
    (root.parent / "names").write_bytes(b"\0".join(name[1:].encode() for name in names))
    root.mkdir()
    command = (
        f"tar -C / --null --no-recursion -T {root.parent}/names -cf - | tar -C {root} --same-owner -xpf -"
    )
    subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True, timeout=60)


def decorate(root: Path) -> None:
    decor = root / "decor"
    (decor / "deep").mkdir(parents=True)
    shutil.copy("/bin/true", root / "usr/bin/capable")
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
    os.setxattr(root / "usr/bin/capable", "security.capability", capability)
    os.setxattr(root / "etc", "user.note", b"\x00\xff binary")
    (root / "old").write_text("old")
    os.utime(root / "old", ns=(-123456789, -123456789))
    with open(root / "holes", "wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    os.link(root / "holes", root / "usr/holes-too")
    os.mkfifo(root / "fifo", 0o620)
    os.mknod(root / "null", 0o20666, os.makedev(1, 3))
    os.symlink("/nowhere/at all", root / "dangling")
    os.chown(root / "dangling", 12, 34, follow_symlinks=False)
    (decor / "hidden").write_text("x")
    os.chown(root / "old", 70_000, 80_000)


def packed(root: Path, archive: Path) -> bytes:
    run("tar", "-C", str(root), "--xattrs", "--xattrs-include=*", "--format=posix", "--numeric-owner", "-cf",
        str(archive), ".")  # fmt: skip
    return archive.read_bytes()

"""Images without a registry: archives of other tools, packed host programs, and workers killed at any moment."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from runtime import syscalls
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store.deletion import remove_image
from runtime.images.store.store import ImageRecord, ImageStore
from runtime.images.store.verify import check_store
from tests.kernel import images_support as support
from tests.kernel.images_support import directory, member, run, snapshot, tar, write_layout

pytestmark = pytest.mark.kernel


def do(root: Path, operation: str, *arguments: Any, **options: Any) -> Any:
    async def go() -> Any:
        return await getattr(ImageClient(str(root)), operation)(*arguments, **options)

    return asyncio.run(go())


def make_layout(path: Path, tag: str = "latest") -> Path:
    base = tar(directory("etc"), (member("etc/a", uid=5), b"a"), (member("etc/b"), b"b"))
    write_layout(path, [base, tar(member("etc/.wh.b"), (member("c"), b"c"))], tag)
    return path


def needs_skopeo() -> None:
    if support.need("skopeo"):
        pytest.skip("needs skopeo (apt-get install skopeo)")


class TestLoad:
    @pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
    def test_what_skopeo_writes(self, tmp_path: Path, kind: str) -> None:
        needs_skopeo()
        layout = make_layout(tmp_path / "layout")
        name = "example.com/team/app:1.2"
        run("skopeo", "copy", "-q", f"oci:{layout}:latest", f"{kind}:{tmp_path}/out:{name}")
        (record,) = do(tmp_path / "store", "load", str(tmp_path / "out"))
        assert record.reference == name and record.config["Cmd"] == ["sh"] and len(record.layers) == 2
        assert snapshot(record.layers[1])["etc/a"][1] == 5
        assert check_store(ImageStore(str(tmp_path / "store")), deep=True) == []
        assert json.loads(run("skopeo", "inspect", f"oci:{tmp_path}/store:{name}"))["Architecture"] == "amd64"

    def test_compressed_archives(self, tmp_path: Path) -> None:
        layout = make_layout(tmp_path / "layout", "localhost/x:1")
        with tarfile.open(tmp_path / "plain.tar", "w") as archive:
            archive.add(layout, arcname=".")
        (tmp_path / "x.tar.gz").write_bytes(gzip.compress((tmp_path / "plain.tar").read_bytes()))
        (record,) = do(tmp_path / "store", "load", str(tmp_path / "x.tar.gz"))
        assert record.reference == "localhost/x:1"

    def test_a_name_can_be_given_and_a_bare_tag_is_one(self, tmp_path: Path) -> None:
        layout = make_layout(tmp_path / "layout")
        assert do(tmp_path / "store", "load", str(layout))[0].reference == "docker.io/library/layout:latest"
        (record,) = do(tmp_path / "store", "load", str(layout), reference="mine:2")
        assert record.reference == "docker.io/library/mine:2"
        store = ImageStore(str(tmp_path / "store"))
        assert [r.id for r in store.list()] == [record.id, record.id]
        assert remove_image(store, "mine:2").deleted == () and store.get("layout") is not None

    def test_umoci_layouts(self, tmp_path: Path) -> None:
        if support.need("umoci"):
            pytest.skip("needs umoci (apt-get install umoci)")
        layout = tmp_path / "l"
        run("umoci", "init", "--layout", str(layout))
        run("umoci", "new", "--image", f"{layout}:v1")
        run("umoci", "unpack", "--image", f"{layout}:v1", str(tmp_path / "bundle"))
        (tmp_path / "bundle/rootfs/hello").write_text("hello")
        os.symlink("hello", tmp_path / "bundle/rootfs/link")
        run("umoci", "repack", "--image", f"{layout}:v1", str(tmp_path / "bundle"))
        (record,) = do(tmp_path / "store", "load", str(layout))
        assert record.reference == "docker.io/library/l:v1"
        assert (Path(record.layers[0]) / "hello").read_text() == "hello"

    def test_damage_is_found_and_nothing_is_left(self, tmp_path: Path) -> None:
        layout = make_layout(tmp_path / "layout")
        largest = max((layout / "blobs/sha256").iterdir(), key=lambda p: p.stat().st_size)
        content = bytearray(largest.read_bytes())
        content[700] ^= 1
        largest.write_bytes(content)
        with pytest.raises(ImageError, match=largest.name):
            do(tmp_path / "store", "load", str(layout))
        store = ImageStore(str(tmp_path / "store"))
        assert store.list() == () and check_store(store, deep=True) == []
        assert os.listdir(f"{store.root}/layers") == [] and os.listdir(f"{store.root}/ingest") == []

    def test_the_wrong_diff_id_is_refused(self, tmp_path: Path) -> None:
        layout = tmp_path / "layout"
        write_layout(layout, [tar((member("a"), b"a"))])
        index = json.loads((layout / "index.json").read_text())
        _rewrite(layout, index, lambda config: config["rootfs"].update(diff_ids=["sha256:" + "1" * 64]))
        with pytest.raises(ImageError, match="the image's config lists sha256:1111"):
            do(tmp_path / "store", "load", str(layout))
        assert os.listdir(tmp_path / "store/layers") == []

    def test_neither_one_nor_the_other(self, tmp_path: Path) -> None:
        (tmp_path / "x.tar").write_bytes(tar((member("a"), b"a")))
        with pytest.raises(ImageError, match=r"no index\.json and no manifest\.json"):
            do(tmp_path / "store", "load", str(tmp_path / "x.tar"))
        (tmp_path / "y").write_text("nonsense")
        with pytest.raises(ImageError, match="not a tar archive"):
            do(tmp_path / "store", "load", str(tmp_path / "y"))
        with pytest.raises(ImageError, match="No such file"):
            do(tmp_path / "store", "load", str(tmp_path / "missing"))


def _rewrite(layout: Path, index: dict[str, Any], change: Any) -> None:
    """Edit the config of a layout with one image, and update all digests."""
    import hashlib

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    def put(document: Any) -> dict[str, Any]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (layout / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_bytes())
    config = json.loads(blob(manifest["config"]["digest"]).read_bytes())
    change(config)
    manifest["config"].update(put(config))
    index["manifests"][0].update(put(manifest))
    (layout / "index.json").write_text(json.dumps(index))


class TestPack:
    def test_busybox_brings_its_applets(self, tmp_path: Path) -> None:
        record = do(tmp_path / "store", "pack", [support.PACKED_BUSYBOX], "local/busybox:1")
        root = Path(record.layers[0])
        assert record.config["Cmd"] == ["sh"] and record.config["Env"][0].startswith("PATH=")
        assert run("chroot", str(root), "/bin/sh", "-c", "echo $((6*7)); /bin/ls -d /tmp; id -un").split() == [
            "42", "/tmp", "root",
        ]  # fmt: skip
        assert not (root / "usr/bin/busybox").is_symlink()
        assert snapshot(root)["tmp"][0] == "drwxrwxrwt" and os.readlink(root / "bin") == "usr/bin"
        assert (root / "usr/sbin/httpd").is_symlink() and (
            root / "usr/sbin/httpd"
        ).resolve().name == "busybox"

    def test_it_is_reproducible(self, tmp_path: Path) -> None:
        one = do(
            tmp_path / "one",
            "pack",
            [support.PACKED_BUSYBOX, "cat"],
            "x",
            files=["/etc/debian_version:/etc/v"],
        )
        two = do(
            tmp_path / "two",
            "pack",
            [support.PACKED_BUSYBOX, "cat"],
            "x",
            files=["/etc/debian_version:/etc/v"],
        )
        assert (one.id, one.manifest_digest) == (two.id, two.manifest_digest)

    def test_shared_libraries_come_along(self, tmp_path: Path) -> None:
        (tmp_path / "script").write_text("#!/bin/bash\necho from $BASH_VERSION\n")
        (tmp_path / "script").chmod(0o755)
        (tmp_path / "data/sub").mkdir(parents=True)
        (tmp_path / "data/sub/f").write_text("f")
        record = do(
            tmp_path / "store", "pack", ["ls", str(tmp_path / "script")], "tools", files=[f"{tmp_path}/data:/srv"],
            entrypoint=["/bin/ls"], cmd=["-l"], env=["A=b"], workdir="/srv", user="33",
        )  # fmt: skip
        root = record.layers[0]
        assert run("chroot", root, "/bin/ls", "/srv/sub") == "f"
        assert run("chroot", root, str(tmp_path / "script")).startswith("from ")
        config = record.config
        assert (config["Entrypoint"], config["Cmd"]) == (["/bin/ls"], ["-l"])
        assert (config["WorkingDir"], config["User"], config["Env"][1:]) == ("/srv", "33", ["A=b"])

    def test_what_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="cannot find the program no-such-program"):
            do(tmp_path / "store", "pack", ["no-such-program"], "x")
        with pytest.raises(ImageError, match="/no/such/file does not exist"):
            do(tmp_path / "store", "pack", ["cat"], "x", files=["/no/such/file"])
        assert ImageStore(str(tmp_path / "store")).list() == ()


def test_a_worker_killed_at_any_moment_leaves_a_valid_store(tmp_path: Path) -> None:
    """kill -9 after increasing delays. Each time the store is valid, and the next run completes and cleans up."""
    layout = tmp_path / "layout"
    layers = [tar(*[(member(f"d{n}/f{k}"), os.urandom(3000)) for k in range(300)]) for n in range(4)]
    write_layout(layout, layers, "example.com/big:1")
    killed = 0
    store = ImageStore(str(tmp_path / "store"))
    for step in range(12):
        process = _start({"op": "load", "root": store.root, "path": str(layout)})
        assert process.stdout is not None
        process.stdout.readline()  # it has started
        time.sleep(step * 0.012)
        killed += process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        strays = check_store(store, deep=True)
        left = ("was left by a writer that died", "is a stray temporary file")
        assert all(any(words in problem for words in left) for problem in strays), strays
        record = store.get("example.com/big:1")
        if record is not None:
            assert _complete(record)
            remove_image(store, record.reference)  # so that the next run starts from the beginning
    assert killed >= 3, "the delays must hit a running worker"
    (record,) = do(tmp_path / "store", "load", str(layout))
    assert _complete(record)
    assert check_store(store, deep=True) == [] and os.listdir(f"{store.root}/ingest") == []


def test_a_worker_stops_when_nobody_waits_any_more(tmp_path: Path) -> None:
    """The daemon is killed: the pipe closes, and the worker cleans up by itself."""
    layout = tmp_path / "layout"
    write_layout(
        layout, [tar(*[(member(f"f{k}"), os.urandom(1000)) for k in range(20_000)])], "example.com/big:1"
    )
    process = _start({"op": "load", "root": str(tmp_path / "store"), "path": str(layout)})
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    process.stdin.close()
    process.stdout.close()
    assert process.wait(20) == 130
    store = ImageStore(str(tmp_path / "store"))
    assert store.list() == () and os.listdir(f"{store.root}/ingest") == [] and check_store(store) == []


def test_a_full_disk_is_said_and_what_was_taken_is_freed(tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    write_layout(
        layout, [tar((member("a"), os.urandom(3_000_000))), tar((member("b"), os.urandom(3_000_000)))]
    )
    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=8m")
    try:
        with pytest.raises(ImageError, match="no space left on the image store's file system") as caught:
            do(small / "store", "load", str(layout))
        assert caught.value.retriable
        store = ImageStore(str(small / "store"))
        assert os.listdir(f"{store.root}/ingest") == os.listdir(f"{store.root}/layers") == []
        assert os.listdir(f"{store.root}/blobs/sha256") == []
        assert store.list() == () and check_store(store, deep=True) == []
    finally:
        syscalls.umount2(str(small))


def test_an_image_of_very_many_layers(tmp_path: Path) -> None:
    """More layers than a process has descriptors for their parents. Each layer sees those below it."""
    layout = tmp_path / "layout"
    layers = [tar(directory("d", uid=1), (member("d/f"), b"first"))]
    layers += [
        tar((member(f"d/e{n}/f"), b"x"), member(f"d/l{n}", tarfile.LNKTYPE, linkname="d/f"))
        for n in range(150)
    ]
    write_layout(layout, layers)
    (record,) = do(tmp_path / "store", "load", str(layout))
    assert len(record.layers) == 151
    assert all(os.stat(f"{layer}/d").st_uid == 1 for layer in record.layers)
    assert Path(record.layers[0], "d/l149").read_text() == "first"


def test_a_live_writer_is_spared_by_removal_and_sweeping(tmp_path: Path) -> None:
    from runtime.images.store.content import Session
    from runtime.images.store.deletion import prune

    layout = make_layout(tmp_path / "layout")
    (record,) = do(tmp_path / "store", "load", str(layout))
    store = ImageStore(str(tmp_path / "store"))
    with Session(store) as session:
        unfinished = session.put_blob(b"needed soon")
        Path(session.directory, "lease.json").write_text(json.dumps([unfinished, record.layer_digests[0]]))
        remove_image(store, record.reference)
        assert session.has_blob(unfinished, 11) and session.has_blob(
            record.layer_digests[0], _size(store, record)
        )
        assert not session.has_blob(record.layer_digests[1], 10240)
    prune(store, in_use=())
    assert os.listdir(f"{store.root}/blobs/sha256") == []


def _size(store: ImageStore, record: ImageRecord) -> int:
    return os.stat(store.blob_path(record.layer_digests[0])).st_size


def test_check_names_what_is_wrong(tmp_path: Path) -> None:
    (record,) = do(tmp_path / "store", "load", str(make_layout(tmp_path / "layout")))
    store = ImageStore(str(tmp_path / "store"))
    blob = Path(store.blob_path(record.layer_digests[0]))
    content = bytearray(blob.read_bytes())
    content[600] ^= 1
    blob.write_bytes(content)
    os.rename(record.layers[0], tmp_path / "taken")
    Path(store.root, "ingest/dead").mkdir()
    Path(store.root, "blobs/sha256/junk").write_text("")
    assert any("is missing" in p or "damaged" in p for p in check_store(store, deep=True))
    said = "\n".join(check_store(store, deep=True))
    assert f"blob {record.layer_digests[0]} is damaged" in said and "is not unpacked" in said
    assert "ingest/dead was left" in said and "junk does not belong to the store" in said
    blob.unlink()
    assert f"blob {record.layer_digests[0]} is missing" in "\n".join(check_store(store))


def _start(request: dict[str, Any]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime.images.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()
    return process


def _complete(record: ImageRecord) -> bool:
    return all(len(os.listdir(os.path.join(layer, os.listdir(layer)[0]))) == 300 for layer in record.layers)

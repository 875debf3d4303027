"""Pulls from a real registry (docker-registry), of images made by skopeo, umoci and buildah."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from runtime import syscalls
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store.deletion import remove_image
from runtime.images.store.store import ImageStore
from runtime.images.store.verify import check_store
from tests.kernel import images_support as support
from tests.kernel.images_support import directory, member, push, registry, run, snapshot, tar, write_layout
from tests.kernel.little_registry import little_registry

_MISSING = support.need("docker-registry", "skopeo", "busybox")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        bool(_MISSING), reason=f"needs {', '.join(_MISSING)} (apt-get install {' '.join(_MISSING)})"
    ),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry") / "r") as address:
        yield address


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A layout with three layers: files, then whiteouts and an opaque directory, then a file."""
    path = tmp_path_factory.mktemp("layered") / "layout"
    busybox = Path(support.BUSYBOX).read_bytes()
    base = tar(
        directory("bin"),
        (member("bin/busybox", mode=0o4755), busybox),
        member("bin/sh", tarfile.SYMTYPE, linkname="busybox"),
        member("bin/cat", tarfile.LNKTYPE, linkname="bin/busybox"),
        directory("etc", mode=0o750, uid=7, gid=8),
        (member("etc/gone", uid=1000, gid=1001), b"gone"),
        directory("etc/conf.d"),
        (member("etc/conf.d/old"), b"old"),
    )
    middle = tar(
        member("etc/.wh.gone"),
        directory("etc/conf.d"),
        member("etc/conf.d/.wh..wh..opq"),
        (member("etc/conf.d/new"), b"new"),
        member("bin/link-below", tarfile.LNKTYPE, linkname="bin/busybox"),
    )
    top = tar((member("etc/conf.d/third"), b"3" * 3_000_000), directory("tmp", mode=0o1777))
    write_layout(path, [base, middle, top], Env=["A=b"], StopSignal="SIGINT")
    return path


def pull(root: Path, reference: str, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []

    async def go() -> Any:
        client = ImageClient(str(root), **options)
        try:
            return await client.pull(reference, progress=events.append)
        finally:
            await client.close()

    return asyncio.run(go()), events


def problem(root: Path, reference: str, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        pull(root, reference, **options)
    return caught.value


def assert_clean(root: Path) -> None:
    assert check_store(ImageStore(str(root)), deep=True) == []
    assert os.listdir(root / "ingest") == []


FORMATS = [
    ("plain", ["--dest-decompress"]),
    ("gzip", ["--dest-compress-format", "gzip"]),
    ("zstd", ["--dest-compress-format", "zstd"]),
    ("schema2", ["--format", "v2s2"]),
]


@pytest.mark.parametrize(("tag", "options"), FORMATS, ids=[name for name, _ in FORMATS])
def test_every_format_arrives_the_same(
    tmp_path: Path, host: str, layered: Path, tag: str, options: list[str]
) -> None:
    push(layered, "latest", f"{host}/layered:{tag}", *options)
    record, events = pull(tmp_path / "store", f"{host}/layered:{tag}")
    bottom_up = [Path(layer) for layer in reversed(record.layers)]
    assert [len(list(layer.rglob("*"))) for layer in bottom_up] == [8, 7, 4]
    assert stat.S_IMODE((bottom_up[0] / "bin/busybox").stat().st_mode) == 0o4755
    whiteout = (bottom_up[1] / "etc/gone").lstat()
    assert stat.S_ISCHR(whiteout.st_mode) and whiteout.st_rdev == 0
    assert os.getxattr(bottom_up[1] / "etc/conf.d", "trusted.overlay.opaque") == b"y"
    etc = (bottom_up[2] / "etc").stat()  # not listed in its layer: keeps the metadata of the layers below
    assert (stat.S_IMODE(etc.st_mode), etc.st_uid, etc.st_gid) == (0o750, 7, 8)
    assert record.config["Env"] == ["A=b"] and record.config["StopSignal"] == "SIGINT"
    manifest = json.loads(
        run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/layered:{tag}")
    )
    assert record.id == manifest["config"]["digest"]
    assert [e["state"] for e in events if e["event"] == "layer"].count("done") == 3
    assert_clean(tmp_path / "store")


def test_the_store_is_a_layout_that_skopeo_and_umoci_read(tmp_path: Path, host: str, layered: Path) -> None:
    push(layered, "latest", f"{host}/readable:1", "--format", "v2s2")
    record, _ = pull(tmp_path / "store", f"{host}/readable:1")
    about = json.loads(run("skopeo", "inspect", f"oci:{tmp_path}/store:{record.reference}"))
    assert about["Env"] == ["A=b"] and about["Layers"] == list(record.layer_digests)
    run("skopeo", "copy", "-q", f"oci:{tmp_path}/store:{record.reference}", f"oci:{tmp_path}/copy:x")
    before = snapshot(tmp_path / "store/blobs")
    if support.need("umoci"):
        pytest.skip("needs umoci to compare with")
    assert run("umoci", "ls", "--layout", f"{tmp_path}/store") == record.reference
    run("umoci", "unpack", "--image", f"{tmp_path}/store:{record.reference}", str(tmp_path / "bundle"))
    names = {str(p.relative_to(tmp_path / "bundle/rootfs")) for p in (tmp_path / "bundle/rootfs").rglob("*")}
    assert {"etc/conf.d/new", "etc/conf.d/third", "bin/link-below"} <= names
    assert not names & {"etc/gone", "etc/conf.d/old"}
    assert (
        snapshot(tmp_path / "store/blobs") == before
        and check_store(ImageStore(f"{tmp_path}/store"), deep=True) == []
    )


def test_layers_that_are_here_are_not_fetched(tmp_path: Path, host: str, layered: Path) -> None:
    push(layered, "latest", f"{host}/again:1")
    first, _ = pull(tmp_path / "store", f"{host}/again:1")
    write_layout(tmp_path / "more", [*_layers(layered), tar((member("extra"), b"x"))])
    push(tmp_path / "more", "latest", f"{host}/again:2")
    second, events = pull(tmp_path / "store", f"{host}/again:2")
    states = {e["digest"]: e["state"] for e in events if e["event"] == "layer"}
    assert sorted(states.values()) == ["done", "present", "present", "present"]
    assert second.layers[1:] == first.layers
    inode = os.stat(first.layers[0]).st_ino
    assert pull(tmp_path / "store", f"{host}/again:1")[0].id == first.id
    assert os.stat(first.layers[0]).st_ino == inode


def test_a_tag_that_moves_leaves_the_old_image_nameless(tmp_path: Path, host: str, layered: Path) -> None:
    store = ImageStore(str(tmp_path / "store"))
    push(layered, "latest", f"{host}/moving:1")
    old, _ = pull(tmp_path / "store", f"{host}/moving:1")
    write_layout(tmp_path / "other", [tar((member("other"), b"x"))])
    push(tmp_path / "other", "latest", f"{host}/moving:1")
    new, _ = pull(tmp_path / "store", f"{host}/moving:1")
    assert new.id != old.id and store.get(f"{host}/moving:1") == new
    assert [r.reference for r in store.list() if r.id == old.id] == [""]
    assert store.get(old.id) is not None and store.get(old.repo_digests[0]) is not None
    assert all(map(os.path.isdir, old.layers))

    async def prune(*in_use: str) -> tuple[str, ...]:
        return (await ImageClient(store.root).prune(in_use=in_use)).deleted

    assert asyncio.run(prune(old.id)) == ()
    assert asyncio.run(prune()) == (old.id,)
    assert not any(map(os.path.exists, old.layers))
    assert_clean(tmp_path / "store")


def test_a_digest_pulls_exactly_that(tmp_path: Path, host: str, layered: Path) -> None:
    push(layered, "latest", f"{host}/pinned:1")
    digest = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{host}/pinned:1"))["Digest"]
    record, _ = pull(tmp_path / "store", f"{host}/pinned@{digest}")
    assert record.repo_digests == (f"{host}/pinned@{digest}",)
    store = ImageStore(str(tmp_path / "store"))
    assert store.get(f"{host}/pinned:any@{digest}") is not None
    assert store.get(f"{host}/pinned:1") is None
    about = run("skopeo", "inspect", f"oci:{tmp_path}/store:{record.reference}")
    assert json.loads(about)["Digest"] == record.manifest_digest


def test_an_index_is_read_by_platform(tmp_path: Path, host: str, layered: Path) -> None:
    push(layered, "latest", f"{host}/multi:one")
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/multi:one")
    digest = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{host}/multi:one"))[
        "Digest"
    ]
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": len(raw)}
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}],
    }
    (tmp_path / "index").write_text(json.dumps(index))
    run(
        "curl", "-sSf", "-X", "PUT", "-H", f"Content-Type: {index['mediaType']}",
        "--data-binary", f"@{tmp_path}/index", f"http://{host}/v2/multi/manifests/all",
    )  # fmt: skip
    record, _ = pull(tmp_path / "store", f"{host}/multi:all", platform="linux/amd64")
    assert record.architecture == "amd64" and record.manifest_digest == digest
    assert record.repo_digests[0] != f"{host}/multi@{digest}"  # the digest of the index, which was requested
    error = problem(tmp_path / "store", f"{host}/multi:all", platform="linux/riscv64")
    assert "no image for linux/riscv64" in str(error) and "linux/amd64" in str(error)


def test_what_the_registry_says_is_in_the_error(tmp_path: Path, host: str) -> None:
    error = problem(tmp_path / "store", f"{host}/nothing:1")
    assert error.reason == "ErrImagePull" and not error.retriable
    assert "404" in str(error) and "manifest unknown" in str(error) and f"{host}/nothing:1" in str(error)
    error = problem(tmp_path / "store", "127.0.0.1:1/nothing:1")
    assert error.reason == "RegistryUnavailable" and error.retriable and "Connection refused" in str(error)
    assert problem(tmp_path / "store", "Not/A/Name").reason == "InvalidImageName"


def test_a_damaged_blob_never_becomes_visible(tmp_path: Path, layered: Path) -> None:
    with registry(tmp_path / "r") as host:
        push(layered, "latest", f"{host}/bad:1")
        blobs = sorted((tmp_path / "r/data").rglob("blobs/sha256/*/*/data"), key=lambda p: p.stat().st_size)
        largest = blobs[-1]
        content = bytearray(largest.read_bytes())
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
        digest = largest.parent.name
        error = problem(tmp_path / "store", f"{host}/bad:1")
        assert digest in str(error) and error.reason == "ErrImagePull"
        assert not (tmp_path / "store/blobs/sha256" / digest).exists()
        assert ImageStore(str(tmp_path / "store")).list() == ()
        assert os.listdir(tmp_path / "store/layers") == [] and os.listdir(tmp_path / "store/ingest") == []
        largest.write_bytes(content[:100])  # a truncated blob
        error = problem(tmp_path / "store", f"{host}/bad:1")
        assert digest in str(error) or "reach" in str(error)
        assert check_store(ImageStore(str(tmp_path / "store")), deep=True) == []


def test_an_artifact_is_refused_by_name(tmp_path: Path, host: str, layered: Path) -> None:
    push(layered, "latest", f"{host}/artifact:base")
    raw = json.loads(
        run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/artifact:base")
    )
    raw["config"]["mediaType"] = "application/vnd.cncf.helm.config.v1+json"
    (tmp_path / "manifest").write_text(json.dumps(raw))
    run(
        "curl", "-sSf", "-X", "PUT", "-H", f"Content-Type: {raw['mediaType']}",
        "--data-binary", f"@{tmp_path}/manifest", f"http://{host}/v2/artifact/manifests/helm",
    )  # fmt: skip
    assert "application/vnd.cncf.helm.config.v1+json" in str(
        problem(tmp_path / "store", f"{host}/artifact:helm")
    )


def test_removal_frees_only_what_nothing_else_uses(tmp_path: Path, host: str, layered: Path) -> None:
    store = ImageStore(str(tmp_path / "store"))
    push(layered, "latest", f"{host}/keep:1")
    write_layout(tmp_path / "more", [*_layers(layered), tar((member("extra"), b"x"))])
    push(tmp_path / "more", "latest", f"{host}/drop:1")
    kept, _ = pull(tmp_path / "store", f"{host}/keep:1")
    dropped, _ = pull(tmp_path / "store", f"{host}/drop:1")
    with pytest.raises(ImageError) as caught:
        remove_image(store, f"{host}/drop:1", in_use=[dropped.id])
    assert caught.value.reason == "ImageInUse"
    removed = remove_image(store, f"{host}/drop:1")
    assert removed.deleted == (dropped.id,) and removed.untagged == (f"{host}/drop:1",) and removed.freed > 0
    assert not os.path.exists(dropped.layers[0]) and all(map(os.path.isdir, kept.layers))
    assert_clean(tmp_path / "store")
    assert remove_image(store, kept.id[7:19]).deleted == (kept.id,)
    assert os.listdir(tmp_path / "store/blobs/sha256") == [] and os.listdir(tmp_path / "store/layers") == []


def test_pulls_of_one_image_are_one_and_cancelling_leaves_nothing(
    tmp_path: Path, host: str, layered: Path
) -> None:
    push(layered, "latest", f"{host}/shared:1")

    async def go() -> None:
        client = ImageClient(str(tmp_path / "store"))
        starts: list[dict[str, Any]] = []
        both = [
            asyncio.create_task(client.pull(f"{host}/shared:1", progress=starts.append)) for _ in range(2)
        ]
        one, two = await asyncio.gather(*both)
        assert one is two
        assert [e["event"] for e in starts].count("resolved") == 2  # one pull, with two listeners
        store = ImageStore(str(tmp_path / "cancelled"))
        other = ImageClient(store.root)
        seen = asyncio.Event()
        task = asyncio.create_task(other.pull(f"{host}/shared:1", progress=lambda _e: seen.set()))
        await seen.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert os.listdir(f"{store.root}/ingest") == [] and check_store(store, deep=True) == []

    asyncio.run(go())


def test_the_layer_that_fails_is_named_whatever_the_others_do(tmp_path: Path) -> None:
    """One layer is missing in the registry while others are being read. The error names the missing one."""
    with little_registry() as server:
        server.add("1", (tar((member(f"f{n}"), os.urandom(4_000_000))) for n in range(3)))
        manifest = json.loads(server.content["/v2/app/manifests/1"][1])
        missing = manifest["layers"][1]["digest"]
        del server.content[f"/v2/app/blobs/{missing}"]
        for turn in range(6):
            error = problem(tmp_path / f"store-{turn}", f"{server.host}/app:1")
            assert missing in str(error) and "404 Not Found" in str(error) and error.reason == "ErrImagePull"
            assert os.listdir(tmp_path / f"store-{turn}/ingest") == []


def test_a_disk_that_fills_up_during_a_pull(tmp_path: Path) -> None:
    """The error is reported, the space of the pull is free again, and earlier content is intact. With enough space the
    same pull succeeds."""
    small = tmp_path / "small"
    small.mkdir()
    syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=12m")
    store = ImageStore(str(small / "store"))
    try:
        with little_registry() as server:
            server.add("small", [tar((member("small"), b"x" * 100_000))])
            server.add("large", [tar((member(f"large-{n}"), os.urandom(3_000_000))) for n in range(3)])
            before, _ = pull(small / "store", f"{server.host}/app:small")
            free = os.statvfs(small).f_bfree
            error = problem(small / "store", f"{server.host}/app:large")
            assert "no space left on the image store's file system" in str(error) and error.retriable
            assert [record.id for record in store.list()] == [before.id]
            assert os.listdir(f"{store.root}/ingest") == [] and os.statvfs(small).f_bfree >= free - 8
            assert check_store(store, deep=True) == []
            syscalls.mount("tmpfs", str(small), "tmpfs", syscalls.MS_REMOUNT, "size=48m")
            assert pull(small / "store", f"{server.host}/app:large")[0].unpacked
            assert_clean(small / "store")
    finally:
        syscalls.umount2(str(small))


@pytest.mark.skipif(
    "User Mode Linux" in Path("/proc/cpuinfo").read_text(),
    reason="needs hundreds of MB in one process, which this kernel ends by SIGSEGV",
)
def test_memory_has_a_bound_whatever_the_image(tmp_path: Path) -> None:
    """Several large layers in parallel, each with the largest window that zstd allows, and one with gzip."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=1)

    def long(layer: bytes) -> bytes:
        stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        return stream.compress(layer) + stream.flush()

    zeros = bytes((140 << 20) + 1024)
    small = tmp_path / "memory"
    small.mkdir()
    syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=1g")  # unpacked files need not reach a disk
    try:
        with little_registry() as server:
            heads = [member(f"zeros-{n}", size=140 << 20).tobuf() for n in range(4)]
            server.add("zstd", (head + zeros for head in heads[:3]), long)
            server.add("gzip", [heads[3] + zeros])
            for tag in ("zstd", "gzip"):
                command = (sys.executable, "-m", "tests.kernel.images_pull_one", f"{small}/store")
                said = run(*command, f"{server.host}/app:{tag}").split()
                assert said[0] == "pulled" and 20_000 < int(said[1]) < 200 << 10, said
    finally:
        syscalls.umount2(str(small))


def test_buildah_and_umoci_images(tmp_path: Path, host: str) -> None:
    """Built by the tools and compared with their own view of the result."""
    if missing := support.need("buildah", "umoci"):
        pytest.skip(f"needs {', '.join(missing)}")
    environment = support.buildah_environment(tmp_path / "b")

    def buildah(*arguments: str) -> str:
        return run("buildah", *arguments, **environment)

    first = buildah("from", "scratch")
    root = Path(buildah("mount", first))
    assert root.is_relative_to(tmp_path), "the build root must be the test's own"
    (root / "bin").mkdir()
    shutil.copy(support.BUSYBOX, root / "bin/busybox")
    os.link(root / "bin/busybox", root / "bin/hard")
    os.setxattr(
        root / "bin/busybox", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")
    )
    (root / "etc/conf.d").mkdir(parents=True)
    (root / "etc/a").write_text("a")
    (root / "etc/conf.d/b").write_text("b")
    os.chown(root / "etc/a", 1000, 1001)
    os.mkfifo(root / "etc/fifo")
    buildah("commit", "-q", first, "base:1")
    buildah("umount", first)
    second = buildah("from", "--pull=never", "localhost/base:1")
    root = Path(buildah("mount", second))
    assert root.is_relative_to(tmp_path)
    shutil.rmtree(root / "etc/conf.d")
    (root / "etc/a").unlink()
    (root / "etc/new").write_text("new")
    buildah("commit", "-q", second, "two:1")
    buildah("push", "-q", "--tls-verify=false", "two:1", f"docker://{host}/buildah:1")
    expected = {k: v for k, v in snapshot(root).items() if k != "."}
    record, _ = pull(tmp_path / "store", f"{host}/buildah:1")
    merged = tmp_path / "merged"
    merged.mkdir()
    options = f"lowerdir={':'.join(record.layers)}:{_empty(tmp_path)}"
    syscalls.mount("overlay", str(merged), "overlay", 0, options)
    try:
        found = {k: v for k, v in snapshot(merged).items() if k != "."}
    finally:
        syscalls.umount2(str(merged))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert _without_fractions(found[name]) == _without_fractions(value), name


def _empty(path: Path) -> Path:
    empty = path / "empty"
    empty.mkdir()
    return empty


def _without_fractions(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Round mtimes down: buildah writes whole seconds into its layers."""
    return (*value[:3], value[3] // 1_000_000_000, *value[4:])


def _layers(layout: Path) -> list[bytes]:
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(_read(layout, index["manifests"][0]["digest"]))
    return [_read(layout, layer["digest"]) for layer in manifest["layers"]]


def _read(layout: Path, digest: str) -> bytes:
    return (layout / "blobs" / digest.replace(":", "/")).read_bytes()

"""Stored images: names, archives that other tools read, pushes, pruning, repair."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import syscalls
from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store import names
from runtime.images.store.listing import digest_of
from runtime.images.store.store import ImageRecord, ImageStore, Removed
from runtime.images.store.verify import check_store
from tests.kernel import images_support as support
from tests.kernel.images_support import directory, member, registry, run, snapshot, tar, write_layout
from tests.waiting import remove_cgroup

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(bool(support.need("skopeo", "umoci")), reason="needs skopeo and umoci"),
]
NAME = "example.test/team/app:1.2"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "layout"
    base = tar(directory("etc"), (member("etc/a", uid=5), b"a" * 200_000), (member("etc/b"), b"b"))
    write_layout(path, [base, tar(member("etc/.wh.b"), (member("c"), b"c"))], NAME, Env=["A=b"])
    return path


@pytest.fixture
def store(tmp_path: Path, layout: Path) -> ImageStore:
    """A store with the image NAME, whose layers are compressed as in a registry."""
    return filled(tmp_path, layout)


def filled(path: Path, layout: Path) -> ImageStore:
    run("skopeo", "copy", "-q", "--dest-compress", f"oci:{layout}:{NAME}", f"oci:{path}/gz:{NAME}")
    do(path / "store", "load", str(path / "gz"))
    return ImageStore(str(path / "store"))


def do(root: Path | str, operation: str, *arguments: Any, **options: Any) -> Any:
    async def go() -> Any:
        client = ImageClient(str(root))
        try:
            return await getattr(client, operation)(*arguments, **options)
        finally:
            await client.close()

    return asyncio.run(go())


def trees(record: ImageRecord) -> list[dict[str, Any]]:
    """The whole tree, except the mtimes of whiteouts, which are those of their creation."""
    found = [snapshot(layer) for layer in record.layers]
    return [
        {name: (*v[:3], 0, *v[4:]) if v[0].startswith("c") and v[4] == 0 else v for name, v in tree.items()}
        for tree in found
    ]


def config_of(source: str) -> str:
    """The image id according to skopeo."""
    command = ["skopeo", "inspect", "--raw", "--config", source]
    return digest_of(subprocess.run(command, capture_output=True, check=True).stdout)


class TestSave:
    @pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
    def test_what_skopeo_reads_and_we_load_again(self, tmp_path: Path, store: ImageStore, form: str) -> None:
        record = store.find(NAME)
        out = tmp_path / "out"
        do(store.root, "save", [NAME], str(out), form=form)
        transport = {"oci-dir": "oci"}.get(form, form)
        assert config_of(f"{transport}:{out}:{NAME}") == record.id
        run("skopeo", "copy", "-q", f"{transport}:{out}:{NAME}", f"oci:{tmp_path}/copied:x")
        (again,) = do(tmp_path / "second", "load", str(out))
        assert (again.id, again.reference) == (record.id, NAME)
        assert trees(again) == trees(record)
        if form == "oci-dir":
            run("umoci", "unpack", "--image", f"{out}:{NAME}", str(tmp_path / "bundle"))
            assert not (tmp_path / "bundle/rootfs/etc/b").exists()
        assert not list(tmp_path.glob("*.tmp"))

    @pytest.mark.skipif(bool(support.need("podman")), reason="needs podman")
    def test_podman_loads_it(self, tmp_path: Path, store: ImageStore) -> None:
        do(store.root, "save", [NAME], str(tmp_path / "x.tar"), form="docker-archive")
        environment = support.buildah_environment(tmp_path / "podman")
        podman = ("podman", "--root", str(tmp_path / "graph"), "--runroot", str(tmp_path / "run"),
                  "--storage-driver", "vfs")  # fmt: skip
        run(*podman, "load", "-q", "-i", str(tmp_path / "x.tar"), **environment)
        listed = json.loads(run(*podman, "images", "--format", "json", **environment))
        assert [image["Names"] for image in listed] == [[NAME]]
        assert listed[0]["Id"] == store.find(NAME).id.removeprefix("sha256:")

    @pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
    def test_the_same_bytes_again_and_through_a_pipe(
        self, tmp_path: Path, store: ImageStore, form: str
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        came: list[bytes] = []
        reader = threading.Thread(target=lambda: came.append((tmp_path / "pipe").read_bytes()))
        reader.start()
        do(store.root, "save", [NAME], str(tmp_path / "pipe"), form=form)
        reader.join()
        do(store.root, "save", [NAME], str(tmp_path / "file"), form=form)
        assert came == [(tmp_path / "file").read_bytes()]
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600

    def test_several_images_share_their_layers(self, tmp_path: Path, store: ImageStore) -> None:
        do(store.root, "tag", NAME, "busybox")
        other = tmp_path / "other"
        write_layout(other, [tar((member("other"), b"o"))], "docker.io/library/other:1")
        do(store.root, "load", str(other))
        wanted = ["busybox", "other:1", NAME, store.find("other:1").id]
        do(store.root, "save", wanted, str(tmp_path / "x.tar"), form="docker-archive")
        with tarfile.open(tmp_path / "x.tar") as archive:
            listed = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
            members = archive.getnames()
        assert [entry["RepoTags"] for entry in listed] == [["busybox:latest", NAME], ["other:1"]]
        assert len(members) == len(set(members))
        loaded = do(tmp_path / "second", "load", str(tmp_path / "x.tar"))
        assert {r.reference for r in loaded} == {"docker.io/library/busybox:latest", NAME,
                                                 "docker.io/library/other:1"}  # fmt: skip

    def test_a_layout_that_is_there_gets_one_more(self, tmp_path: Path, store: ImageStore) -> None:
        out = tmp_path / "out"
        write_layout(out, [tar((member("old"), b"o"))], "old")
        do(store.root, "save", [NAME], str(out), form="oci-dir")
        do(store.root, "save", [NAME], str(out), form="oci-dir")
        index = json.loads((out / "index.json").read_text())
        names_ = [e["annotations"]["org.opencontainers.image.ref.name"] for e in index["manifests"]]
        assert names_ == ["old", NAME]

    def test_a_link_to_the_file_stays_one(self, tmp_path: Path, store: ImageStore) -> None:
        (tmp_path / "real.tar").write_bytes(b"old")
        (tmp_path / "link.tar").symlink_to("real.tar")
        do(store.root, "save", [NAME], str(tmp_path / "link.tar"), form="docker-archive")
        assert (tmp_path / "link.tar").is_symlink() and tarfile.is_tarfile(tmp_path / "real.tar")

    def test_a_full_disk_elsewhere_is_said_and_nothing_is_left(
        self, tmp_path: Path, store: ImageStore
    ) -> None:
        small = tmp_path / "small"
        small.mkdir()
        syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=8k")
        try:
            for form in ("docker-archive", "oci-archive", "oci-dir"):
                where = small / ("d" if form == "oci-dir" else "x.tar")
                with pytest.raises(
                    ImageError, match=rf"cannot save to {where}: No space left on device"
                ) as caught:
                    do(store.root, "save", [NAME], str(where), form=form)
                assert caught.value.reason == "ErrImageSave"
                assert list(small.iterdir()) == []
        finally:
            syscalls.umount2(str(small))

    def test_what_cannot_be_saved_leaves_nothing(self, tmp_path: Path, store: ImageStore) -> None:
        record = store.find(NAME)
        for reference, path, form, words in (
            ("nowhere:1", "x.tar", "oci-archive", "no such image: nowhere:1"),
            (NAME, "x.tar", "zip", 'unknown format "zip"'),
            (NAME, "missing/x.tar", "oci-archive", "No such file or directory"),
            (NAME, "", "oci-archive", "is a directory; use --format oci-dir"),
            (NAME, "", "oci-dir", "is neither empty nor an OCI layout"),
        ):
            with pytest.raises(ImageError, match=words):
                do(store.root, "save", [reference], str(tmp_path / path), form=form)
        blob = Path(store.blob_path(record.layer_digests[0]))
        content = bytearray(blob.read_bytes())
        content[-1] ^= 1
        blob.write_bytes(content)
        with pytest.raises(ImageError, match=r"gzip stream|is damaged"):
            do(store.root, "save", [NAME], str(tmp_path / "x.tar"), form="docker-archive")
        blob.unlink()
        with pytest.raises(ImageError, match="is missing or damaged"):
            do(store.root, "save", [NAME], str(tmp_path / "x.tar"), form="oci-archive")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["gz", "store"]
        assert os.listdir(f"{store.root}/ingest") == []


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if support.need("docker-registry"):
        pytest.skip("needs docker-registry")
    with registry(tmp_path_factory.mktemp("registry") / "r") as address:
        yield address


class TestPush:
    def test_what_we_push_others_pull(self, tmp_path: Path, store: ImageStore, host: str) -> None:
        record = store.find(NAME)
        events: list[dict[str, Any]] = []
        target = f"{host}/pushed/app:7"
        name, digest, _ = do(store.root, "push", NAME, target, progress=events.append)
        assert (name, digest) == (target, record.manifest_digest)
        states = [e["state"] for e in events if e["event"] == "layer"]
        assert states.count("done") == 2 and events[0]["event"] == "resolved"
        found = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{target}"))
        assert found["Digest"] == digest and found["Env"] == ["A=b"]
        pulled = do(tmp_path / "second", "pull", target)
        assert (pulled.id, trees(pulled)) == (record.id, trees(record))

        del events[:]
        do(store.root, "push", NAME, f"{host}/pushed/app:8", progress=events.append)
        assert [e["state"] for e in events if e["event"] == "layer"] == ["present", "present"]

    @pytest.mark.parametrize(
        ("how", "kind"), [({}, "+gzip"), ({"form": "zstd", "level": 9}, "+zstd"), ({"form": "none"}, "")]
    )
    def test_plain_layers_are_compressed(
        self, tmp_path: Path, layout: Path, host: str, how: dict[str, Any], kind: str
    ) -> None:
        do(tmp_path / "plain", "load", str(layout))
        store = ImageStore(str(tmp_path / "plain"))
        record = store.find(NAME)
        events: list[dict[str, Any]] = []
        target = f"{host}/compressed/app{kind.replace('+', '-')}:1"
        _, digest, size = do(store.root, "push", NAME, target, compression=how, progress=events.append)
        raw = run(
            "skopeo",
            "inspect",
            "--raw",
            "--tls-verify=false",
            f"docker://{target}@{digest}".replace(":1@", "@"),
        )
        manifest = json.loads(raw)
        assert len(raw.encode()) == size
        assert [entry["mediaType"].partition("v1.tar")[2] for entry in manifest["layers"]] == [kind, kind]
        smaller = manifest["layers"][0]["size"] < 20_000
        assert smaller == bool(kind) and (digest == record.manifest_digest) == (not kind)
        pulled = do(tmp_path / "second", "pull", target)
        assert (pulled.id, trees(pulled)) == (record.id, trees(record))
        for _ in range(2):  # from the record, then compressed again: equal
            del events[:]
            again = do(store.root, "push", NAME, target, compression=how, progress=events.append)
            assert again[1:] == (digest, size)
            assert [e["state"] for e in events if e["event"] == "layer"][-1] == "present"
            for note in (tmp_path / "plain/cache-compressed").glob("*"):
                note.write_text("torn")

    def test_a_full_disk_while_it_compresses(self, tmp_path: Path, host: str) -> None:
        """The error is reported, nothing is left behind, and the image is intact. A push without compression needs no
        space."""
        layout, small = tmp_path / "large", tmp_path / "small"
        write_layout(layout, [tar((member("random"), os.urandom(3 << 20)))], NAME)
        small.mkdir()
        syscalls.mount("tmpfs", str(small), "tmpfs", 0, "size=8m")
        try:
            do(small / "store", "load", str(layout))
            store = ImageStore(str(small / "store"))
            with pytest.raises(ImageError, match="no space left on the image store's file system"):
                do(store.root, "push", NAME, f"{host}/full:1")
            assert os.listdir(f"{store.root}/ingest") == [] and check_store(store, deep=True) == []
            do(store.root, "push", NAME, f"{host}/full:1", compression={"form": "none"})
        finally:
            syscalls.umount2(str(small))

    def test_a_damaged_layer_is_not_sent(self, tmp_path: Path, layout: Path, host: str) -> None:
        do(tmp_path / "plain", "load", str(layout))
        store = ImageStore(str(tmp_path / "plain"))
        blob = Path(store.blob_path(store.find(NAME).layer_digests[0]))
        data = bytearray(blob.read_bytes())
        data[600] ^= 1
        blob.write_bytes(data)
        with pytest.raises(ImageError, match=r"layer sha256:\w+ is damaged; run `kubelite doctor"):
            do(store.root, "push", NAME, f"{host}/damaged/app:1")
        assert not list((tmp_path / "plain/ingest").iterdir())

    def test_layers_of_a_neighbour_are_mounted(self, tmp_path: Path, store: ImageStore, host: str) -> None:
        do(store.root, "push", NAME, f"{host}/first/app:1")
        record = do(tmp_path / "second", "pull", f"{host}/first/app:1")
        events: list[dict[str, Any]] = []
        do(tmp_path / "second", "push", record.reference, f"{host}/neighbour/app:1", progress=events.append)
        assert [e["state"] for e in events if e["event"] == "layer"] == ["mounted", "mounted"]
        run("skopeo", "inspect", "--tls-verify=false", f"docker://{host}/neighbour/app:1")

    @pytest.mark.skipif(bool(support.need("podman")), reason="needs podman")
    def test_podman_pulls_it(self, tmp_path: Path, store: ImageStore, host: str) -> None:
        do(store.root, "push", NAME, f"{host}/podman/app:1")
        environment = support.buildah_environment(tmp_path / "podman")
        podman = ("podman", "--root", str(tmp_path / "graph"), "--runroot", str(tmp_path / "run"),
                  "--storage-driver", "vfs")  # fmt: skip
        identity = run(*podman, "pull", "-q", "--tls-verify=false", f"{host}/podman/app:1", **environment)
        assert f"sha256:{identity}" == store.find(NAME).id

    @pytest.mark.skipif(
        bool(support.need("podman", "runc", "conmon", "busybox")),
        reason="needs podman, runc, conmon, busybox",
    )
    def test_podman_runs_what_we_pack_and_push(self, tmp_path: Path, host: str) -> None:
        do(tmp_path / "store", "pack", ["busybox"], "localhost/packed:1")
        do(tmp_path / "store", "push", "localhost/packed:1", f"{host}/packed:1")
        environment = support.buildah_environment(tmp_path / "podman")
        parent = f"kubelite-test-{os.getpid()}"
        try:
            said = run(
                *("podman", "--root", str(tmp_path / "graph"), "--runroot", str(tmp_path / "run")),
                *("--tmpdir", str(tmp_path / "tmp"), "--storage-driver", "vfs"),
                *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
                *("run", "--rm", "--cgroup-parent", f"/{parent}", "--log-driver", "none"),
                *("--network", "none", "--tls-verify=false", f"{host}/packed:1"),
                *("sh", "-c", "echo from $0; stat -c %a /bin/busybox"),
                **environment,
            )
        finally:
            # conmon may outlive podman's command for a moment; its cgroup is busy until it ends.
            remove_cgroup(parent)
        assert said.splitlines() == ["from sh", "755"]

    def test_with_a_login(self, tmp_path: Path, store: ImageStore) -> None:
        with (
            support.token_server(tmp_path / "t") as server,
            registry(tmp_path / "r", server.settings()) as host,
        ):
            with pytest.raises(
                ImageError, match=r"cannot push .*401 Unauthorized \(not logged in\)"
            ) as caught:
                do(store.root, "push", NAME, f"{host}/a/b:1")
            assert caught.value.reason == "ErrImagePush"
            auth = tmp_path / "auth.json"

            async def go() -> None:
                client = ImageClient(store.root, auth_file=str(auth))
                try:
                    await client.login(host, "alice", "swordfish")
                    await client.push(NAME, f"{host}/a/b:1")
                finally:
                    await client.close()

            asyncio.run(go())
            asked = [scopes for user, scopes in server.asked if user == "alice" and scopes]
            assert asked == [["repository:a/b:pull,push"]], "one token for the whole push"

    def test_what_cannot_be_pushed(self, store: ImageStore) -> None:
        for how, words in (
            ({"form": "xz"}, 'unknown compression "xz"'),
            ({"level": 12}, "gzip has the levels 1 to 9, not 12"),
        ):
            with pytest.raises(ImageError, match=words):
                do(store.root, "push", NAME, "localhost:1/x", compression=how)
        for source, target, words in (
            ("nowhere:1", "", "no such image"),
            (NAME, f"localhost:1/x@sha256:{'1' * 64}", "push to a tag, not to a digest"),
            (NAME, "localhost:1/x", "cannot reach localhost:1: Connection refused"),
        ):
            with pytest.raises(ImageError, match=words):
                do(store.root, "push", source, target)


class TestNames:
    def test_tag_and_untag(self, tmp_path: Path, store: ImageStore) -> None:
        first = store.find(NAME)
        record = do(store.root, "tag", first.id[7:19], "nginx")
        assert (record.id, record.reference) == (first.id, "docker.io/library/nginx:latest")
        do(store.root, "tag", NAME, "nginx")
        assert [r.reference for r in store.list()] == [NAME, "docker.io/library/nginx:latest"]

        other = tmp_path / "other"
        write_layout(other, [tar((member("other"), b"o"))], "docker.io/library/other:1")
        do(store.root, "load", str(other))
        do(store.root, "tag", "nginx", "other:1")
        dangling = [r for r in store.list() if not r.reference]
        assert len(dangling) == 1 and dangling[0].id != first.id, "the one that had the name is nameless now"
        do(store.root, "tag", dangling[0].id, "back:1")
        assert all(r.reference for r in store.list())
        removed = do(store.root, "remove", "nginx")
        assert removed.untagged == ("docker.io/library/nginx:latest",) and removed.deleted == ()
        for source, target in (("none:1", "x"), (NAME, "UPPER"), (NAME, f"x@sha256:{'1' * 64}")):
            with pytest.raises(ImageError):
                do(store.root, "tag", source, target)
        assert check_store(store, deep=True) == []

    def test_a_name_comes_before_the_beginning_of_an_id(self, store: ImageStore) -> None:
        """`a` means a:latest, as in docker, even if an id starts with a."""
        record = store.find(NAME)
        digit = record.id[7]
        name = f"docker.io/library/{digit}:latest"
        assert store.look_up(digit) == (record, False)
        do(store.root, "tag", NAME, digit)
        assert store.look_up(digit)[0].reference == name and store.look_up(digit)[1]
        assert do(store.root, "remove", digit) == Removed((name,), (), 0)
        for nothing in ("0" * 64, "sha256:" + "0" * 64, "sha256:" + "0" * 12):
            with pytest.raises(ImageError, match="no such image") as caught:
                store.find(nothing)
            assert caught.value.reason == "ImageNotFound"

    def test_an_id_does_not_take_what_several_repositories_name(self, store: ImageStore) -> None:
        record = store.find(NAME)
        do(store.root, "tag", NAME, f"{NAME.rpartition(':')[0]}:more")
        do(store.root, "tag", NAME, "other:1")
        with pytest.raises(
            ImageError, match=r"several repositories: .*docker.io/library/other:1.*--force"
        ) as caught:
            do(store.root, "remove", record.id[7:19])
        assert caught.value.reason == "ImageHasOtherNames"
        assert do(store.root, "remove", "other:1").deleted == ()
        removed = do(store.root, "remove", record.id[7:19])
        assert len(removed.untagged) == 2 and removed.deleted == (record.id,), (
            "tags of one repository go along"
        )

    def test_an_id_takes_every_name_by_force(self, store: ImageStore) -> None:
        record = store.find(NAME)
        do(store.root, "tag", NAME, "other:1")
        removed = do(store.root, "remove", record.id, force=True)
        assert len(removed.untagged) == 2 and removed.deleted == (record.id,) and store.list() == ()

    def test_prune(self, tmp_path: Path, store: ImageStore) -> None:
        for number in range(3):
            other = tmp_path / f"other{number}"
            write_layout(other, [tar((member("f"), b"%d" % number * 5000))], f"localhost/other:{number}")
            do(store.root, "load", str(other))
        by_name = {r.reference: r for r in store.list()}
        used = by_name["localhost/other:0"].id
        old = by_name["localhost/other:1"]
        do(store.root, "tag", NAME, "localhost/other:2")  # the third has no name now
        assert do(store.root, "prune", in_use=[used]).deleted == (by_name["localhost/other:2"].id,)
        index = Path(store.root, "index.json")
        index.write_text(index.read_text().replace(old.pulled, "2020-01-01T00:00:00Z"))
        os.utime(store.blob_path(old.id), (1, 1))
        os.utime(store.blob_path(store.find(NAME).id), (1, 1))
        names.touch(store, [store.find(NAME).id])
        removed = do(store.root, "prune", in_use=[used], every=True, before=1_600_000_000.0)
        assert removed.deleted == (old.id,) and removed.untagged == ("localhost/other:1",)
        assert removed.freed > 5000
        found = do(store.root, "usage", [used])
        sizes = {**found["blobs"], **{f"chain:{chain}": size for chain, size in found["layers"].items()}}
        removed = do(store.root, "prune", in_use=[used], every=True)
        assert removed.freed == sum(size for thing, size in sizes.items() if thing not in found["retained"])
        assert [r.reference for r in store.list()] == ["localhost/other:0"]
        assert check_store(store, deep=True) == []


class TestRepair:
    def test_what_can_be_mended_here_is(self, store: ImageStore, tmp_path: Path) -> None:
        record = store.find(NAME)
        before = trees(record)
        root = Path(store.root)
        os.rename(record.layers[0], tmp_path / "taken")
        (root / "ingest/dead").mkdir()
        (root / "blobs/sha256/junk").write_text("")
        (root / "layers/junk").mkdir()
        (root / "index.json.abc.tmp").write_text("{")
        stray = root / "blobs/sha256" / ("1" * 64)
        stray.write_bytes(b"not that")
        done, broken = do(store.root, "repair")
        assert broken == [] and len(done) == 6, done
        assert any(f"unpacked {NAME} again" in sentence for sentence in done)
        assert check_store(store, deep=True) == [] and trees(store.find(NAME)) == before
        assert store.find(NAME).reference == NAME
        assert do(store.root, "repair", deep=True) == ([], [])

    def test_a_damaged_blob_goes_and_its_image_is_named(self, store: ImageStore) -> None:
        record = store.find(NAME)
        blob = Path(store.blob_path(record.layer_digests[0]))
        content = bytearray(blob.read_bytes())
        content[50] ^= 1
        blob.write_bytes(content)
        done, broken = do(store.root, "repair", deep=True)
        assert broken == [NAME] and not blob.exists()
        assert any(record.layer_digests[0] in sentence for sentence in done)
        assert store.find(NAME).unpacked, "what runs on its layers runs on"

    def test_an_index_that_is_none(self, store: ImageStore) -> None:
        record = store.find(NAME)
        Path(store.root, "index.json").write_text("{broken")
        assert check_store(store) and "index.json" in check_store(store)[0]
        done, broken = do(store.root, "repair")
        assert broken == [] and "1 images remain without names" in done[0]
        fresh = ImageStore(store.root)
        assert [(r.id, r.reference, r.unpacked) for r in fresh.list()] == [(record.id, "", True)]
        do(store.root, "tag", record.id, NAME)
        assert fresh.find(NAME).id == record.id and check_store(fresh, deep=True) == []


def test_usage_counts_each_thing_once(store: ImageStore) -> None:
    found = do(store.root, "usage")
    record = store.find(NAME)
    assert set(found["blobs"]) == {record.id, record.manifest_digest, *record.layer_digests}
    assert len(found["layers"]) == 2 and sum(found["layers"].values()) >= 200_000

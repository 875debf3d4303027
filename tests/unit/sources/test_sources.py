"""The directory is the source of truth: the effect of each possible change on the store."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelite.kube.objects import SOURCE, mark_deleting
from kubelite.sources import files
from kubelite.sources.directory import Sources
from kubelite.sources.files import readable_name
from state.store import Record, Store
from tests.unit.sources.kit import BROKEN, CLAIM, CONFIG, VOLUME, directory, image, names, pod, sources, web
from tests.waiting import SECONDS
from tests.waiting import until_async as until

__all__ = ["directory", "sources"]


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("web.yaml", True),
        ("web.yml", True),
        ("web.json", True),
        (".web.yaml", False),
        ("web.yaml~", False),
        ("web.yaml.bak", False),
        (".web.yaml.swp", False),
        ("#web.yaml", False),
        ("web.yaml.orig", False),
        ("README", False),
    ],
)
def test_which_files_are_manifests(name: str, read: bool) -> None:
    assert readable_name(name) is read


async def test_files_of_several_documents_and_sub_directories(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "a.yaml").write_text(pod("one") + "---\n" + pod("two") + "---\n" + CONFIG.format(name="c"))
    (directory / "sub" / "deep").mkdir(parents=True)
    (directory / "sub" / "deep" / "b.yml").write_text(pod("three"))
    (directory / "a.yaml~").write_text(pod("backup"))
    await sources.scan()
    assert names(store) == ["one", "three", "two"]
    assert [r.name for r in store.list("ConfigMap")] == ["c"]
    record = store.get("Pod", "default", "three")
    assert record is not None
    assert record.metadata["annotations"][SOURCE] == str(directory / "sub" / "deep" / "b.yml")
    assert record.doc["spec"]["restartPolicy"] == "Always", "defaults are in the stored object"


async def test_an_edit_keeps_uid_and_status_and_counts_generations(
    directory: Path, store: Store, sources: Sources
) -> None:
    file = directory / "web.yaml"
    file.write_text(pod())
    await sources.scan()
    before = web(store)
    await store.update_status(before.uid, {"phase": "Running"})
    file.write_text(pod(image="other"))
    await sources.scan()
    after = web(store)
    assert (after.uid, after.doc["status"]) == (before.uid, {"phase": "Running"})
    assert (before.metadata["generation"], after.metadata["generation"]) == (1, 2)
    assert image(store) == "other"


@pytest.mark.parametrize(
    "bad", [BROKEN, "a: [", "kind: Pod\napiVersion: v1\n", pod() + "---\n" + BROKEN.replace("web", "x")]
)
async def test_an_invalid_file_changes_nothing_and_names_the_line(
    directory: Path, store: Store, sources: Sources, bad: str
) -> None:
    file = directory / "web.yaml"
    file.write_text(pod())
    await sources.scan()
    version = web(store).resource_version
    file.write_text(bad)
    await sources.scan(settle=0)
    assert web(store).resource_version == version
    [state] = sources.states()
    assert state.status == "Invalid"
    assert state.problems and state.problems[0].line > 0
    if bad is BROKEN:
        assert state.problems[0].sentence(str(file)).startswith(f"{file}:7: spec.containers[0].imagee: ")
        assert 'did you mean "image"' in state.problems[0].message
    file.write_text(pod(image="mended"))
    await sources.scan()
    assert image(store) == "mended"


async def test_a_file_that_became_invalid_while_the_daemon_was_down_keeps_its_pods(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "web.yaml").write_text(pod())
    await sources.scan()
    (directory / "web.yaml").write_text(BROKEN)
    await Sources(str(directory), store).scan(settle=0)
    assert names(store) == ["web"]


@pytest.mark.parametrize("how", ["vanished", "unreadable", "other-and-empty"])
async def test_a_missing_directory_removes_nothing(
    directory: Path, store: Store, sources: Sources, how: str
) -> None:
    (directory / "web.yaml").write_text(pod())
    await sources.scan()
    shutil.move(directory, directory.with_suffix(".moved"))
    if how == "unreadable":
        directory.write_text("not a directory")
    elif how == "other-and-empty":
        directory.mkdir()
    for reader in (sources, Sources(str(directory), store)):
        await reader.scan(settle=0)
        assert reader.error
        assert names(store) == ["web"]
    if how == "other-and-empty":
        shutil.copy(directory.with_suffix(".moved") / "web.yaml", directory / "other.yaml")
        await sources.scan(settle=0)
        assert sources.error == ""
        assert names(store) == ["web"]


async def test_the_same_directory_emptied_removes_everything(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "web.yaml").write_text(pod())
    await sources.scan()
    (directory / "web.yaml").unlink()
    await Sources(str(directory), store).scan(settle=0)
    assert names(store) == []


async def test_a_removed_file_or_document_ends_its_pods_gracefully(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "a.yaml").write_text(pod("one") + "---\n" + pod("two"))
    (directory / "b.yaml").write_text(pod("three") + "---\n" + CONFIG.format(name="c"))
    await sources.scan()
    (directory / "a.yaml").write_text(pod("one"))
    (directory / "b.yaml").unlink()
    await sources.scan()
    assert names(store) == ["one", "three", "two"], "not before it has settled"
    await sources.scan(settle=0)
    assert names(store) == ["one"]
    assert store.list("ConfigMap") == []
    two = store.get("Pod", "default", "two")
    assert two is not None
    assert two.metadata["deletionGracePeriodSeconds"] == 30


async def test_a_deleted_pod_with_a_manifest_is_recreated(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "web.yaml").write_text(pod())
    await sources.scan()
    first = web(store).uid
    await store.delete(first)
    await sources.scan()
    assert web(store).uid != first


@pytest.mark.parametrize("deleted", [False, True], ids=["it is still there", "it is deleted meanwhile"])
async def test_a_volume_whose_manifest_is_back_exists_before_a_new_claim(
    directory: Path, store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    (directory / "a.yaml").write_text(VOLUME)
    await sources.scan()
    (directory / "a.yaml").unlink()
    await sources.scan(settle=0)
    (first,) = store.list("PersistentVolume")
    assert first.deleting
    modify = store.modify

    async def after_all_others(uid: str, *more: Any, **options: Any) -> Record | None:
        if deleted:
            await store.delete(first.uid)
        return await modify(uid, *more, **options)

    monkeypatch.setattr(store, "modify", after_all_others)
    (directory / "b.yaml").write_text(f"{VOLUME}---\n{CLAIM}")
    async with store.watch("PersistentVolumeClaim") as watch:
        scan = asyncio.create_task(sources.scan())
        await anext(watch)
        (volume,) = store.list("PersistentVolume")
        await scan
    assert not volume.deleting and (volume.uid == first.uid) is not deleted


async def test_an_edit_of_an_ended_pod_recreates_it(directory: Path, store: Store, sources: Sources) -> None:
    (directory / "web.yaml").write_text(pod())
    await sources.scan()
    first = web(store).uid
    await store.update_status(first, {"phase": "Succeeded"})
    (directory / "web.yaml").write_text(pod(image="again"))
    await sources.scan()
    assert web(store).deleting
    await store.delete(first)
    await sources.scan()
    assert (web(store).uid != first, image(store)) == (True, "again")


async def test_two_documents_with_the_same_name(directory: Path, store: Store, sources: Sources) -> None:
    (directory / "b.yaml").write_text(pod(image="first"))
    await sources.scan()
    (directory / "a.yaml").write_text(pod(image="second"))
    await sources.scan()
    assert image(store) == "first", "what runs stays in force, whatever the order of names"
    states = {Path(s.file).name: s for s in sources.states()}
    assert states["a.yaml"].problems[0].kind == "duplicate"
    assert str(directory / "b.yaml") in states["a.yaml"].problems[0].message
    (directory / "b.yaml").unlink()
    await sources.scan(settle=0)
    assert image(store) == "second"
    assert names(store) == ["web"], "the heir takes over, nothing is removed in between"


@pytest.mark.parametrize("uid", ["../../etc", "a/b", "..", "a_b", "a b", "x" * 64])
async def test_a_uid_that_is_not_a_name_is_rejected(
    directory: Path, store: Store, sources: Sources, uid: str
) -> None:
    """It becomes part of paths that are deleted with the pod."""
    (directory / "web.yaml").write_text(pod().replace("name: web", f'name: web\n  uid: "{uid}"'))
    await sources.scan()
    assert names(store) == []
    assert sources.states()[0].problems[0].field == "metadata.uid"


async def test_two_pods_with_the_same_uid(directory: Path, store: Store, sources: Sources) -> None:
    (directory / "a.yaml").write_text(pod().replace("name: web", "name: web\n  uid: u1"))
    (directory / "b.yaml").write_text(pod("other").replace("name: other", "name: other\n  uid: u1"))
    await sources.scan()
    assert [(r.name, r.uid) for r in store.list("Pod")] == [("web", "u1")]
    problem = sources.states()[1].problems[0]
    assert (problem.field, problem.message) == ("metadata.uid", "Pod default/web has this uid")


async def test_metadata_of_the_node_is_ignored_in_a_manifest(
    directory: Path, store: Store, sources: Sources
) -> None:
    """As in `kubectl get -o yaml` of a terminating pod."""
    ending = (
        'name: web\n  deletionTimestamp: "2020-01-01T00:00:00Z"\n  deletionGracePeriodSeconds: 5\n'
        '  generation: 7\n  resourceVersion: "9"\n  creationTimestamp: "2020-01-01T00:00:00Z"'
    )
    (directory / "web.yaml").write_text(pod().replace("name: web", ending))
    await sources.scan()
    made = web(store)
    assert not made.deleting and made.metadata["generation"] == 1
    assert not made.metadata["creationTimestamp"].startswith("2020")
    (directory / "web.yaml").write_text(pod(image="nginx").replace("name: web", ending))
    await sources.scan()
    assert not web(store).deleting and image(store) == "nginx" and web(store).metadata["generation"] == 2


async def test_an_unsupported_kind_is_reported_and_the_rest_applies(
    directory: Path, store: Store, sources: Sources
) -> None:
    gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: s}\n"
    (directory / "web.yaml").write_text(gateway + "---\n" + pod())
    await sources.scan()
    assert names(store) == ["web"]
    [state] = sources.states()
    assert [p.kind for p in state.problems] == ["unsupported"]
    assert state.status == "Loaded"


async def test_a_file_being_written_is_left_alone(directory: Path, store: Store, sources: Sources) -> None:
    file = directory / "web.yaml"
    with open(file, "w") as writer:
        writer.write(pod())
        writer.flush()
        await sources.scan(settle=0)
        assert names(store) == []
        writer.write("  - name: second\n    image: b\n")
    await sources.scan(settle=0)
    assert len(web(store).doc["spec"]["containers"]) == 2


async def test_a_file_being_written_at_the_start_ends_no_pod(directory: Path, store: Store) -> None:
    manifest = directory / "web.yaml"
    manifest.write_text(pod())
    await Sources(str(directory), store).scan()
    after = Sources(str(directory), store)
    with manifest.open("a") as writer:
        await after.scan(settle=0)
        await after.scan(settle=0)
        assert names(store) == ["web"] and not after.complete
        assert [state.status for state in after.states()] == ["Writing"]
        writer.write("# done\n")
    await after.scan(settle=0)
    assert names(store) == ["web"] and after.complete


async def test_a_sub_directory_that_is_unmounted_ends_no_pod(
    directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while the daemon watches nor while it is down. When a manifest appears in the directory, the directory
    counts again."""
    (directory / "sub").mkdir()
    (directory / "sub" / "web.yaml").write_text(pod())
    sources, enter = Sources(str(directory), store), files._Walk.enter
    mounted = True

    def elsewhere(walk: files._Walk, path: str, device: int, *, top: bool = False) -> None:
        enter(walk, path, device + mounted, top=top)

    monkeypatch.setattr(files._Walk, "enter", elsewhere)
    await sources.scan(settle=0)
    mounted = False
    (directory / "sub" / "web.yaml").unlink()
    for looking in (sources, Sources(str(directory), store), Sources(str(directory), store)):
        await looking.scan(settle=0)
        await looking.scan(settle=0)
        assert names(store) == ["web"] and not looking.complete
    (directory / "sub" / "other.yaml").write_text(pod("other"))
    await looking.scan(settle=0)
    assert names(store) == ["other"] and looking.complete


async def test_a_sub_directory_that_is_emptied_ends_its_pods(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "sub").mkdir()
    (directory / "sub" / "web.yaml").write_text(pod())
    await sources.scan(settle=0)
    (directory / "sub" / "web.yaml").unlink()
    await sources.scan(settle=0)
    assert names(store) == [] and sources.complete


async def test_a_directory_that_cannot_be_read_at_the_start_ends_no_pod(
    directory: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "sub").mkdir()
    (directory / "sub" / "web.yaml").write_text(pod())
    await Sources(str(directory), store).scan()
    after, scandir = Sources(str(directory), store), os.scandir

    def stale(path: str) -> object:
        if path.endswith("/sub"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return scandir(path)

    with monkeypatch.context() as patched:
        patched.setattr("kubelite.sources.files.os.scandir", stale)
        await after.scan(settle=0)
        assert names(store) == ["web"] and not after.complete
    await after.scan(settle=0)
    assert names(store) == ["web"] and after.complete


async def test_a_file_name_that_is_not_utf8_affects_no_other_file(
    directory: Path, store: Store, sources: Sources
) -> None:
    Path(os.fsdecode(os.fsencode(directory) + b"/caf\xe9.yaml")).write_text(pod("cafe"))
    (directory / "web.yaml").write_text(pod())
    async with asyncio.timeout(SECONDS):
        await sources.scan()
    assert names(store) == ["web"]
    assert sources.states()[0].problems[0].message == "cannot be read: its name is not UTF-8"


async def test_an_edit_preserves_a_concurrent_deletion_or_status(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "web.yaml").write_text(pod())
    await sources.scan()
    uid = web(store).uid
    (directory / "web.yaml").write_text(pod(image="nginx"))
    status = asyncio.create_task(store.update_status(uid, {"phase": "Running"}))
    await asyncio.sleep(0)  # it is queued and not visible yet
    await sources.scan()
    await status
    assert image(store) == "nginx" and web(store).doc["status"] == {"phase": "Running"}
    (directory / "web.yaml").write_text(pod(image="httpd"))
    ending = asyncio.create_task(store.modify(uid, lambda doc: mark_deleting(doc, now=0)))
    await asyncio.sleep(0)
    await sources.scan()
    await ending
    assert web(store).deleting
    (directory / "web.yaml").write_text(pod(image="redis"))
    gone = asyncio.create_task(store.delete(uid))
    await asyncio.sleep(0)
    await sources.scan()
    await gone


async def test_a_full_disk_is_reported_and_retried(
    directory: Path, store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    (directory / "web.yaml").write_text(pod())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "_commit", full)
    task = asyncio.create_task(sources.run())
    await asyncio.wait_for(sources.ready.wait(), 5)  # running pods are still managed
    assert "No space left" in sources.error and not sources.complete
    monkeypatch.undo()
    await until(lambda: names(store) == ["web"] and sources.complete)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x: y\n" * 3_000_000])
async def test_unreadable_files_are_named(
    directory: Path, store: Store, sources: Sources, content: bytes
) -> None:
    (directory / "bad.yaml").write_bytes(content)
    (directory / "web.yaml").write_text(pod())
    (directory / "dangling.yaml").symlink_to("nowhere")
    await sources.scan()
    assert names(store) == ["web"]
    assert {Path(s.file).name: s.status for s in sources.states()} == {
        "bad.yaml": "Unreadable",
        "dangling.yaml": "Unreadable",
        "web.yaml": "Loaded",
    }


async def test_fifos_and_sockets_are_reported_and_never_opened(
    directory: Path, store: Store, sources: Sources
) -> None:
    """If a FIFO or a socket replaces a manifest, its pods keep running. If a link to /dev/null replaces it, they are
    removed, because /dev/null is read as an empty file."""
    (directory / "web.yaml").write_text(pod())
    await sources.scan()
    (directory / "web.yaml").unlink()
    os.mkfifo(directory / "web.yaml")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "sock.yaml"))
    (directory / "full.yaml").symlink_to("/dev/full")
    (directory / "sub").mkdir()
    (directory / "way.yaml").symlink_to("sub")
    os.mkfifo(directory / "notes")  # not the name of a manifest
    await sources.scan(settle=0)
    assert {Path(s.file).name: s.problems[0].message for s in sources.states()} == {
        "web.yaml": "cannot be read: it is a pipe, not a file",
        "sock.yaml": "cannot be read: it is a socket, not a file",
        "full.yaml": "cannot be read: it is a device, not a file",
        "way.yaml": "cannot be read: it is a link to a directory, which is not followed",
    }
    assert names(store) == ["web"] and not web(store).deleting
    (directory / "web.yaml").unlink()
    (directory / "web.yaml").symlink_to("/dev/null")
    await sources.scan(settle=0)
    assert web(store).deleting


@pytest.fixture(autouse=True)
def _no_privilege_surprise(directory: Path) -> Iterator[None]:
    yield
    if directory.is_dir():
        directory.chmod(0o755)


async def test_no_pod_is_started_whose_manifest_was_removed_while_the_daemon_was_down(
    directory: Path, store: Store, sources: Sources
) -> None:
    """`ready` is set only after the removal is certain and recorded."""
    (directory / "web.yaml").write_text(pod())
    await sources.scan(settle=0)
    (directory / "web.yaml").unlink()
    later = Sources(str(directory), store)
    await later.scan(settle=60.0)
    assert not later.ready.is_set() and "deletionTimestamp" not in web(store).doc["metadata"]
    await later.scan(settle=0)
    assert later.ready.is_set() and "deletionTimestamp" in web(store).doc["metadata"]

"""Who may use an image that is on the node: the records of pulls, and what the decision makes of them."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import os
import stat
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kubelite.node.model.cri import ObservedImage
from kubelite.node.spec.image_verification import Policy
from kubelite.node.spec.pull_secrets import Secret
from kubelite.node.worker.pull_records import MOST_SECRETS, PullRecords
from runtime.errors import ImageError
from tests.unit.node.decide.pod_worlds import UID, container
from tests.unit.node.worker.worker_kit import Node, Run

APP = "r.example.com/app:1"
IMAGE = ObservedImage("sha256:a", APP, config={"Cmd": ["x"]})
OURS = Secret("u1", "ours", "pull", "h1")
THEIRS = Secret("u2", "theirs", "pull", "h2")


def records(
    root: Path, policy: str = "NeverVerifyPreloadedImages", images: Iterable[ObservedImage] = (IMAGE,)
) -> PullRecords:
    present = {image.reference: image for image in images}
    return PullRecords(str(root), Policy(policy), present.get, lambda: 1_767_225_600.0)


def pulled(found: PullRecords, secret: Secret | None, image: ObservedImage = IMAGE) -> PullRecords:
    found.begin(image.reference)
    found.ended(image.reference, image, secret)
    return found


def may(found: PullRecords, *secrets: Secret, image: ObservedImage = IMAGE) -> bool:
    return not found.unverified({image.reference: image, "absent:1": None}, lambda _name: secrets)


def files(root: Path, kind: str) -> list[Path]:
    return sorted((root / "image_manager" / kind).iterdir())


def test_an_image_that_no_pod_has_pulled_is_for_all(tmp_path: Path) -> None:
    assert may(records(tmp_path))
    assert not may(records(tmp_path, "AlwaysVerify"))
    assert not (tmp_path / "image_manager").exists()


def test_several_pods_pull_one_image_at_the_same_time(tmp_path: Path) -> None:
    """As the replicas of a Deployment do. Each pull begins and ends in a thread of its own."""
    found = records(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        for pull in [threads.submit(pulled, found, OURS) for _ in range(200)]:
            pull.result(timeout=60)
    assert not files(tmp_path, "pulling")
    assert [path.suffix for path in files(tmp_path, "pulled")] == [""]
    assert may(records(tmp_path), OURS)


def test_a_secret_is_accepted_while_others_pull(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The node's loop and the threads of pulls write one file."""
    found = pulled(records(tmp_path), OURS)
    with ThreadPoolExecutor(2) as threads:
        pulls = [threads.submit(pulled, found, THEIRS._replace(uid=f"t{number}")) for number in range(100)]
        for number in range(MOST_SECRETS):
            assert may(found, Secret(f"n{number}", "ns", "copy", "h1"))
        for pull in pulls:
            pull.result(timeout=60)
    assert not caplog.records
    assert [path.suffix for path in files(tmp_path, "pulled")] == [""]
    assert may(records(tmp_path), OURS)


def test_a_record_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pulled(records(tmp_path), OURS)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            found.begin("r.example.com/other:1")
        found.ended(APP, IMAGE, THEIRS)
    assert files(tmp_path, "pulling") == []
    assert [path.suffix for path in files(tmp_path, "pulled")] == [""]
    assert may(records(tmp_path), OURS) and not may(records(tmp_path), THEIRS)


def test_a_secret_has_pulled_for_those_who_have_it(tmp_path: Path) -> None:
    found = pulled(records(tmp_path), OURS)
    for other in (found, records(tmp_path)):  # before and after a restart
        assert may(other, OURS)
        assert not may(other)
        assert not may(other, THEIRS)
        assert not may(other, Secret("u3", "ours", "other", ""))
    assert may(records(tmp_path, "NeverVerify"))
    (file,) = files(tmp_path, "pulled")
    assert json.loads(file.read_text()) == {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "ImagePulledRecord",
        "lastUpdatedTime": "2026-01-01T00:00:00Z",
        "imageRef": "sha256:a",
        "credentialMapping": {
            "r.example.com/app": {
                "kubernetesSecrets": [
                    {"uid": "u1", "namespace": "ours", "name": "pull", "credentialHash": "h1"}
                ]
            }
        },
    }
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert files(tmp_path, "pulling") == []


def test_the_same_login_in_another_secret_suffices_alone_from_then_on(tmp_path: Path) -> None:
    found = pulled(records(tmp_path), OURS)
    copy = Secret("u9", "theirs", "copy", "h1")
    assert may(found, copy)
    assert may(records(tmp_path), copy._replace(hash="renewed"))
    assert may(found, OURS._replace(hash="renewed"))
    assert may(records(tmp_path), Secret("u7", "x", "y", "renewed"))


def test_a_record_does_not_grow_without_end(tmp_path: Path) -> None:
    found = pulled(records(tmp_path), OURS)
    for number in range(MOST_SECRETS + 20):
        assert may(found, Secret(f"n{number}", "ns", "copy", "h1"))
    (file,) = files(tmp_path, "pulled")
    users = json.loads(file.read_text())["credentialMapping"]["r.example.com/app"]["kubernetesSecrets"]
    assert len(users) == MOST_SECRETS


def test_a_pull_without_a_secret_opens_the_image_to_all(tmp_path: Path) -> None:
    found = pulled(pulled(records(tmp_path), OURS), None)
    assert may(found) and may(records(tmp_path))
    assert may(pulled(found, THEIRS))  # and it stays so


def test_another_name_of_the_image_is_another_permission(tmp_path: Path) -> None:
    found = pulled(records(tmp_path), None)
    for name in ("r.example.com/app@sha256:d", "r.example.com/app:2"):
        assert may(found, image=replace(IMAGE, reference=name))
    assert not may(found, image=replace(IMAGE, reference="r.example.com/apps:1"))
    assert may(found, image=replace(IMAGE, reference="localhost/app:1"))  # built here
    assert may(records(tmp_path, "AlwaysVerify"), image=replace(IMAGE, reference="localhost/app:1"))


def test_a_pull_that_did_not_end_leaves_an_image_of_nobody(tmp_path: Path) -> None:
    found = records(tmp_path)
    found.begin(APP)
    assert not may(found), "as long as it runs"
    (file,) = files(tmp_path, "pulling")
    assert json.loads(file.read_text()) == {
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "ImagePullIntent", "image": APP,
    }  # fmt: skip
    again = records(tmp_path)
    assert not may(again, OURS)
    assert not may(again, image=replace(IMAGE, reference="other.example.com/app:1")), "by no name"
    assert files(tmp_path, "pulling") == []
    assert not may(records(tmp_path), OURS)
    assert may(pulled(again, OURS), OURS)


def test_a_pull_that_did_not_end_of_an_image_that_is_not_here(tmp_path: Path) -> None:
    records(tmp_path).begin(APP)
    assert may(records(tmp_path, images=()))
    assert files(tmp_path, "pulling") == []
    assert not (tmp_path / "image_manager/pulled").exists()


def test_failed_and_parallel_pulls(tmp_path: Path) -> None:
    found = records(tmp_path)
    found.begin(APP)
    found.begin(APP)
    found.ended(APP, None, None)
    assert len(files(tmp_path, "pulling")) == 1
    found.ended(APP, None, None)
    assert files(tmp_path, "pulling") == []
    assert may(found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"credentialMapping": 7}',
        '{"credentialMapping": {"r.example.com/app": {"kubernetesSecrets": 7}}}',
        "[" * 5000,
        "\0",
    ],
)
def test_a_damaged_record_gives_the_image_to_nobody(tmp_path: Path, text: str) -> None:
    pulled(records(tmp_path), None)
    (file,) = files(tmp_path, "pulled")
    file.write_text(text)
    assert not may(records(tmp_path), OURS)
    assert may(pulled(records(tmp_path), OURS), OURS)


def test_a_removed_image_is_forgotten(tmp_path: Path) -> None:
    found = pulled(records(tmp_path), OURS)
    found.forget(["sha256:other", "sha256:a"])
    assert may(found) and may(records(tmp_path))
    assert files(tmp_path, "pulled") == []


# --- in the pod's loop ---


def docker_secret(name: str, uid: str, password: str) -> dict[str, object]:
    auth = base64.b64encode(f"alice:{password}".encode()).decode()
    config = json.dumps({"auths": {"r.example.com": {"auth": auth}}})
    return {
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config},
    }


@pytest.mark.parametrize("policy", ["IfNotPresent", "Never"])
def test_a_pod_without_the_secret_asks_the_registry(run: Run, policy: str) -> None:
    async def story(node: Node) -> None:
        node.fake.images[APP] = IMAGE
        pulled(node.worker.pull_records, OURS)
        node.fake.pull_error = ImageError("401 Unauthorized")
        await node.put(container("app", image=APP, imagePullPolicy=policy))
        await node.worker.reconcile(UID)
        await node.pulled()
        await node.worker.reconcile(UID)
        waiting = node.state()["state"]["waiting"]
        assert waiting["reason"] == ("ErrImagePull" if policy == "IfNotPresent" else "ErrImageNeverPull")
        assert "credentials" in waiting["message"]
        assert node.fake.calls.count(("pull", APP)) == (1 if policy == "IfNotPresent" else 0)
        assert not any(call[0] == "start" for call in node.fake.calls)

    run(story)


def test_a_pod_with_the_secret_starts_without_the_registry(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.images[APP] = IMAGE
        pulled(node.worker.pull_records, Secret("s1", "default", "pull", "of an older login"))
        await node.store.create("Secret", docker_secret("pull", "s1", "swordfish"))
        await node.put(container("app", image=APP), imagePullSecrets=[{"name": "pull"}])
        await node.settle()
        assert node.state()["state"]["running"]
        assert ("pull", APP) not in node.fake.calls

    run(story)


def test_the_login_that_the_registry_accepted_is_recorded(run: Run) -> None:
    async def story(node: Node) -> None:
        source = "secret default/pull"
        node.fake.pullable[APP] = replace(IMAGE, login=(source, "the hash"))
        await node.store.create("Secret", docker_secret("pull", "s1", "swordfish"))
        await node.put(container("app", image=APP), imagePullSecrets=[{"name": "pull"}])
        await node.settle()
        assert node.state()["state"]["running"]
        again = records(Path(node.config.root))
        assert may(again, Secret("s1", "default", "pull", "")) and not may(again, THEIRS)

    run(story)


def test_nothing_is_pulled_that_cannot_be_recorded(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.pullable[APP] = IMAGE
        (Path(node.config.root) / "image_manager").write_text("no directory")
        await node.put(container("app", image=APP))
        await node.worker.reconcile(UID)
        await node.pulled()
        await node.worker.reconcile(UID)
        assert node.state()["state"]["waiting"]["reason"] == "ErrImagePull"
        assert ("pull", APP) not in node.fake.calls

    run(story)


def test_a_pull_that_is_cancelled_while_its_beginning_is_recorded(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes the record goes on. Without an end, the image would need credentials until a restart."""

    async def story(node: Node) -> None:
        node.fake.pullable[APP] = IMAGE
        found = node.worker.pull_records
        begin, entered, go = found.begin, threading.Event(), threading.Event()

        def slow(reference: str) -> None:
            entered.set()
            assert go.wait(60)
            begin(reference)

        monkeypatch.setattr(found, "begin", slow)
        await node.put(container("app", image=APP))
        await node.worker.reconcile(UID)
        assert await asyncio.to_thread(entered.wait, 60)
        (pull,) = [task for task in asyncio.all_tasks() if task.get_name() == f"pull-{APP}"]
        pull.cancel()
        go.set()
        await asyncio.wait([pull], timeout=60)
        assert pull.cancelled()
        assert files(Path(node.config.root), "pulling") == []
        assert may(found)
        assert ("pull", APP) not in node.fake.calls

    run(story)

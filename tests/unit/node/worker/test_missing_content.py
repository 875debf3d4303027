"""A volume whose ConfigMap or Secret is missing: every container of the pod waits for it, as with kubelet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from tests.unit.node.decide.pod_worlds import UID, container
from tests.unit.node.worker.worker_kit import Node, Run

MOUNT: dict[str, Any] = {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}
CONFIG = {"metadata": {"name": "cm", "namespace": "default", "uid": "cm-1"}, "data": {"a": "one"}}
SAID = 'MountVolume.SetUp failed for volume "v" : '


def _started(node: Node) -> list[Any]:
    return [call for call in node.fake.calls if call[0] in ("run_sandbox", "start_container", "pull")]


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ({"configMap": {"name": "cm"}}, 'configmap "cm" not found'),
        ({"secret": {"secretName": "s"}}, 'secret "s" not found'),
        ({"projected": {"sources": [{"configMap": {"name": "cm"}}]}}, 'configmap "cm" not found'),
    ],
)
def test_nothing_starts_not_even_an_init_container(run: Run, source: dict[str, Any], why: str) -> None:
    async def story(node: Node) -> None:
        # neither the init container nor the sidecar mounts it
        await node.put(
            container("app", image="remote:1", **MOUNT),
            container("other"),
            initContainers=[container("first")],
            volumes=[{"name": "v", **source}],
        )
        await node.settle()
        assert not _started(node)
        assert node.state("first")["state"]["waiting"]["reason"] == "PodInitializing"
        assert node.state("app")["state"]["waiting"]["reason"] == "PodInitializing"
        assert set(node.events.messages("FailedMount")) == {SAID + why}
        assert node.status["phase"] == "Pending"

    run(story)


def test_it_backs_off_and_goes_on_at_once_when_it_is_there(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(
            container("app", **MOUNT),
            container("other"),
            volumes=[{"name": "v", "configMap": {"name": "cm"}}],
        )
        waits = []
        for _ in range(9):
            waits.append(await node.settle() or 0.0)
            node.fake.advance(waits[-1])
        assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        assert len(node.events.messages("FailedMount")) == 9, "the recorder counts them in one event"
        assert await node.settle() == 60.0
        words = node.worker.why(UID, "web")
        assert words is not None
        assert any("volumes cannot be mounted" in reason for reason in words["reasons"])
        await node.store.create("ConfigMap", CONFIG)
        node.worker.content_changed(UID)
        await node.settle()
        assert node.state("app")["state"]["running"]
        assert node.state("other")["state"]["running"]

    run(story)


def test_an_edit_that_mends_it_does_not_wait(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app", **MOUNT), volumes=[{"name": "v", "configMap": {"name": "cm"}}])
        await node.settle()
        volumes = [{"name": "v", "configMap": {"name": "cm", "optional": True}}]
        await node.edit(
            lambda old: {
                **old,
                "metadata": {**old["metadata"], "generation": 2},
                "spec": {**old["spec"], "volumes": volumes},
            }
        )
        await node.settle()
        assert node.state("app")["state"]["running"]

    run(story)


def test_a_volume_that_is_set_up_holds_nobody_back(run: Run) -> None:
    """Its source is removed later, and the containers restart: the one that mounts it keeps its content."""

    async def story(node: Node) -> None:
        await node.store.create("ConfigMap", CONFIG)
        await node.put(
            container("app", **MOUNT),
            container("other"),
            volumes=[{"name": "v", "configMap": {"name": "cm"}}],
        )
        await node.settle()
        await node.store.delete("cm-1")
        node.worker.content_changed(UID)
        node.fake.exit(UID, "other", 1)
        node.fake.exit(UID, "app", 1)
        await node.settle()
        assert node.state("other")["restartCount"] == 1
        assert node.state("app")["state"]["running"]
        assert node.state("app")["restartCount"] == 1
        assert not node.events.messages("FailedMount")

    run(story)


def test_a_volume_that_nobody_mounts_holds_nobody_back(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app"), volumes=[{"name": "v", "configMap": {"name": "cm"}}])
        await node.settle()
        assert node.state("app")["state"]["running"]

    run(story)


def test_a_pull_with_other_secrets_does_not_wait(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.pull_error = ImageError("401 Unauthorized")
        await node.put(container("app", image="private:1"), imagePullSecrets=[{"name": "old"}])

        async def pulls() -> int:
            for _ in range(3):
                await node.settle()
            return node.fake.calls.count(("pull", "private:1"))

        assert await pulls() == 1
        assert await pulls() == 1, "its back-off"
        await node.put(container("app", image="private:1"), imagePullSecrets=[{"name": "new"}])
        assert await pulls() == 2, "an edit of the secrets"
        secret = {"metadata": {"name": "new", "namespace": "default", "uid": "s"}, "data": {}}
        await node.store.create("Secret", secret)
        node.worker.content_changed(UID)
        assert await pulls() == 3, "a secret that is added"

    run(story)


def test_a_volume_that_cannot_be_mounted_backs_off_until_it_can(run: Run, tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        missing = tmp_path / "not-here"
        source = {"hostPath": {"path": str(missing), "type": "Directory"}}
        await node.put(container("app", **MOUNT), volumes=[{"name": "v", **source}])
        waits = []
        for _ in range(9):
            waits.append(await node.settle() or 0.0)
            node.fake.advance(waits[-1])
        assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        await node.settle()
        missing.mkdir()
        node.fake.advance(60.0)
        await node.settle()
        assert node.state("app")["state"]["running"]

    run(story)

"""The pod worker on a fake node and a real store: the calls to the node, their order, and the reported status."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.model.cri import ContainerState, ObservedImage
from runtime.errors import ImageError, NetworkError, RuntimeFault, StartError
from tests.unit.node.decide.pod_worlds import UID, container
from tests.unit.node.worker.worker_kit import Node, Run


def test_a_new_pod_runs_after_one_round_and_is_reported_after_the_start(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app"), container("side"))
        version = node.store.resource_version
        node.fake.start_container = _watching(node, version)  # type: ignore[method-assign]
        assert await node.worker.reconcile(UID) is None
        assert [call for call, _ in node.fake.calls] == ["run_sandbox", "start_container", "start_container"]
        assert node.status["phase"] == "Running"
        assert node.status["podIP"] == "10.88.0.7"
        assert node.status["qosClass"] == "BestEffort"
        assert node.events.reasons == ["Pulled", "Created", "Started"] * 2
        assert node.events.messages("Started") == ["Container started"] * 2
        assert await node.settle() is None
        assert len(node.fake.calls) == 3

    run(story)


def test_a_settled_pod_needs_no_decision_until_a_fact_changes(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put()
        assert await node.settle() is None
        assert await node.worker.reconcile(UID) is None
        (memory,) = node.worker._pods.values()
        settled = memory.settled
        assert settled is not None
        node.fake.now += 3600
        assert await node.worker.reconcile(UID) is None
        assert memory.settled is settled
        assert memory.look is not None
        assert memory.look.at == node.fake.now, "looked at it was"
        (instance,) = node.fake.containers[UID]
        node.fake.containers[UID] = [
            replace(instance, state=ContainerState.EXITED, exit_code=1)
        ]  # without an event
        await node.worker.reconcile(UID)
        assert node.state()["restartCount"] == 1
        await node.settle()
        await node.worker.reconcile(UID)
        assert memory.settled is not None

    run(story)


def test_only_its_own_status_needs_no_round(run: Run) -> None:
    async def story(node: Node) -> None:
        async with node.store.watch("Pod") as watch:
            await node.put(container("app"))
            assert node.worker.is_news((await anext(watch)).record)
            assert await node.worker.reconcile(UID) is None
            assert not node.worker.is_news((await anext(watch)).record)
            await node.delete()  # the same status object, another document
            assert node.worker.is_news((await anext(watch)).record)

            modify = node.store.modify

            async def overtaken(uid: str, change: Any, **more: Any) -> Any:
                label = {"labels": {"turn": str(node.store.resource_version)}}
                await modify(uid, lambda old: {**old, "metadata": {**old["metadata"], **label}})
                return await modify(uid, change, **more)

            node.store.modify = overtaken  # type: ignore[method-assign]
            node.fake.exit(UID, "app", 0)
            await node.worker.reconcile(UID)
            assert node.worker.is_news((await anext(watch)).record), "the label"
            assert node.worker.is_news((await anext(watch)).record), (
                "a status written over what was not looked at"
            )

    run(story)


def _watching(node: Node, version: int) -> Any:
    start = type(node.fake).start_container

    async def watched(request: Any) -> Any:
        assert node.store.resource_version == version, (
            "a status was committed on the way to the first instruction"
        )
        return await start(node.fake, request)

    return watched


def test_containers_of_a_pod_share_dev_shm(run: Run, mounted: list[str]) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app"), container("side"))
        await node.settle()
        shared = f"{node.config.pod_dir(UID)}/shm"
        assert shared in mounted
        for request in node.fake.requests:
            found = [m["source"] for m in request.spec["mounts"] if m["destination"] == "/dev/shm"]
            assert found == [shared]

    run(story)


def test_the_request_is_complete(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app", args=["serve"], env=[{"name": "A", "value": "1"}], tty=True))
        await node.settle()
        request = node.fake.requests[0]
        assert request.spec["process"]["args"] == ["serve"]  # args replace the image's Cmd
        assert "A=1" in request.spec["process"]["env"]
        assert request.log_path.endswith(f"/default_web_{UID}/app/0.log")
        assert request.spec["root"] == {"path": "merged", "readonly": False}
        assert request.files == ((request.termination_message_path, ""),)
        hosts = Path(node.config.pod_dir(UID), "etc-hosts").read_text()
        assert "10.88.0.7\tweb\n" in hosts

    run(story)


def test_a_crash_is_restarted_at_once_then_backs_off(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put()
        await node.settle()
        node.fake.exit(UID, "app", 1)
        await node.settle()
        assert node.state()["restartCount"] == 1
        assert node.state()["lastState"]["terminated"]["exitCode"] == 1
        node.fake.exit(UID, "app", 1)
        delay = await node.settle()
        assert delay == pytest.approx(10.0)
        waiting = node.state()["state"]["waiting"]
        assert waiting["reason"] == "CrashLoopBackOff"
        assert waiting["message"] == f"back-off 10s restarting failed container=app pod=web_default({UID})"
        back_off = f"Back-off restarting failed container app in pod web_default({UID})"
        assert node.events.messages("BackOff") == [back_off]
        await node.settle()
        assert node.events.messages("BackOff") == [back_off], "said once for each wait"
        node.fake.advance(10.0)
        await node.settle()
        assert node.state()["restartCount"] == 2
        node.fake.exit(UID, "app", 0)
        assert await node.settle() == pytest.approx(20.0)

    run(story)


def test_a_completed_pod_releases_its_sandbox(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(restartPolicy="Never")
        await node.settle()
        node.fake.exit(UID, "app", 3)
        await node.settle()
        assert node.status["phase"] == "Failed"
        assert node.state()["state"]["terminated"]["exitCode"] == 3
        assert node.state()["state"]["terminated"]["reason"] == "Error"
        assert UID not in node.fake.sandboxes
        conditions = {c["type"]: c for c in node.status["conditions"]}
        assert conditions["Ready"]["reason"] == "PodFailed"
        node.fake.reboot()
        await node.settle()
        assert node.status["phase"] == "Failed"
        assert node.fake.calls.count(("run_sandbox", UID)) == 1

    run(story)


def test_deletion_stops_gracefully_and_leaves_nothing(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put()
        await node.settle()
        node.fake.stubborn.add("app")
        await node.delete(grace=5)
        delay = await node.settle()
        assert delay is not None and 5 <= delay <= 7
        assert node.events.messages("Killing") == ["Stopping container app"]
        assert node.state()["state"].get("running")
        node.fake.advance(5.0)
        await node.worker.reconcile(UID)
        assert node.store.get_uid(UID) is None
        assert ("remove_pod", UID) in node.fake.calls
        assert await node.worker.reconcile(UID) is None

    run(story)


def test_an_invalid_pod_can_still_be_deleted(run: Run) -> None:
    """An older version stored the pod like this."""

    async def story(node: Node) -> None:
        await node.put()
        await node.settle()
        await node.edit(lambda old: {**old, "spec": {**old["spec"], "containers": "none"}})
        assert await node.worker.reconcile(UID) == pytest.approx(30.0)
        assert node.fake.alive(UID), "what runs goes on"
        await node.delete()
        assert await node.worker.reconcile(UID) is None
        assert node.store.get_uid(UID) is None
        assert node.fake.calls[-2:] == [("stop_sandbox", UID), ("remove_pod", UID)]

    run(story)


def test_an_image_is_pulled_while_the_sandbox_is_created(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.pullable["remote:2"] = ObservedImage(
            "sha256:2", "r/remote:2", size=7, config={"Cmd": ["x"]}
        )
        await node.put(container("app", image="remote:2", imagePullPolicy="Always"))
        await node.worker.reconcile(UID)
        assert node.state()["state"]["waiting"]["reason"] == "ContainerCreating"
        await node.pulled()
        assert node.woken == [UID]
        await node.settle()
        assert node.state()["state"]["running"]
        assert node.events.messages("Pulling") == ['Pulling image "remote:2"']
        assert node.events.messages("Pulled")[0].startswith('Successfully pulled image "remote:2" in ')

    run(story)


def test_a_pull_that_fails_backs_off(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.pull_error = ImageError("registry says no")
        await node.put(container("app", image="gone:1"))
        await node.worker.reconcile(UID)
        await node.pulled()
        await node.worker.reconcile(UID)
        assert node.state()["state"]["waiting"] == {"reason": "ErrImagePull", "message": "registry says no"}
        node.fake.advance(1.0)
        delay = await node.settle()
        waiting = node.state()["state"]["waiting"]
        assert waiting["reason"] == "ImagePullBackOff"
        assert waiting["message"] == 'Back-off pulling image "gone:1": ErrImagePull: registry says no'
        assert delay == pytest.approx(9.0)
        assert node.events.messages("BackOff") == ['Back-off pulling image "gone:1"']
        node.fake.advance(9.0)
        await node.settle()
        await node.settle()
        assert node.fake.calls.count(("pull", "gone:1")) == 2
        assert node.status["phase"] == "Pending"

    run(story)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ValueError("no JSON")])
def test_a_crashed_pull_counts_as_failed(run: Run, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(node: Node) -> None:
        async def pull(_uid: str, _reference: str, _secrets: object) -> ObservedImage:
            raise error

        monkeypatch.setattr(node.fake, "pull", pull)
        await node.put(container("app", image="gone:1"))
        await node.worker.reconcile(UID)
        await node.pulled()
        await node.worker.reconcile(UID)
        assert node.state()["state"]["waiting"] == {"reason": "ErrImagePull", "message": str(error)}

    run(story)


def test_a_program_that_cannot_start_is_a_start_error(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.fail_start["app"] = StartError('exec: "nope": executable file not found in $PATH')
        await node.put(restartPolicy="Never")
        await node.settle()
        terminated = node.state()["state"]["terminated"]
        assert (terminated["reason"], terminated["exitCode"]) == ("StartError", 128)
        assert node.status["phase"] == "Failed"
        assert node.events.messages("Failed") == ['Error: exec: "nope": executable file not found in $PATH']

    run(story)


def test_a_container_that_cannot_be_created_waits_with_a_reason(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.fail_start["app"] = RuntimeFault("no room")
        await node.put()
        delay = await node.settle()
        assert node.state()["state"]["waiting"] == {"reason": "RunContainerError", "message": "no room"}
        assert delay == pytest.approx(10.0)
        del node.fake.fail_start["app"]
        node.fake.containers.clear()
        node.fake.advance(10.0)
        await node.settle()
        assert node.state()["state"]["running"]
        assert node.state()["restartCount"] == 0

    run(story)


def test_a_missing_key_is_a_config_error_until_it_exists(run: Run) -> None:
    async def story(node: Node) -> None:
        key = {"configMapKeyRef": {"name": "settings", "key": "mode"}}
        await node.put(container("app", env=[{"name": "MODE", "valueFrom": key}]))
        await node.settle()
        waiting = node.state()["state"]["waiting"]
        assert waiting == {
            "reason": "CreateContainerConfigError",
            "message": 'configmap "settings" not found',
        }
        doc = {
            "metadata": {"name": "settings", "namespace": "default", "uid": "cm-1"},
            "data": {"mode": "fast"},
        }
        await node.store.create("ConfigMap", doc)
        node.fake.advance(10.0)
        await node.settle()
        assert "MODE=fast" in node.fake.requests[-1].spec["process"]["env"]

    run(story)


def test_a_failed_sandbox_is_retried_later(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.fail_sandbox = NetworkError("port 80 is taken by pod other")
        await node.put()
        delay = await node.settle()
        assert node.status["phase"] == "Pending"
        assert node.events.messages("FailedCreatePodSandBox") == [
            "Failed to create pod sandbox: port 80 is taken by pod other"
        ]
        assert delay is not None and delay >= 1.0
        calls = len(node.fake.calls)
        await node.settle()
        assert len(node.fake.calls) == calls
        node.fake.fail_sandbox = None
        node.fake.advance(delay)
        await node.settle()
        assert node.status["phase"] == "Running"

    run(story)

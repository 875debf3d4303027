"""The pod worker on a fake node and a real store: what is asked of the node, in which order, and what is reported."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.config import NodeConfig
from kubelite.node.cri import ContainerState, ExecResult, ImageSeen
from kubelite.node.pod_worker import PodWorker
from kubelite.node.warm import warm_up
from runtime.errors import ImageError, NetworkError, RuntimeFault, StartError
from state.store import Store
from tests.unit.fake_cri import FakeCri
from tests.unit.pod_worlds import UID, container


class Events:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    def event(self, reference: dict[str, Any], type_: str, reason: str, message: str) -> None:
        about = reference.get("fieldPath", "").partition("{")[2].rstrip("}") or reference["kind"]
        self.seen.append((about, reason, message))

    @property
    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.seen]

    def messages(self, reason: str) -> list[str]:
        return [message for _, found, message in self.seen if found == reason]


class Node:
    """A worker, its fake node and its store, with time under the test's hand."""

    def __init__(self, root: Path) -> None:
        self.fake = FakeCri()
        self.fake.add_image("app:1")
        self.events = Events()
        self.store = Store.open(str(root / "state.db"))
        self.config = NodeConfig(
            "node-1", "192.0.2.1", str(root), str(root / "logs"), memory_bytes=8 << 30, cpu_milli=4000
        )
        self.worker = PodWorker(self.store, self.fake, self.events, self.config, clock=lambda: self.fake.now)

    async def put(self, *containers: dict[str, Any], **spec: Any) -> None:
        spec = {"restartPolicy": "Always", "containers": list(containers) or [container("app")], **spec}
        metadata = {"name": "web", "namespace": "default", "uid": UID, "generation": 1}
        doc = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        if self.store.get_uid(UID) is None:
            await self.store.create("Pod", doc)
        else:
            await self.edit(lambda old: {**old, "spec": spec})

    async def edit(self, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        await self.store.modify(UID, change)

    async def delete(self, grace: int = 30) -> None:
        stamp = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace}
        await self.edit(lambda old: {**old, "metadata": {**old["metadata"], **stamp}})

    async def settle(self, limit: int = 20) -> float | None:
        """Look until there is nothing to do at once; the seconds to the next look."""
        for _ in range(limit):
            before = self.store.resource_version
            delay = await self.worker.reconcile(UID)
            await asyncio.sleep(0)
            if delay != 0 and self.store.resource_version == before:
                return delay
        raise AssertionError(f"it never settles: {self.worker.why(UID, 'web')}")

    @property
    def status(self) -> dict[str, Any]:
        record = self.store.get_uid(UID)
        assert record is not None
        found: dict[str, Any] = record.doc.get("status", {})
        return found

    def state(self, name: str = "app") -> dict[str, Any]:
        found = [*self.status.get("initContainerStatuses", []), *self.status["containerStatuses"]]
        return next(status for status in found if status["name"] == name)


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where a file system would have been mounted: these tests need no root and leave the mount table alone."""
    points: list[str] = []
    monkeypatch.setattr("runtime.syscalls.mount", lambda _source, target, *_: points.append(str(target)))
    return points


@pytest.fixture
def run(tmp_path: Path, mounted: list[str]) -> Iterator[Callable[[Callable[[Node], Awaitable[None]]], None]]:
    def go(story: Callable[[Node], Awaitable[None]]) -> None:
        async def main() -> None:
            node = Node(tmp_path)
            try:
                await story(node)
            finally:
                await node.worker.close()
                await node.store.close()

        asyncio.run(main())

    yield go


Run = Callable[[Callable[[Node], Awaitable[None]]], None]


def test_a_new_pod_runs_after_one_look_and_is_reported_after_the_start(run: Run) -> None:
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


def test_its_own_status_is_no_news_and_everything_else_is(run: Run) -> None:
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


def test_containers_of_a_pod_share_their_shared_memory(run: Run, mounted: list[str]) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app"), container("side"))
        await node.settle()
        shared = f"{node.config.pod_dir(UID)}/shm"
        assert shared in mounted
        for request in node.fake.requests:
            found = [m["source"] for m in request.spec["mounts"] if m["destination"] == "/dev/shm"]
            assert found == [shared]

    run(story)


def test_the_request_is_whole(run: Run) -> None:
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


def test_a_run_to_completion_ends_the_pod_and_gives_its_sandbox_back(run: Run) -> None:
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


def test_a_pod_that_nobody_can_read_can_still_be_deleted(run: Run) -> None:
    """As an older version left it in the store."""

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


def test_an_image_is_pulled_beside_the_sandbox(run: Run) -> None:
    async def story(node: Node) -> None:
        woken: list[str] = []
        node.worker.wake = woken.append
        node.fake.pullable["remote:2"] = ImageSeen("sha256:2", "r/remote:2", size=7, config={"Cmd": ["x"]})
        await node.put(container("app", image="remote:2", imagePullPolicy="Always"))
        await node.worker.reconcile(UID)
        assert node.state()["state"]["waiting"]["reason"] == "ContainerCreating"
        await asyncio.sleep(0)
        assert woken == [UID]
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
        await asyncio.sleep(0)
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
def test_a_pull_that_breaks_is_a_pull_that_failed(
    run: Run, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(node: Node) -> None:
        async def pull(_reference: str, _secrets: object) -> ImageSeen:
            raise error

        monkeypatch.setattr(node.fake, "pull", pull)
        await node.put(container("app", image="gone:1"))
        await node.worker.reconcile(UID)
        await asyncio.sleep(0)
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


def test_what_cannot_be_created_waits_with_its_reason(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.fail_start["app"] = RuntimeFault("no room")
        await node.put()
        delay = await node.settle()
        assert node.state()["state"]["waiting"] == {"reason": "CreateContainerError", "message": "no room"}
        assert delay == pytest.approx(10.0)
        del node.fake.fail_start["app"]
        node.fake.containers.clear()
        node.fake.advance(10.0)
        await node.settle()
        assert node.state()["state"]["running"]
        assert node.state()["restartCount"] == 0

    run(story)


def test_a_missing_key_is_a_config_error_and_heals(run: Run) -> None:
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


def test_a_sandbox_that_cannot_be_made_is_tried_again_later(run: Run) -> None:
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


def test_edits_restart_no_more_than_they_must(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app"), container("side"))
        await node.settle()
        node.fake.calls.clear()
        await node.put(container("app", args=["other"]), container("side"))
        await node.settle()
        assert [c for c in node.fake.calls if c[0] in ("stop_container", "start_container")] == [
            ("stop_container", "app"),
            ("start_container", "app"),
        ]
        assert "Container app definition changed, will be restarted" in node.events.messages("Killing")
        assert node.state()["restartCount"] == 1
        assert not node.events.messages("BackOff")
        node.fake.calls.clear()
        limits = {"limits": {"memory": "64Mi"}}
        await node.put(container("app", args=["other"], resources=limits), container("side"))
        await node.settle()
        assert node.fake.calls == [("update_container", "app")]
        node.fake.calls.clear()
        await node.put(
            container("app", args=["other"], resources=limits, livenessProbe={"exec": {"command": ["true"]}}),
            container("side"),
            terminationGracePeriodSeconds=3,
            hostAliases=[{"ip": "192.0.2.9", "hostnames": ["db"]}],
        )
        await node.settle()
        assert node.fake.calls == []
        assert "192.0.2.9\tdb" in Path(node.config.pod_dir(UID), "etc-hosts").read_text()
        await node.put(
            container("app", args=["other"], resources=limits), container("side"), hostname="other"
        )
        await node.settle()
        names = [call for call, _ in node.fake.calls]
        assert names.index("stop_sandbox") < names.index("run_sandbox")
        assert names.count("start_container") == 2
        assert "SandboxChanged" in node.events.reasons

    run(story)


def test_a_lost_sandbox_is_made_anew_but_not_at_full_speed(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put()
        await node.settle()
        made = 1
        waits: list[float] = []
        for _ in range(4):
            node.fake.lose_sandbox(UID)
            delay = await node.settle()
            waits.append(delay or 0.0)
            if delay:
                node.fake.advance(delay)
                await node.settle()
            made += 1
            assert node.fake.calls.count(("run_sandbox", UID)) == made
        assert waits == [0.0, pytest.approx(10.0), pytest.approx(20.0), pytest.approx(40.0)]
        assert node.state()["restartCount"] == 4

    run(story)


def test_the_daemon_killed_between_create_and_start_counts_no_restart(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put()
        await node.settle()
        from dataclasses import replace

        [made] = node.fake.containers[UID]
        node.fake.containers[UID] = [replace(made, state=ContainerState.CREATED, started_at=0.0)]
        fresh = PodWorker(node.store, node.fake, node.events, node.config, clock=lambda: node.fake.now)
        node.worker = fresh
        await node.settle()
        assert node.state()["restartCount"] == 0
        assert node.state()["state"]["running"]

    run(story)


def test_init_containers_run_in_order_before_the_others(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app"), initContainers=[container("a"), container("b")])
        await node.settle()
        assert [c.name for c in node.fake.alive(UID)] == ["a"]
        assert node.status["phase"] == "Pending"
        assert node.state()["state"]["waiting"]["reason"] == "PodInitializing"
        initialized = next(c for c in node.status["conditions"] if c["type"] == "Initialized")
        assert initialized["message"] == "containers with incomplete status: [a b]"
        node.fake.exit(UID, "a", 0)
        await node.settle()
        assert [c.name for c in node.fake.alive(UID)] == ["b"]
        node.fake.exit(UID, "b", 0)
        await node.settle()
        assert [c.name for c in node.fake.alive(UID)] == ["app"]
        assert node.status["phase"] == "Running"

    run(story)


def test_no_field_is_silent(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(
            container("app", resources={"limits": {"example.com/gpu": "1"}}),
            container("stuck", volumeMounts=[{"name": "claim", "mountPath": "/data"}]),
            volumes=[{"name": "claim", "persistentVolumeClaim": {"claimName": "c"}}],
        )
        await node.settle()
        assert [m.partition(":")[0] for m in node.events.messages("Unsupported")] == [
            "spec.volumes[0].persistentVolumeClaim",
            "spec.containers[0].resources.limits.example.com/gpu",
        ]
        waiting = node.state("stuck")["state"]["waiting"]
        assert waiting["reason"] == "CreateContainerConfigError"
        assert "spec.volumes[0].persistentVolumeClaim" in waiting["message"]
        assert node.state("app")["ready"]

    run(story)


def test_host_path_is_checked_in_kubelets_words(run: Run, tmp_path: Path) -> None:
    async def story(node: Node) -> None:
        path = str(tmp_path / "missing")
        await node.put(
            container("app", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "hostPath": {"path": path, "type": "Directory"}}],
        )
        delay = await node.settle()
        assert node.events.messages("FailedMount")[0] == (
            f'MountVolume.SetUp failed for volume "v" : hostPath type check failed: {path} is not a directory'
        )
        assert node.state()["state"]["waiting"]["reason"] == "ContainerCreating"
        os.mkdir(path)
        node.fake.advance(delay or 0)
        await node.settle()
        mounts = {m["destination"]: m for m in node.fake.requests[-1].spec["mounts"]}
        assert mounts["/v"]["source"] == path

    run(story)


def test_config_map_volume_follows_its_source(run: Run) -> None:
    async def story(node: Node) -> None:
        doc = {"metadata": {"name": "cm", "namespace": "default", "uid": "cm-1"}, "data": {"a.txt": "one"}}
        await node.store.create("ConfigMap", doc)
        await node.put(
            container("app", volumeMounts=[{"name": "v", "mountPath": "/v"}]),
            volumes=[{"name": "v", "configMap": {"name": "cm"}}],
        )
        await node.settle()
        file = Path(node.config.volume_dir(UID, "kubernetes.io~configmap", "v"), "a.txt")
        assert file.read_text() == "one"
        await node.store.update("ConfigMap", {**doc, "data": {"a.txt": "two", "b.txt": "new"}})
        await node.settle()
        assert file.read_text() == "two"
        assert file.with_name("b.txt").read_text() == "new"
        assert node.fake.calls.count(("start_container", "app")) == 1

    run(story)


def test_why_says_what_was_seen_decided_and_for_which_reason(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put()
        await node.settle()
        node.fake.exit(UID, "app", 1)
        await node.settle()
        node.fake.exit(UID, "app", 7)
        await node.settle()
        found = node.worker.why(UID, "default/web")
        assert found is not None
        assert found["decided"] == ["nothing to do"]
        assert any(
            line.startswith("last change at ") and "remove attempt 0" in line for line in found["reasons"]
        )
        assert any("ended" in line and "exit code 7" in line for line in found["observed"])
        assert any("CrashLoopBackOff" in line for line in found["reasons"])
        assert found["next"].startswith("looked at again at ")

    run(story)


def test_preview_changes_nothing(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put()
        await node.settle()
        record = node.store.get_uid(UID)
        assert record is not None
        calls = list(node.fake.calls)
        spec = {**record.doc["spec"], "hostname": "other"}
        actions = await node.worker.preview({**record.doc, "spec": spec})
        assert actions.describe() == ["stop container app (signal 15, 30s grace)"]
        assert node.fake.calls == calls

    run(story)


def test_a_host_network_pod_has_the_hosts_address(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(hostNetwork=True)
        await node.settle()
        assert node.status["podIP"] == "192.0.2.1"
        kinds = {entry["type"] for entry in node.fake.requests[0].spec["linux"]["namespaces"]}
        assert kinds == {"mount", "cgroup", "pid", "ipc"}

    run(story)


def test_warming_up_touches_nothing(tmp_path: Path) -> None:
    config = NodeConfig("node-1", "192.0.2.1", str(tmp_path), str(tmp_path / "logs"))
    warm_up(config)
    assert not list(tmp_path.iterdir())


def test_a_deadline_that_passed_is_said_once(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(container("app"), activeDeadlineSeconds=30)
        await node.settle()
        node.fake.advance(31)
        await node.settle()
        assert (node.status["phase"], node.status["reason"]) == ("Failed", "DeadlineExceeded")
        sentence = "Pod was active on the node longer than the specified deadline"
        assert node.events.messages("DeadlineExceeded") == [sentence]

    run(story)


def test_hooks_run_through_the_worker(run: Run) -> None:
    hooks = {"postStart": {"exec": {"command": ["up"]}}, "preStop": {"exec": {"command": ["down"]}}}

    async def story(node: Node) -> None:
        await node.put(container("app", lifecycle=hooks), container("next"))
        await node.worker.reconcile(UID)
        assert node.state()["state"]["waiting"]["reason"] == "ContainerCreating"
        for _ in range(10):
            await node.worker.reconcile(UID)
            await asyncio.sleep(0)
        assert [who for call, who in node.fake.calls if call == "exec"] == ["app up"]
        assert [who for call, who in node.fake.calls if call == "start_container"] == ["app", "next"]
        assert node.status["phase"] == "Running"
        await node.delete()
        for _ in range(10):
            await node.worker.reconcile(UID)
            await asyncio.sleep(0)
        assert [who for call, who in node.fake.calls if call == "exec"] == ["app up", "app down"]
        assert node.store.get_uid(UID) is None
        assert sorted(node.events.messages("Killing")) == [
            "Stopping container app",
            "Stopping container next",
        ]

    run(story)


def test_a_hook_that_fails_is_said_and_ends_the_container(run: Run) -> None:
    async def story(node: Node) -> None:
        node.fake.exec_result = ExecResult(1, "secret")
        await node.put(
            container("app", lifecycle={"postStart": {"exec": {"command": ["up"]}}}), restartPolicy="Never"
        )
        for _ in range(10):
            await node.worker.reconcile(UID)
            await asyncio.sleep(0)
        assert node.status["phase"] == "Failed"
        assert node.events.messages("FailedPostStartHook") == ["PostStartHook failed"]
        assert node.events.messages("Killing") == ["FailedPostStartHook"]

    run(story)

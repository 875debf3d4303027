"""The pod worker and changes: edits, lost sandboxes, hooks, deadlines, resources; `why` and `preview`."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.model.cri import ContainerState, ExecResult, ObservedPod, ObservedSandbox
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.worker.warm_up import warm_up
from tests.unit.node.decide.pod_worlds import UID, container, make_pod
from tests.unit.node.worker.worker_kit import Node, Run


def test_edits_restart_no_more_than_necessary(run: Run) -> None:
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


def test_why_names_the_instances_that_stay(run: Run) -> None:
    async def story(node: Node) -> None:
        def current() -> Any:
            found = node.worker.why(UID, "default/web")
            assert found is not None
            return found["current"]

        await node.put(container("app"), container("side"))
        await node.settle()
        ids = {status["name"]: status["containerID"] for status in node.status["containerStatuses"]}
        assert current() == ids

        node.fake.stubborn.add("app")  # until the end of its grace period
        await node.put(container("app", args=["other"]), container("side"))
        await node.worker.reconcile(UID)
        assert node.state()["ready"], "the status describes the old instance"
        assert current() == {"side": ids["side"]}

    run(story)


def test_a_lost_sandbox_is_recreated_with_back_off(run: Run) -> None:
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
        fresh = node.new_worker(node.config)
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


def test_unsupported_fields_cause_events(run: Run) -> None:
    async def story(node: Node) -> None:
        await node.put(
            container("app"),
            container("stuck", volumeMounts=[{"name": "claim", "mountPath": "/data"}]),
            volumes=[{"name": "claim", "glusterfs": {"endpoints": "s", "path": "/"}}],
        )
        await node.settle()
        assert [m.partition(":")[0] for m in node.events.messages("Unsupported")] == [
            "spec.volumes[0].glusterfs",
        ]
        waiting = node.state("stuck")["state"]["waiting"]
        assert waiting["reason"] == "CreateContainerConfigError"
        assert "spec.volumes[0].glusterfs" in waiting["message"]
        assert node.state("app")["ready"]

    run(story)


def test_host_path_errors_are_kubelets(run: Run, tmp_path: Path) -> None:
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


def test_why_has_observation_decision_and_reasons(run: Run) -> None:
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
        change = found["lastChange"]
        assert any("remove attempt 0" in line for line in change["decided"]), change
        assert change["reasons"] and change["at"] <= found["observedAt"]
        assert any("ended" in line and "exit code 7" in line for line in found["observed"])
        assert any("CrashLoopBackOff" in line for line in found["reasons"])
        assert found["next"].startswith("next sync at ")

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
        assert actions.reasons == (
            "the settings of the sandbox changed: it is recreated, and all containers restart in the new one",
        )
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


def test_warm_up_has_no_effects(tmp_path: Path) -> None:
    config = NodeConfig("node-1", "192.0.2.1", str(tmp_path), str(tmp_path / "logs"))
    warm_up(config)
    assert not list(tmp_path.iterdir())


def test_a_passed_deadline_is_reported_once(run: Run) -> None:
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


def test_a_failed_hook_is_reported_and_ends_the_container(run: Run) -> None:
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
        kept = node.fake.containers[UID][0].post_start_error
        said = "failed - error: command 'up' exited with 1: , message: \"secret\""
        assert kept == f'Exec lifecycle hook ([up]) for Container "app" in Pod "web_default({UID})" {said}'

    run(story)


def test_a_resize_waits_for_free_resources(run: Run) -> None:
    """Deferred while another pod uses the resources, and carried out when that pod is gone, also across a restart of
    the daemon."""

    def asking(cpu: str) -> dict[str, Any]:
        return container("app", resources={"requests": {"cpu": cpu}})

    async def story(node: Node) -> None:
        await node.put(asking("1"))
        other = {"name": "db", "namespace": "default", "uid": "other", "generation": 1}
        spec = {"restartPolicy": "Always", "containers": [asking("2")]}
        await node.store.create("Pod", {"apiVersion": "v1", "kind": "Pod", "metadata": other, "spec": spec})
        await node.settle()
        await node.worker.reconcile("other")
        await node.put(asking("3"))
        await node.settle()

        def pending() -> dict[str, Any]:
            found = (c for c in node.status["conditions"] if c["type"] == "PodResizePending")
            return next(found, {})

        def shares() -> int:
            (alive,) = node.fake.alive(UID)
            return int(node.fake.updates.get(alive.id, {}).get("cpu", {}).get("shares", 0))

        message = "Node didn't have enough resource: cpu, requested: 3000, used: 2000, capacity: 4000"
        assert (pending()["reason"], pending()["message"]) == ("Deferred", message)
        has = '"resources":{"requests":{"cpu":"3"}}'
        assert node.events.messages("ResizeDeferred") == [
            f'Pod resize Deferred: {{"containers":[{{"name":"app",{has}}}],"generation":1,"error":"{message}"}}'
        ]
        assert node.state()["allocatedResources"] == node.state()["resources"]["requests"] == {"cpu": "1"}
        assert shares() == 0

        node.worker = node.new_worker(node.config)
        await node.settle()
        assert pending()["reason"] == "Deferred" and shares() == 0

        await node.store.delete("other")
        await node.worker.reconcile("other")
        await node.settle()
        assert pending() == {} and node.state()["resources"]["requests"] == {"cpu": "3"}
        assert shares() == 3072

        await node.put(asking("5"))
        await node.settle()
        assert (
            pending()["message"] == "Node didn't have enough capacity: cpu, requested: 5000, capacity: 4000"
        )
        await node.put(asking("3"))
        await node.settle()
        assert pending() == {}

    run(story)


def test_exclusive_processors_are_assigned_once(run: Run) -> None:
    """An edit of their number waits, and the pod keeps the processors that it has. An edit of memory alone is carried
    out."""

    async def story(node: Node) -> None:
        static = replace(node.config, cpu_policy="static", cores=dict.fromkeys(range(4), 0))
        node.worker = node.new_worker(static)

        async def ask(cpu: str, memory: str) -> dict[str, Any]:
            await node.put(container("app", resources={"limits": {"cpu": cpu, "memory": memory}}))
            await node.settle()
            reasons = {c["type"]: c.get("reason") for c in node.status["conditions"]}
            return {"reason": reasons.get("PodResizePending"), "limits": node.state()["resources"]["limits"]}

        limits = {"cpu": "1", "memory": "1Gi"}
        assert await ask("1", "1Gi") == {"reason": None, "limits": limits}
        assert await ask("2", "1Gi") == {"reason": "Infeasible", "limits": limits}
        words = 'Resize is infeasible for Guaranteed Pods alongside CPU Manager policy "static"'
        (said,) = node.events.messages("ResizeInfeasible")
        assert said.startswith(
            'Pod resize Infeasible: {"containers":[{"name":"app","resources":{"limits":{"cpu":"2"'
        )
        assert json.loads(said.partition(": ")[2])["error"] == words
        more = {"cpu": "1", "memory": "2Gi"}
        assert await ask("1", "2Gi") == {"reason": None, "limits": more}
        assert node.fake.alive(UID)[0].attempt == 0

    run(story)


def test_resources_of_an_unrecorded_pod_are_free(run: Run) -> None:
    """The daemon died while the sandbox was being created: no record says that the pod was scheduled."""

    async def story(node: Node) -> None:
        port = container("app", ports=[{"containerPort": 80, "hostPort": 8080}])
        await node.put(port)
        await node.settle()
        later = make_pod(port).model_copy(deep=True)
        later.metadata.uid = "later"
        for ready, reason in ((False, "Unschedulable"), (True, "")):
            observed = ObservedPod("later", ObservedSandbox("s", ready, 1, node.fake.now), ())
            assert node.worker.scheduler.schedule(later, observed, reserve=False).reason == reason

    run(story)


def test_a_pod_that_is_over_holds_its_ports_until_its_sandbox_is_gone(run: Run) -> None:
    async def story(node: Node) -> None:
        port = container("app", ports=[{"containerPort": 80, "hostPort": 8080}])
        later = make_pod(port).model_copy(deep=True)
        later.metadata.uid = "later"

        def reason() -> str:
            return node.worker.scheduler.schedule(later, ObservedPod("later", None, ()), reserve=False).reason

        await node.put(port, restartPolicy="Never")
        await node.settle()
        stop, said = node.fake.stop_sandbox, []

        async def stop_sandbox(uid: str) -> None:
            said.append((node.status["phase"], reason(), node.woken.count("later")))
            await stop(uid)

        node.fake.stop_sandbox = stop_sandbox  # type: ignore[method-assign]
        assert node.worker.scheduler.schedule(later, ObservedPod("later", None, ())).reason == "Unschedulable"
        node.fake.exit(UID, "app")
        while not said:
            await node.worker.reconcile(UID)
        assert said == [("Succeeded", "Unschedulable", 0)]
        assert reason() == "" and "later" in node.woken

    run(story)


def test_a_pod_waits_for_the_room_of_others_also_of_one_that_is_over(run: Run) -> None:
    async def story(node: Node) -> None:
        much = container("app", resources={"requests": {"cpu": "3"}})
        await node.put(much, restartPolicy="Never")
        await node.settle()
        later = make_pod(much).model_copy(deep=True)
        later.metadata.uid = "later"
        schedule = node.worker.scheduler.schedule
        busy = schedule(later, ObservedPod("later", None, ()), reserve=False)
        assert busy.message.endswith("this one starts when they leave enough.") and not busy.rejected
        node.worker.scheduler.over(UID, sandbox=True)
        waits = schedule(later, ObservedPod("later", None, ()), reserve=False)
        assert (waits.reason, waits.rejected) == ("Unschedulable", False)

    run(story)


def test_a_pod_without_free_exclusive_processors_is_rejected(run: Run) -> None:
    async def story(node: Node) -> None:
        static = replace(node.config, cpu_policy="static", cores={0: 0, 1: 1}, reserved_cpus=frozenset({0}))
        node.worker = node.new_worker(static)
        await node.put(container("app", resources={"limits": {"cpu": "2", "memory": "1Gi"}}))
        await node.settle()
        words = "not enough cpus available to satisfy request: requested=2, available=1, which is unexpected"
        assert node.status["phase"] == "Failed" and node.status["reason"] == "UnexpectedAdmissionError"
        assert node.status["message"] == f"Pod was rejected: Allocate failed due to {words}"
        assert node.events.reasons == ["UnexpectedAdmissionError"] and not node.fake.alive(UID)

    run(story)

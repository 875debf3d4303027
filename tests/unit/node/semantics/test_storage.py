"""The rules of status and scheduling that concern failed starts, claims, node shutdown and QoS classes
(docs/explanation/pod-semantics.md, docs/explanation/scheduling.md), a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest

from kubelite.kube.json import Json
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.decide.shutdown_order import (
    MESSAGE,
    REJECTED,
    REJECTED_MESSAGE,
    group_pods,
    shutdown_groups,
)
from kubelite.node.model.actions import Facts
from kubelite.node.model.cri import ContainerState, ObservedImage, ObservedPod
from kubelite.node.model.errors import MountError
from kubelite.node.model.priority import CRITICAL, admitted, classes_of
from kubelite.node.model.schedule import NodeFacts, ScheduleResult
from kubelite.node.scheduling.filters import IN_USE, schedule_pod
from kubelite.node.scheduling.ledger import Ledger, reservation_of
from kubelite.node.scheduling.volume_binding import Shelf, bind, class_of, unbound
from kubelite.node.spec.env import Sources
from kubelite.node.spec.volume_plans import Kind, VolumePlan, plan_volume
from kubelite.node.storage.container_volumes import block_devices
from kubelite.node.storage.nfs import Share
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG, UID, World, container, edited, make_pod
from tests.unit.node.decide.test_pod_actions import EXITED, NOW, decide, instance, sandbox
from tests.unit.node.semantics.pod_rows import NONE, Row
from tests.unit.node.storage.volume_kit import BOUND, MANUAL, claim, storage_class, volume

HERE = NodeFacts("node", allocatable={"cpu": 4000, "pods": 9})
VOLUME = [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]
NO_NODE = "0/1 nodes are available: "


def _failed_start(**fields: Any) -> tuple[str, str]:
    pod = make_pod("a")
    dead = instance(pod, "a", EXITED, started_at=NOW - 1, finished_at=NOW - 0.5, crash_count=1, **fields)
    made = decide(pod, dead).waiting["a"]
    return made.reason, made.message


def _of_an_edit() -> tuple[str | None, str | None, int]:
    world = World(make_pod("a"))
    world.settle()
    world.pod = edited(world.pod, {"initContainers": [container("i")]})
    world.settle()
    late = world.pod.status.init_container_statuses[0]
    ended = late.state.terminated if late.state is not None else None
    return world.pod.status.phase, ended.reason if ended is not None else None, late.restart_count


def _terminated_by_shutdown() -> tuple[str | None, ...]:
    pod = make_pod("a")
    ended = instance(pod, "a", ContainerState.EXITED, exit_code=143)
    observed = ObservedPod(UID, sandbox(pod), (ended,))
    facts = Facts(now=NOW, shutdown=10.0)
    status = compute_pod_status(pod, observed, decide(pod, ended, shutdown=10.0), facts, CONFIG)
    condition = next(c for c in status.conditions if c.type == "DisruptionTarget")
    return status.phase, status.reason, status.message, condition.reason


def _rejected() -> tuple[str | None, str | None]:
    facts = Facts(now=NOW, scheduling=ScheduleResult(REJECTED, REJECTED_MESSAGE, rejected=True))
    pod = make_pod("a")
    observed = ObservedPod(UID, None, ())
    status = compute_pod_status(pod, observed, decide(pod), facts, CONFIG)
    return status.phase, status.reason


def _waits_for(found: Json | None, *, held: Json | None = None) -> str:
    """The scheduler's message for a pod that mounts the claim c, without the part about preemption."""
    pod = make_pod("a", volumes=VOLUME)
    kinds = {"PersistentVolumeClaim": found, "PersistentVolume": held}
    waits = unbound(pod, lambda kind, *_: kinds.get(kind), HERE)
    outcome = schedule_pod(pod, reservation_of(pod), HERE, Ledger(), unbound=waits)
    return outcome.message.removeprefix(NO_NODE).partition(". preemption")[0]


def _one_pod_at_a_time() -> str:
    pods = [make_pod("a", volumes=VOLUME), make_pod("a", volumes=VOLUME)]
    pods[1].metadata.uid, pods[1].metadata.name = "other", "other"
    book = Ledger([reservation_of(pods[1])])
    return schedule_pod(pods[0], reservation_of(pods[0]), HERE, book, alone=("c",)).message


def _ranked(name: str, *classes: Json) -> tuple[int | None, str | None]:
    doc = {"kind": "Pod", **make_pod("a", **({"priorityClassName": name} if name else {})).to_json()}
    spec = admitted(doc, classes_of(classes, {}))["spec"]
    return spec.get("priority"), spec.get("preemptionPolicy")


def _class(name: str, value: int, **more: Any) -> Json:
    return {"kind": "PriorityClass", "metadata": {"name": name}, "value": value, **more}


def _groups(seconds: float, critical: float, by_priority: dict[int, float]) -> list[tuple[float, list[str]]]:
    ranks = {"web": 0, "db": 1000, "dns": CRITICAL}
    pods = [
        Pod.parse({"metadata": {"name": n}, "spec": {"containers": [], "priority": p}})
        for n, p in ranks.items()
    ]
    found = group_pods(shutdown_groups(seconds, critical, by_priority), pods)
    return [(group.seconds, [pod.metadata.name or "" for pod in group.pods]) for group in found]


def _plan(source: Json, *, sources: Sources = NONE) -> VolumePlan:
    pod = make_pod("a", volumes=[{"name": "v", **source}])
    return plan_volume(pod, pod.spec.volumes[0], sources)


def _of_claim(wanted: Json, held: Json | None = None) -> Sources:
    kinds = {"PersistentVolumeClaim": wanted, "PersistentVolume": held}
    return Sources(lambda kind, *_: kinds.get(kind), CONFIG, ())


def _device_of_files() -> str:
    pod = make_pod(container("a", volumeDevices=[{"name": "v", "devicePath": "/dev/x"}]), volumes=VOLUME)
    bound = {**claim(volumeName="pvc-u-c"), **BOUND}
    try:
        block_devices(pod, pod.spec.containers[0], _of_claim(bound))
    except MountError as error:
        return str(error)
    return ""


def _image() -> tuple[Kind, Collection[str]]:
    observed = ObservedImage("sha256:a", "app:1", (), layers=("/l2", "/l1"))
    sources = replace(NONE, image=lambda _: observed)
    plan = _plan({"image": {"reference": "app:1"}}, sources=sources)
    return plan.kind, plan.layers


def _bound(wanted: Json, *volumes: Json, classes: tuple[Json, ...] = ()) -> tuple[str, str, str]:
    shelf = Shelf(
        HERE, {v["metadata"]["name"]: v for v in volumes}, {c["metadata"]["name"]: c for c in classes}
    )
    found = bind(wanted, shelf, used=lambda: False)
    return found.phase, found.volume, found.reason


def _extended() -> str:
    pod = make_pod(container("a", resources={"requests": {"example.com/gpu": "1"}}))
    return (
        schedule_pod(pod, reservation_of(pod), HERE, Ledger())
        .message.removeprefix(NO_NODE)
        .partition(". ")[0]
    )


BY_HAND = {**claim(volumeName="a", storageClassName="manual"), **BOUND}
STATUS = [
    Row(
        "status",
        "RunContainerError, before the back-off",
        lambda: _failed_start(reason="StartError", message="no such file", exit_code=128),
        ("RunContainerError", "no such file"),
    ),
    Row(
        "status",
        "PostStartHookError, with what the hook said",
        lambda: _failed_start(
            killed_for="postStart", post_start_error="no", exit_code=137, stop_deadline=NOW
        ),
        ("PostStartHookError", "no"),
    ),
    Row(
        "status",
        "an init container that came to an initialised pod is Completed",
        _of_an_edit,
        ("Running", "Completed", 0),
    ),
    Row(
        "status",
        "a pod that a node shutdown terminated",
        _terminated_by_shutdown,
        ("Failed", "Terminated", MESSAGE, "TerminationByKubelet"),
    ),
    Row("status", "a new pod during node shutdown", _rejected, ("Failed", "NodeShutdown")),
    Row(
        "status",
        "a claim that is missing, that is not bound, whose volume is gone, that is going",
        lambda: [
            _waits_for(None),
            _waits_for(claim()),
            _waits_for({**BY_HAND, "status": {"phase": "Lost"}}),
            _waits_for({**BY_HAND, "metadata": {**BY_HAND["metadata"], "deletionTimestamp": "x"}}),
        ],
        [
            'persistentvolumeclaim "c" not found',
            "pod has unbound immediate PersistentVolumeClaims",
            'persistentvolumeclaim "c" bound to non-existent persistentvolume "a"',
            'persistentvolumeclaim "c" is being deleted',
        ],
    ),
    Row(
        "status",
        "a claim binds the smallest volume of its class, or waits for one",
        lambda: [
            _bound(MANUAL, volume("big", "9Gi"), volume("fits", "3Gi"), volume("small", "1Gi")),
            _bound(claim(storageClassName="")),
        ],
        [("Bound", "fits", ""), ("Pending", "", "FailedBinding")],
    ),
    Row(
        "status",
        "a StorageClass: the default one, and WaitForFirstConsumer",
        lambda: [
            class_of(claim(), {"a": storage_class("a"), "kubelite": storage_class("kubelite")}),
            _bound(
                claim(storageClassName="late"),
                classes=(storage_class("late", volumeBindingMode="WaitForFirstConsumer"),),
            ),
        ],
        ["kubelite", ("Pending", "", "WaitForFirstConsumer")],
    ),
    Row(
        "status",
        "volumeMode Block is a device; a file system is none",
        lambda: [
            _plan(
                VOLUME[0], sources=_of_claim({**claim(volumeName="pvc-u-c", volumeMode="Block"), **BOUND})
            ).kind,
            _device_of_files(),
        ],
        [Kind.BLOCK, "volume v has volumeMode Filesystem, but is specified in volumeDevices"],
    ),
    Row(
        "status",
        "nfs: of the pod, of a PersistentVolume with its mountOptions",
        lambda: [
            _plan({"nfs": {"server": "s", "path": "/e", "readOnly": True}}).share,
            _plan(
                VOLUME[0],
                sources=_of_claim(
                    BY_HAND,
                    volume("a", hostPath=None, nfs={"server": "s", "path": "/e"}, mountOptions=["vers=3"]),
                ),
            ).share,
        ],
        [Share("s", "/e", ("ro",)), Share("s", "/e", ("vers=3",))],
    ),
    Row("status", "an image volume is the image's layers", _image, (Kind.IMAGE, ("/l2", "/l1"))),
]
SCHEDULING = [
    Row(
        "scheduling",
        "PriorityClass: the one that is named, the global default, Never",
        lambda: [
            _ranked("high", _class("high", 7)),
            _ranked("", _class("high", 7), _class("usual", 5, globalDefault=True)),
            _ranked("calm", _class("calm", 3, preemptionPolicy="Never")),
            _ranked("system-node-critical"),
        ],
        [
            (7, None),
            (5, None),
            (3, "Never"),
            (2_000_001_000, None),
        ],
    ),
    Row(
        "scheduling",
        "of a ReadWriteOncePod claim one pod at a time is scheduled",
        _one_pod_at_a_time,
        f"{NO_NODE}1 {IN_USE}. preemption: {NO_NODE}1 No preemption victims found for incoming pod. "
        "PersistentVolumeClaim c is used by pod default/other.",
    ),
    Row(
        "scheduling",
        "node shutdown: critical pods last, within their part of the grace period",
        lambda: _groups(30, 10, {}),
        [(20, ["web", "db"]), (10, ["dns"])],
    ),
    Row(
        "scheduling",
        "node shutdown by priority",
        lambda: _groups(0, 0, {0: 60, 1000: 5}),
        [(60, ["web"]), (5, ["db", "dns"])],
    ),
    Row(
        "scheduling",
        "an extended resource that nobody offers is waited for",
        _extended,
        "1 Insufficient example.com/gpu",
    ),
]


ROWS = [*STATUS, *SCHEDULING]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted


def test_every_rule_has_a_row() -> None:
    assert list(dict.fromkeys(row.rule for row in ROWS)) == ["status", "scheduling"]

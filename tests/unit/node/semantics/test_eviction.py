"""The rules of eviction, preemption and garbage collection (docs/explanation/scheduling.md), a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.model.actions import Facts
from kubelite.node.model.capacity import parse_thresholds
from kubelite.node.model.cri import ContainerState, ObservedPod
from kubelite.node.model.schedule import NodeFacts, ScheduleResult
from kubelite.node.pressure.eviction_policy import Observation, PodUse, met, sentence, victims
from kubelite.node.pressure.image_gc_policy import Disk, GcPlan, ImageGcPolicy, ImageUse, plan_image_gc
from kubelite.node.scheduling.filters import schedule_pod
from kubelite.node.scheduling.ledger import Ledger, reservation_of
from kubelite.settings import EVICTION_HARD, Settings
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG, UID, container, make_pod
from tests.unit.node.decide.test_pod_actions import EXITED, NOW, decide, instance, sandbox
from tests.unit.node.semantics.pod_rows import Row


def _image_plan() -> GcPlan:
    images = [ImageUse("old", 0.0, 0.0), ImageUse("used", 0.0, 0.0, in_use=True), ImageUse("new", 999.0, 0.0)]
    return plan_image_gc(ImageGcPolicy(), Disk(100, 10), images, now=1000.0, uptime=1000.0)


def _refusal() -> object:
    claim = reservation_of(make_pod(container("app", resources={"requests": {"cpu": "2"}})))
    found = schedule_pod(
        make_pod("app"), claim, NodeFacts("n", allocatable={"cpu": 1000, "pods": 9}), Ledger()
    )
    return found.reason, found.message, found.rejected


def _scheduled(priority: int, *others: tuple[str, int], **spec: Any) -> ScheduleResult:
    """The result for a pod that requests half of the node, beside pods that fill it."""
    share = 1000 // len(others)

    def one(name: str, rank: int, milli: int, **more: Any) -> Pod:
        asks = container("app", resources={"requests": {"cpu": f"{milli}m"}})
        made = make_pod(asks, priority=rank, **more)
        identity = made.metadata.model_copy(update={"name": name, "uid": name})
        return made.model_copy(update={"metadata": identity})

    pod = one("new", priority, share, **spec)
    ledger = Ledger(reservation_of(one(name, rank, share)) for name, rank in others)
    return schedule_pod(
        pod, reservation_of(pod), NodeFacts("n", allocatable={"cpu": 1000, "pods": 10}), ledger
    )


def _evicted(name: str, priority: int, memory: int) -> PodUse:
    return PodUse(
        Pod.parse({"metadata": {"name": name}, "spec": {"containers": [], "priority": priority}}), memory
    )


def _too_much(amounts: dict[str, str], **node: int) -> object:
    claim = reservation_of(make_pod(container("app", resources={"requests": amounts})))
    facts = NodeFacts("n", allocatable={"cpu": 1000, "memory": 1 << 30, "pods": 9, **node})
    return schedule_pod(make_pod("app"), claim, facts, Ledger()).reason


def _port_taken() -> object:
    pod = make_pod(container("app", ports=[{"containerPort": 80, "hostPort": 80}]))
    other = pod.model_copy(update={"metadata": pod.metadata.model_copy(update={"uid": "other"})})
    return schedule_pod(
        pod, reservation_of(pod), NodeFacts("n", allocatable={"pods": 9}), Ledger([reservation_of(other)])
    ).message


def _dead_kept() -> object:
    pod = make_pod("app")
    dead = [instance(pod, "app", EXITED, attempt=n) for n in range(3)]
    return [gone.attempt for gone in decide(pod, *dead, instance(pod, "app", attempt=3)).remove]


def _evicted_status() -> object:
    """Phase, reason, message and condition of a pod that is evicted for memory, while it terminates and afterwards."""
    pod, found = make_pod("app"), []
    words = "The node was low on resource: memory. "
    pod.status.phase = "Running"
    for state in (ContainerState.RUNNING, ContainerState.EXITED):
        facts = Facts(NOW, evicted=words if state is ContainerState.RUNNING else "")
        observed = ObservedPod(UID, sandbox(pod), (instance(pod, "app", state, exit_code=137),))
        actions = compute_pod_actions(pod, observed, facts, CONFIG)
        pod.status = status = compute_pod_status(pod, observed, actions, facts, CONFIG)
        found.append((status.phase, status.reason, status.message == words))
    return found


def _over_its_empty_dir() -> object:
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]
    pod = make_pod("app", volumes=volumes)
    failed = decide(pod, instance(pod, "app"), used={"v": (1 << 20) + 1}).failed
    return failed.reason if failed is not None else None


PROCESSES = (("a", 5, 9), ("b", 0, 1), ("c", 0, 7))


def _not_old() -> object:
    policy, images = ImageGcPolicy(maximum_age=60.0), [ImageUse("old", 0.0, 0.0)]
    plans = [plan_image_gc(policy, Disk(100, 90), images, now=1000.0, uptime=up) for up in (59.0, 61.0)]
    return tuple(plan.old for plan in plans)


SCHEDULING = [
    Row(
        "scheduling",
        "images: from 85 to 80 %, nothing in use, nothing young",
        lambda: (_image_plan().to_free, _image_plan().order),
        (10, ("old",)),
    ),
    Row(
        "scheduling",
        "the thresholds, of 1000 Mi or inodes",
        lambda: {t.signal: t.value(1000 << 20) >> 20 for t in parse_thresholds(EVICTION_HARD)},
        {
            "memory.available": 100,
            "nodefs.available": 100,
            "nodefs.inodesFree": 50,
            "imagefs.available": 150,
            "imagefs.inodesFree": 50,
        },
    ),
    Row(
        "scheduling",
        "images: the disk is looked at every 5 minutes; 85 and 80 %, 2 minutes of age",
        lambda: [
            getattr(Settings(), f"image_{name}")
            for name in (
                "gc_period",
                "gc_high_threshold_percent",
                "gc_low_threshold_percent",
                "minimum_gc_age",
                "maximum_gc_age",
            )
        ],
        [300.0, 85, 80, 120.0, 0.0],
    ),
    Row(
        "scheduling",
        "a pressure lasts 5 minutes",
        lambda: Settings().eviction_pressure_transition_period,
        300.0,
    ),
    Row(
        "scheduling",
        "who is over what it asked for first, then lower priority, then who is furthest over",
        lambda: [
            u.pod.metadata.name
            for u in victims(
                "memory",
                [_evicted("within", -5, 0), _evicted("a", 5, 9), _evicted("b", 0, 1), _evicted("c", 0, 2)],
            )
        ],
        ["c", "b", "a", "within"],
    ),
    Row(
        "scheduling",
        "OutOfcpu with the numbers",
        _refusal,
        (
            "OutOfcpu",
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 0, capacity: 1000",
            True,
        ),
    ),
    Row(
        "scheduling",
        "of lower priority goes who is least important, where that makes room",
        lambda: [claim.name for claim in _scheduled(10, ("a", 5), ("b", 1)).victims],
        ["b"],
    ),
    Row(
        "scheduling", "none of the same priority goes", lambda: _scheduled(5, ("a", 5), ("b", 9)).victims, ()
    ),
    Row(
        "scheduling",
        "preemptionPolicy Never",
        lambda: _scheduled(10, ("a", 5), preemptionPolicy="Never").victims,
        (),
    ),
    Row(
        "scheduling",
        "ours: room that other pods have is waited for, not refused for good",
        lambda: (_scheduled(0, ("a", 5)).reason, _scheduled(5, ("a", 5)).reason),
        ("Unschedulable", "Unschedulable"),
    ),
    Row(
        "scheduling",
        "the words of an eviction",
        lambda: sentence(
            met(parse_thresholds("memory.available<1Mi"), {"memory.available": Observation(0, 1 << 30)})[0],
            _evicted("a", 0, 1),
        ),
        "The node was low on resource: memory. Threshold quantity: 1Mi, available: 0. ",
    ),
    Row("scheduling", "of a container's dead instances the newest is kept", _dead_kept, [0, 1]),
    Row(
        "scheduling",
        "OutOfmemory, OutOfpods",
        lambda: [_too_much({"memory": "2Gi"}), _too_much({}, pods=0)],
        ["OutOfmemory", "OutOfpods"],
    ),
    Row(
        "scheduling",
        "a host port that is taken, in the scheduler's words",
        lambda: str(_port_taken()).partition(". preemption")[0],
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports",
    ),
    Row(
        "scheduling",
        "who is evicted is Failed, Evicted, with the sentence, once nothing of it runs; though the node be restarted",
        _evicted_status,
        [("Running", "Evicted", True), ("Failed", "Evicted", True)],
    ),
    Row(
        "scheduling",
        "for processes: by priority, then who has most",
        lambda: [
            use.pod.metadata.name
            for use in victims("pids", [replace(_evicted(n, p, 0), pids=k) for n, p, k in PROCESSES])
        ],
        ["c", "b", "a"],
    ),
    Row(
        "scheduling",
        "a system-critical pod is never evicted",
        lambda: victims("memory", [_evicted("a", 2_000_001_000, 1 << 40)]),
        [],
    ),
    Row("scheduling", "more in an emptyDir than its sizeLimit evicts", _over_its_empty_dir, "Evicted"),
    Row(
        "scheduling",
        "no image goes for its age before the node has watched for as long",
        _not_old,
        ((), ("old",)),
    ),
]


@pytest.mark.parametrize("row", SCHEDULING, ids=[f"{row.rule}: {row.words}" for row in SCHEDULING])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted

"""The rules of Kubernetes' pod semantics, C6 to C8, a row for each, named after it: what our own functions answer.

C6 resources · C7 logs · C8 garbage and eviction

What takes a node or a kernel to see has a row in tests/e2e and tests/kernel; here is what can be decided on paper.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.cri.pod_files import link_log
from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.model import resources
from kubelite.node.model.actions import Facts
from kubelite.node.model.capacity import parse_thresholds
from kubelite.node.model.cri import ContainerState, PodSeen
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.schedule import NodeFacts, Placement
from kubelite.node.pressure.eviction_policy import Observation, PodUse, met, sentence, victims
from kubelite.node.pressure.image_gc_policy import Disk, GcPlan, ImageGcPolicy, ImageUse, plan_image_gc
from kubelite.node.scheduling.filters import place
from kubelite.node.scheduling.ledger import Ledger, reservation_of
from kubelite.node.spec import limits
from kubelite.settings import EVICTION_HARD, Settings
from manifests.types.core import Pod
from runtime.cgroups.resources_v2 import weight
from runtime.shim.logs import LineSplitter, LogFile
from runtime.shim.supervisor import _set_oom_group
from tests.unit.node.decide.pod_worlds import CONFIG, UID, container, make_pod
from tests.unit.node.decide.test_pod_actions import EXITED, NOW, decide, instance, sandbox
from tests.unit.node.semantics.pod_rows import Row, defaulted

# -- C6 -----------------------------------------------------------------------------------------------------------


def _qos(*given: dict[str, Any], **spec: Any) -> str:
    made = [container(f"c{n}", resources=one) for n, one in enumerate(given)]
    return resources.qos_class(make_pod(*made, **spec))


BOTH = {"limits": {"cpu": "1", "memory": "1Gi"}}


def _pod_limit(*given: dict[str, Any], of: str = "memory") -> object:
    made = [container(f"c{n}", resources=one) for n, one in enumerate(given)]
    return limits.pod_limits(make_pod(*made), CONFIG)[of]["limit" if of == "memory" else "quota"]


def _adj(given: dict[str, Any]) -> int:
    pod = make_pod(container("app", resources=given))
    return resources.oom_score_adj(pod, pod.spec.containers[0], 8 << 30)


def _tiers() -> object:
    found = limits.tier_limits([("Burstable", {"cpu": 250}), ("BestEffort", {})], CONFIG)
    return found["burstable"]["cpu"]["shares"], found["besteffort"]["cpu"]["shares"]


GIB = 1 << 30
V2 = replace(CONFIG, cgroup_v2=True)
MEMORY_QOS = replace(V2, memory_qos=True, memory_reservation="TieredReservation")


def _unified(config: NodeConfig, given: dict[str, Any]) -> dict[str, str]:
    pod = make_pod(container("app", resources=given))
    found: dict[str, str] = limits.container_limits(pod, pod.spec.containers[0], config).get("unified", {})
    return found


HALF = {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}


def _sidecar_adj() -> object:
    main = container("app", resources={"requests": {"memory": "4Gi"}})
    side = container("side", restartPolicy="Always", resources={"requests": {"memory": "1Gi"}})
    pod = make_pod(main, initContainers=[side])
    return [
        resources.oom_score_adj(pod, c, 8 * GIB) for c in (*pod.spec.init_containers, *pod.spec.containers)
    ]


def _oom_group(**config: Any) -> str:
    """memory.oom.group of a container, by the node's settings."""
    pod = make_pod("app")
    limited = limits.container_limits(pod, pod.spec.containers[0], replace(V2, **config))
    spec: dict[str, Any] = {"linux": {"resources": limited}}
    _set_oom_group(spec)
    return str(spec["linux"]["resources"]["unified"]["memory.oom.group"])


def _node_critical() -> int:
    pod = make_pod("app", priorityClassName="system-node-critical")
    return resources.oom_score_adj(pod, pod.spec.containers[0], 8 * GIB)


C6 = [
    Row("C6", "Guaranteed: limits of both for every container", lambda: _qos(BOTH, BOTH), "Guaranteed"),
    Row("C6", "Burstable: not of every one", lambda: _qos(BOTH, {}), "Burstable"),
    Row("C6", "BestEffort: none", lambda: _qos({}), "BestEffort"),
    Row("C6", "the pod's own resources win", lambda: _qos({}, resources=BOTH), "Guaranteed"),
    Row(
        "C6",
        "other resources make no class",
        lambda: _qos({"limits": {"ephemeral-storage": "1Gi"}}),
        "BestEffort",
    ),
    Row(
        "C6",
        "oom_score_adj",
        lambda: [_adj(BOTH), _adj({}), _adj({"requests": {"memory": "4Gi"}})],
        [-997, 1000, 500],
    ),
    Row(
        "C6",
        "oom_score_adj: 3 to 999 for Burstable",
        lambda: [_adj({"requests": {"memory": amount}}) for amount in ("8Gi", "1Ki")],
        [3, 999],
    ),
    Row(
        "C6",
        "oom_score_adj: what the pod asks for and no container does is shared out",
        lambda: [
            resources.oom_score_adj(pod, c, 8 * GIB)
            for pod in [
                make_pod(
                    container("a", resources={"requests": {"memory": "2Gi"}}),
                    "b",
                    resources={"requests": {"memory": "4Gi"}},
                )
            ]
            for c in pod.spec.containers
        ],
        [625, 875],
    ),
    Row(
        "C6",
        "shares, 2 at least",
        lambda: [resources.cpu_shares(m) for m in (0, 1, 100, 1000, 10**9)],
        [2, 2, 102, 1024, 262144],
    ),
    Row(
        "C6",
        "quota, 1 ms at least",
        lambda: [resources.cpu_quota(m) for m in (1, 10, 500)],
        [1000, 1000, 50000],
    ),
    Row(
        "C6",
        "ours: the new weight at every level",
        lambda: [weight(resources.cpu_shares(m)) for m in (0, 100, 250, 500, 1000, 2000, 4000, 10**9)],
        [1, 17, 35, 59, 100, 174, 303, 10000],
    ),
    Row(
        "C6",
        "a pod's limit only where every container has one",
        lambda: [(_pod_limit(*both), _pod_limit(*both, of="cpu")) for both in ((BOTH, BOTH), (BOTH, {}))],
        [(2 << 30, 200_000), (-1, -1)],
    ),
    Row("C6", "the tiers: what is asked, and the least there is", _tiers, (256, 2)),
    Row(
        "C6",
        "a limit alone is the request too",
        lambda: (
            resources.amounts(
                defaulted(container("app", resources={"limits": {"cpu": "500m"}}))
                .spec.containers[0]
                .resources
            ).cpu_request
        ),
        500,
    ),
    Row(
        "C6", "oom_score_adj: a sidecar is no likelier a victim than whom it serves", _sidecar_adj, [500, 500]
    ),
    Row("C6", "oom_score_adj: node-critical as Guaranteed", _node_critical, -997),
    Row(
        "C6",
        "no swap; LimitedSwap for Burstable alone, by its share of the memory",
        lambda: [
            _unified(replace(V2, swap_bytes=4 * GIB, swap_behavior=how), given).get("memory.swap.max")
            for how, given in (
                ("NoSwap", HALF),
                ("LimitedSwap", HALF),
                ("LimitedSwap", BOTH),
                ("LimitedSwap", {}),
            )
        ],
        ["0", str(GIB // 2), "0", "0"],
    ),
    Row(
        "C6",
        "MemoryQoS is off by default",
        lambda: (_unified(V2, HALF), Settings().memory_qos),
        ({}, False),
    ),
    Row(
        "C6",
        "MemoryQoS: memory.high between request and limit, memory.low; memory.min where they are one",
        lambda: [_unified(MEMORY_QOS, given) for given in (HALF, BOTH)],
        [
            {"memory.low": str(GIB), "memory.high": str(int(1.9 * GIB) // 4096 * 4096)},
            {"memory.min": str(GIB)},
        ],
    ),
    Row(
        "C6",
        "the tree: Guaranteed at the top, the others in their tier",
        lambda: [
            resources.pod_cgroup(make_pod(container("app", resources=given)), CONFIG)
            for given in (BOTH, HALF, {})
        ],
        [f"/kubelite{tier}/pod{UID}" for tier in ("", "/burstable", "/besteffort")],
    ),
    Row(
        "C6",
        "an OOM kill takes the whole container, unless singleProcessOOMKill",
        lambda: [_oom_group(), _oom_group(single_process_oom_kill=True)],
        ["1", "0"],
    ),
]

# -- C7 -----------------------------------------------------------------------------------------------------------


def _tags(text: bytes) -> list[bytes]:
    splitter = LineSplitter("stdout")
    out = splitter.feed(text, 0) + splitter.finish(0)
    return [line.split(b" ", 3)[2] for line in out.splitlines()]


def _text(text: bytes) -> bytes:
    return LineSplitter("stdout").feed(text, 0)


def _link() -> list[str]:
    with tempfile.TemporaryDirectory() as name:
        link_log(name, f"{name}/pods/ns_p_u/c/0.log", "c", "0123")
        return os.listdir(f"{name}/containers")


def _rotated() -> int:
    with tempfile.TemporaryDirectory() as name:
        log = LogFile(f"{name}/0.log", max_bytes=100, max_files=5)
        for _ in range(20):
            log.write(b"x" * 60 + b"\n")
        log.close()
        return len(os.listdir(name))


C7 = [
    Row(
        "C7", "time, stream, F, text", lambda: _text(b"hi\n"), b"1970-01-01T00:00:00.000000000Z stdout F hi\n"
    ),
    Row(
        "C7",
        "what is longer than 16 KiB is cut, the last part F",
        lambda: _tags(b"x" * 40000 + b"\n"),
        [b"P", b"P", b"F"],
    ),
    Row("C7", "no newline at the end: P", lambda: _tags(b"hi"), [b"P"]),
    Row("C7", "CR LF loses its CR", lambda: _text(b"hi\r\n").endswith(b" hi\n")),
    Row("C7", "10 Mi, 5 files", lambda: (Settings().log_max_size, Settings().log_max_files), (10 << 20, 5)),
    Row(
        "C7",
        "/var/log/pods/<ns>_<pod>_<uid>/<ctr>/<n>.log",
        lambda: CONFIG.log_path("ns", "p", "u", "c", 2),
        "/var/log/pods/ns_p_u/c/2.log",
    ),
    Row(
        "C7",
        "a link <pod>_<ns>_<ctr>-<id>.log for shippers",
        _link,
        ["p_ns_c-0123.log"],
    ),
    Row("C7", "the newest five are kept, the current one among them", _rotated, 5),
]

# -- C8 -----------------------------------------------------------------------------------------------------------


def _image_plan() -> GcPlan:
    images = [ImageUse("old", 0.0, 0.0), ImageUse("used", 0.0, 0.0, in_use=True), ImageUse("new", 999.0, 0.0)]
    return plan_image_gc(ImageGcPolicy(), Disk(100, 10), images, now=1000.0, uptime=1000.0)


def _refusal() -> object:
    claim = reservation_of(make_pod(container("app", resources={"requests": {"cpu": "2"}})))
    found = place(make_pod("app"), claim, NodeFacts("n", allocatable={"cpu": 1000, "pods": 9}), Ledger())
    return found.reason, found.message, found.rejected


def _placed(priority: int, *others: tuple[str, int], **spec: Any) -> Placement:
    """Of a pod with half of what the others fill between them."""
    share = 1000 // len(others)

    def one(name: str, rank: int, milli: int, **more: Any) -> Pod:
        asks = container("app", resources={"requests": {"cpu": f"{milli}m"}})
        made = make_pod(asks, priority=rank, **more)
        identity = made.metadata.model_copy(update={"name": name, "uid": name})
        return made.model_copy(update={"metadata": identity})

    pod = one("new", priority, share, **spec)
    ledger = Ledger(reservation_of(one(name, rank, share)) for name, rank in others)
    return place(pod, reservation_of(pod), NodeFacts("n", allocatable={"cpu": 1000, "pods": 10}), ledger)


def _evicted(name: str, priority: int, memory: int) -> PodUse:
    return PodUse(
        Pod.parse({"metadata": {"name": name}, "spec": {"containers": [], "priority": priority}}), memory
    )


def _too_much(amounts: dict[str, str], **node: int) -> object:
    claim = reservation_of(make_pod(container("app", resources={"requests": amounts})))
    facts = NodeFacts("n", allocatable={"cpu": 1000, "memory": 1 << 30, "pods": 9, **node})
    return place(make_pod("app"), claim, facts, Ledger()).reason


def _port_taken() -> object:
    pod = make_pod(container("app", ports=[{"containerPort": 80, "hostPort": 80}]))
    other = pod.model_copy(update={"metadata": pod.metadata.model_copy(update={"uid": "other"})})
    return place(
        pod, reservation_of(pod), NodeFacts("n", allocatable={"pods": 9}), Ledger([reservation_of(other)])
    ).message


def _dead_kept() -> object:
    pod = make_pod("app")
    dead = [instance(pod, "app", EXITED, attempt=n) for n in range(3)]
    return [gone.attempt for gone in decide(pod, *dead, instance(pod, "app", attempt=3)).remove]


def _evicted_status() -> object:
    """Of a pod that has to go for memory, while it runs and then: phase, reason, message, and the condition of it."""
    pod, found = make_pod("app"), []
    words = "The node was low on resource: memory. "
    pod.status.phase = "Running"
    for state in (ContainerState.RUNNING, ContainerState.EXITED):
        facts = Facts(NOW, evicted=words if state is ContainerState.RUNNING else "")
        seen = PodSeen(UID, sandbox(pod), (instance(pod, "app", state, exit_code=137),))
        actions = compute_pod_actions(pod, seen, facts, CONFIG)
        pod.status = status = compute_pod_status(pod, seen, actions, facts, CONFIG)
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


C8 = [
    Row(
        "C8",
        "images: from 85 to 80 %, nothing in use, nothing young",
        lambda: (_image_plan().to_free, _image_plan().order),
        (10, ("old",)),
    ),
    Row(
        "C8",
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
        "C8",
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
    Row("C8", "a pressure lasts 5 minutes", lambda: Settings().eviction_pressure_transition_period, 300.0),
    Row(
        "C8",
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
        "C8",
        "OutOfcpu with the numbers",
        _refusal,
        (
            "OutOfcpu",
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 2000, used: 0, capacity: 1000",
            True,
        ),
    ),
    Row(
        "C8",
        "of lower priority goes who is least important, where that makes room",
        lambda: [claim.name for claim in _placed(10, ("a", 5), ("b", 1)).victims],
        ["b"],
    ),
    Row("C8", "none of the same priority goes", lambda: _placed(5, ("a", 5), ("b", 9)).victims, ()),
    Row(
        "C8",
        "preemptionPolicy Never",
        lambda: _placed(10, ("a", 5), preemptionPolicy="Never").victims,
        (),
    ),
    Row(
        "C8",
        "ours: room that higher priorities have is waited for, not refused for good",
        lambda: (_placed(0, ("a", 5)).reason, _placed(5, ("a", 5)).reason),
        ("Unschedulable", "OutOfcpu"),
    ),
    Row(
        "C8",
        "the words of an eviction",
        lambda: sentence(
            met(parse_thresholds("memory.available<1Mi"), {"memory.available": Observation(0, 1 << 30)})[0],
            _evicted("a", 0, 1),
        ),
        "The node was low on resource: memory. Threshold quantity: 1Mi, available: 0. ",
    ),
    Row("C8", "of a container's dead instances the newest is kept", _dead_kept, [0, 1]),
    Row(
        "C8",
        "OutOfmemory, OutOfpods",
        lambda: [_too_much({"memory": "2Gi"}), _too_much({}, pods=0)],
        ["OutOfmemory", "OutOfpods"],
    ),
    Row(
        "C8",
        "a host port that is taken, in the scheduler's words",
        lambda: str(_port_taken()).partition(". preemption")[0],
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports",
    ),
    Row(
        "C8",
        "who is evicted is Failed, Evicted, with the sentence, once nothing of it runs; though the node be restarted",
        _evicted_status,
        [("Running", "Evicted", True), ("Failed", "Evicted", True)],
    ),
    Row(
        "C8",
        "for processes: by priority, then who has most",
        lambda: [
            use.pod.metadata.name
            for use in victims("pids", [replace(_evicted(n, p, 0), pids=k) for n, p, k in PROCESSES])
        ],
        ["c", "b", "a"],
    ),
    Row(
        "C8",
        "a system-critical pod is never evicted",
        lambda: victims("memory", [_evicted("a", 2_000_001_000, 1 << 40)]),
        [],
    ),
    Row("C8", "more in an emptyDir than its sizeLimit evicts", _over_its_empty_dir, "Evicted"),
    Row("C8", "no image goes for its age before the node has watched for as long", _not_old, ((), ("old",))),
]

ROWS = [*C6, *C7, *C8]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted


def test_every_rule_has_a_row() -> None:
    assert list(dict.fromkeys(row.rule for row in ROWS)) == [f"C{n}" for n in range(6, 9)]

"""The rules of resources and logs in docs/explanation/pod-semantics.md, a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.cri.pod_files import link_log
from kubelite.node.model import resources
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.spec import limits
from kubelite.node.spec.oom_score import oom_score_adj
from kubelite.settings import Settings
from runtime.cgroups.resources_v2 import weight
from runtime.shim.creator import set_oom_group
from runtime.shim.logs import LineSplitter, LogFile
from tests.unit.node.decide.pod_worlds import CONFIG, UID, container, make_pod
from tests.unit.node.semantics.pod_rows import Row, defaulted

# -- resources ----------------------------------------------------------------------------------------------------


def _qos(*given: dict[str, Any], **spec: Any) -> str:
    made = [container(f"c{n}", resources=one) for n, one in enumerate(given)]
    return resources.qos_class(make_pod(*made, **spec))


BOTH = {"limits": {"cpu": "1", "memory": "1Gi"}}


def _pod_limit(*given: dict[str, Any], of: str = "memory") -> object:
    made = [container(f"c{n}", resources=one) for n, one in enumerate(given)]
    return limits.pod_limits(make_pod(*made), CONFIG)[of]["limit" if of == "memory" else "quota"]


def _adj(given: dict[str, Any]) -> int:
    pod = make_pod(container("app", resources=given))
    return oom_score_adj(pod, pod.spec.containers[0], 8 << 30)


def _qos_limits() -> object:
    found = limits.qos_cgroup_limits([("Burstable", {"cpu": 250}), ("BestEffort", {})], CONFIG)
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
    return [oom_score_adj(pod, c, 8 * GIB) for c in (*pod.spec.init_containers, *pod.spec.containers)]


def _oom_group(**config: Any) -> str:
    """memory.oom.group of a container, by the node's settings."""
    pod = make_pod("app")
    limited = limits.container_limits(pod, pod.spec.containers[0], replace(V2, **config))
    spec: dict[str, Any] = {"linux": {"resources": limited}}
    set_oom_group(spec)
    return str(spec["linux"]["resources"]["unified"]["memory.oom.group"])


def _node_critical() -> int:
    pod = make_pod("app", priorityClassName="system-node-critical")
    return oom_score_adj(pod, pod.spec.containers[0], 8 * GIB)


RESOURCES = [
    Row(
        "resources", "Guaranteed: limits of both for every container", lambda: _qos(BOTH, BOTH), "Guaranteed"
    ),
    Row("resources", "Burstable: not of every one", lambda: _qos(BOTH, {}), "Burstable"),
    Row("resources", "BestEffort: none", lambda: _qos({}), "BestEffort"),
    Row("resources", "the pod's own resources win", lambda: _qos({}, resources=BOTH), "Guaranteed"),
    Row(
        "resources",
        "other resources make no class",
        lambda: _qos({"limits": {"ephemeral-storage": "1Gi"}}),
        "BestEffort",
    ),
    Row(
        "resources",
        "oom_score_adj",
        lambda: [_adj(BOTH), _adj({}), _adj({"requests": {"memory": "4Gi"}})],
        [-997, 1000, 500],
    ),
    Row(
        "resources",
        "oom_score_adj: 3 to 999 for Burstable",
        lambda: [_adj({"requests": {"memory": amount}}) for amount in ("8Gi", "1Ki")],
        [3, 999],
    ),
    Row(
        "resources",
        "oom_score_adj: what the pod asks for and no container does is shared out",
        lambda: [
            oom_score_adj(pod, c, 8 * GIB)
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
        "resources",
        "shares, 2 at least",
        lambda: [resources.cpu_shares(m) for m in (0, 1, 100, 1000, 10**9)],
        [2, 2, 102, 1024, 262144],
    ),
    Row(
        "resources",
        "quota, 1 ms at least",
        lambda: [resources.cpu_quota(m) for m in (1, 10, 500)],
        [1000, 1000, 50000],
    ),
    Row(
        "resources",
        "ours: the new weight at every level",
        lambda: [weight(resources.cpu_shares(m)) for m in (0, 100, 250, 500, 1000, 2000, 4000, 10**9)],
        [1, 17, 35, 59, 100, 174, 303, 10000],
    ),
    Row(
        "resources",
        "a pod's limit only where every container has one",
        lambda: [(_pod_limit(*both), _pod_limit(*both, of="cpu")) for both in ((BOTH, BOTH), (BOTH, {}))],
        [(2 << 30, 200_000), (-1, -1)],
    ),
    Row("resources", "the QoS cgroups: the sum of requests, and the minimum", _qos_limits, (256, 2)),
    Row(
        "resources",
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
        "resources",
        "oom_score_adj: a sidecar is no likelier a victim than whom it serves",
        _sidecar_adj,
        [500, 500],
    ),
    Row("resources", "oom_score_adj: node-critical as Guaranteed", _node_critical, -997),
    Row(
        "resources",
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
        "resources",
        "MemoryQoS is off by default",
        lambda: (_unified(V2, HALF), Settings().memory_qos),
        ({}, False),
    ),
    Row(
        "resources",
        "MemoryQoS: memory.high between request and limit, memory.low; memory.min where they are one",
        lambda: [_unified(MEMORY_QOS, given) for given in (HALF, BOTH)],
        [
            {"memory.low": str(GIB), "memory.high": str(int(1.9 * GIB) // 4096 * 4096)},
            {"memory.min": str(GIB)},
        ],
    ),
    Row(
        "resources",
        "the tree: Guaranteed at the top, the others in the cgroup of their QoS class",
        lambda: [
            resources.pod_cgroup(make_pod(container("app", resources=given)), CONFIG)
            for given in (BOTH, HALF, {})
        ],
        [f"/kubelite{qos}/pod{UID}" for qos in ("", "/burstable", "/besteffort")],
    ),
    Row(
        "resources",
        "an OOM kill takes the whole container, unless singleProcessOOMKill",
        lambda: [_oom_group(), _oom_group(single_process_oom_kill=True)],
        ["1", "0"],
    ),
]

# -- logs -----------------------------------------------------------------------------------------------------------


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


LOGS = [
    Row(
        "logs",
        "time, stream, F, text",
        lambda: _text(b"hi\n"),
        b"1970-01-01T00:00:00.000000000Z stdout F hi\n",
    ),
    Row(
        "logs",
        "what is longer than 16 KiB is cut, the last part F",
        lambda: _tags(b"x" * 40000 + b"\n"),
        [b"P", b"P", b"F"],
    ),
    Row("logs", "no newline at the end: P", lambda: _tags(b"hi"), [b"P"]),
    Row("logs", "CR LF loses its CR", lambda: _text(b"hi\r\n").endswith(b" hi\n")),
    Row("logs", "10 Mi, 5 files", lambda: (Settings().log_max_size, Settings().log_max_files), (10 << 20, 5)),
    Row(
        "logs",
        "/var/log/pods/<ns>_<pod>_<uid>/<ctr>/<n>.log",
        lambda: CONFIG.log_path("ns", "p", "u", "c", 2),
        "/var/log/pods/ns_p_u/c/2.log",
    ),
    Row(
        "logs",
        "a link <pod>_<ns>_<ctr>-<id>.log for shippers",
        _link,
        ["p_ns_c-0123.log"],
    ),
    Row("logs", "the newest five are kept, the current one among them", _rotated, 5),
]

ROWS = [*RESOURCES, *LOGS]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted


def test_every_rule_has_a_row() -> None:
    assert list(dict.fromkeys(row.rule for row in ROWS)) == ["resources", "logs"]

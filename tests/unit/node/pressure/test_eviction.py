"""Node pressure: thresholds, the order of eviction, messages, and how long a condition lasts."""

from __future__ import annotations

import os
from typing import Any

import pytest

from kubelite.node.decide.disk_limits import excess, measured
from kubelite.node.model.capacity import Threshold, parse_reserved, parse_thresholds, reserved
from kubelite.node.pressure.eviction_policy import (
    Observation,
    PodUse,
    Pressure,
    met,
    pressure,
    sentence,
    victims,
)
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG

MI, GI = 1 << 20, 1 << 30
MEMORY = Threshold("memory.available", 100 * MI)
DISK = Threshold("nodefs.available", None, 0.1)


def pod(name: str, request: str = "", *, resource: str = "memory", **spec: Any) -> Pod:
    resources = {"resources": {"requests": {resource: request}}} if request else {}
    container = {"name": "c", "image": "i", **resources}
    return Pod.parse({"metadata": {"name": name, "uid": name}, "spec": {"containers": [container], **spec}})


def test_thresholds_as_kubelet_writes_them() -> None:
    assert parse_thresholds("memory.available<100Mi,nodefs.available<10%") == (MEMORY, DISK)
    assert parse_thresholds("none") == ()
    for wrong, words in (
        ("memory.free<1Mi", "SIGNAL<AMOUNT"),
        ("memory.available", "SIGNAL<AMOUNT"),
        ("memory.available<a lot", "memory.available"),
        ("memory.available<120%", "between 0% and 100%"),
        ("memory.available<1Mi,memory.available<2Mi", "given twice"),
    ):
        with pytest.raises(ValueError, match=words):
            parse_thresholds(wrong)


def test_reserved_resources() -> None:
    capacity = {"memory": 8 * GI, "ephemeral-storage": 100 * GI}
    found = reserved("cpu=100m,memory=200Mi", "memory=1Gi,pid=100", (MEMORY, DISK), capacity)
    assert found == {"cpu": 100, "memory": GI + 300 * MI, "ephemeral-storage": 10 * GI}
    for wrong in ("gpu=1", "cpu", "cpu=many", "memory=-1"):
        with pytest.raises(ValueError, match=r"cpu|memory"):
            parse_reserved(wrong)


def test_which_thresholds_are_met() -> None:
    seen = {
        "memory.available": Observation(99 * MI, 8 * GI),
        "nodefs.available": Observation(10 * GI, 100 * GI),
        "pid.available": Observation(5, 100),
    }
    found = met(
        (Threshold("pid.available", 10), MEMORY, DISK, Threshold("imagefs.available", None, 0.5)), seen
    )
    assert [(one.condition, one.resource) for one in found] == [
        ("MemoryPressure", "memory"),
        ("PIDPressure", "pids"),
    ]


def test_the_order_of_eviction() -> None:
    uses = [
        PodUse(pod("modest", "1Gi"), memory=900 * MI),
        PodUse(pod("over", "100Mi"), memory=300 * MI),
        PodUse(pod("far-over", "100Mi"), memory=700 * MI),
        PodUse(pod("over-but-dear", "100Mi", priority=10), memory=2 * GI),
        PodUse(pod("cluster", priorityClassName="system-cluster-critical"), memory=4 * GI),
        PodUse(pod("node", priority=2_000_001_000), memory=4 * GI),
    ]
    order = [use.pod.metadata.name for use in victims("memory", uses)]
    assert order == ["far-over", "over", "over-but-dear", "modest"]


def test_the_order_of_eviction_for_process_ids() -> None:
    uses = [
        PodUse(pod("few"), pids=3),
        PodUse(pod("many"), pids=300),
        PodUse(pod("dear", priority=1), pids=900),
    ]
    assert [use.pod.metadata.name for use in victims("pids", uses)] == ["many", "few", "dear"]


def test_a_manifest_does_not_exempt_a_pod() -> None:
    one = pod("static")
    one.metadata.annotations["kubernetes.io/config.source"] = "file"
    assert victims("memory", [PodUse(one, memory=MI)])


def test_the_message_is_kubelets() -> None:
    (found,) = met((MEMORY,), {"memory.available": Observation(50 * MI + 1024, 8 * GI)})
    use = PodUse(pod("web", "100Mi"), memory=300 * MI, containers={"c": {"memory": 300 * MI}})
    assert sentence(found, use) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51201Ki. "
        "Container c was using 300Mi, request is 100Mi, has larger consumption of memory. "
    )


def test_a_pressure_condition_lasts_for_the_transition_period() -> None:
    (found,) = met((MEMORY,), {"memory.available": Observation(0, GI)})
    begun = pressure(Pressure(), [found], now=100.0, period=300.0)
    assert begun.conditions == {"MemoryPressure"}
    assert pressure(begun, [], now=399.0, period=300.0).conditions == {"MemoryPressure"}
    assert pressure(begun, [], now=400.0, period=300.0).conditions == frozenset()
    assert pressure(begun, [], now=50.0, period=300.0).conditions == frozenset()  # the clock was set back


# -- the disk that one pod may use --------------------------------------------------------------------------------


def stored(*limits: str, **volume: Any) -> Pod:
    containers = [
        {
            "name": f"c{n}",
            "image": "i",
            "resources": {"limits": {"ephemeral-storage": limit}} if limit else {},
        }
        for n, limit in enumerate(limits)
    ]
    volumes = [{"name": "v", "emptyDir": volume}]
    return Pod.parse(
        {"metadata": {"name": "web", "uid": "u"}, "spec": {"containers": containers, "volumes": volumes}}
    )


def test_only_limited_volumes_are_measured() -> None:
    assert measured(stored(""), CONFIG) == {}
    assert set(measured(stored("", sizeLimit="1Mi"), CONFIG)) == {"v"}
    found = measured(stored("1Mi", ""), CONFIG)
    assert set(found) == {"v", "container/c0", "container/c1", "pod/files"}
    assert {os.path.basename(path) for path in found["pod/files"]} == {"etc-hosts", "hostname", "resolv.conf"}
    assert set(measured(stored("", sizeLimit="1Mi", medium="Memory"), CONFIG)) == set()


@pytest.mark.parametrize(
    ("one", "used", "words"),
    [
        (stored("1Mi"), {"container/c0": MI}, ""),
        (
            stored("1Mi", "5Mi"),
            {"container/c0": MI + 1},
            'Container c0 exceeded its local ephemeral storage limit "1Mi". ',
        ),
        (
            stored("1Mi"),
            {"container/c0": MI // 2, "v": MI},
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
        ),
        (
            stored("1Mi"),
            {"container/c0": MI // 2, "pod/files": MI},
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ",
        ),
        (stored("1Mi", ""), {"container/c1": 9 * MI, "v": MI}, ""),  # one has no limit, so the pod has none
        (
            stored("", sizeLimit="1Mi"),
            {"v": MI + 1},
            'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
        ),
    ],
)
def test_the_ephemeral_storage_limit_of_a_pod(one: Pod, used: dict[str, int], words: str) -> None:
    assert excess(one, used) == words

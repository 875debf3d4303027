"""Limits that depend on the machine and on settings, and the processors a container may run on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.model.capacity import parse_cpus, reserved_cpus
from kubelite.node.model.errors import MountError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.scheduling.cpu_policy import CpuBook, Machine, NotEnough, cpus_text, exclusive
from kubelite.node.spec.env import Sources
from kubelite.node.spec.hashes import resized, resources_hash
from kubelite.node.spec.limits import container_limits, node_limits, pod_limits, qos_cgroup_limits
from kubelite.node.spec.volume_plans import Kind, VolumePlan, plan_volume
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG, UID, World, container, edited, make_pod

GI, MI = 1 << 30, 1 << 20
QOS = replace(CONFIG, cgroup_v2=True, memory_qos=True, memory_reservation="TieredReservation")


def asking(limits: dict[str, str] | None = None, requests: dict[str, str] | None = None, **more: Any) -> Pod:
    found = {"limits": limits or {}, "requests": requests or {}}
    return make_pod(container("app", resources=found, **more))


def unified(pod: Pod, config: NodeConfig) -> dict[str, str]:
    found: dict[str, str] = container_limits(pod, pod.spec.containers[0], config).get("unified", {})
    return found


GUARANTEED = asking({"cpu": "1", "memory": "1Gi"})
BURSTABLE = asking({"memory": "2Gi"}, {"memory": "1Gi"})
UNLIMITED = asking(None, {"memory": "1Gi"})
BEST_EFFORT = asking()


@pytest.mark.parametrize(
    ("pod", "config", "found"),
    [
        (BURSTABLE, CONFIG, {}),  # off by default
        (BURSTABLE, replace(QOS, cgroup_v2=False), {}),
        (GUARANTEED, QOS, {"memory.min": str(GI)}),  # request and limit are equal: no memory.high
        (BURSTABLE, QOS, {"memory.low": str(GI), "memory.high": str(int(GI + 0.9 * GI) // 4096 * 4096)}),
        (
            BURSTABLE,
            replace(QOS, memory_reservation="None"),
            {"memory.high": str(int(1.9 * GI) // 4096 * 4096)},
        ),
        (UNLIMITED, QOS, {"memory.low": str(GI), "memory.high": str(int(GI + 0.9 * 7 * GI) // 4096 * 4096)}),
        (BEST_EFFORT, QOS, {"memory.high": str(int(0.9 * 8 * GI) // 4096 * 4096)}),
    ],
)
def test_memory_qos(pod: Pod, config: NodeConfig, found: dict[str, str]) -> None:
    assert unified(pod, config) == found


def test_swap() -> None:
    machine = replace(CONFIG, cgroup_v2=True, swap_bytes=4 * GI)
    assert unified(BEST_EFFORT, machine) == {"memory.swap.max": "0"}
    limited = replace(machine, swap_behavior="LimitedSwap")
    assert unified(BURSTABLE, limited) == {"memory.swap.max": str(GI // 2)}  # 1 of 8 Gi: an eighth of 4 Gi
    for pod in (GUARANTEED, BEST_EFFORT):
        assert unified(pod, limited) == {"memory.swap.max": "0"}
    assert unified(BURSTABLE, replace(limited, swap_bytes=0)) == {}


def test_huge_pages() -> None:
    pod = asking({"hugepages-2Mi": "4Mi", "memory": "1Gi"})
    assert "hugepageLimits" not in container_limits(pod, pod.spec.containers[0], CONFIG)
    kept = replace(CONFIG, huge_pages={"hugepages-2Mi": 64 * MI, "hugepages-1Gi": GI})
    wanted = [{"pageSize": "1GB", "limit": 0}, {"pageSize": "2MB", "limit": 4 * MI}]
    assert container_limits(pod, pod.spec.containers[0], kept)["hugepageLimits"] == wanted
    assert pod_limits(pod, kept)["hugepageLimits"] == wanted
    assert kept.allocatable["hugepages-2Mi"] == 64 * MI


def test_a_volume_of_huge_pages() -> None:
    def plan(medium: str, **limits: str) -> VolumePlan:
        volumes = [{"name": "v", "emptyDir": {"medium": medium}}]
        asked = {"limits": {name.replace("_", "-"): amount for name, amount in limits.items()}}
        pod = make_pod(container("app", resources=asked), volumes=volumes)
        return plan_volume(pod, pod.spec.volumes[0], Sources(lambda *_: None, CONFIG, ()))

    assert (plan("HugePages", hugepages_2Mi="2Mi").kind, plan("HugePages", hugepages_2Mi="2Mi").size) == (
        Kind.HUGE_PAGES,
        2 * MI,
    )
    assert plan("HugePages-1Gi", hugepages_2Mi="2Mi", hugepages_1Gi="1Gi").size == GI
    for medium, limits in (("HugePages", {}), ("HugePages-1Gi", {"hugepages_2Mi": "2Mi"})):
        with pytest.raises(MountError, match="the pod requests huge pages of"):
            plan(medium, **limits)


def test_the_setting_limits_the_processes_of_a_pod() -> None:
    assert pod_limits(make_pod(), replace(CONFIG, pod_pids_limit=64))["pids"] == {"limit": 64}
    assert "pids" not in pod_limits(make_pod(), CONFIG)


def test_the_qos_cgroups() -> None:
    pods = [
        ("Guaranteed", {"cpu": 1000, "memory": GI}),
        ("Burstable", {"cpu": 250, "memory": MI}),
        ("Burstable", {"cpu": 250}),
        ("BestEffort", {}),
    ]
    assert qos_cgroup_limits(pods, CONFIG) == {
        "burstable": {"cpu": {"shares": 512}},
        "besteffort": {"cpu": {"shares": 2}},
    }
    resized = [*pods, ("BestEffort", {"cpu": 500})]  # it got a request while running
    assert qos_cgroup_limits(resized, CONFIG)["besteffort"] == {"cpu": {"shares": 512}}
    kept = qos_cgroup_limits(pods, QOS)
    assert kept["burstable"]["unified"] == {"memory.low": str(MI)}
    assert kept[""] == {"unified": {"memory.min": str(GI), "memory.low": str(MI)}}
    assert node_limits(CONFIG, evicted_below=100 * MI) == {}
    apart = replace(CONFIG, reserved={"cpu": 500, "memory": GI + 100 * MI})
    assert node_limits(apart, evicted_below=100 * MI) == {
        "cpu": {"shares": 3584},
        "memory": {"limit": 7 * GI},
    }


# -- resizing in place ------------------------------------------------------------------------------------------


def test_the_changed_resource_is_recognized() -> None:
    def mark(cpu: int, memory: int, cpus: str = "") -> str:
        return resources_hash({"cpu": {"shares": cpu, "cpus": cpus}, "memory": {"limit": memory}})

    assert resized(mark(1, 1), mark(2, 1)) == ("cpu",)
    assert resized(mark(1, 1), mark(1, 2)) == ("memory",)
    assert resized(mark(1, 1), mark(1, 1, "0-1")) == () and mark(1, 1) != mark(1, 1, "0-1")
    assert resized("0123456789abcdef", mark(1, 1)) == ()  # a record of an older kubelite


@pytest.mark.parametrize(
    ("changed", "restarted"),
    [
        ({"memory": "2Gi", "cpu": "1"}, True),
        ({"memory": "1Gi", "cpu": "2"}, False),
        ({"memory": "1Gi"}, False),
    ],
)
def test_resize_policy(changed: dict[str, str], *, restarted: bool) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    pod = asking({"memory": "1Gi", "cpu": "1"}, resizePolicy=policy)
    world = World(pod)
    world.settle()
    resources = {"limits": changed}
    one = container("app", resources=resources, resizePolicy=policy)
    world.pod = edited(world.pod, {"containers": [one]})
    actions = world.decide()
    assert [stop.message for stop in actions.stop] == ["Container app resize requires restart"] * restarted
    assert [update.name for update in actions.update] == ["app"] * (not restarted)


# -- processors -------------------------------------------------------------------------------------------------


def test_cpu_lists() -> None:
    assert parse_cpus("0-2, 5") == {0, 1, 2, 5} and cpus_text({5, 1, 0, 2}) == "0-2,5"
    for wrong in ("a", "1-", "-1"):
        with pytest.raises(ValueError, match="not a processor"):
            parse_cpus(wrong)
    assert reserved_cpus(range(8), "", 1500) == {0, 1} and reserved_cpus(range(4), "3,9", 0) == {3}


def guaranteed(name: str, *cpus: str, **spec: Any) -> Pod:
    made = [container(f"c{n}", resources={"limits": {"cpu": c, "memory": "1Gi"}}) for n, c in enumerate(cpus)]
    pod = make_pod(*made, **spec)
    pod.metadata.uid = name
    return pod


def test_guaranteed_pods_have_exclusive_processors() -> None:
    book = CpuBook(Machine({n: n // 2 for n in range(8)}, frozenset({0})), {})
    two, part = guaranteed("a", "2"), guaranteed("b", "1500m")
    assert book.assign(two) and book.of(two) == {
        "c0": "2-3"
    }  # a whole core, not the sibling of the reserved processor
    assert not book.assign(two) and not book.assign(part)
    assert book.of(part) == {"c0": "0-1,4-7"}
    assert exclusive(asking(None, {"cpu": "2"}), asking(None, {"cpu": "2"}).spec.containers[0]) == 0
    one = guaranteed("c", "1")
    assert book.assign(one) and book.of(one) == {"c0": "1"}  # half of a core that is already shared
    again = CpuBook(Machine({n: n // 2 for n in range(8)}, frozenset({0})), book.to_json())
    assert again.of(two) == book.of(two) and again.shared() == book.shared()
    with pytest.raises(NotEnough, match="requested=5, available=4"):
        book.assign(guaranteed("d", "5"))
    assert book.release("a") and book.shared() == {0, 2, 3, 4, 5, 6, 7}


def test_an_init_container_passes_its_processors_on() -> None:
    book = CpuBook(Machine({n: n for n in range(4)}, frozenset()), {})
    first = container("first", resources={"limits": {"cpu": "2", "memory": "1Gi"}})
    pod = guaranteed("a", "2", initContainers=[first])
    assert book.assign(pod)
    assert book.of(pod) == {"first": "0-1", "c0": "0-1"} and book.shared() == {2, 3}


def test_a_shrunk_shared_pool_is_written_in_place() -> None:
    world = World(make_pod())
    world.settle()
    facts = replace(world.facts(), cpus={"app": "1-3"})
    actions = compute_pod_actions(world.pod, world.fake.look(UID), facts, CONFIG)
    assert [update.resources["cpu"]["cpus"] for update in actions.update] == ["1-3"] and not actions.stop

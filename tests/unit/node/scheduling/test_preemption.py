"""Preemption and ReadWriteOncePod: the choice of victims, the scheduler's messages, and a whole preemption on a fake
node."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.schedule import SCHEDULED, NodeFacts, Reservation, ScheduleResult
from kubelite.node.scheduling.filters import schedule_pod
from kubelite.node.scheduling.ledger import Ledger, reservation_of
from kubelite.node.scheduling.preemption import victims
from kubelite.node.worker.pod_worker import PodWorker
from manifests.types.core import Pod
from state.store import Store
from tests.unit.node.fake_cri import FakeCri
from tests.unit.node.worker.worker_kit import make_worker

NODE = NodeFacts("here", labels={"kubernetes.io/hostname": "here"}, allocatable={"cpu": 4000, "pods": 3})
INSUFFICIENT = "0/1 nodes are available: 1 Insufficient cpu."
NO_VICTIMS = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
IN_USE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"


def pod(name: str, cpu: str = "1", priority: int = 0, **more: Any) -> Pod:
    meta = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": name}}
    one = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
    return Pod.parse({"metadata": meta, "spec": {"containers": [one], "priority": priority, **more}})


def asked(one: Pod, *others: Pod | Reservation, **more: Any) -> ScheduleResult:
    reservations = [other if isinstance(other, Reservation) else reservation_of(other) for other in others]
    return schedule_pod(one, reservation_of(one), NODE, Ledger(reservations), **more)


def names(found: ScheduleResult) -> list[str]:
    return [one.name for one in found.victims]


@pytest.mark.parametrize(
    ("others", "going"),
    [
        ([pod("a", "2", 5), pod("b", "2", 1)], ["b"]),  # the pod of lowest priority that frees enough
        ([pod("a", "3", 1), pod("b", "1", 5)], ["a"]),  # or the one that is large enough
        ([pod("a", "2", 1), pod("b", "2", 10)], ["a"]),  # never a pod of the same priority
        ([pod("a", "1", 1), pod("b", "1", 2), pod("c", "2", 10)], ["b", "a"]),
        ([pod("a", "3", -5), pod("b", "1", 9)], ["a"]),
    ],
)
def test_as_few_victims_as_possible(others: list[Pod], going: list[str]) -> None:
    found = asked(pod("high", "2", 10), *others)
    assert names(found) == going and not found.rejected and found.nominated
    assert found.message == (INSUFFICIENT if len(others) < 3 else "0/1 nodes are available: 1 Too many pods.")


def test_of_equal_victims_the_younger_is_preempted() -> None:
    early = replace(reservation_of(pod("early", "2")), since="2026-01-01T00:00:00Z")
    late = replace(reservation_of(pod("late", "2")), since="2026-01-02T00:00:00Z")
    assert names(asked(pod("high", "2", 1), late, early)) == ["late"]


def budget(name: str, allowed: int, *disrupted: str, selector: Any = None) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": name}} if selector is None else selector},
        "status": {"disruptionsAllowed": allowed, "disruptedPods": dict.fromkeys(disrupted, "")},
    }


@pytest.mark.parametrize(
    ("budgets", "going"),
    [
        ([], ["b"]),  # the less important one
        ([budget("b", 0)], ["a"]),  # unless that violates a budget
        ([budget("b", 1)], ["b"]),
        ([budget("a", 0), budget("b", 0)], ["b"]),  # if both do, the less important one again
        ([budget("b", 0, "b")], ["b"]),  # its disruption has been counted
        ([budget("b", 0, selector={})], ["b"]),  # an empty selector selects nothing here
        ([budget("b", 0) | {"metadata": {"name": "b", "namespace": "other"}}], ["b"]),
    ],
)
def test_victims_whose_budget_allows_it(budgets: list[dict[str, Any]], going: list[str]) -> None:
    """Kubernetes defaultpreemption, TestSelectBestCandidate and TestDryRunPreemption: `PDB violation`."""
    found = asked(pod("high", "2", 10), pod("a", "2", 5), pod("b", "2", 1), budgets=budgets)
    assert names(found) == going


def test_a_budget_does_not_prevent_a_preemption() -> None:
    one = budget("low", 1, selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]})
    found = asked(pod("high", "4", 10), pod("a", "2", 5), pod("b", "2", 1), budgets=[one])
    assert names(found) == ["a", "b"]


def test_pods_that_never_preempt() -> None:
    full = pod("low", "4")
    never = asked(pod("high", "2", 10, preemptionPolicy="Never"), full)
    assert (never.victims, never.reason, never.rejected) == ((), "Unschedulable", False)
    assert "preemption: not eligible due to preemptionPolicy=Never." in never.message
    equal = asked(pod("other", "2"), full)
    assert (equal.victims, equal.rejected) == ((), False)
    ported = [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 80}]}]
    waits = asked(
        pod("w", priority=1, preemptionPolicy="Never", containers=ported), pod("p", containers=ported)
    )
    assert "preemption: not eligible due to preemptionPolicy=Never." in waits.message


def test_no_pod_is_preempted_in_vain() -> None:
    """All pods of lower priority together would not free enough: none is preempted in vain."""
    found = asked(pod("high", "3", 10), pod("low", "1"), pod("peer", "3", 10))
    assert (found.victims, found.reason) == ((), "Unschedulable")
    away = [{"labelSelector": {"matchLabels": {"app": "peer"}}, "topologyKey": "kubernetes.io/hostname"}]
    rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": away}}
    found = asked(pod("high", "1", 10, affinity=rule), pod("low", "1"), pod("peer", "1", 10))
    assert found.message == (
        "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules. preemption: "
        "0/1 nodes are available: 1 node(s) didn't match pod anti-affinity rules."
    )


def test_preemption_for_a_host_port_or_an_anti_affinity() -> None:
    ported = [{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 80}]}]
    assert names(asked(pod("high", priority=1, containers=ported), pod("low", containers=ported))) == ["low"]
    away = [{"labelSelector": {"matchLabels": {"app": "low"}}, "topologyKey": "kubernetes.io/hostname"}]
    rule = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": away}}
    assert names(asked(pod("high", priority=1, affinity=rule), pod("low"), pod("other"))) == ["low"]


def test_terminating_pods_are_waited_for() -> None:
    leaving = replace(reservation_of(pod("leaving", "3")), terminating=True)
    found = asked(pod("high", "3", 10), leaving, pod("low", "1"), nominated=True)
    assert not found.victims and found.nominated and not found.rejected
    assert found.message.endswith("The pod will fit when the terminating pods are gone.")


def test_room_of_pods_with_higher_priority_is_waited_for() -> None:
    found = asked(pod("low", "2"), pod("high", "3", 10))
    assert (found.reason, found.rejected) == ("Unschedulable", False)
    assert found.message == (
        f"{INSUFFICIENT} {NO_VICTIMS} Pods of higher priority use the resource; "
        "this one starts when they leave enough."
    )
    never = asked(pod("low", "5"), pod("high", "3", 10))
    assert never.reason == "OutOfcpu", "the node will never have so much"


def mounting(name: str, claim: str, priority: int = 0) -> Pod:
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": claim}}
    return pod(name, priority=priority, volumes=[volume])


def test_a_read_write_once_pod_claim_is_for_one_pod_at_a_time() -> None:
    holder = mounting("holder", "data")
    found = asked(mounting("second", "data"), holder, alone={"data"})
    assert found.message == (
        f"0/1 nodes are available: 1 {IN_USE}. {NO_VICTIMS}"
        " PersistentVolumeClaim data is used by pod default/holder."
    )
    assert not found.rejected
    assert asked(mounting("second", "data"), holder) == SCHEDULED  # any other access mode
    assert asked(mounting("second", "mine"), holder, alone={"mine"}) == SCHEDULED
    assert asked(holder, holder, alone={"data"}) == SCHEDULED
    elsewhere = replace(reservation_of(holder), namespace="other")
    assert asked(mounting("second", "data"), elsewhere, alone={"data"}) == SCHEDULED
    assert names(asked(mounting("high", "data", 1), holder, alone={"data"})) == ["holder"]


def test_no_pod_is_preempted_without_lower_priority() -> None:
    assert victims(reservation_of(pod("a")), Ledger([reservation_of(pod("b"))]), lambda _: True) == ()


# -- on a node ----------------------------------------------------------------------------------------------------


class Events(list[tuple[str, str, str]]):
    def event(self, reference: dict[str, Any], _type: str, reason: str, message: str) -> None:
        self.append((reference["name"], reason, message))


def document(name: str, cpu: str, priority: int) -> dict[str, Any]:
    one = {"name": "app", "image": "app:1", "resources": {"requests": {"cpu": cpu}}}
    spec = {"restartPolicy": "Always", "containers": [one], "priority": priority}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "generation": 1},
        "spec": spec,
    }


def test_freed_room_is_reserved_for_the_preempting_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pod is preempted for another. Neither a third pod nor the victim's replacement takes the room, and a daemon
    that is killed in between remembers for whom it is reserved."""
    monkeypatch.setattr("runtime.syscalls.mount", lambda *_: None)

    async def main() -> None:
        fake, events, store = FakeCri(), Events(), Store.open(str(tmp_path / "state.db"))
        fake.add_image("app:1")
        config = NodeConfig("node-1", "192.0.2.1", str(tmp_path), str(tmp_path / "logs"), cpu_milli=2000)

        def begin() -> PodWorker:
            return make_worker(store, fake, events, config)

        worker = begin()

        async def look(name: str) -> dict[str, Any]:
            for _ in range(6):
                await worker.reconcile(f"uid-{name}")
                await asyncio.sleep(0)
            record = store.get_uid(f"uid-{name}")
            return record.doc if record is not None else {}

        await store.create("Pod", document("low", "2", 0))
        assert (await look("low"))["status"]["phase"] == "Running"
        await store.create("Pod", document("high", "2", 100))
        high = await look("high")
        assert high["status"]["nominatedNodeName"] == "node-1" and high["status"]["phase"] == "Pending"
        low = store.get_uid("uid-low")
        assert low is not None and low.deleting
        condition = next(c for c in low.doc["status"]["conditions"] if c["type"] == "DisruptionTarget")
        assert condition["reason"] == "PreemptionByScheduler"
        assert condition["message"] == ("default-scheduler: preempting to accommodate a higher priority pod")
        told = [message for name, reason, message in events if (name, reason) == ("low", "Preempted")]
        assert told == ["Preempted by pod uid-high on node node-1: default/high has priority 100"]

        await worker.close()
        worker = begin()
        await store.create("Pod", document("third", "2", 1))
        assert (await look("third"))["status"]["phase"] == "Pending"
        await look("low")
        fake.advance(31)
        assert await look("low") == {}
        third = await look("third")
        assert third["status"]["phase"] == "Pending", third["status"]
        high = await look("high")
        assert high["status"]["phase"] == "Running" and "nominatedNodeName" not in high["status"]
        assert (await look("third"))["status"]["phase"] == "Pending"
        await worker.close()
        await store.close()

    asyncio.run(main())

"""The node's own documents do not reach the pods of a cluster, even if namespace and labels match."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kubelite.autoscaling.controller import Autoscaler
from kubelite.autoscaling.model import Sample
from kubelite.controllers.eviction import EvictionOptions, evict
from kubelite.controllers.registry import CONTROLLERS
from kubelite.kube.events import EventRecorder
from kubelite.kube.json import Json
from kubelite.kube.objects import CLUSTER, reference
from kubelite.namespaces.lifecycle import NamespaceController, end
from kubelite.network_policies.explanation import Cluster, Place, trace
from kubelite.network_policies.pods import facts_of
from kubelite.policies.gate import Gate
from kubelite.policies.ledger import Ledger
from kubelite.services.index import ServiceIndex
from state.store import Store
from tests.unit.autoscaling import kit as autoscaling
from tests.unit.controllers.manager_kit import running
from tests.unit.controllers.test_eviction import budget, ready
from tests.unit.network_policies import kit as network_policies
from tests.unit.policies.kit import pod, quota
from tests.unit.services import docs as services
from tests.waiting import until_async

NOW = 1_800_000_000.0
BUDGETS = [found for found in CONTROLLERS if found.kind == "PodDisruptionBudget"]


def of_cluster(doc: Json) -> Json:
    return {**doc, "metadata": {**doc["metadata"], "annotations": {CLUSTER: "https://192.0.2.1:6443"}}}


def test_services_do_not_select_them() -> None:
    index = ServiceIndex()
    index.put_service(services.service())
    index.put_pod(services.pod(1))
    assert index.put_pod(of_cluster(services.pod(2))) == set()
    assert [one.uid for one in index.backends(("default", "web"))] == ["web-0001"]
    assert [one["metadata"]["uid"] for one in index.selected(("default", "web"))] == ["web-0001"]
    assert index.drop_pod(of_cluster(services.pod(2))) == set()


def test_quotas_do_not_count_them() -> None:
    found = {"Pod": [pod("own"), of_cluster(pod("other"))]}
    used = Ledger().used(quota(pods="5"), lambda kind: found.get(kind, []), NOW)
    assert str(used["pods"]) == "1"


async def test_neither_a_quota_nor_an_ending_namespace_refuses_them(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"), gate=Gate(lambda: NOW))
    await store.create("ResourceQuota", quota(pods="0"))
    await store.create("Pod", of_cluster(pod("one")))
    await end(store, "test", NOW)
    await store.create("Pod", of_cluster(pod("two")))
    await store.close()


async def test_they_outlive_a_namespace_of_the_node(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await store.create("Pod", of_cluster(pod("one")))
    await store.create("Pod", pod("own"))
    events = EventRecorder(store, "node")
    for one in (pod("own"), of_cluster(pod("one"))):
        events.event(reference(one), "Normal", "Started", "it runs")
    await until_async(lambda: len(store.list("Event")) == 2)
    await end(store, "test", NOW)
    task = asyncio.create_task(NamespaceController(store, lambda _record: None, lambda: NOW).run())
    try:
        await until_async(lambda: (own := store.get_uid("uid-own")) is not None and own.deleting)
        await store.delete("uid-own")
        await until_async(lambda: store.get("Namespace", "", "test") is None)
        other = store.get_uid("uid-one")
        assert other is not None and not other.deleting
        left = [event.doc["involvedObject"]["uid"] for event in store.list("Event")]
        assert left == ["uid-one"]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.close()


async def test_budgets_do_not_count_them_and_do_not_guard_them(tmp_path: Path) -> None:
    own, other = ready("own"), of_cluster(ready("other"))
    fresh = {**budget(minAvailable=1), "status": {}}
    async with running(tmp_path, own, other, fresh, controllers=BUDGETS) as kit:

        def status() -> Json:
            (found,) = kit.store.docs("PodDisruptionBudget")
            return dict(found.get("status") or {})

        await kit.settled(lambda: status().get("expectedPods") == 1)
        assert status()["disruptionsAllowed"] == 0
        await evict(kit.store, "default", "other", EvictionOptions(), NOW)
        found = kit.store.get("Pod", "default", "other")
        assert found is not None and found.deleting


async def test_autoscalers_do_not_count_them(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    await store.create("Pod", autoscaling.pod(0))
    await store.create("Pod", of_cluster(autoscaling.pod(1)))

    async def sample() -> dict[str, Sample]:
        return {}

    found = Autoscaler(store, EventRecorder(store, "node"), sample, clock=lambda: NOW)._pods(
        {**autoscaling.deployment(), "metadata": {"name": "web", "namespace": "test"}}
    )
    assert [one["metadata"]["name"] for one in found] == ["web-0"]
    await store.close()


def test_network_policies_do_not_restrict_them_and_do_not_let_them_in() -> None:
    other = of_cluster(network_policies.pod("x/b"))
    assert facts_of(other) is None
    own = network_policies.pod("x/a")
    policy = network_policies.policy(
        "x/own", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}], policyTypes: [Ingress]}"
    )
    known = Cluster([policy], [own, other], [])
    there, here = Place("b", "10.88.0.3", other), Place("a", "10.88.0.2", own)
    assert not trace(known, there, here, 80, "TCP", dns="").allowed
    assert trace(known, here, there, 80, "TCP", dns="").allowed

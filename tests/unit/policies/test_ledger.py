"""What counts the use of quotas: always the same as a count of everything, and asked by the store at each write."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from kubelite.kube.errors import Forbidden
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from kubelite.policies.gate import Gate
from kubelite.policies.ledger import Ledger
from kubelite.policies.resource_quota import used
from state.store import Store
from tests.unit.policies.kit import claim, compute, pod, quota, resources

NOW = 1_800_000_000.0


def changed(docs: dict[tuple[str, str], Json], rng: random.Random, now: float) -> None:
    """Create, end, mark, resize or delete an object at random."""
    name = f"x{rng.randrange(6)}"
    kind = rng.choice(("Pod", "PersistentVolumeClaim"))
    old = docs.get((kind, name))
    if old is None:
        cpu = resources(compute(f"{rng.randrange(1, 900)}m"))
        docs[kind, name] = pod(name, given=cpu) if kind == "Pod" else claim(f"{rng.randrange(1, 9)}Gi", name)
    elif rng.random() < 0.4:
        del docs[kind, name]
    elif kind == "Pod" and rng.random() < 0.5:
        docs[kind, name] = {**old, "status": {"phase": rng.choice(("Running", "Failed"))}}
    elif kind == "Pod":
        ending = {"deletionTimestamp": rfc3339(now), "deletionGracePeriodSeconds": 2}
        docs[kind, name] = {**old, "metadata": {**old["metadata"], **ending}}


def test_a_ledger_counts_as_a_count_of_everything_does() -> None:
    rng = random.Random(5)
    quotas = [quota(pods="9", cpu="9", requests__storage="99Gi"), quota("all", given={"count/pods": "9"})]
    docs: dict[tuple[str, str], Json] = {}

    def of_kind(kind: str) -> list[Json]:
        return [doc for key, doc in docs.items() if key[0] == kind]

    for _ in range(200):
        docs.clear()
        ledger = Ledger()
        for step in range(30):
            now = NOW + step
            changed(docs, rng, now)
            for one in quotas:
                found = ledger.used(one, of_kind, now)
                assert found == used(one, docs.values(), now)


async def test_of_objects_created_side_by_side_only_as_many_as_fit_are_added(tmp_path: Path) -> None:
    store = Store.open(str(tmp_path / "state.db"))
    store.gate = Gate(lambda: NOW)
    await store.create("ResourceQuota", quota(pods="2"))
    results = await asyncio.gather(
        *(store.create("Pod", pod(f"p{n}")) for n in range(5)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, Forbidden)]
    assert [record.name for record in store.list("Pod")] == ["p0", "p1"] and len(refused) == 3
    said = 'pods "p2" is forbidden: exceeded quota: quota, requested: pods=1, used: pods=2, limited: pods=2'
    assert str(refused[0]) == said
    with pytest.raises(Forbidden):
        store.check("Pod", pod("p5"))
    elsewhere = pod("p5")
    elsewhere["metadata"]["namespace"] = "other"
    store.check("Pod", elsewhere)
    await store.delete("uid-p0")
    await store.create("Pod", pod("p5"))
    await store.delete("uid-quota")
    await store.create("Pod", pod("p6"))
    await store.close()

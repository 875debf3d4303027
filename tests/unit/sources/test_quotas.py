"""ResourceQuotas and the objects of manifests: who waits, who is next, and what an edit may add."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

from kubelite.kube.errors import Forbidden
from kubelite.policies.gate import Gate
from kubelite.sources.admission import refusal
from kubelite.sources.directory import Sources
from manifests.yaml.loader import load_text
from state.store import Store
from tests.unit.sources.kit import CONFIG, directory, names, pod, sources, web

__all__ = ["directory", "sources"]

QUOTA = """
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec:
  hard: HARD
"""


def quota(hard: str) -> str:
    return QUOTA.replace("HARD", f"{{{hard}}}")


def refused(sources: Sources) -> dict[str, str]:
    return {Path(state.file).stem: state.problems[0].message for state in sources.states() if state.problems}


async def test_of_two_pods_of_a_directory_the_second_waits_for_the_slot(
    directory: Path, store: Store, sources: Sources
) -> None:
    store.gate = Gate(time.time)
    for name in ("b", "a"):
        (directory / f"{name}.yaml").write_text(pod(name))
    (directory / "z.yaml").write_text(quota("pods: 1"))
    await sources.scan(settle=0)
    assert names(store) == ["a"]
    said = 'pods "b" is forbidden: exceeded quota: quota, requested: pods=1, used: pods=1, limited: pods=1'
    assert refused(sources) == {"b": said}
    (problem,) = next(state for state in sources.states() if state.problems).problems
    assert (problem.kind, problem.field, problem.line) == ("forbidden", "spec", 6)

    # A restart decides the same.
    again = Sources(str(directory), store)
    await again.scan(settle=0)
    assert names(store) == ["a"] and refused(again) == {"b": said}

    # An ended pod leaves its place.
    uid = store.uid_of("Pod", "default", "a")
    assert uid is not None
    await store.update_status(uid, {"phase": "Succeeded"})
    await sources.scan(settle=0)
    assert names(store) == ["a", "b"] and refused(sources) == {}


async def test_object_counts_and_edits(directory: Path, store: Store, sources: Sources) -> None:
    (directory / "quota.yaml").write_text(quota("count/configmaps: 1, requests.memory: 1Gi"))
    (directory / "a.yaml").write_text(CONFIG.format(name="a"))
    (directory / "b.yaml").write_text(CONFIG.format(name="b"))
    (directory / "bare.yaml").write_text(pod("bare"))
    (directory / "web.yaml").write_text(pod() + "    resources: {requests: {memory: 512Mi}}\n")
    await sources.scan(settle=0)
    assert [record.name for record in store.list("ConfigMap")] == ["a"] and names(store) == ["web"]
    assert refused(sources) == {
        "b": 'configmaps "b" is forbidden: exceeded quota: quota, requested: count/configmaps=1, '
        "used: count/configmaps=1, limited: count/configmaps=1",
        "bare": 'pods "bare" is forbidden: failed quota: quota: must specify requests.memory for: main',
    }
    first = web(store)
    (directory / "web.yaml").write_text(pod() + "    resources: {requests: {memory: 2Gi}}\n")
    await sources.scan(settle=0)
    assert web(store) == first
    assert "requested: requests.memory=1536Mi, used: requests.memory=512Mi" in refused(sources)["web"]


async def test_a_pod_that_lost_its_place_meanwhile_waits(
    directory: Path, store: Store, sources: Sources
) -> None:
    """A controller may create a pod between a plan and its writes: the store refuses, and the next plan says it."""
    (directory / "quota.yaml").write_text(quota("pods: 0"))
    await sources.scan(settle=0)
    full = Gate(time.time)
    (directory / "quota.yaml").write_text(quota("pods: 1"))
    (directory / "web.yaml").write_text(pod())
    other = load_text(pod("other"), file="-").documents[0].obj.to_json()
    other["metadata"]["uid"] = "uid-other"
    store.gate = full
    first = asyncio.ensure_future(
        store.create("Pod", other)
    )  # queued before the writes of the scan, not yet seen
    await sources.scan(settle=0)
    with contextlib.suppress(Forbidden):  # its turn came before the quota was larger
        await first
    await sources.scan(settle=0)
    assert len(names(store)) == 1 and len(refused(sources)) <= 1


async def test_an_edit_that_lost_its_place_meanwhile_waits(
    directory: Path, store: Store, sources: Sources
) -> None:
    """The same for what an edit adds: the plan found room, and the write finds none."""
    store.gate = Gate(time.time)
    (directory / "quota.yaml").write_text(quota("requests.memory: 1Gi"))
    small, large = (
        pod() + f"    resources: {{requests: {{memory: {size}}}}}\n" for size in ("256Mi", "768Mi")
    )
    (directory / "web.yaml").write_text(small)
    await sources.scan(settle=0)
    other = load_text(large.replace("name: web", "name: other"), file="-").documents[0].obj.to_json()
    other["metadata"]["uid"] = "uid-other"
    (directory / "web.yaml").write_text(large)
    plan = sources._plan

    def planned(*given: Any, **more: Any) -> Any:
        """Plan, and have somebody write before the plan is carried out."""
        found = plan(*given, **more)
        writes.append(asyncio.ensure_future(store.create("Pod", other)))
        return found

    writes: list[asyncio.Future[Any]] = []
    sources._plan = planned  # type: ignore[assignment]
    await sources.scan(settle=0)
    sources._plan = plan
    await asyncio.gather(*writes)
    assert web(store).doc["spec"]["containers"][0]["resources"]["requests"] == {"memory": "256Mi"}
    await sources.scan(settle=0)
    assert "requested: requests.memory=512Mi, used: requests.memory=1Gi" in refused(sources)["web"]
    await store.delete("uid-other")
    await sources.scan(settle=0)
    assert web(store).doc["spec"]["containers"][0]["resources"]["requests"] == {"memory": "768Mi"}


def test_apply_is_refused_as_kubectl_apply_is(store: Store) -> None:
    documents = load_text(f"{quota('pods: 1')}---{pod('a')}---{pod('b')}", file="-").documents
    said = 'pods "b" is forbidden: exceeded quota: quota, requested: pods=1, used: pods=1, limited: pods=1'
    assert refusal(documents, store, 0) == said
    assert refusal(documents[:2], store, 0) == ""

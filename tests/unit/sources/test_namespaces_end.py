"""The end of a namespace: with the last document that names it, in whatever order the documents go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kubelite.kube.objects import is_ending
from kubelite.namespaces.lifecycle import end
from kubelite.policies.gate import Gate
from kubelite.sources import directory as module
from kubelite.sources.directory import Sources
from state.store import Store
from tests.unit.sources.kit import CLAIM, directory, pod, sources

__all__ = ["directory", "sources"]

SHOP = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {team: a}}\n"


def in_shop(name: str) -> str:
    return pod(name).replace(f"  name: {name}\n", f"  name: {name}\n  namespace: shop\n", 1)


def state(store: Store) -> str:
    record = store.get("Namespace", "", "shop")
    if record is None:
        return "gone"
    if is_ending(record.doc):
        return "Terminating"
    return "marked" if record.deleting else "Active"


async def scan(sources: Sources, times: int = 3) -> None:
    for _ in range(times):
        await sources.scan(settle=0)


@pytest.mark.parametrize("order", [("ns", "web"), ("web", "ns")])
async def test_it_ends_with_its_last_document_in_any_order(
    directory: Path, store: Store, sources: Sources, order: tuple[str, str]
) -> None:
    files = {"ns": directory / "ns.yaml", "web": directory / "web.yaml"}
    files["ns"].write_text(SHOP)
    files["web"].write_text(in_shop("web"))
    await scan(sources)
    assert state(store) == "Active"
    files[order[0]].unlink()
    await scan(sources)
    assert state(store) == ("marked" if order[0] == "ns" else "Active")
    files[order[1]].unlink()
    await scan(Sources(str(directory), store))
    assert state(store) == "Terminating"


async def test_other_documents_keep_it_and_its_document_revives_it(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "ns.yaml").write_text(SHOP)
    (directory / "web.yaml").write_text(in_shop("web"))
    await scan(sources)
    (directory / "ns.yaml").unlink()
    await scan(sources)
    record = store.get("Namespace", "", "shop")
    assert record is not None and "labels" not in record.metadata
    web = store.get("Pod", "shop", "web")
    assert web is not None and not web.deleting
    (directory / "ns.yaml").write_text(SHOP)
    await scan(sources)
    record = store.get("Namespace", "", "shop")
    assert state(store) == "Active" and record is not None and record.metadata["labels"]["team"] == "a"


async def test_a_document_that_comes_while_it_ends_waits_for_the_end(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "ns.yaml").write_text(SHOP)
    await scan(sources)
    (directory / "ns.yaml").unlink()
    await scan(sources)
    assert state(store) == "Terminating"
    (directory / "web.yaml").write_text(in_shop("web"))
    (directory / "ns.yaml").write_text(SHOP)
    await scan(sources)
    assert state(store) == "Terminating" and not store.list("Pod")
    (problem,) = next(found for found in sources.states() if found.problems).problems
    said = "unable to create new content in namespace shop because it is being terminated"
    assert problem.message == f'pods "web" is forbidden: {said}' and problem.kind == "forbidden"
    await store.delete(store.uid_of("Namespace", "", "shop") or "")
    await scan(sources)
    assert state(store) == "Active" and [record.name for record in store.list("Pod")] == ["web"]


async def test_default_does_not_end(directory: Path, store: Store, sources: Sources) -> None:
    (directory / "ns.yaml").write_text(SHOP.replace("shop", "default"))
    await scan(sources)
    (directory / "ns.yaml").unlink()
    await scan(sources)
    assert store.get("Namespace", "", "default") is None


async def test_nothing_ends_while_a_file_is_unknown(directory: Path, store: Store, sources: Sources) -> None:
    (directory / "ns.yaml").write_text(SHOP)
    (directory / "other.yaml").write_text("kind: [")
    await scan(sources)
    (directory / "ns.yaml").unlink()
    await scan(sources)
    assert state(store) == "marked"
    (directory / "other.yaml").unlink()
    await scan(sources)
    assert state(store) == "Terminating"


CLAIM_IN_SHOP = CLAIM.replace("{name: data}", "{name: data, namespace: shop}")


async def test_a_claim_is_not_revived_while_its_namespace_ends(
    directory: Path, store: Store, sources: Sources
) -> None:
    (directory / "ns.yaml").write_text(SHOP)
    (directory / "claim.yaml").write_text(CLAIM_IN_SHOP)
    await scan(sources)
    for name in ("ns", "claim"):
        (directory / f"{name}.yaml").unlink()
    await scan(sources)
    claim = store.get("PersistentVolumeClaim", "shop", "data")
    assert state(store) == "Terminating" and claim is not None and claim.deleting
    (directory / "claim.yaml").write_text(CLAIM_IN_SHOP)
    await scan(sources)
    claim = store.get("PersistentVolumeClaim", "shop", "data")
    assert claim is not None and claim.deleting, "the namespace would end never"


async def test_a_claim_that_is_gone_before_it_is_revived_is_not_forced_into_a_namespace_that_ends(
    directory: Path, store: Store, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the namespace and of the claim come between the plan and its writes."""
    store.gate = Gate(time.time)
    (directory / "ns.yaml").write_text(SHOP)
    (directory / "other.yaml").write_text(in_shop("other"))
    (directory / "claim.yaml").write_text(CLAIM_IN_SHOP)
    await scan(sources)
    (directory / "claim.yaml").unlink()
    await scan(sources)
    (directory / "claim.yaml").write_text(CLAIM_IN_SHOP)
    restore = Sources._restore

    async def late(self: Sources, *given: Any) -> None:
        await end(store, "shop", time.time())
        await store.delete(store.uid_of("PersistentVolumeClaim", "shop", "data") or "")
        await restore(self, *given)

    monkeypatch.setattr(module.Sources, "_restore", late)
    await sources.scan(settle=0)
    assert state(store) == "Terminating" and not store.list("PersistentVolumeClaim")
    await scan(sources)
    said = [problem.message for found in sources.states() for problem in found.problems]
    assert said == [
        'persistentvolumeclaims "data" is forbidden: unable to create new content in namespace shop '
        "because it is being terminated"
    ]

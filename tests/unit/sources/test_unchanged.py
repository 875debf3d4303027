"""A plan decides only about the objects of which the document, the record, the file or the rules have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubelite.kube.objects import source_of
from kubelite.sources import plan as plans
from kubelite.sources.directory import Sources
from state.store import Store
from tests.unit.sources.kit import directory, image, names, pod, sources, web

__all__ = ["directory", "sources"]

CLASS = """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1000
globalDefault: true
"""


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the objects that were decided about."""
    found: list[str] = []
    verdict = plans._verdict

    def noted(key: plans.Key, *given: Any, **more: Any) -> Any:
        found.append(key[2])
        return verdict(key, *given, **more)

    monkeypatch.setattr(plans, "_verdict", noted)
    return found


async def _settle(sources: Sources, decided: list[str]) -> None:
    for _ in range(2):  # the second scan sees what the first has recorded
        await sources.scan(settle=0)
    decided.clear()


async def test_only_an_edited_pod_is_decided_about(
    directory: Path, store: Store, sources: Sources, decided: list[str]
) -> None:
    for name in ("a", "b", "web"):
        (directory / f"{name}.yaml").write_text(pod(name))
    await _settle(sources, decided)
    await sources.scan(settle=0)
    assert decided == []
    (directory / "web.yaml").write_text(pod(image="busybox:2"))
    await sources.scan(settle=0)
    assert decided == ["web"] and image(store) == "busybox:2"


async def test_a_changed_record_is_decided_about(
    directory: Path, store: Store, sources: Sources, decided: list[str]
) -> None:
    for name in ("a", "web"):
        (directory / f"{name}.yaml").write_text(pod(name))
    await _settle(sources, decided)
    await store.modify(web(store).uid, lambda doc: {**doc, "spec": {**doc["spec"], "containers": []}})
    await sources.scan(settle=0)
    assert decided == ["web"] and image(store) == "busybox"
    await store.delete(web(store).uid)
    await sources.scan(settle=0)
    assert names(store) == ["a", "web"]


async def test_a_pod_that_moves_to_another_file_is_decided_about(
    directory: Path, store: Store, sources: Sources, decided: list[str]
) -> None:
    (directory / "web.yaml").write_text(pod())
    await _settle(sources, decided)
    (directory / "web.yaml").rename(directory / "moved.yaml")
    await sources.scan(settle=0)
    assert decided == ["web"]
    assert source_of(web(store)) == str(directory / "moved.yaml")


async def test_changed_rules_apply_to_all(
    directory: Path, store: Store, sources: Sources, decided: list[str]
) -> None:
    for name in ("a", "web"):
        (directory / f"{name}.yaml").write_text(pod(name))
    await _settle(sources, decided)
    (directory / "z.yaml").write_text(CLASS)
    await sources.scan(settle=0)
    assert sorted(decided) == ["a", "high", "web"]
    assert web(store).doc["spec"]["priority"] == 1000

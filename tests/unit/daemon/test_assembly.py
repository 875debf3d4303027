"""Assembly of the node: each object gets its dependencies in its constructor, so no object is ever incomplete."""

from __future__ import annotations

import ast
import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace

import pytest

from kubelite.daemon import assembly
from kubelite.kube import background
from state.store import Store
from tests.unit.controllers.manager_kit import pod
from tests.waiting import until_async


def test_no_attribute_is_set_after_construction() -> None:
    tree = ast.parse(Path(assembly.__file__).read_text(encoding="utf-8"))
    targets = [
        target
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        for target in (target.elts if isinstance(target, ast.Tuple) else [target])
    ]
    assert len(targets) > 20
    set_later = {ast.unparse(target) for target in targets if isinstance(target, ast.Attribute)}
    assert set_later == {"agent.startup_took"}, "a measurement, no part of it"


async def test_changes_during_a_shortage_reach_the_pods_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FIRST", 0.1)
    store = Store.open(str(tmp_path / "state.db"))
    old = await store.create("Pod", pod("old"))
    told: list[str] = []
    shortages = [MemoryError()]

    def content_changed(uid: str) -> None:
        if shortages:
            raise shortages.pop()
        told.append(uid)

    worker = SimpleNamespace(content_changed=content_changed)
    work = assembly.content_dispatch(store, worker, "ConfigMap")  # type: ignore[arg-type]
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        background.in_background(stack, work, "dispatch")
        await asyncio.sleep(0)
        assert shortages, "the first start tells no pod"
        await store.create("ConfigMap", {"metadata": {"name": "one", "namespace": "default", "uid": "one"}})
        await until_async(lambda: not shortages)
        await until_async(lambda: told == [old.uid])

"""Assembly of the node: each object gets its dependencies in its constructor, so no object is ever incomplete."""

from __future__ import annotations

import ast
import asyncio
import errno
from pathlib import Path

import pytest

from kubelite.daemon import assembly
from runtime.errors import StateError


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


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_work_that_lacks_descriptors_or_memory_begins_anew(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(assembly, "AFTER_SHORTAGE", 0.0)
    attempts = 0

    async def work() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise OSError(number, "short")
        if attempts == 2:
            raise StateError("no shim listens") from OSError(number, "short")
        if attempts == 3:
            raise MemoryError

    asyncio.run(assembly.again_after_shortage(work, "work"))
    assert attempts == 4


def test_work_that_fails_otherwise_ends_the_node() -> None:
    async def work() -> None:
        raise OSError(errno.EIO, "broken")

    with pytest.raises(OSError, match="broken"):
        asyncio.run(assembly.again_after_shortage(work, "work"))

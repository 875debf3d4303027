"""Assembly of the node: each object gets its dependencies in its constructor, so no object is ever incomplete."""

from __future__ import annotations

import ast
from pathlib import Path

from kubelite.daemon import assembly


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

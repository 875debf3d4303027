"""What the import linter does not check: cycles of modules, and the size of modules and packages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

REPO = Path(__file__).parents[3]
PRODUCT = ("kubelite", "manifests", "runtime", "state")
MOST_LINES, MOST_MODULES = 500, 16


def _circles(edges: dict[str, set[str]]) -> Iterator[list[str]]:
    """The strongly connected components of more than one module (Tarjan, iterative)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    for root, first in edges.items():
        if root in index:
            continue
        work = [(root, iter(sorted(first)))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            module, following = work[-1]
            for other in following:
                if other not in index:
                    index[other] = low[other] = len(index)
                    stack.append(other)
                    on_stack.add(other)
                    work.append((other, iter(sorted(edges.get(other, ())))))
                    break
                if other in on_stack:
                    low[module] = min(low[module], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[module])
                if low[module] == index[module]:
                    component = []
                    while True:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                        if component[-1] == module:
                            break
                    if len(component) > 1:
                        yield sorted(component)


def test_a_cycle_is_found() -> None:
    assert list(_circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()})) == [["a", "b", "c"]]


def test_there_is_no_cycle_of_modules() -> None:
    """Lazy imports and imports for type checkers count, too: modules in a cycle are really one module."""
    graph = grimp.build_graph(*PRODUCT, cache_dir=None)
    edges = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    assert list(_circles(edges)) == []


def _modules(*roots: str) -> list[Path]:
    return [path for root in roots for path in sorted((REPO / root).rglob("*.py"))]


def test_no_module_is_too_long() -> None:
    long = {
        str(path.relative_to(REPO)): lines
        for path in _modules(*PRODUCT, "tests", "deploy")
        if (lines := path.read_text().count("\n")) > MOST_LINES
    }
    assert long == {}


@pytest.mark.parametrize("root", PRODUCT)
def test_no_package_has_too_many_modules(root: str) -> None:
    counts: dict[str, int] = {}
    for path in _modules(root):
        if path.name != "__init__.py":
            package = str(path.parent.relative_to(REPO))
            counts[package] = counts.get(package, 0) + 1
    assert {package: count for package, count in counts.items() if count > MOST_MODULES} == {}


def test_the_guide_names_only_existing_files() -> None:
    text = (REPO / "ARCHITECTURE.md").read_text(encoding="utf-8")
    tops = (*PRODUCT, "deploy", "tests")
    files = {str(path.relative_to(REPO)) for top in tops for path in (REPO / top).rglob("*.py")}
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    missing = [name for name in sorted(named) if not any(f"/{file}".endswith(f"/{name}") for file in files)]
    assert named and not missing

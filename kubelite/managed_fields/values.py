"""What is done with values by the tree of their types: which fields they have, how two differ, how one is merged into
another, and how fields are removed. Pure; no value is changed in place.

Source: sigs.k8s.io/structured-merge-diff typed/tofieldset.go, compare.go, merge.go, remove.go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kubelite.managed_fields.fields import FIELD, KEYS, VALUE, FieldSet, Path, compact, display
from kubelite.managed_fields.merge_types import KEY_DEFAULTS
from kubelite.managed_fields.schema import LEAF, UNTYPED, KeyedList, Map, Node, SetList, Struct, Untyped

MISSING: Any = object()


class Misfit(ValueError):
    """A value has not the form of its type, or a list has an item twice; the message has the path."""


class Difference(NamedTuple):
    """The fields of which two values differ."""

    removed: FieldSet
    modified: FieldSet
    added: FieldSet


class _Part(NamedTuple):
    value: Any
    node: Node
    item: bool  # of a list or a map: it is a member of the set beside its fields


def _parts(path: Path, value: Any, node: Node) -> Iterator[tuple[str, _Part]]:
    """Yield the parts of a value whose type is no leaf, by element. Raises Misfit."""
    if value is MISSING or value is None:
        return
    if isinstance(node, KeyedList | SetList):
        if not isinstance(value, list):
            raise Misfit(f"{display(path)}: expected list")
        for at, item in enumerate(value):
            yield _element((*path, f"i:{at}"), item, node), _Part(item, _item_node(node), True)
        return
    if not isinstance(value, dict):
        raise Misfit(f"{display(path) or 'the object'}: expected map")
    for key, one in value.items():
        yield FIELD + str(key), _Part(one, below(node, FIELD + str(key)), not isinstance(node, Struct))


def _item_node(node: KeyedList | SetList) -> Node:
    return node.item if isinstance(node, KeyedList) else LEAF


def _element(path: Path, item: Any, node: KeyedList | SetList) -> str:
    if isinstance(node, SetList):
        if isinstance(item, dict | list) or item is None:
            raise Misfit(f"{display(path)}: an item of a set must be a scalar")
        return VALUE + compact(item)
    if not isinstance(item, dict):
        raise Misfit(f"{display(path)}: expected map")
    keys = {
        key: item[key] if item.get(key) is not None else KEY_DEFAULTS[key]
        for key in node.keys
        if item.get(key) is not None or key in KEY_DEFAULTS
    }
    if not any(item.get(key) is not None for key in node.keys):
        raise Misfit(f"{display(path)}: an item needs {' or '.join(node.keys)}, which identifies it")
    return KEYS + compact(keys)


def below(node: Node, element: str) -> Node:
    """Return the node of a part."""
    if isinstance(node, Struct):
        return node.field(element.removeprefix(FIELD)) or UNTYPED
    if isinstance(node, Map):
        return node.value
    if isinstance(node, KeyedList):
        return node.item
    return UNTYPED if isinstance(node, Untyped) else LEAF


def _is_leaf(node: Node, *values: Any) -> bool:
    """Whether values are compared and merged as a whole. Empty ones are: there is nothing in them to tell apart."""
    if isinstance(node, Untyped):
        return not any(isinstance(value, dict) for value in values) or _all_empty(values)
    return node == LEAF or _all_empty(values)


def _all_empty(values: tuple[Any, ...]) -> bool:
    return all(value is MISSING or value is None or value in ({}, []) for value in values)


# -- which fields a value has -------------------------------------------------------------------------------------


def fields_of(value: Any, node: Node) -> FieldSet:
    """Return the fields that a value sets. Raises Misfit."""
    found: set[Path] = set()
    _collect((), value, node, found)
    return frozenset(found)


def _collect(path: Path, value: Any, node: Node, found: set[Path]) -> None:
    if node == LEAF or (isinstance(node, Untyped) and not isinstance(value, dict)):
        found.add(path)
        return
    parts = list(_parts(path, value, node))
    times: dict[str, int] = {}
    for element, _ in parts:
        times[element] = times.get(element, 0) + 1
    for element, part in parts:
        place = (*path, element)
        if times[element] > 1:  # of items with the same keys, only that there are some is known
            found.add(place)
            continue
        _collect(place, part.value, part.node, found)
        if part.item or part.value is None or part.value == {}:
            found.add(place)


def with_structs(fields: FieldSet, node: Node) -> FieldSet:
    """Return a set with the named fields that lead to its members: of `.spec.replicas` also `.spec`, of an entry of a
    map not the map's other entries."""
    found = set(fields)
    for path in fields:
        at = node
        for end, element in enumerate(path[:-1], 1):
            if isinstance(at, Struct) and at.field(element.removeprefix(FIELD)) is not None:
                found.add(path[:end])
            at = below(at, element)
    return frozenset(found)


# -- how two values differ ----------------------------------------------------------------------------------------


def difference(old: Any, new: Any, node: Node) -> Difference:
    """Return how two values differ. MISSING is a value. Raises Misfit."""
    found: tuple[set[Path], set[Path], set[Path]] = (set(), set(), set())
    _compare((), old, new, node, found)
    removed, modified, added = found
    return Difference(*(frozenset(one - {()}) for one in (removed, modified, added)))


def _compare(
    path: Path, old: Any, new: Any, node: Node, found: tuple[set[Path], set[Path], set[Path]]
) -> None:
    removed, modified, added = found
    if isinstance(node, Struct) and node.always:
        old, new = ({} if value is MISSING else value for value in (old, new))
    if _is_leaf(node, old, new):
        if old is MISSING and new is not MISSING:
            added.add(path)
        elif new is MISSING and old is not MISSING:
            removed.add(path)
        elif old != new or (isinstance(old, bool) != isinstance(new, bool)):
            modified.add(path)
        return
    left, right = _grouped(path, old, node), _grouped(path, new, node)
    for element in [*left, *(element for element in right if element not in left)]:
        _compare_parts((*path, element), left.get(element, []), right.get(element, []), found)
    if old is MISSING:
        added.add(path)
    elif new is MISSING:
        removed.add(path)


def _grouped(path: Path, value: Any, node: Node) -> dict[str, list[_Part]]:
    found: dict[str, list[_Part]] = {}
    for element, part in _parts(path, value, node):
        found.setdefault(element, []).append(part)
    return found


def _compare_parts(
    path: Path, old: list[_Part], new: list[_Part], found: tuple[set[Path], set[Path], set[Path]]
) -> None:
    """Compare what two values have of one element. Items that are there twice count as one leaf."""
    removed, modified, added = found
    node = (old or new)[0].node
    if len(old) < 2 and len(new) < 2:
        first, second = (parts[0].value if parts else MISSING for parts in (old, new))
        _compare(path, first, second, node, found)
    elif len(old) > 1 and len(new) > 1:
        if [part.value for part in old] != [part.value for part in new]:
            modified.add(path)
    elif len(old) > 1:
        if new:
            _compare(path, MISSING, new[0].value, node, found)
        removed.add(path)
    else:
        if old:
            _compare(path, old[0].value, MISSING, node, found)
        added.add(path)


# -- how a value is merged into another ---------------------------------------------------------------------------


def merged(live: Any, applied: Any, node: Node) -> Any:
    """Return `live` with all that `applied` sets. Raises Misfit, also if `applied` has an item twice."""
    return _merge((), live, applied, node)


def _merge(path: Path, live: Any, applied: Any, node: Node) -> Any:
    if applied is MISSING:
        return live
    if live is MISSING or _is_leaf(node, live, applied):
        _check(path, applied, node)
        return applied
    if isinstance(node, KeyedList | SetList):
        return _merge_items(path, live, applied, node)
    left, right = dict(_parts(path, live, node)), dict(_parts(path, applied, node))
    return {
        element.removeprefix(FIELD): _merge(
            (*path, element),
            left[element].value if element in left else MISSING,
            right[element].value if element in right else MISSING,
            below(node, element),
        )
        for element in [*left, *(element for element in right if element not in left)]
    }


def _check(path: Path, applied: Any, node: Node) -> None:
    """Check the form of a value that nothing is there to be merged with."""
    if _is_leaf(node, applied):
        return
    seen = set()
    for element, part in _parts(path, applied, node):
        place = (*path, element)
        if element in seen:
            raise Misfit(f"{display(path)}: duplicate entries for key {display((element,))}")
        seen.add(element)
        _check(place, part.value, part.node)


def _merge_items(path: Path, live: Any, applied: Any, node: KeyedList | SetList) -> list[Any]:
    """Merge lists. The items of `applied` come in its order; an item that only `live` has keeps its place before the
    item of both that follows it."""
    left = list(_parts(path, live, node))
    right: dict[str, Any] = {}
    for element, part in _parts(path, applied, node):
        if element in right:
            raise Misfit(f"{display(path)}: duplicate entries for key {display((element,))}")
        right[element] = part.value
    times: dict[str, int] = {}
    for element, _ in left:
        times[element] = times.get(element, 0) + 1
    known = {element: part.value for element, part in left if times[element] == 1}
    return [
        left[at][1].value
        if at is not None
        else _merge((*path, element), known.get(element, MISSING), right[element], _item_node(node))
        for element, at in _order([element for element, _ in left], list(right))
    ]


def _order(left: list[str], right: list[str]) -> Iterator[tuple[str, int | None]]:
    """Yield the items of a merged list: those that only `left` has with their position there, the others without."""
    both = set(left) & set(right)
    last = {element: at for at, element in enumerate(left)}
    start = 0
    for element in right:
        end = start
        if last.get(element, -1) >= start:
            end = last[element] + 1
        else:
            while end < len(left) and left[end] not in both:
                end += 1
        yield from ((one, at) for at, one in enumerate(left[start:end], start) if one not in both)
        yield element, None
        start = end
    yield from ((one, at) for at, one in enumerate(left[start:], start) if one not in both)


# -- how fields are removed ---------------------------------------------------------------------------------------


def removed(value: Any, fields: FieldSet, node: Node) -> Any:
    """Return a value without the members of a set and all that is in them. What is empty then is None."""
    tree: dict[str, Any] = {}
    for path in fields:
        at = tree
        for element in path:
            at = at.setdefault(element, {})
        at[""] = True
    return _without((), value, tree, node)


def _without(path: Path, value: Any, tree: Mapping[str, Any], node: Node) -> Any:
    if not tree or _is_leaf(node, value):
        return value
    kept: list[tuple[str, Any]] = []
    for element, part in _parts(path, value, node):
        gone = tree.get(element, {})
        if "" not in gone:
            kept.append((element, _without((*path, element), part.value, gone, part.node)))
    if not kept:
        return None
    if isinstance(value, list):
        return [one for _, one in kept]
    return {element.removeprefix(FIELD): one for element, one in kept}

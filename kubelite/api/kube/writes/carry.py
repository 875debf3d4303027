"""How an object changes when a client writes it, and what of that its manifest says. Pure.

A client sees the object as the node shows it: with defaults, a status and what only the node sets. It sends that back,
changed. The manifest gets the difference, so that its own words, order and comments stay.
"""

from __future__ import annotations

from typing import Any

from kubelite.sources.patches import identity


def carried(mine: Any, old: Any, new: Any, *, field: str = "") -> Any:
    """Return `mine`, the manifest's value, with the difference between `old` and `new`, as the client saw the value and
    as it sent it. Items of lists that have an identity are matched by it. `field`: the name of a list."""
    if new == old:
        return mine
    if isinstance(mine, dict | None) and isinstance(old, dict) and isinstance(new, dict):
        mine = mine or {}  # what is left out there has its defaults, before and after
        found = dict(mine)
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in new:
                found.pop(key, None)
            elif key not in old:
                found[key] = new[key]
            elif old[key] != new[key]:
                found[key] = carried(mine.get(key), old[key], new[key], field=key)
        return found
    if isinstance(mine, list) and isinstance(old, list) and isinstance(new, list):
        return _items(mine, old, new, field)
    return new


def _items(mine: list[Any], old: list[Any], new: list[Any], field: str) -> list[Any]:
    name_of = identity(field, mine, old, new)
    if name_of is None:
        return new
    said = {name_of(item): item for item in mine}
    seen = {name_of(item): item for item in old}
    return [
        carried(said[name], seen[name], item) if (name := name_of(item)) in said and name in seen else item
        for item in new
    ]

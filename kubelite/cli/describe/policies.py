"""Format the text of `describe` for LimitRanges, and what a Namespace shows of them, from documents. Pure.

Layout and wording are kubectl's (kubectl pkg/describe/describe.go: describeLimitRange, DescribeLimitRanges).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kubelite.cli.describe.parts import tabbed

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_AMOUNTS = ("min", "max", "defaultRequest", "default", "maxLimitRequestRatio")
_HEAD = "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio"
_RULE = "----\t--------\t---\t---\t---------------\t-------------\t-----------------------"


def describe_limit_range(doc: Json, _events: object, _now: float) -> str:
    """kubectl shows no events of a LimitRange."""
    metadata = doc["metadata"]
    head = [f"Name:\t{metadata['name']}", f"Namespace:\t{metadata.get('namespace', '')}"]
    return tabbed([*head, _HEAD, _RULE, *_limit_lines(doc)])


def limits_of_namespace(ranges: Sequence[Json]) -> list[str]:
    """Return the lines that `describe namespace` has about its LimitRanges."""
    if not ranges:
        return ["No LimitRange resource."]
    rows = (f" {line}" for one in ranges for line in _limit_lines(one))
    return ["Resource Limits", f" {_HEAD}", f" {_RULE}", *rows]


def _limit_lines(doc: Json) -> Iterator[str]:
    for item in doc["spec"].get("limits") or ():
        for name in sorted({name for field in _AMOUNTS for name in item.get(field) or ()}):
            cells = ((item.get(field) or {}).get(name, "-") for field in _AMOUNTS)
            yield "\t".join((item["type"], name, *map(str, cells)))

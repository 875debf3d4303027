"""Tables of metric families that every cgroup has: a row for each cgroup, a column for each family.

This code determines the cost of a scrape: a thousand cgroups have fifty values each. It therefore works on whole
columns. All values that come from one part of the statistics are extracted together, columns are compared as a whole
with the previous ones, and only changed values are formatted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter, is_
from typing import Any

from kubelite.telemetry.metrics.exposition import Family, counter, gauge, number
from kubelite.telemetry.sampling.sampler import Sample
from kubelite.telemetry.sampling.targets import Target

CLOSE = "} "
Say = Callable[[Any], str]


def nanoseconds(value: int) -> str:
    return number(value / 1e9)


def microseconds(value: int) -> str:
    return number(value / 1e6)


@dataclass(frozen=True, slots=True)
class Column:
    """A family with one series for each cgroup. `field`: the attribute that has the value; `say`: formats the value
    (None: a whole number, written as it is); `tail`: the text that ends the labels; `hidden`: values for which a cgroup
    has no series."""

    family: Family
    field: str
    say: Say | None = None
    tail: str = CLOSE
    hidden: frozenset[object] = frozenset()


def counted(name: str, text: str, field: str, say: Say | None = None, tail: str = CLOSE) -> Column:
    return Column(counter(name, text), field, say, tail)


def measured(name: str, text: str, field: str) -> Column:
    return Column(gauge(name, text), field)


class Group:
    """Columns whose values come from the same part of a sample, which `part` returns. If that part is the same object
    as before, its values are unchanged. `applies`: whether a cgroup has these series (None: all do)."""

    def __init__(
        self,
        part: Callable[[Sample], Any],
        *columns: Column,
        applies: Callable[[Sample], object] | None = None,
    ) -> None:
        self.part, self.columns, self.applies = part, columns, applies
        fields = [column.field for column in columns]
        take = attrgetter(*fields)
        self.values: Callable[[Any], tuple[Any, ...]] = (
            take if len(fields) > 1 else lambda part: (take(part),)
        )


class Shown:
    """The last state of a group. `versions`: a number for each column, which changes whenever the column's lines do."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.versions = [0] * len(group.columns)
        self.heads: list[str] = []
        self.columns: list[Sequence[Any]] = [()] * len(group.columns)
        self._targets: list[Target] = []
        self._parts: list[Any] = []
        self._texts: list[Sequence[str]] = [()] * len(group.columns)  # formatted values of columns with `say`

    def look(self, samples: Sequence[Sample]) -> None:
        group = self.group
        mine = samples if group.applies is None else [s for s in samples if group.applies(s)]
        parts, targets = list(map(group.part, mine)), [s.target for s in mine]
        same = len(targets) == len(self._targets) and all(map(is_, targets, self._targets))
        if same and all(map(is_, parts, self._parts)):
            return
        self._targets, self._parts = targets, parts
        if not same:
            self.heads = [target.head for target in targets]
        found: Iterable[Sequence[Any]] = zip(*map(group.values, parts), strict=True)
        for place, values in enumerate(found if parts else [()] * len(group.columns)):
            if not same or values != self.columns[place]:
                self._put(place, values, same=same)

    def _put(self, place: int, values: Sequence[Any], *, same: bool) -> None:
        if (say := self.group.columns[place].say) is not None:
            old = self._texts[place]
            if same:
                both = zip(values, self.columns[place], old, strict=True)
                self._texts[place] = [text if value == was else say(value) for value, was, text in both]
            else:
                self._texts[place] = list(map(say, values))
        self.columns[place] = values
        self.versions[place] += 1

    def lines(self, place: int) -> str:
        column, values = self.group.columns[place], self.columns[place]
        name, tail = column.family.name, column.tail
        pairs: Iterable[tuple[str, Any]] = zip(
            self.heads, values if column.say is None else self._texts[place], strict=True
        )
        if column.hidden:
            hidden = column.hidden
            pairs = [pair for pair, value in zip(pairs, values, strict=True) if value not in hidden]
        return "".join([f"{name}{head}{tail}{value}\n" for head, value in pairs])

"""Compute the width of each column of a table on a terminal, and which columns are left out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

ROOMY = 100  # characters; from this width on, two spaces separate columns


class Column(NamedTuple):
    """A column of a table. `drop`: if there is too little room, columns with the highest number are left out first; 0
    means never. `shrinks`: the column may shrink to `least` characters. `rest`: the column takes what the others leave,
    and is left out if that is less than `least`. `right`: its texts are right-aligned. `marked`: its texts have the
    colour of the row's level."""

    name: str
    drop: int = 0
    least: int = 0
    right: bool = False
    shrinks: bool = False
    rest: bool = False
    marked: bool = False


def gap_of(width: int) -> int:
    """Return the number of spaces after a column, on a terminal of this width."""
    return 2 if width >= ROOMY else 1


def fit(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int) -> tuple[int, ...]:
    """Return the width of each column in characters, including the space after it; 0 for one that is left out."""
    gap = gap_of(width)
    natural = [0] * len(columns)
    for row in rows:
        natural = [max(most, cell_len(text)) for most, text in zip(natural, row, strict=True)]
    needed = [
        0 if column.rest else gap + (min(most, column.least) if column.shrinks else most)
        for column, most in zip(columns, natural, strict=True)
    ]
    for place in sorted(range(len(columns)), key=lambda place: -columns[place].drop):
        if sum(needed) <= width or not columns[place].drop:
            break
        needed[place] = 0
    # First widen shrunk columns to a fifth of the screen, then the `rest` column, then shrunk columns to any width.
    needed = _grown(columns, needed, [min(most, width // 5) + gap for most in natural], width)
    for place, column in enumerate(columns):
        if column.rest and (left := width - sum(needed)) >= column.least:
            needed[place] = left
    needed = _grown(columns, needed, [most + gap for most in natural], width)
    left = width - sum(needed)
    if left > 0:  # so that the heading's underline reaches the edge
        last = max(place for place, size in enumerate(needed) if size)
        name = next((place for place, column in enumerate(columns) if column.shrinks), last)
        needed[name if columns[last].right else last] += left
    elif left < 0:  # the terminal is too narrow even for the columns that are never left out
        needed = [max(4, n + left) if c.shrinks else n for c, n in zip(columns, needed, strict=True)]
    return tuple(needed)


def _grown(columns: Sequence[Column], needed: list[int], wanted: list[int], width: int) -> list[int]:
    """Widen the shrunk columns to the `wanted` widths, as far as there is room."""
    found = list(needed)
    for place, column in enumerate(columns):
        if column.shrinks:
            found[place] += max(0, min(width - sum(found), wanted[place] - found[place]))
    return found


def placed(text: str, width: int, gap: int, *, right: bool = False) -> str:
    """Return the text, padded or cut to exactly `width` cells. The last `gap` cells are spaces; an ellipsis marks a
    cut."""
    inner = max(0, width - gap)
    space = " " * (width - inner)
    if cell_len(text) > inner:
        return set_cell_size(text, max(0, inner - 1)) + "…"[:inner] + space
    return (" " * (inner - cell_len(text)) + text if right else set_cell_size(text, inner)) + space

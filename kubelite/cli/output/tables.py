"""Print tables, JSON and YAML as kubectl does."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from kubelite.cli.output.foreign import harmless

if TYPE_CHECKING:
    from kubelite.kube.json import Json


_PADDING = 3  # kubectl: tabwriter with minimal width 6 and padding 3
_MINIMUM = 6


class TablePrinter:
    """A table with aligned columns. It retains the widths, so that the rows of a watch stay under their header."""

    def __init__(self, *, headers: bool = True, padding: int = _PADDING) -> None:
        self._headers, self._padding = headers, padding
        self._widths: list[int] = []
        self._shown: tuple[str, ...] = ()

    def print(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print the rows. The header precedes the first ones."""
        sys.stdout.write("".join(f"{line}\n" for line in self.lines(columns, rows)))
        sys.stdout.flush()

    def lines(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
        """Return the lines that `print` prints."""
        lines = [[_cell(value) for value in row] for row in rows]
        header = tuple(column.upper() for column in columns)
        if self._headers and header != self._shown:
            lines.insert(0, list(header))
        self._shown = header
        if len(self._widths) != len(header):
            self._widths = [0] * len(header)
        for line in lines:
            self._widths = [max(w, len(cell)) for w, cell in zip(self._widths, line, strict=True)]
        pads = [max(width + self._padding, _MINIMUM) for width in self._widths]
        padded = ([cell.ljust(pad) for cell, pad in zip(line[:-1], pads, strict=False)] for line in lines)
        return ["".join(cells) + line[-1] for cells, line in zip(padded, lines, strict=True)]


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    first, newline, _ = text.partition("\n")
    text = first.rstrip("\r") + "..." if newline else text
    return harmless(text.replace("\r", "\\r"))


def print_json(document: Any) -> None:
    json.dump(document, sys.stdout, indent=4, sort_keys=True, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()


def print_yaml(document: Any, *, first: bool = True) -> None:
    if not first:
        sys.stdout.write("---\n")
    sys.stdout.write(to_yaml(document))
    sys.stdout.flush()


STRING = "tag:yaml.org,2002:str"
#: strings without quotes that Go's YAML reads as booleans or numbers, and PyYAML does not: y, 08, 0o14, 1e3
_GO_READS = re.compile(r"[yYnN]|[-+]?(0[oO][0-7]+|0[bB][01]+|\d+(\.\d*)?([eE][-+]?\d+)?)")


def to_yaml(document: Any, *, sort_keys: bool = True) -> str:
    """Write YAML as kubectl does: sorted keys, literal blocks, double quotes where quotes are needed."""
    import yaml

    resolve: Any = yaml.SafeDumper.resolve  # PyYAML's stubs leave it untyped

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.Node:
        style = None
        if "\n" in data and not any(line.endswith((" ", "\t")) for line in data.split("\n")):
            style = "|"
        elif _GO_READS.fullmatch(data) or resolve(dumper, yaml.ScalarNode, data, (True, False)) != STRING:
            style = '"'
        return dumper.represent_scalar(STRING, data, style=style)

    Dumper.add_representer(str, text)
    form: dict[str, Any] = {"default_flow_style": False, "allow_unicode": True, "width": 2**31}
    return str(yaml.dump(document, Dumper=Dumper, sort_keys=sort_keys, **form))


def list_of(items: Sequence[Json]) -> Json:
    return {"apiVersion": "v1", "items": list(items), "kind": "List", "metadata": {"resourceVersion": ""}}

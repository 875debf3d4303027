"""Changes fields of a document in its text: every other byte, comments included, stays as it is. Pure.

A document is YAML or JSON. Its nodes are found with PyYAML, which knows where in the text each begins and ends. The
result is read again and compared with what it should say. A text that cannot be changed this way (an alias, a merge
key) raises CannotChange, and its owner edits it by hand.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

from kubelite.kube.json import Json
from kubelite.sources.patches import identity
from manifests.yaml.document import SyntaxProblem, read_documents

Path = tuple[str | int, ...]
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_STEP = 2  # columns that a nested block is indented


class CannotChange(Exception):
    """The text cannot be changed in place; the message says why."""


class _Removed:
    """The value of a field that is removed."""


REMOVED = _Removed()


class Change(NamedTuple):
    """Set a field, or remove it (`REMOVED`). Missing mappings on the way to a field are added. The position after the
    last item of a list appends an item."""

    path: Path
    value: Any

    def __str__(self) -> str:
        return field_name(self.path)


def field_name(path: Path) -> str:
    """Return `spec.containers[0].image`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def changed(text: str, changes: Sequence[Change]) -> str:
    """Return the text of a document with these changes. Raises CannotChange."""
    wanted = applied(_read(text), changes)
    for change in changes:
        text = _Text(text).with_change(change)
    if _read(text) != wanted:
        raise CannotChange("the change cannot be made in place, edit the file by hand")
    return text


def applied(data: Any, changes: Sequence[Change]) -> Any:
    """Return the data with the changes. Raises CannotChange if a path does not fit."""
    found = copy.deepcopy(data)
    for path, value in changes:
        place = found
        for index, part in enumerate(path[:-1]):
            fits = isinstance(place, list) if isinstance(part, int) else isinstance(place, dict)
            if not fits or (isinstance(part, int) and part >= len(place)):
                raise CannotChange(f"{field_name(path[: index + 1])} is not in the document")
            if isinstance(part, str) and place.get(part) is None:
                if value is REMOVED:
                    break
                place[part] = {}
            place = place[part]
        else:
            _put(place, path, value)
    return found


def _put(place: Any, path: Path, value: Any) -> None:
    last = path[-1]
    if isinstance(place, list) and isinstance(last, int) and last < len(place):
        if value is REMOVED:
            del place[last]
        else:
            place[last] = value
    elif isinstance(place, list) and last == len(place) and value is not REMOVED:
        place.append(value)
    elif not isinstance(place, dict):
        raise CannotChange(f"{field_name(path)} is not in the document")
    elif value is REMOVED:
        place.pop(last, None)
    else:
        place[last] = value


def differences(old: Any, new: Any, path: Path = (), *, by_item: bool = False) -> list[Change]:
    """Return the changes that make `new` of `old`: per field, except for lists of another length. With `by_item`, items
    are added to such a list or removed from it, if that is the difference: `old` is then what the text says."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[Change] = []
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in new:
                found.append(Change((*path, key), REMOVED))
            elif key not in old:
                found.append(Change((*path, key), new[key]))
            else:
                found += differences(old[key], new[key], (*path, key), by_item=by_item)
        return found
    if isinstance(old, list) and isinstance(new, list):
        items = _item_changes(old, new, path) if by_item else None
        if items is not None:
            return items
        if len(old) == len(new):
            pairs = enumerate(zip(old, new, strict=True))
            return [
                change
                for at, (left, right) in pairs
                for change in differences(left, right, (*path, at), by_item=by_item)
            ]
    return [] if old == new else [Change(path, new)]


def _item_changes(old: list[Any], new: list[Any], path: Path) -> list[Change] | None:
    """Return the changes of a list by its items: some are changed, some removed, some appended. None if that is not the
    difference, or if the items cannot be told apart. Items without a merge key are told apart by their content."""
    name_of = identity(str(path[-1]), old, new) if path else None
    before, after = (
        [json.dumps(one if name_of is None else name_of(one), sort_keys=True) for one in items]
        for items in (old, new)
    )
    stay = [one for one in before if one in after]
    if not stay or len(stay) > len(after) or after[: len(stay)] != stay or len(set(before)) < len(before):
        return None
    found = [
        change
        for left, right in enumerate(after.index(one) if one in after else None for one in before)
        if right is not None
        for change in differences(old[left], new[right], (*path, left), by_item=True)
    ]
    gone = [at for at, one in enumerate(before) if one not in after]
    found += [
        Change((*path, at), REMOVED) for at in reversed(gone)
    ]  # from the end: positions before it stay true
    return found + [Change((*path, at), new[at]) for at in range(len(stay), len(new))]


def _read(text: str) -> Any:
    found = list(read_documents(text))
    if len(found) != 1 or isinstance(found[0], SyntaxProblem):
        raise CannotChange("the text is not one YAML document")
    return found[0].data


@dataclass(frozen=True, slots=True)
class _Entry:
    """A key of a mapping and its value."""

    key: Any
    value: Any
    following: Any = None  # the next key in the text, if there is one
    previous: Any = None  # the value before

    @property
    def column(self) -> int:
        return int(self.key.start_mark.column)


class _Text:
    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise CannotChange(f"the text cannot be read: {error}") from error
        self.newline = "\r\n" if "\r\n" in text else "\n"
        self.quoted = isinstance(self.root, yaml.MappingNode) and bool(self.root.flow_style)

    def with_change(self, change: Change) -> str:
        node = self.root
        for index, part in enumerate(change.path):
            rest = change.path[index + 1 :]
            if isinstance(part, int) and not rest and isinstance(node, yaml.SequenceNode):
                if part == len(node.value):
                    return self._appended(node, change.value)
                if change.value is REMOVED:
                    return self._item_removed(node, part, change)
            entry = self._entry(node, part, change)
            if entry is None:
                return self.text if change.value is REMOVED else self._inserted(node, part, change, rest)
            if not rest:
                return (
                    self._removed(node, entry)
                    if change.value is REMOVED
                    else self._set(node, entry, change.value)
                )
            if isinstance(entry.value, yaml.ScalarNode) and isinstance(rest[0], str):
                if change.value is REMOVED:
                    return self.text
                return self._set(node, entry, _nested(rest, change.value))
            node = entry.value
        raise CannotChange("a change needs a path")

    def _entry(self, node: Any, part: str | int, change: Change) -> _Entry | None:
        """Return the entry of a mapping or the item of a list (its key is then the item itself)."""
        if isinstance(part, int):
            if not isinstance(node, yaml.SequenceNode) or part >= len(node.value):
                raise CannotChange(f"{change} is not in the document")
            return _Entry(node.value[part], node.value[part])
        if not isinstance(node, yaml.MappingNode):
            raise CannotChange(f"{change} is not in the document")
        for at, (key, value) in enumerate(node.value):
            if key.value == part:
                if value.start_mark.index < key.end_mark.index:
                    raise CannotChange(f"{change} is an alias, edit the file by hand")
                following = node.value[at + 1][0] if at + 1 < len(node.value) else None
                return _Entry(key, value, following, node.value[at - 1][1] if at else None)
        return None

    # -- setting ------------------------------------------------------------------------------------------------

    def _set(self, parent: Any, entry: _Entry, value: Any) -> str:
        old = entry.value
        begin, end = old.start_mark.index, _end(old)
        if parent.flow_style:
            return self._replaced(begin, end, self._spaced(begin, self._flow(value)))
        if isinstance(old, yaml.ScalarNode) and not _is_block(value):
            return self._replaced(begin, end, self._spaced(begin, self._scalar(value, old)))
        if entry.key is old:  # an item of a list
            words = self._block(value, old.start_mark.column) if _is_block(value) else self._scalar(value)
            return self._replaced(begin, end, words.lstrip(" "))
        return self._replaced(self._colon(entry), end, self._after_key(value, entry.column))

    def _colon(self, entry: _Entry) -> int:
        """Return the place after the colon that follows a key."""
        return self.text.index(":", entry.key.end_mark.index) + 1

    def _replaced(self, begin: int, end: int, words: str) -> str:
        old = self.text[begin:end]
        if old.endswith("\n") and not words.endswith("\n"):  # a literal block ends with its line
            words += self.newline
        return self.text[:begin] + words + self.text[end:]

    def _spaced(self, begin: int, words: str) -> str:
        """Return the words, after a space if nothing but the key's colon is before them: `replicas:`."""
        return f" {words}" if begin and self.text[begin - 1] == ":" else words

    def _after_key(self, value: Any, column: int) -> str:
        """Return what follows `key:` in a block mapping at the column."""
        if _is_block(value):
            return self.newline + self._block(value, column + _STEP)
        return f" {self._scalar(value)}"

    def _inserted(self, node: Any, key: str | int, change: Change, rest: Path) -> str:
        value = _nested(rest, change.value)
        if not isinstance(node, yaml.MappingNode):
            raise CannotChange(f"{change} is not in the document")
        if node.flow_style or not node.value:
            begin = self.text.index("{", node.start_mark.index) + 1
            more = ", " if node.value else ""
            return self.text[:begin] + f"{self._key(key)}: {self._flow(value)}{more}" + self.text[begin:]
        first = node.value[0][0]
        column = first.start_mark.column
        entry = f"{self._key(key)}:{self._after_key(value, column)}{self.newline}{' ' * column}"
        at = first.start_mark.index
        return self.text[:at] + entry + self.text[at:]

    def _appended(self, node: Any, value: Any) -> str:
        """Add an item at the end of a list. A comment on the last item's line stays there."""
        if node.flow_style:
            at = int(node.end_mark.index) - 1  # the bracket
            comma = ", " if node.value else ""
            return self.text[:at].rstrip(" ") + comma + self._flow(value) + self.text[at:]
        column = node.start_mark.column
        words = self._block(value, column + _STEP).lstrip(" ") if _is_block(value) else self._scalar(value)
        at = self._line_end(_end(node))
        before = "" if self.text[:at].endswith("\n") else self.newline
        return self.text[:at] + before + f"{' ' * column}- {words}{self.newline}" + self.text[at:]

    def _line_end(self, at: int) -> int:
        """Return where the next line begins; a place at the beginning of a line is such a place itself."""
        if self.text[:at].endswith("\n"):
            return at
        newline = self.text.find("\n", at)
        return len(self.text) if newline < 0 else newline + 1

    # -- removing -----------------------------------------------------------------------------------------------

    def _removed(self, node: Any, entry: _Entry) -> str:
        begin, end = entry.key.start_mark.index, _end(entry.value)
        if len(node.value) == 1:
            return self._replaced(node.start_mark.index, _end(node), "{}")
        if node.flow_style:
            if entry.following is not None:
                return self.text[:begin] + self.text[entry.following.start_mark.index :]
            return self.text[: _end(entry.previous)] + self.text[end:]
        line = self.text.rfind("\n", 0, begin) + 1
        if self.text[line:begin].strip():  # the first key after the dash of a list's item
            return self.text[:begin] + self.text[entry.following.start_mark.index :]
        return self.text[:line] + self.text[self._line_end(end) :]

    def _item_removed(self, node: Any, at: int, change: Change) -> str:
        """Remove an item of a list that has others."""
        item = node.value[at]
        begin = item.start_mark.index
        if node.flow_style:
            if at + 1 < len(node.value):
                return self.text[:begin] + self.text[node.value[at + 1].start_mark.index :]
            return self.text[: _end(node.value[at - 1])] + self.text[_end(item) :]
        dash = self.text.rfind("-", 0, begin)
        line = self.text.rfind("\n", 0, dash) + 1
        if len(node.value) == 1 or self.text[dash + 1 : begin].strip() or self.text[line:dash].strip():
            raise CannotChange(f"{change} cannot be removed in place, edit the file by hand")
        return self.text[:line] + self.text[self._line_end(_end(item)) :]

    # -- texts of values ----------------------------------------------------------------------------------------

    def _key(self, key: str | int) -> str:
        text = str(key)
        plain = not self.quoted and _PLAIN_KEY.fullmatch(text) and _data(f"{text}: 1") == {text: 1}
        return text if plain else json.dumps(text, ensure_ascii=False)

    def _flow(self, value: Any) -> str:
        return json.dumps(value, ensure_ascii=False)

    def _scalar(self, value: Any, old: Any = None) -> str:
        """Return a scalar, or an empty collection. A string keeps the quotes that the old value has."""
        if not isinstance(value, str):
            return self._flow(value)
        style = getattr(old, "style", None)
        if style == '"' or self.quoted:
            return json.dumps(value, ensure_ascii=False)
        if style == "'" and "\n" not in value:
            return "'" + value.replace("'", "''") + "'"
        return value if _is_plain(value) else json.dumps(value, ensure_ascii=False)

    def _block(self, value: Any, column: int) -> str:
        """Return a collection in block style at the column, without the last newline."""
        dumped = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True)
        pad = " " * column
        return self.newline.join(pad + line if line else line for line in dumped.rstrip("\n").split("\n"))


def dumped(document: Json) -> str:
    """Return a document as YAML, in the order of its fields."""
    text: str = yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1 << 20, allow_unicode=True)
    return text


def _is_block(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _is_plain(value: str) -> bool:
    """Whether a string without quotes is read as this string. Most are words, which nobody has to read to know."""
    if _WORD.fullmatch(value) and value.lower() not in _NO_WORDS:
        return True
    return value == value.strip() and "\n" not in value and _data(f"a: {value}") == {"a": value}


_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_NO_WORDS = frozenset(
    {"false", "n", "no", "null", "off", "on", "true", "y", "yes"}
)  # of YAML 1.1, in any case


class _Dumper(yaml.SafeDumper):
    """Quotes the strings that would be read as something else: the reader's rules are Go's, not PyYAML's."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None if _is_plain(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def _nested(path: Path, value: Any) -> Any:
    for part in reversed(path):
        if isinstance(part, int):
            raise CannotChange(f"{field_name(path)} is not in the document")
        value = {part: value}
    return value


def _end(node: Any) -> int:
    """Return where a node ends. PyYAML's mark of a block collection is where the next token begins, after comments."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(node, yaml.MappingNode) else last)


def _data(text: str) -> Json | None:
    try:
        found: Any = _read(text)
    except CannotChange:
        return None
    return found if isinstance(found, dict) else None

"""Fields that are changed in a document's text: all other bytes stay."""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubelite.sources.fields import REMOVED, CannotChange, Change, applied, changed, differences, dumped
from manifests.yaml.document import YamlDocument, read_documents

TEXT = """\
---
# A shop.
apiVersion: apps/v1
kind: Deployment   # of pods
metadata:
  name: web
spec:
  # How many?
  replicas: 1  # for now
  selector:
    matchLabels: {app: web}
  template:
    metadata:
      labels: {app: web}   # the selector's
    spec:
      containers:
      - name: app # the shop
        image: "nginx:1" # pinned
        args:
          - a
          # then b
          - b
      # beside it
      - image: 'side'
        name: side

# The end.
"""
CONTAINERS = ("spec", "template", "spec", "containers")


def read(text: str) -> Any:
    (found,) = read_documents(text)
    assert isinstance(found, YamlDocument)
    return found.data


def lines(text: str, *changes: Change) -> list[str]:
    """The lines that differ, as `-old` and `+new`."""
    new = changed(text, changes)
    assert read(new) == applied(read(text), changes)
    found = difflib.ndiff(text.splitlines(), new.splitlines())
    return [line[0] + line[2:] for line in found if line[0] in "+-"]


@pytest.mark.parametrize(
    ("path", "value", "difference"),
    [
        (("spec", "replicas"), 3, ["-  replicas: 1  # for now", "+  replicas: 3  # for now"]),
        (("spec", "paused"), True, ["+  paused: true"]),
        ((*CONTAINERS, 0, "image"), "nginx:2",
         ['-        image: "nginx:1" # pinned', '+        image: "nginx:2" # pinned']),
        ((*CONTAINERS, 1, "image"), "a'b", ["-      - image: 'side'", "+      - image: 'a''b'"]),
        ((*CONTAINERS, 1, "tty"), True, ["-      - image: 'side'", "+      - tty: true", "+        image: 'side'"]),
        ((*CONTAINERS, 0, "args", 1), "8", ["-          - b", '+          - "8"']),
        (("spec", "template", "metadata", "annotations", "example.com/at"), "2026-01-01T00:00:00Z",
         ["+      annotations:", "+        example.com/at: '2026-01-01T00:00:00Z'"]),
        (("spec", "selector", "matchLabels", "tier"), "on",
         ["-    matchLabels: {app: web}", '+    matchLabels: {tier: "on", app: web}']),
        ((*CONTAINERS, 0, "args"), ["08", {"k": [1]}],
         ["-          - a", "-          # then b", "-          - b", '+          - "08"', "+          - k:",
          "+            - 1"]),
        (("spec", "replicas"), REMOVED, ["-  replicas: 1  # for now"]),
        ((*CONTAINERS, 1, "image"), REMOVED,
         ["-      - image: 'side'", "-        name: side", "+      - name: side"]),
        (("spec", "nothing"), REMOVED, []),
    ],
)  # fmt: skip
def test_a_change_touches_its_own_lines(
    path: tuple[str | int, ...], value: Any, difference: list[str]
) -> None:
    assert sorted(lines(TEXT, Change(path, value))) == sorted(difference)


def test_an_empty_value_and_a_file_of_windows() -> None:
    assert changed("a:\nb: 1\n", [Change(("a",), 3)]) == "a: 3\nb: 1\n"
    assert changed("a:\nb: 1\n", [Change(("a", "c"), "x")]) == "a:\n  c: x\nb: 1\n"
    assert changed("a: 1\r\nb: 2\r\n", [Change(("c",), {"d": 1})]) == "c:\r\n  d: 1\r\na: 1\r\nb: 2\r\n"


def test_json_stays_json() -> None:
    text = json.dumps({"spec": {"replicas": 1, "containers": [{"image": "a"}]}}, indent=2)
    changes = [
        Change(("spec", "replicas"), 2),
        Change(("spec", "containers", 0, "image"), "b"),
        Change(("metadata", "annotations", "k"), "yes"),
    ]
    new = changed(text, changes)
    assert json.loads(new) == applied(json.loads(text), changes)
    assert changed(new, [Change(("metadata",), REMOVED)]) != new


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a: &x {n: 1}\nb: *x\n", ("b", "n")),  # would also change a
        ("a: &x {n: 1}\nb: {<<: *x}\n", ("a", "n")),
        ("a: 1\n", ("a", 0)),
        ("a: [1]\n", ("a", 3)),
        ("a: 1\n---\nb: 1\n", ("a",)),
    ],
)
def test_what_cannot_be_changed_in_place_is_refused(text: str, path: tuple[str | int, ...]) -> None:
    with pytest.raises(CannotChange):
        changed(text, [Change(path, 2)])


def some(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random()
    if depth < 4 and kind < 0.4:
        return {chance.choice(("name", "x/y.z", "on", "1", "a b")): some(chance, depth + 1) for _ in range(3)}
    if depth < 4 and kind < 0.6:
        return [some(chance, depth + 1) for _ in range(chance.randrange(3))]
    return chance.choice(
        (1, True, None, "", "yes", "08", "a: b", "# no", "nginx:1", "two\nlines\n", " x", "é")
    )


LISTS = """\
spec:
  containers:
  # the first
  - name: a # comes first
    args: [x, y]
  - name: b # the second
    env: # variables
      - {name: A, value: "1"} # one
      # before B
      - name: B
        value: |
          two
"""


@pytest.mark.parametrize(
    ("change", "old", "new"),
    [
        (lambda c: c.pop(0), "  - name: a # comes first\n    args: [x, y]\n", ""),
        (lambda c: c[0]["args"].append("z"), "[x, y]", '[x, y, "z"]'),
        (lambda c: c[0]["args"].pop(0), "[x, y]", "[y]"),
        (lambda c: c[0]["args"].pop(1), "[x, y]", "[x]"),
        (lambda c: c[0]["args"].clear(), "[x, y]", "[]"),
        (lambda c: c[1]["env"].pop(0), '      - {name: A, value: "1"} # one\n', ""),
        (lambda c: c[1]["env"].pop(1), "      - name: B\n        value: |\n          two\n", ""),
        (
            lambda c: c[1]["env"].append({"name": "C", "value": "3"}),
            "          two\n",
            '          two\n      - name: C\n        value: "3"\n',
        ),
        (
            lambda c: c.append({"name": "c"}),
            "          two\n",
            "          two\n  - name: c\n",
        ),
        (lambda c: c[1]["env"][0].update(value="2"), '"1"} # one', '"2"} # one'),
    ],
)
def test_items_of_a_list_come_and_go_in_their_lines(
    change: Callable[[Any], object], old: str, new: str
) -> None:
    wanted = read(LISTS)
    change(wanted["spec"]["containers"])
    assert changed(LISTS, differences(read(LISTS), wanted, by_item=True)) == LISTS.replace(old, new)


def test_ports_of_one_number_and_two_protocols_keep_their_lines() -> None:
    text = "ports:\n- {port: 53, protocol: UDP}  # short questions\n- {port: 53}  # long ones\n"
    wanted = read(text)
    wanted["ports"][1]["name"] = "dns"
    wanted["ports"].append({"port": 80})
    assert changed(text, differences(read(text), wanted, by_item=True)) == (
        'ports:\n- {port: 53, protocol: UDP}  # short questions\n- {name: "dns", port: 53}  # long ones\n- port: 80\n'
    )


@pytest.mark.parametrize("by_item", [False, True])
@pytest.mark.parametrize("style", [False, None, True])
def test_any_document_becomes_any_other(style: bool | None, by_item: bool) -> None:
    """With comments between the lines: what the reader reads is what was wished, and the comments before keys stay."""
    chance = random.Random(17)
    for _ in range(120):
        old = {"spec": some(chance), "metadata": {"name": "web"}, "list": [some(chance)]}
        new = {"spec": some(chance), "metadata": {"name": "web"}, "list": [some(chance)]}
        text = yaml.safe_dump(old, default_flow_style=style, sort_keys=False, allow_unicode=True)
        if style is False:
            text = text.replace("\nmetadata:", "\n# kept\nmetadata:")
        old = read(text)
        made = changed(text, differences(old, read(yaml.safe_dump(new, sort_keys=False)), by_item=by_item))
        assert read(made) == read(yaml.safe_dump(new, sort_keys=False))
        assert style is not False or "# kept\n" in made


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_./-]*", fullmatch=True)
    | st.sampled_from(["on", "NO", "Null", "yEs", "y"])
)
def test_words_without_quotes_are_read_as_themselves(word: str) -> None:
    document = {word: word}
    (found,) = read_documents(dumped(document))
    assert isinstance(found, YamlDocument) and found.data == document

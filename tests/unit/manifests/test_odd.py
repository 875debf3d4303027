"""The loader with real manifests into which odd values are put at random: the result is documents or errors, never an
exception."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from kubelite.node.decide.unsupported import unsupported_fields
from manifests.types.core import Pod
from manifests.yaml.loader import KINDS, load_text
from tests.unit.manifests.test_corpus import golden

ODD: list[Any] = [
    None, "", 0, -1, 1, True, [], {}, [None], [[]], {"": ""}, {"a": None}, "\0", "x" * 300, "é" * 64, 10**30, -(10**30),
    1e308, float("inf"), float("nan"), 1.5, "1e400", "9" * 400, "-0", "0x10", 2**63, 2**31, "٣", "\u202e", "a\nb",
    "$(A)", "../x", "/", "//", "~", "NaN", "1Ei1", "1e-9999999", "1E99999999999", ["a"] * 50,
]  # fmt: skip
BREAKS = [
    "\t",
    "\ufeff",
    "\r",
    "\0",
    "{",
    "&a",
    "*a",
    "---\n",
    "!!python/x",
    "\x85",
    "'",
    "<<: *a",
    "?",
    "\U0001f600",
]
CASES = 1000


def documents() -> list[dict[str, Any]]:
    found = [entry["json"] for entries in golden().values() for entry in entries if entry.get("json")]
    return [
        d for d in found if isinstance(d, dict) and (str(d.get("apiVersion")), str(d.get("kind"))) in KINDS
    ]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) in a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield value, key
        yield from places(inner)


def mutated(dice: random.Random, document: dict[str, Any]) -> str:
    """The text of a document with up to three changes, and now and then one in the text itself."""
    document = copy.deepcopy(document)
    for _ in range(dice.choice([1, 1, 2, 3])):
        if not (found := list(places(document))):
            break
        holder, key = dice.choice(found)
        match dice.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case 2 if isinstance(holder, dict):
                holder[dice.choice(["", "é", "a b", "\n", "kind", *holder])] = dice.choice(ODD)
            case 3:
                other, name = dice.choice(found)
                holder[key] = copy.deepcopy(other[name])
            case _:
                holder[key] = copy.deepcopy(dice.choice(ODD))
    text = json.dumps(document) if dice.random() < 0.5 else str(yaml.safe_dump(document))
    if dice.random() < 0.2:
        at = dice.randrange(len(text) + 1)
        text = text[:at] + dice.choice(BREAKS) + text[at:]
    return text.replace("\n", "\r\n") if dice.random() < 0.1 else text


@pytest.mark.parametrize("seed", range(3))
def test_odd_values_are_documents_or_clean_errors(seed: int) -> None:
    given = documents()
    for number in range(CASES):
        dice = random.Random(f"{seed}:{number}")
        text = mutated(dice, dice.choice(given))
        loaded = load_text(text, file="odd.yaml")
        for error in loaded.errors:
            assert str(error).startswith("odd.yaml"), (seed, number)
        for document in loaded.documents:
            assert json.dumps(document.obj.to_json(), allow_nan=False), (seed, number)
            if isinstance(document.obj, Pod):
                unsupported_fields(document.obj)

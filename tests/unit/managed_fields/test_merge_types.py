"""The tables of merges name types and fields that exist."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from kubelite.managed_fields.merge_types import (
    ATOMIC_MAPS,
    ATOMIC_STRUCTS,
    GRANULAR_FIELDS,
    KEY_DEFAULTS,
    KEYED_LISTS,
    SETS,
)
from kubelite.managed_fields.schema import LEAF, KeyedList, SetList, Struct, of_kind
from manifests.types.meta import Model
from manifests.yaml.loader import KINDS


def models(annotation: Any, found: dict[str, type[Model]]) -> None:
    """Collect the types of an annotation, and of their fields, by name."""
    if isinstance(annotation, type) and issubclass(annotation, Model) and annotation.__name__ not in found:
        found[annotation.__name__] = annotation
        for field in annotation.model_fields.values():
            models(field.annotation, found)
    for argument in typing.get_args(annotation):
        models(argument, found)


def all_models() -> dict[str, type[Model]]:
    found: dict[str, type[Model]] = {}
    for kind in KINDS.values():
        models(kind, found)
    return found


MODELS = all_models()


def wires(name: str) -> set[str]:
    return {field.alias or key for key, field in MODELS[name].model_fields.items()}


def places() -> Iterator[tuple[str, str]]:
    yield from (*KEYED_LISTS, *SETS, *ATOMIC_MAPS, *GRANULAR_FIELDS)


def test_each_type_and_field_exists() -> None:
    assert MODELS.keys() >= ATOMIC_STRUCTS
    assert not [place for place in places() if place[1] not in wires(place[0])]


def test_each_key_is_a_field_of_the_items() -> None:
    for (name, field), keys in KEYED_LISTS.items():
        node = of_kind(MODELS[name]).field(field)
        assert isinstance(node, KeyedList)
        if node.item != LEAF:
            assert isinstance(node.item, Struct)
            assert all(node.item.field(key) is not None for key in keys), (name, field)
        assert keys[0] not in KEY_DEFAULTS  # an item is identified by something that it says


def test_what_the_tables_say_is_what_the_trees_have() -> None:
    assert all(isinstance(of_kind(MODELS[name]).field(field), SetList) for name, field in SETS)
    assert all(of_kind(MODELS[name]).field(field) == LEAF for name, field in ATOMIC_MAPS)
    for name, field in GRANULAR_FIELDS:
        assert isinstance(of_kind(MODELS[name]).field(field), Struct)

"""How the values of a kind are merged: the tree of its types, made from those that parse manifests. Pure.

A tree is made when it is first asked for, one type at a time. A node that nobody applies to has none.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from kubelite.managed_fields.merge_types import (
    ATOMIC_MAPS,
    ATOMIC_STRUCTS,
    GRANULAR_FIELDS,
    KEYED_LISTS,
    SETS,
)
from manifests.types.meta import Model


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar, or what is replaced as a whole."""


@dataclass(frozen=True, slots=True)
class Untyped:
    """A value without a type of its own: an object is a map, all else a leaf."""


@dataclass(frozen=True, slots=True)
class Struct:
    """`always`: the field is written even if it is empty, because it is no pointer in Go."""

    model: type[Model]
    always: bool = False

    def field(self, name: str) -> Node | None:
        return _fields(self.model).get(name)


@dataclass(frozen=True, slots=True)
class Map:
    value: Node


@dataclass(frozen=True, slots=True)
class KeyedList:
    keys: tuple[str, ...]
    item: Node


@dataclass(frozen=True, slots=True)
class SetList:
    """A list whose items are identified by their value."""


Node = Leaf | Untyped | Struct | Map | KeyedList | SetList

LEAF, UNTYPED = Leaf(), Untyped()


def of_kind(model: type[Model]) -> Struct:
    """Return the tree of a kind."""
    return Struct(model)


@cache
def _fields(model: type[Model]) -> Mapping[str, Node]:
    return {
        (wire := field.alias or name): _of_field((model.__name__, wire), field.annotation)
        for name, field in model.model_fields.items()
    }


def _of_field(place: tuple[str, str], annotation: Any) -> Node:
    """`place`: the name of the type, and of its field."""
    inner, optional = _plain(annotation)
    origin, arguments = typing.get_origin(inner), typing.get_args(inner)
    if origin is list:
        if place in KEYED_LISTS:
            return KeyedList(KEYED_LISTS[place], _of_value(arguments[0]))
        return SetList() if place in SETS else LEAF
    if origin is dict:
        return LEAF if place in ATOMIC_MAPS else Map(_of_value(arguments[1]))
    if isinstance(inner, type) and issubclass(inner, Model):
        atomic = inner.__name__ in ATOMIC_STRUCTS and place not in GRANULAR_FIELDS
        return LEAF if atomic else Struct(inner, always=not optional)
    return _of_value(inner)


def _of_value(annotation: Any) -> Node:
    """Return the node of an item or a map's value."""
    inner, _ = _plain(annotation)
    if inner is Any:
        return UNTYPED
    if isinstance(inner, type) and issubclass(inner, Model):
        return LEAF if inner.__name__ in ATOMIC_STRUCTS else Struct(inner)
    if typing.get_origin(inner) is dict:
        return Map(_of_value(typing.get_args(inner)[1]))
    return LEAF


def _plain(annotation: Any) -> tuple[Any, bool]:
    """Return an annotation without Annotated and None, and whether it had None."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _plain(arguments[0])
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in arguments if part is not type(None)]
        optional = len(parts) < len(arguments)
        return (_plain(parts[0])[0] if len(parts) == 1 else str), optional
    return annotation, False

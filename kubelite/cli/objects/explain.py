"""`kubelite explain`: describe the fields of a manifest by path, from the models that parse manifests."""

from __future__ import annotations

import textwrap
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import nearest, resource_type
from kubelite.cli.options import complete_types, socket_option

WIDTH = 80


@click.command(
    "explain",
    cls=Command,
    examples="""
    # Describe the fields of a pod
    kubelite explain pod

    # Describe one field
    kubelite explain pod.spec.containers.livenessProbe

    # List the names of all fields
    kubelite explain pod.spec --recursive
    """,
)
@click.argument("what", nargs=-1, metavar="TYPE[.FIELD...]", shell_complete=complete_types)
@click.option("--recursive", is_flag=True, help="Only list the names of all fields, at all levels.")
@socket_option
def explain(what: tuple[str, ...], recursive: bool) -> None:
    """Describe the fields of a manifest.

    Shows name, type and effect of each field on this node.
    """
    if len(what) != 1:
        raise CliError("error: specify one TYPE, or TYPE.FIELD: kubelite explain pod.spec", code=2)
    kind, *path = what[0].rstrip(".").split(".")
    print(explanation(kind, path, recursive=recursive), end="")


class Value(NamedTuple):
    """A field's type: as kubectl writes it, and its model if it is an object (or a list of objects)."""

    shown: str
    model: Any = None


class Entry(NamedTuple):
    """A field of a model."""

    name: str
    value: Value
    required: bool
    words: str


def explanation(kind: str, path: list[str], *, recursive: bool = False) -> str:
    """Return the text in kubectl's layout. Raises CliError for an unknown type or field."""
    from manifests.types.workloads.descriptions import kind_description

    model = _model(kind)
    out = [f"KIND:       {model.__name__}", f"VERSION:    {model.model_fields['api_version'].default}", ""]
    entry, inside = None, model
    for number, name in enumerate(path):
        known = {found.name: found for found in fields_of(inside)} if inside is not None else {}
        if name not in known:
            where = ".".join([kind, *path[:number]])
            raise CliError(f'error: field "{name}" does not exist in {where}{nearest(name, known)}')
        entry = known[name]
        inside = entry.value.model
    if entry is not None:
        out += [_line(entry, "FIELD: "), ""]
    out += [
        "DESCRIPTION:",
        *_wrapped(entry.words if entry else kind_description(model.__name__), "    "),
        "",
    ]
    if inside is not None:
        out += ["FIELDS:", *(_names(inside, "  ", ()) if recursive else _listed(inside))]
    return "\n".join(out).rstrip() + "\n"


def _model(kind: str) -> Any:
    from manifests.yaml.loader import KINDS

    singular = resource_type(kind).singular
    for (_, name), model in KINDS.items():
        if name.lower() == singular:
            return model
    known = ", ".join(name.lower() for _, name in KINDS)
    raise CliError(f"error: {singular} is not a supported kind of manifest; the supported kinds are {known}")


def fields_of(model: Any) -> Iterator[Entry]:
    """Yield the fields of a model, sorted by their names in manifests."""
    from manifests.types.workloads.descriptions import field_description

    found = ((field.alias or key, field) for key, field in model.model_fields.items())
    for wire, field in sorted(found):
        words = field_description(model.__name__, wire)
        yield Entry(wire, value_of(field.annotation), field.is_required(), words)


def value_of(annotation: Any) -> Value:
    """Return the type that a model field's annotation describes."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return value_of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in arguments if part is not type(None)]
        return value_of(parts[0]) if len(parts) == 1 else Value("IntOrString")
    if origin is list:
        item = value_of(arguments[0])
        return Value(f"[]{item.shown}", item.model)
    if origin is dict:
        return Value(f"map[string]{value_of(arguments[1]).shown}")
    if hasattr(annotation, "model_fields"):
        return Value(annotation.__name__, annotation)
    return Value(_PLAIN.get(annotation, "string" if origin is typing.Literal else annotation.__name__))


_PLAIN: dict[Any, str] = {
    str: "string",
    int: "integer",
    bool: "boolean",
    float: "number",
    typing.Any: "Object",
}


def _line(entry: Entry, lead: str) -> str:
    return f"{lead}{entry.name}\t<{entry.value.shown}>" + " -required-" * entry.required


def _listed(model: Any) -> Iterator[str]:
    for entry in fields_of(model):
        yield _line(entry, "  ")
        yield from _wrapped(entry.words, "    ")
        yield ""


def _names(model: Any, indent: str, above: tuple[Any, ...]) -> Iterator[str]:
    for entry in fields_of(model):
        yield _line(entry, indent)
        if entry.value.model is not None and entry.value.model not in above:
            yield from _names(entry.value.model, indent + "  ", (*above, model))


def _wrapped(words: str, indent: str) -> list[str]:
    return textwrap.wrap(words, WIDTH, initial_indent=indent, subsequent_indent=indent)

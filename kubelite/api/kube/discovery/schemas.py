"""OpenAPI schemas of the kinds, made from the types that parse manifests. Pure.

kubectl shows them (`explain`) and learns from the paths that the server validates fields and knows dry run. The form is
that of kube-openapi (pkg/common, pkg/builder3); names of types have the module in place of Kubernetes' package.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Any

from kubelite.kube.json import Json
from manifests.types.meta import Model, Object

REFERENCE = "#/components/schemas/"
_PLAIN: dict[Any, Json] = {
    str: {"type": "string"},
    int: {"type": "integer", "format": "int64"},
    bool: {"type": "boolean"},
    float: {"type": "number", "format": "double"},
    Any: {"type": "object"},
}


def schema_name(model: type[Model]) -> str:
    return f"io.k8s.{model.__module__.rpartition('.')[2]}.{model.__name__}"


def schemas(kinds: dict[tuple[str, str], type[Object]]) -> Json:
    """Return the schemas of kinds (apiVersion and kind → type), and of all types in them, by name."""
    found: Json = {}
    waiting: list[type[Model]] = list(kinds.values())
    while waiting:
        model = waiting.pop()
        name = schema_name(model)
        if name in found:
            continue
        found[name] = _of_model(model)
        waiting += _models(model)
    for (version, kind), model in kinds.items():
        group, _, last = version.rpartition("/")
        identity = {"group": group, "version": last, "kind": kind}
        found[schema_name(model)]["x-kubernetes-group-version-kind"] = [identity]
    return found


def _of_model(model: type[Model]) -> Json:
    from kubelite.managed_fields.merge_types import ATOMIC_STRUCTS
    from manifests.types.workloads.descriptions import field_description, kind_description

    properties: Json = {}
    required = []
    for key, field in sorted(model.model_fields.items(), key=lambda item: item[1].alias or item[0]):
        wire = field.alias or key
        schema = {**_of(field.annotation), **_merged(model.__name__, wire, field.annotation)}
        properties[wire] = _described(schema, field_description(model.__name__, wire))
        if field.is_required():
            required.append(wire)
    found: Json = {"type": "object", "properties": properties}
    if model.__name__ in ATOMIC_STRUCTS:
        found["x-kubernetes-map-type"] = "atomic"
    if words := kind_description(model.__name__):
        found["description"] = words
    if required:
        found["required"] = required
    return found


def _merged(model: str, wire: str, annotation: Any) -> Json:
    """Return how server-side apply merges a list or a map (kube-openapi pkg/generators: extensions)."""
    from kubelite.managed_fields.merge_types import ATOMIC_MAPS, KEYED_LISTS, SETS

    place = (model, wire)
    if keys := KEYED_LISTS.get(place):
        return {"x-kubernetes-list-map-keys": [*keys], "x-kubernetes-list-type": "map"}
    if place in SETS:
        return {"x-kubernetes-list-type": "set"}
    if place in ATOMIC_MAPS:
        return {"x-kubernetes-map-type": "atomic"}
    return {"x-kubernetes-list-type": "atomic"} if _of(annotation).get("type") == "array" else {}


def _described(schema: Json, words: str) -> Json:
    if not words:
        return schema
    if "$ref" in schema:  # nothing beside a reference counts
        return {"description": words, "allOf": [schema], "default": {}}
    return {"description": words, **schema}


def _of(annotation: Any) -> Json:
    """Return the schema of a field's annotation."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _of(arguments[0])
    if origin in (typing.Union, types.UnionType):
        parts = [part for part in arguments if part is not type(None)]
        return _of(parts[0]) if len(parts) == 1 else {"type": "string", "format": "int-or-string"}
    if origin is list:
        return {"type": "array", "items": _of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of(arguments[1])}
    if origin is typing.Literal:
        return {"type": "string"}
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return {"$ref": REFERENCE + schema_name(annotation)}
    return dict(_PLAIN.get(annotation, {"type": "string"}))


def _models(model: type[Model]) -> Iterator[type[Model]]:
    """Yield the types of a type's fields."""
    for field in model.model_fields.values():
        yield from _inside(field.annotation)


def _inside(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _inside(argument)

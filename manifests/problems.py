"""What can be wrong with an object: a field path and a sentence, from pydantic's errors or our own rules.

The wording follows the API server (apimachinery's field.Error: `Required value`, `Invalid value: …: …`, …) and adds a
next step where one is known. This module knows no YAML; the loader adds the lines.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]

# Fields whose keys are chosen by the user: the API writes limits[cpu], not limits.cpu.
_MAPS = frozenset(
    [
        "annotations",
        "labels",
        "matchLabels",
        "nodeSelector",
        "limits",
        "requests",
        "overhead",
        "data",
        "stringData",
        "binaryData",
        "volumeAttributes",
        "userAnnotations",
        "allocatedResources",
        "options",
        "hard",
        "used",
        "max",
        "min",
        "default",
        "defaultRequest",
        "maxLimitRequestRatio",
    ]
)


_SHOWN = 12  # allowed values that a message lists


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong: `path` from the object's root (JSON names and indexes) and a sentence."""

    path: Path
    message: str

    @property
    def field(self) -> str:
        return field_path(self.path)

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.path else self.message


class InvalidObject(ValueError):
    """An object that does not match its kind. `problems` lists everything that is wrong."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def field_path(path: Path) -> str:
    """("spec", "containers", 0, "image") → spec.containers[0].image"""
    text = ""
    inside_map = False
    for part in path:
        if isinstance(part, int) or inside_map:
            text += f"[{part}]"
            inside_map = False
        else:
            text += f".{part}" if text else part
            inside_map = part in _MAPS
    return text


def required(path: Path, detail: str = "") -> Problem:
    return Problem(path, f"Required value: {detail}" if detail else "Required value")


def invalid(path: Path, value: object, detail: str) -> Problem:
    return Problem(path, f"Invalid value: {_go(value)}: {detail}")


def duplicate(path: Path, value: object) -> Problem:
    return Problem(path, f"Duplicate value: {_go(value)}")


def forbidden(path: Path, detail: str) -> Problem:
    return Problem(path, f"Forbidden: {detail}")


def not_supported(path: Path, value: str, allowed: Iterable[str]) -> Problem:
    """Write `Unsupported value: "Allways": supported values: "Always", …`, with a suggestion if one is near."""
    names = sorted(allowed)
    listed = ", ".join(f'"{name}"' for name in names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return Problem(
        path, f"Unsupported value: {_go(value)}: supported values: {listed}{did_you_mean(value, names)}"
    )


def not_found(path: Path, value: object) -> Problem:
    return Problem(path, f"Not found: {_go(value)}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Write `, did you mean "image"?`, or nothing if no known word is near."""
    names = list(known)
    by_fold = {name.lower().replace("_", "").replace("-", ""): name for name in names}
    near = by_fold.get(word.lower().replace("_", "").replace("-", ""))
    if near is None:
        from difflib import get_close_matches  # imported only if something is wrong

        close = get_close_matches(word.lower(), [name.lower() for name in names], n=1, cutoff=0.7)
        near = next((name for name in names if close and name.lower() == close[0]), None)
    return f', did you mean "{near}"?' if near and near != word else ""


def problems_of(error: "ValidationError", root: "type[BaseModel]") -> list[Problem]:
    """Turn every pydantic error into a Problem, in the order of the object's fields."""
    return [_problem(item, root) for item in error.errors(include_url=False, include_context=True)]


def _problem(item: Any, root: "type[BaseModel]") -> Problem:
    kind, value = item["type"], item["input"]
    path: Path = tuple(part for part in item["loc"] if part != "[key]")
    if kind == "extra_forbidden":
        return Problem(path, f"unknown field{_field_hint(root, path)}")
    if kind == "missing":
        return required(path)
    return Problem(path, _type_message(kind, value, item))


def _type_message(kind: str, value: object, item: Any) -> str:
    match kind:
        case "string_type" if isinstance(
            value, bool
        ):  # the parser does not tell which of the words was written
            words = "y, n, yes, no, on, off, true or false"
            return f"must be a string: put it in quotes (YAML reads a bare {words} as a boolean)"
        case "string_type" if isinstance(value, int | float):
            return f"must be a string: put it in quotes, like {json.dumps(_plain(value))}"
        case "string_type":
            return f"must be a string, got {_kind_of(value)}"
        case "int_type" | "int_from_float" | "int_parsing" if _is_number(value):
            return f"must be an integer: remove the quotes around {value}"
        case "int_type" | "int_from_float" | "int_parsing":
            return f"must be an integer, got {_kind_of(value)}"
        case "greater_than_equal" | "less_than_equal" | "int_parsing_size":
            return f"Invalid value: {_go(value)}: does not fit the field's integer type"
        case "bool_type" | "bool_parsing" if str(value).lower() in ("true", "false"):
            return f"must be true or false: remove the quotes around {value}"
        case "bool_type" | "bool_parsing":
            return f"must be true or false, got {_kind_of(value)}"
        case "list_type" if isinstance(value, str):
            return f"must be a list, got a string: write [{json.dumps(value)}]"
        case "list_type":
            return f"must be a list, got {_kind_of(value)}"
        case "model_type" | "dict_type" | "model_attributes_type" | "dataclass_type":
            return f"must be a map of fields, got {_kind_of(value)}"
        case _:
            return str(item["msg"])


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, str) and value.strip().lstrip("+-").isdigit()


def _kind_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the string {json.dumps(value)}" if len(value) <= 60 else "a string"
    if isinstance(value, bool | int | float):
        return _plain(value)
    return "a list" if isinstance(value, list) else "a map"


def _go(value: object) -> str:
    """Format a value as Go does in a field.Error: a string by %q, a number by %v, anything else as JSON."""
    if isinstance(value, dict | list) or value is None:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _plain(value)


def _field_hint(root: "type[BaseModel]", path: Path) -> str:
    """Suggest a correction of the unknown field at `path`: a similar name here, or the same name elsewhere."""
    here = model_at(root, path[:-1])
    name = path[-1]
    if here is None or not isinstance(name, str):
        return ""
    near = did_you_mean(name, fields_by_alias(here))
    if near:
        return near
    for depth in range(len(path) - 2, -1, -1):  # indented too deep: the field belongs to a parent
        above = model_at(root, path[:depth])
        if above is not None and name in fields_by_alias(above):
            where = field_path(path[:depth])
            return f": it is a field of {where or 'the object itself'}: check the indentation"
    for child, model in _children(here):  # not indented enough: the field belongs to a child
        if name in fields_by_alias(model):
            return f": it is a field of {field_path((*path[:-1], child))}: check the indentation"
    return ""


def fields_by_alias(model: "type[BaseModel]") -> dict[str, Any]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def model_at(root: "type[BaseModel]", path: Path) -> "type[BaseModel] | None":
    """Return the model class of the value at `path`, or of its items if it is a list or a map."""
    model: type[BaseModel] | None = root
    for part in path:
        if model is None or isinstance(part, int):
            continue  # an index: `model` is the items' class already
        field = fields_by_alias(model).get(part)
        model = next(models_in(field.annotation), None) if field is not None else None
    return model


def _children(model: "type[BaseModel]") -> Iterator[tuple[str, "type[BaseModel]"]]:
    for alias, field in fields_by_alias(model).items():
        for child in models_in(field.annotation):
            yield (f"{alias}[]" if "list" in str(field.annotation) else alias), child


def models_in(annotation: Any) -> Iterator["type[BaseModel]"]:
    """Yield the model classes in an annotation: itself, or those inside its list, map, union or Optional."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        yield annotation
        return
    for inner in get_args(annotation):
        yield from models_in(inner)

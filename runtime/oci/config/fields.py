"""Read one typed field of a JSON document. Every failure is a SpecError with the field's path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from runtime.errors import SpecError
from runtime.oci.config import shape

MAX_ID: Final = (1 << 32) - 2  # the kernel takes (uid_t)-1 as "leave unchanged"


def fail(field: str, message: str) -> NoReturn:
    raise SpecError(f"{field}: {message}")


def object_(holder: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """holder[key] as an object; {} if missing or null. Another type is a SpecError that names the field (`where` +
    key)."""
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        fail(f"{where}{key}", f"must be an object, not {type(value).__name__}")
    return value


def array(holder: Mapping[str, Any], key: str, where: str, of: type) -> list[Any]:
    """holder[key] as a list of `of`; [] if missing or null. Another type is a SpecError that names the field or
    item."""
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        fail(f"{where}{key}", f"must be an array, not {type(value).__name__}")
    if of is str and shape.all_text(value):
        return value
    for index, item in enumerate(value):
        if not isinstance(item, of) or isinstance(item, bool):
            fail(f"{where}{key}[{index}]", f"must be {_NAMES[of]}, not {type(item).__name__}")
        if isinstance(item, str):
            shape.text(item, f"{where}{key}[{index}]")
    return value


_NAMES: Final[dict[type, str]] = {str: "a string", int: "an integer", dict: "an object"}


def string(holder: Mapping[str, Any], key: str, where: str, *, default: str = "") -> str:
    """holder[key] as a string; `default` if missing or null. Another type or a NUL byte is a SpecError that names the
    field."""
    value = holder.get(key)
    if value is None:
        return default
    if not isinstance(value, str):
        fail(f"{where}{key}", f"must be a string, not {type(value).__name__}")
    shape.text(value, f"{where}{key}")
    return value


def integer(holder: Mapping[str, Any], key: str, where: str, low: int, high: int, *, default: int = 0) -> int:
    """holder[key] as an integer in `low` … `high` (inclusive); `default` if missing or null. Otherwise a SpecError that
    names the field."""
    value = holder.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        fail(f"{where}{key}", f"must be an integer, not {type(value).__name__}")
    if not low <= value <= high:
        fail(f"{where}{key}", f"{value} is not within {low} … {high}")
    return value


def boolean(holder: Mapping[str, Any], key: str, where: str) -> bool:
    """holder[key] as a boolean; False if missing or null. Another type is a SpecError that names the field."""
    value = holder.get(key)
    if value is not None and not isinstance(value, bool):
        fail(f"{where}{key}", f"must be true or false, not {type(value).__name__}")
    return bool(value)


def absolute(path: str, field: str) -> None:
    if not path.startswith("/"):
        fail(field, f"{path!r} is not an absolute path")

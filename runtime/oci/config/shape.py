"""The types of the nested parts of config.json, as tables: `linux.resources`, `linux.seccomp`, and the parts of
`process` that are only passed on (config-linux.md "Control groups" and "Seccomp"; config.md "Scheduler", "IOPriority").

The code that passes these values to the kernel need not check types again. A value of the wrong type is reported with
its field's name before anything is created. Unknown keys are ignored ("Extensibility").
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, NoReturn

from runtime.errors import SpecError


class Range(NamedTuple):
    """An integer in low … high, inclusive."""

    low: int
    high: int


class Each(NamedTuple):
    """An object with arbitrary keys; each value has this shape."""

    shape: Any


class Needs(NamedTuple):
    """An object with required keys."""

    keys: tuple[str, ...]
    shape: Mapping[str, Any]


I64: Final = Range(-(1 << 63), (1 << 63) - 1)
U64: Final = Range(0, (1 << 64) - 1)
U32: Final = Range(0, (1 << 32) - 1)
U16: Final = Range(0, (1 << 16) - 1)

# A shape is bool, str, a Range, [shape] (an array of it), a mapping from keys to shapes, Needs or Each.
_RATES: Final = [Needs(("major", "minor", "rate"), {"major": I64, "minor": I64, "rate": U64})]
RESOURCES: Final[Mapping[str, Any]] = {
    "memory": {
        **dict.fromkeys(("limit", "reservation", "swap", "kernel", "kernelTCP"), I64),
        "swappiness": Range(0, 100),
        **dict.fromkeys(("disableOOMKiller", "useHierarchy", "checkBeforeUpdate"), bool),
    },
    "cpu": {
        **dict.fromkeys(("shares", "period", "burst", "realtimePeriod"), U64),
        **dict.fromkeys(("quota", "realtimeRuntime", "idle"), I64),
        **dict.fromkeys(("cpus", "mems"), str),
    },
    "pids": {"limit": I64},
    "blockIO": {
        **dict.fromkeys(("weight", "leafWeight"), U16),
        "weightDevice": [
            Needs(("major", "minor"), {"major": I64, "minor": I64, "weight": U16, "leafWeight": U16})
        ],
        "throttleReadBpsDevice": _RATES,
        "throttleWriteBpsDevice": _RATES,
        "throttleReadIOPSDevice": _RATES,
        "throttleWriteIOPSDevice": _RATES,
    },
    "hugepageLimits": [Needs(("pageSize", "limit"), {"pageSize": str, "limit": U64})],
    "network": {
        "classID": U32,
        "priorities": [Needs(("name", "priority"), {"name": str, "priority": U32})],
    },
    "rdma": Each({"hcaHandles": U32, "hcaObjects": U32}),
    "unified": Each(str),
    "devices": [{"allow": bool, "type": str, "access": str, "major": I64, "minor": I64}],
}
SECCOMP: Final = Needs(
    ("defaultAction",),
    {
        "defaultAction": str,
        "defaultErrnoRet": U32,
        "architectures": [str],
        "flags": [str],
        "listenerPath": str,
        "listenerMetadata": str,
        "syscalls": [
            Needs(
                ("names", "action"),
                {
                    "names": [str],
                    "action": str,
                    "errnoRet": U32,
                    "args": [
                        Needs(
                            ("index", "value", "op"), {"index": U32, "value": U64, "valueTwo": U64, "op": str}
                        )
                    ],
                },
            )
        ],
    },
)
SCHEDULER: Final[Mapping[str, Any]] = {
    "policy": str,
    "nice": Range(-(1 << 31), (1 << 31) - 1),
    "priority": Range(-(1 << 31), (1 << 31) - 1),
    "flags": [str],
    **dict.fromkeys(("runtime", "deadline", "period"), U64),
}
IO_PRIORITY: Final[Mapping[str, Any]] = {"class": str, "priority": Range(-(1 << 31), (1 << 31) - 1)}
_KINDS: Final[Mapping[type, str]] = {str: "a string", bool: "true or false", list: "an array"}


def check(value: Any, shape: Any, where: str) -> None:
    """Check `value` against `shape`. Raises SpecError that names the field.

    A missing value (None, JSON null) is valid unless Needs requires it, as in Go's JSON.
    """
    if value is None:
        return
    if isinstance(shape, Range):
        _integer(value, shape, where)
    elif isinstance(shape, list):
        if shape[0] is str and isinstance(value, list) and all_text(value):
            return
        for index, item in enumerate(_typed(value, list, where)):
            if item is None:
                _fail(f"{where}[{index}]", "must not be null")
            check(item, shape[0], f"{where}[{index}]")
    elif isinstance(shape, type):
        _typed(value, shape, where)
    else:
        _object(value, shape, where)


def parse(raw: bytes, name: str) -> Any:
    """Parse JSON and drop null members, which callers written in Go use for absent fields.

    Raises SpecError that begins with `name`.
    """
    try:
        made = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{name} is not JSON: {error}") from error
    if b"null" in raw and isinstance(made, dict):
        _drop_nulls(made)
    return made


def _drop_nulls(value: dict[str, Any] | list[Any]) -> None:
    """Remove all keys with null from an object and from all objects nested in it. Array items that are null stay."""
    if isinstance(value, dict):
        nulls = [key for key, item in value.items() if item is None]
        for key in nulls:
            del value[key]
        items: Any = value.values()
    elif value and isinstance(value[0], str):  # the other items are strings too, or are rejected later
        return
    else:
        items = value
    for item in items:
        if isinstance(item, dict | list) and item:
            _drop_nulls(item)


def _object(value: Any, shape: Any, where: str) -> None:
    if not isinstance(value, dict):
        _fail(where, f"must be an object, not {type(value).__name__}")
    if isinstance(shape, Each):
        for key, item in value.items():
            text(key, where)
            if item is None:
                _fail(f"{where}.{key}", "must not be null")
            check(item, shape.shape, f"{where}.{key}")
        return
    if isinstance(shape, Needs):
        for key in shape.keys:
            if value.get(key) is None:
                _fail(f"{where}.{key}", "is required")
        shape = shape.shape
    for key, item in value.items():
        if (inner := shape.get(key)) is not None:
            check(item, inner, f"{where}.{key}")


def _integer(value: Any, span: Range, where: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        _fail(where, f"must be an integer, not {type(value).__name__}")
    if not span.low <= value <= span.high:
        _fail(where, f"{value} is not within {span.low} … {span.high}")


def _typed(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind):
        _fail(where, f"must be {_KINDS[kind]}, not {type(value).__name__}")
    if isinstance(value, str):
        text(value, where)
    return value


def text(value: str, where: str) -> None:
    """Check that the kernel can take the string: it has no NUL byte and no lone surrogate, which has no UTF-8
    encoding."""
    if "\0" in value:
        _fail(where, "contains a NUL byte")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            _fail(where, "is not valid text: it contains half of a surrogate pair")


def all_text(values: list[Any]) -> bool:
    """Whether all values are plain ASCII strings without NUL. This check is fast: a seccomp profile has hundreds of
    names, checked at each start."""
    try:
        joined = "".join(values)
    except TypeError:
        return False
    return joined.isascii() and "\0" not in joined


def _fail(where: str, message: str) -> NoReturn:
    raise SpecError(f"{where}: {message}")

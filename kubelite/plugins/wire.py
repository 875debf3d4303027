"""Protocol buffers' wire format (https://protobuf.dev/programming-guides/encoding/), for the few messages that plugins
and the node exchange.

A message is a frozen dataclass whose fields are made by `number`. Google's library would do the same for 5 MB of the
daemon's memory. This does what the messages of kubelet's plugin APIs need: strings, booleans, integers, messages, lists
of these, and maps of strings.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterator, Mapping
from types import NoneType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WORD = 1 << 64

M = TypeVar("M")


class WireError(ValueError):
    """The bytes are not the message that they should be."""


def number(field: int, default: Any = dataclasses.MISSING) -> Any:
    """Return the field of a message with this number. Without a default, it is an empty map."""
    if default is dataclasses.MISSING:
        return dataclasses.field(default_factory=dict, metadata={"number": field})
    return dataclasses.field(default=default, metadata={"number": field})


class _Field(NamedTuple):
    name: str
    number: int
    kind: Any  # str, bool, int, or the class of a message
    repeated: bool = False
    map: bool = False


_KNOWN: dict[type, tuple[_Field, ...]] = {}


def _fields(message: Any) -> tuple[_Field, ...]:
    if message not in _KNOWN:
        hints = get_type_hints(message)
        _KNOWN[message] = tuple(_field(one, hints[one.name]) for one in dataclasses.fields(message))
    return _KNOWN[message]


def _field(one: dataclasses.Field[Any], hint: Any) -> _Field:
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return _Field(one.name, one.metadata["number"], arguments[0], repeated=True)
    if get_origin(hint) is Mapping:
        return _Field(one.name, one.metadata["number"], str, map=True)
    kind = next((found for found in arguments if found is not NoneType), hint)  # a message, or None
    return _Field(one.name, one.metadata["number"], kind)


# -- writing ------------------------------------------------------------------------------------------------------


def encode(message: Any) -> bytes:
    """Return the bytes of a message. Fields with the default value are left out."""
    out = bytearray()
    for field in _fields(type(message)):
        value = getattr(message, field.name)
        if field.map:
            for key, one in value.items():
                _put_bytes(out, field.number, _entry(key, one))
        elif field.repeated and field.kind in (int, bool):
            if value:
                _put_bytes(out, field.number, b"".join(_varint(one) for one in value))
        elif field.repeated:
            for one in value:
                _put(out, field, one)
        elif value is not None and value not in ("", 0, False):
            _put(out, field, value)
    return bytes(out)


def _entry(key: str, value: str) -> bytes:
    out = bytearray()
    _put_bytes(out, 1, key.encode())
    _put_bytes(out, 2, value.encode())
    return bytes(out)


def _put(out: bytearray, field: _Field, value: Any) -> None:
    if field.kind is str:
        _put_bytes(out, field.number, value.encode())
    elif field.kind in (int, bool):
        out += _varint(field.number << 3 | _VARINT) + _varint(int(value))
    else:
        _put_bytes(out, field.number, encode(value))


def _put_bytes(out: bytearray, number: int, data: bytes) -> None:
    out += _varint(number << 3 | _BYTES) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value %= _WORD  # a negative number is sent as its two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# -- reading ------------------------------------------------------------------------------------------------------


def decode(data: bytes, message: type[M]) -> M:
    """Return the message in these bytes. Fields that it does not know are skipped. Raises WireError."""
    known = {field.number: field for field in _fields(message)}
    found: dict[str, Any] = {}
    for tag, wire, value in _values(data):
        field = known.get(tag)
        if field is None:
            continue
        if field.map:
            key, text = _pair(_bytes(value, wire))
            found.setdefault(field.name, {})[key] = text
        elif field.repeated:
            found.setdefault(field.name, []).extend(_several(field, wire, value))
        else:
            found[field.name] = _one(field, wire, value)
    return message(**{name: tuple(one) if isinstance(one, list) else one for name, one in found.items()})


def _values(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Yield the number, the wire type and the raw value of each field."""
    position = 0
    while position < len(data):
        tag, position = _number(data, position)
        wire, length = tag & 7, 0
        if wire == _VARINT:
            value, position = _number(data, position)
            yield tag >> 3, wire, value
            continue
        if wire == _BYTES:
            length, position = _number(data, position)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise WireError(f"field {tag >> 3} has the unknown wire type {wire}")
        if length > len(data) - position:
            raise WireError(f"field {tag >> 3} is cut off")
        yield tag >> 3, wire, data[position : position + length]
        position += length


def _number(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise WireError("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value % _WORD, position
    raise WireError("a number has more than ten bytes")


def _bytes(value: Any, wire: int) -> bytes:
    if wire != _BYTES:
        raise WireError(f"wire type {wire} where bytes are expected")
    return bytes(value)


def _pair(data: bytes) -> tuple[str, str]:
    parts = {tag: _text(_bytes(value, wire)) for tag, wire, value in _values(data)}
    return parts.get(1, ""), parts.get(2, "")


def _several(field: _Field, wire: int, value: Any) -> Iterator[Any]:
    if field.kind not in (int, bool) or wire != _BYTES:
        yield _one(field, wire, value)
        return
    position = 0  # packed
    while position < len(value):
        one, position = _number(value, position)
        yield _signed(field, one)


def _one(field: _Field, wire: int, value: Any) -> Any:
    if field.kind is str:
        return _text(_bytes(value, wire))
    if field.kind not in (int, bool):
        return decode(_bytes(value, wire), field.kind)
    if wire != _VARINT:
        raise WireError(f"wire type {wire} where a number is expected")
    return _signed(field, value)


def _signed(field: _Field, value: int) -> int | bool:
    if field.kind is bool:
        return bool(value)
    return int(struct.unpack("<q", struct.pack("<Q", value))[0])


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WireError("a string is not UTF-8") from error

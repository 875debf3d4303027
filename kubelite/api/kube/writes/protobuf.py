"""Reads the objects that kubectl's own commands send as protobuf: `create deployment`, `auth can-i`, `drain`. Pure.

client-go's typed clients encode so, and do not fall back to JSON. The tables have the messages that these commands
send, with the field numbers of Kubernetes' generated.proto files (staging/src/k8s.io/api and apimachinery). A field
that is not in them is refused, never dropped. Everything else speaks JSON, the answers included.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, NamedTuple

from kubelite.api.kube.writes import protobuf_messages, protobuf_pods
from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

_MAGIC = b"k8s\x00"  # apimachinery pkg/runtime/serializer/protobuf
_MOST_DEPTH = 40  # nested messages
#: Kinds of which two versions are in the table.
_OTHER = {("autoscaling/v1", "HorizontalPodAutoscaler"): "HorizontalPodAutoscalerV1"}


class Field(NamedTuple):
    """`kind`: a scalar or the name of a message. `many`: one, list, map (of strings to the kind) or inline. A pointer
    in Go (`kept`) is sent only if it is set; any other field is always sent, and zero means that it is not set."""

    name: str
    kind: str
    many: str
    kept: bool


def _parse(table: str) -> dict[str, dict[int, Field]]:
    found: dict[str, dict[int, Field]] = {}
    for line in filter(None, table.splitlines()):
        message, *fields = line.split()
        found.setdefault(message, {})
        for text in fields:
            name, _, rest = text.partition("=")
            number, _, kind = rest.partition(":")
            many = {"*": "list", "@": "map", "^": "inline"}.get(kind[0], "one")
            kept = kind.endswith("?")
            field = Field(name, kind.lstrip("*@^").rstrip("?"), many, kept)
            found[message][int(number)] = field
    return found


MESSAGES = _parse(protobuf_messages.TABLE + protobuf_pods.TABLE)


def decoded(body: bytes) -> Json:
    """Return the object in a body. Raises ApiError: BadRequest, UnsupportedMediaType for what is not in the table."""
    if not body.startswith(_MAGIC):
        raise bad_request("the body is not protobuf of Kubernetes")
    try:
        envelope = _message(body[len(_MAGIC) :], "Unknown", 0)
        about = envelope.get("typeMeta", {})
        kind, version = about.get("kind", ""), about.get("apiVersion", "")
        message = _OTHER.get((version, kind), kind)
        if message not in MESSAGES:
            words = f"{kind or 'this object'} cannot be read as protobuf: send JSON (kubectl apply -f)"
            raise ApiError("UnsupportedMediaType", words)
        found = _message(base64.b64decode(envelope.get("raw", "")), message, 0)
    except (IndexError, UnicodeDecodeError, OverflowError) as error:
        raise bad_request("the body is not protobuf of Kubernetes: it ends early or has no text") from error
    return {"apiVersion": version, "kind": kind, **found}


def _message(data: bytes, name: str, depth: int) -> Json:
    if depth > _MOST_DEPTH:
        raise bad_request("the body is nested too deeply")
    fields = MESSAGES[name]
    found: Json = {}
    for number, value in _values(data):
        field = fields.get(number)
        if field is None:
            words = f"field {number} of {name} cannot be read as protobuf on this node: send JSON (kubectl apply -f)"
            raise ApiError("UnsupportedMediaType", words)
        if field.many == "map":
            key, one = _entry(value, field, depth)
            found.setdefault(field.name, {})[key] = one
            continue
        one = _value(value, field, depth)
        if field.many == "inline":
            found |= one
        elif field.many == "list":
            found.setdefault(field.name, []).append(one)
        elif one is not None and (field.kept or one not in ("", 0, False)):
            found[field.name] = one
    return found


def _entry(data: int | bytes, field: Field, depth: int) -> tuple[str, Any]:
    """Read an entry of a map: a message with the fields 1 and 2."""
    key, value = "", _value(b"", field, depth) if field.kind not in ("int", "bool") else 0
    for number, given in _values(_bytes(data)):
        if number == 1:
            key = _bytes(given).decode()
        elif number == 2:
            value = _value(given, field, depth)
    return key, value


def _value(data: int | bytes, field: Field, depth: int) -> Any:
    match field.kind:
        case "int":
            return _signed(_int(data))
        case "bool":
            return bool(_int(data))
        case "str":
            return _bytes(data).decode()
        case "bytes":
            return base64.b64encode(_bytes(data)).decode()
        case "time":
            seconds = _message(_bytes(data), "Time", depth + 1).get("seconds")
            return rfc3339(seconds) if isinstance(seconds, int) else None
        case "quantity":
            return _message(_bytes(data), "Quantity", depth + 1).get("string", "0")
        case "intstr":
            given = _message(_bytes(data), "IntOrString", depth + 1)
            return given.get("strVal", "") if given.get("type") else given.get("intVal", 0)
        case "strings":
            return _message(_bytes(data), "Strings", depth + 1).get("items", [])
        case name:
            return _message(_bytes(data), name, depth + 1)


def _values(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message: number, and a number or bytes (Protocol Buffers: Encoding)."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, form = key >> 3, key & 7
        if form == 0:
            value, place = _varint(data, place)
            yield number, value
        elif form == 2:
            length, place = _varint(data, place)
            if place + length > len(data):
                raise IndexError
            yield number, data[place : place + length]
            place += length
        else:  # no field of the table has another form
            raise bad_request(
                f"the body is not protobuf of Kubernetes: field {number} has the wire type {form}"
            )


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, place
    raise IndexError


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise bad_request("the body is not protobuf of Kubernetes: bytes where a number should be")
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise bad_request("the body is not protobuf of Kubernetes: a number where bytes should be")
    return value

"""Pure: check that an image's config follows the specification, before anything of the image is stored.

Everything that later lists, shows, builds on or runs the image relies on the types of these fields. Formats: OCI
image-spec config.md; docker's own fields (Healthcheck, OnBuild, Shell) from moby image/spec/v1.2.md. A field that is
`null` counts as absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runtime.errors import ImageError

MAX_HISTORY = 10_000  # entries; an image has at most 500 layers (`manifests.MAX_LAYERS`)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _texts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


_SHOWN: dict[Callable[[Any], bool], str] = {
    _text: "a string",
    _words: "a list of strings",
    _object: "an object",
    _texts: "an object of strings",
    _flag: "true or false",
}
_IMAGE = {
    "created": _text,
    "author": _text,
    "architecture": _text,
    "os": _text,
    "variant": _text,
    "config": _object,
}
_CONFIG = {
    "User": _text, "WorkingDir": _text, "StopSignal": _text, "Env": _words, "Cmd": _words, "Entrypoint": _words,
    "Shell": _words, "OnBuild": _words, "ExposedPorts": _object, "Volumes": _object, "Labels": _texts,
    "Healthcheck": _object,
}  # fmt: skip
_STEP = {"created": _text, "created_by": _text, "author": _text, "comment": _text, "empty_layer": _flag}


def check(document: Mapping[str, Any]) -> None:
    """Check an image's config. Raises ImageError, which names the field."""
    _fields(document, _IMAGE, "")
    _fields(document.get("config") or {}, _CONFIG, "config.")
    history = document.get("history")
    if history is None:
        return
    if not isinstance(history, list):
        raise ImageError("the image's config: history is not a list")
    if len(history) > MAX_HISTORY:
        raise ImageError(
            f"the image's config: history has {len(history)} entries; at most {MAX_HISTORY} are accepted"
        )
    for number, entry in enumerate(history, 1):
        if not isinstance(entry, dict):
            raise ImageError(f"the image's config: entry {number} of history is not an object")
        _fields(entry, _STEP, f"entry {number} of history: ")


def _fields(values: Mapping[str, Any], known: Mapping[str, Callable[[Any], bool]], where: str) -> None:
    for name, fits in known.items():
        if values.get(name) is not None and not fits(values[name]):
            raise ImageError(f"the image's config: {where}{name} is not {_SHOWN[fits]}")

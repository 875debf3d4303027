"""Read the data of ConfigMaps and Secrets as kubectl does: --from-literal, --from-file and --from-env-file.

Rules: Kubernetes' kubectl/pkg/util/util.go and kubectl/pkg/cmd/util/env_file.go.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence

from kubelite.cli.errors import CliError

_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def valid_key(name: str) -> bool:
    """Whether a ConfigMap or Secret may have this key."""
    return _KEY.fullmatch(name) is not None and name != "." and not name.startswith("..")


def valid_variable(name: str) -> bool:
    """Whether an environment variable may have this name."""
    return _VARIABLE.fullmatch(name) is not None and name != "." and not name.startswith("..")


def read_values(
    files: Sequence[str],
    literals: Sequence[str],
    env_files: Sequence[str],
    environ: Mapping[str, str],
    *,
    owner: str,
) -> dict[str, bytes]:
    """Return key → value. `owner` names the object in errors. Raises CliError."""
    if env_files and (files or literals):
        raise CliError("error: from-env-file cannot be combined with from-file or from-literal", code=2)
    found: dict[str, bytes] = {}
    for key, value in _all(files, literals, env_files, environ):
        if not valid_key(key):
            raise CliError(
                f'error: "{key}" is not a valid key name: it must consist of alphanumeric characters, "-", "_" or '
                '"." and have at most 253 of them'
            )
        if key in found:
            raise CliError(
                f'error: cannot add key "{key}", another key by that name already exists in {owner}'
            )
        found[key] = value
    return found


def _all(
    files: Sequence[str], literals: Sequence[str], env_files: Sequence[str], environ: Mapping[str, str]
) -> Iterator[tuple[str, bytes]]:
    for given in literals:
        key, equals, value = given.partition("=")
        if not key or not equals:
            raise CliError(f'error: invalid literal source "{given}", expected key=value', code=2)
        yield key, value.encode("utf-8", "surrogateescape")
    for given in files:
        yield from _of_file(given)
    for path in env_files:
        yield from _of_env_file(path, environ)


def _of_file(given: str) -> Iterator[tuple[str, bytes]]:
    """Yield the file's content under its name or the given key, or each regular file of a directory."""
    key, equals, path = given.rpartition("=") if given.count("=") < 2 else ("", "=", "")
    if equals and not (key and path):
        raise CliError(f'error: invalid file source "{given}", expected PATH or KEY=PATH', code=2)
    if not os.path.isdir(path):
        yield key or os.path.basename(path), read_bytes(path)
        return
    if key:
        raise CliError("error: cannot give a key name for a directory path", code=2)
    for name in sorted(os.listdir(path)):
        entry = os.path.join(path, name)
        if stat.S_ISREG(os.lstat(entry).st_mode):
            yield name, read_bytes(entry)


def read_bytes(path: str) -> bytes:
    """Return a file's content. Raises CliError."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise CliError(f"error: error reading {path}: {error.strerror}") from error


def _of_env_file(path: str, environ: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the NAME=VALUE lines of a file. A line with only a NAME takes the value of our own environment, or none."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CliError(f"error: env file {path} contains invalid utf-8 bytes: {error}") from error
    lines = (line.removesuffix("\r").lstrip() for line in text.split("\n"))
    for number, line in enumerate(lines, start=1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not valid_variable(name):
            raise CliError(f'error: {path}:{number}: "{name}" is not a valid name of an environment variable')
        yield name, value.encode() if equals else os.fsencode(environ.get(name, ""))

"""Determine what a container's process executes: program path, environment, home directory.

Runs in the container's root, as its user. It follows Go's exec.LookPath and uses runc's messages, which callers of a
runtime parse.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Final

from runtime import syscalls as sc
from runtime.errors import StartError
from runtime.oci.config.spec import Process


def environment(process: Process, uid: int) -> dict[bytes, bytes]:
    """process.env as a mapping; the last of duplicates wins. If HOME is missing, it comes from the container's
    /etc/passwd (as in runc)."""
    found: dict[bytes, bytes] = {}
    for entry in process.get("env", []):
        name, _, value = os.fsencode(entry).partition(b"=")
        found[name] = value
    if not found.get(b"HOME"):
        found[b"HOME"] = _home(uid)
    return found


def _home(uid: int) -> bytes:
    try:
        fd = sc.openat2(
            sc.AT_FDCWD, "/etc/passwd", os.O_RDONLY | os.O_NONBLOCK, resolve=sc.RESOLVE_NO_MAGICLINKS
        )
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return b"/"
            for line in file.read(1 << 20).splitlines():
                fields = line.split(b":")
                if len(fields) >= 6 and fields[2] == str(uid).encode():
                    return fields[5] or b"/"
    except OSError:
        pass  # the file is missing, or the user may not read it
    return b"/"


def find(name: str, variables: Mapping[bytes, bytes]) -> bytes:
    """The path to execute, as Go's exec.LookPath finds it. A name with a slash is used as it is. Raises StartError with
    runc's message."""
    if "/" in name:
        _check_program(os.fsencode(name), name, final=True)
        return os.fsencode(name)
    for directory in variables.get(b"PATH", b"").split(b":"):
        candidate = (directory or b".") + b"/" + os.fsencode(name)
        if variables.get(b"PATH") and _check_program(candidate, name, final=False):
            return candidate
    raise StartError(f'exec: "{name}": executable file not found in $PATH')


def _check_program(path: bytes, name: str, *, final: bool) -> bool:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not os.access(path, os.X_OK, effective_ids=True):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        if not final:
            return False
        prefix = f'exec: "{name}": '
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise StartError(f"{prefix}stat {name}: {lower(error)}") from error
        raise StartError(f"{prefix}{lower(error)}") from error
    return True


_GO_MESSAGES: Final = {errno.ENOEXEC: "exec format error", errno.EISDIR: "is a directory"}


def lower(error: OSError) -> str:
    """The error's text as Go spells it, which callers of runc parse."""
    code = error.errno or 0
    return _GO_MESSAGES.get(code) or os.strerror(code).lower()

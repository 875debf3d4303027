"""What a container's process executes, found with its own eyes: search path, environment, home directory.

By Go's exec.LookPath and runc's texts, which callers of a runtime look for. Runs in the container's root, as its user.
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
    """As given, the last of duplicates wins; HOME from the container's /etc/passwd when it is not (as runc)."""
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
        pass  # an image without it, or closed to the user
    return b"/"


def find(name: str, variables: Mapping[bytes, bytes]) -> bytes:
    """The path execve gets, by Go's exec.LookPath and runc's texts: a name with a slash is itself."""
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


_GO_TEXTS: Final = {errno.ENOEXEC: "exec format error", errno.EISDIR: "is a directory"}


def lower(error: OSError) -> str:
    """errno as Go spells it: callers of runc look for these words."""
    code = error.errno or 0
    return _GO_TEXTS.get(code) or os.strerror(code).lower()

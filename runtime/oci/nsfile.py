"""Open a namespace that config.json names by path (namespaces(7)): a bind mount of one, or a link under /proc."""

from __future__ import annotations

import os

from runtime import syscalls as sc
from runtime.errors import SpecError, SyscallError


def open_namespace(path: str, about: str = "") -> int:
    """Open a namespace file for setns(2). Raises SpecError if it is not a namespace, SyscallError if it cannot be
    opened.

    The file's type is checked before the real open(2): opening a FIFO waits for a writer, and opening a device may have
    any effect.
    """
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if sc.fstatfs_type(found) != sc.NSFS_MAGIC:
                raise SpecError(f"linux.namespaces: {path} is not a namespace")
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(found)
    except OSError as error:
        raise SyscallError(error.errno or 0, "open", f"{about} {path}".lstrip()) from error

"""A namespace that config.json names by path (ns(7)): a bind mount of one, or a link below /proc."""

from __future__ import annotations

import os

from runtime import syscalls as sc
from runtime.errors import SpecError, SyscallError


def open_namespace(path: str, about: str = "") -> int:
    """Its descriptor, for setns(2). Looked at before it is really opened: the open(2) of a FIFO waits for who writes
    to it, that of a device may do anything. Raises SpecError for what is no namespace."""
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

"""An image's passwd(5) and group(5), read from its layer directories (topmost first) as overlayfs would show them.

Whiteouts and opaque directories hide lower layers. Symbolic links are resolved within the image. A path cannot leave a
layer: each component is opened by its own openat(2), without following links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from functools import lru_cache

from kubelite.node.spec.users import Accounts, accounts_of

MAX_FILE = 1 << 20  # bytes read of passwd or group
MAX_LINKS = 40


@lru_cache(maxsize=64)
def image_accounts(layers: tuple[str, ...]) -> Accounts:
    """The accounts of the image with these layers. The content of a layer never changes, so the result is cached."""
    return accounts_of(read_in_layers(layers, "etc/passwd"), read_in_layers(layers, "etc/group"))


def read_in_layers(layers: Sequence[str], path: str) -> bytes:
    """Return a regular file of the image as overlayfs would show it; b"" if it does not exist."""
    parts = [part for part in path.split("/") if part]
    for _ in range(MAX_LINKS):
        found = _lookup(layers, parts)
        if isinstance(found, bytes):
            return found
        parts = found
    return b""


def _lookup(layers: Sequence[str], parts: list[str]) -> bytes | list[str]:
    """Return the file's content or, at a symbolic link, the path to continue with."""
    with contextlib.ExitStack() as stack:
        merged = [_open(stack, None, layer) for layer in layers]
        for depth, part in enumerate(parts):
            last = depth == len(parts) - 1
            below: list[int] = []
            for directory in merged:
                found = _stat(directory, part)
                if found is None:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    if last:
                        return b""
                    below.append(_open(stack, directory, part))
                    if _is_opaque(below[-1]):
                        break
                    continue
                if below or _is_whiteout(found):
                    break
                if stat.S_ISLNK(found.st_mode):
                    target = os.readlink(part, dir_fd=directory)
                    return _joined(parts[:depth], target, parts[depth + 1 :])
                return _read(directory, part) if last and stat.S_ISREG(found.st_mode) else b""
            if not below:
                return b""
            merged = below
    return b""


def _open(stack: contextlib.ExitStack, directory: int | None, name: str) -> int:
    follow = 0 if directory is None else os.O_NOFOLLOW
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | follow, dir_fd=directory)
    stack.callback(os.close, fd)
    return fd


def _stat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def _joined(before: list[str], target: str, after: list[str]) -> list[str]:
    """Resolve a link's target inside the image: `..` stops at its root."""
    parts = [] if target.startswith("/") else list(before)
    for part in [*target.split("/"), *after]:
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return parts


def _read(directory: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with open(fd, "rb") as file:
        return file.read(MAX_FILE)

"""Access to cgroup file systems: read, write, create directories, parse. Every error names the file.

This uses plain descriptors instead of `open()`, because a container start and a metrics scrape do dozens of these
calls, and cgroup files need whole reads and writes anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from runtime import syscalls as sc
from runtime.errors import SyscallError

_CHUNK = 65536  # larger than any cgroup file we read, except cgroup.procs of a huge container


def read(path: str) -> str:
    """The whole text of the file. Raises SyscallError with the path."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SyscallError(error.errno or 0, "open", path) from error
    try:
        parts = []
        while part := os.read(fd, _CHUNK):
            parts.append(part)
    except OSError as error:
        raise SyscallError(error.errno or 0, "read", path) from error
    finally:
        os.close(fd)
    return b"".join(parts).decode("ascii", "replace")


def read_or(path: str, default: str = "") -> str:
    """The file's text; `default` if the file cannot be read, for example because this kernel lacks it or the cgroup has
    been removed."""
    try:
        return read(path)
    except OSError:
        return default


def write(path: str, value: str) -> None:
    """Write `value` in one write(2), as cgroup files require. Raises SyscallError with value and path."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            sc.note("write")
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", f"{value!r} to {path}") from error


def write_each(path: str, values: Iterable[str]) -> None:
    """Write each value in its own write(2), in order, through one descriptor. Raises SyscallError with value and
    path."""
    value = ""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for value in values:
                sc.note("write")
                os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", f"{value!r} to {path}") from error


def make(path: str, made: list[str]) -> bool:
    """mkdir -p. Appends each created directory to `made`, outermost first. True: `path` itself was created."""
    try:
        sc.note("mkdirat" if sc.AT_ONLY else "mkdir")
        os.mkdir(path, 0o755)
    except FileExistsError:
        return False
    except FileNotFoundError:
        make(os.path.dirname(path), made)
        return make(path, made)
    except OSError as error:
        raise SyscallError(error.errno or 0, "mkdir", path) from error
    made.append(path)
    return True


def subdirectories(path: str) -> list[str]:
    """The child cgroups of the cgroup at `path`; empty if it does not exist."""
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SyscallError(error.errno or 0, "scandir", path) from error


def tree(path: str) -> list[str]:
    """The cgroup and all its descendants, deepest first, which is the order of removal."""
    found: list[str] = []
    for child in subdirectories(path):
        found += tree(child)
    found.append(path)
    return found


def pids(path: str, *, recursive: bool) -> list[int]:
    """The host pids in the cgroup at `path` (`recursive`: and in its descendants). Empty if it does not exist.

    The kernel shows pid 0 for a process in a pid namespace that is not visible to us; those are left out.
    """
    places = tree(path) if recursive else [path]
    found: set[int] = set()
    for place in places:
        found.update(int(word) for word in read_or(f"{place}/cgroup.procs").split())
    found.discard(0)
    return sorted(found)


def keyed(text: str) -> dict[str, int]:
    """Parse `key value` lines (memory.stat, cpu.stat, cgroup.events, …) to a dict."""
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def number(text: str) -> int:
    """Parse a single value. `max`, an empty file and v1's value for "no limit" (close to 2^63) are 0."""
    text = text.strip()
    if not text or text == "max":
        return 0
    value = int(text)
    return 0 if value >= 1 << 62 or value < 0 else value

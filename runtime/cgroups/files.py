"""Small file traffic with the cgroup file systems: read, write, make, parse. Every failure names the file.

Plain descriptors instead of `open()`: a container start and a metrics scrape do dozens of these, and a cgroup file
answers only to whole reads and whole writes anyway.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from runtime.errors import SyscallError

_CHUNK = 65536  # larger than any cgroup file we read but cgroup.procs of a huge container


def read(path: str) -> str:
    """The file's text, whole. Raises SyscallError with the path."""
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
    """The file's text, or `default` when this kernel (or this cgroup, by now) has no such file."""
    try:
        return read(path)
    except OSError:
        return default


def write(path: str, value: str) -> None:
    """One write(2) of `value`: cgroup files take a value per write. Raises SyscallError with value and path."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", f"{value!r} to {path}") from error


def write_each(path: str, values: Iterable[str]) -> None:
    """One write(2) a value, in order, through one descriptor. Raises SyscallError with value and path."""
    value = ""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for value in values:
                os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise SyscallError(error.errno or 0, "write", f"{value!r} to {path}") from error


def make(path: str, made: list[str]) -> bool:
    """mkdir -p; each directory that was really new is appended to `made`, outermost first. True: `path` is new."""
    try:
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
    """Child cgroups of the cgroup at `path`; none when it is gone."""
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise SyscallError(error.errno or 0, "scandir", path) from error


def tree(path: str) -> list[str]:
    """The cgroup and all its descendants, deepest first (the order of removal)."""
    found: list[str] = []
    for child in subdirectories(path):
        found += tree(child)
    found.append(path)
    return found


def pids(path: str, *, recursive: bool) -> list[int]:
    """Processes in the cgroup at `path` (and below): host pids. Empty when the cgroup is gone.

    A pid is 0 when the process is in a pid namespace we cannot see: left out.
    """
    places = tree(path) if recursive else [path]
    found: set[int] = set()
    for place in places:
        found.update(int(word) for word in read_or(f"{place}/cgroup.procs").split())
    found.discard(0)
    return sorted(found)


def keyed(text: str) -> dict[str, int]:
    """`key value` lines (memory.stat, cpu.stat, cgroup.events, …) as a dict."""
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def number(text: str) -> int:
    """A single value; `max`, an empty file and v1's "no limit" (close to 2^63) are 0."""
    text = text.strip()
    if not text or text == "max":
        return 0
    value = int(text)
    return 0 if value >= 1 << 62 or value < 0 else value

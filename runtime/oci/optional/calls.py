"""Record the system calls of each step of a start, so that `kubelite trace` shows the calls that were actually made.

Most of them go through `runtime.syscalls`, which records them if `syscalls.noted` is set. The others go through
Python's own modules. A container's init records those too: it replaces these functions in its copy of the
interpreter, which no other code uses and which execve ends.

Calls that change only the process's own memory and descriptors, such as close, read and fstat, are left out. openat is
recorded only if it may create a file. tests/kernel/test_trace_calls.py compares the records with strace's output.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # as in init_steps.py
import fcntl
import os
from typing import TYPE_CHECKING, Any, Final

from runtime import syscalls as sc

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

# Module → function → the call it makes. Every function here makes exactly one.
_ALWAYS: Final[dict[ModuleType, dict[str, str]]] = {
    os: {
        **{
            name: name for name in ("chdir", "chroot", "execve", "fchdir", "fchmod", "fchown", "memfd_create")
        },
        **{name: name for name in ("sched_setaffinity", "setgroups", "setresgid", "setresuid", "setsid")},
        "umask": "umask",
        "dup2": "dup3" if sc.AT_ONLY else "dup2",
        "mknod": "mknodat",
        "utime": "utimensat",
    },
    fcntl: {"ioctl": "ioctl"},
    _signal: {"signal": "rt_sigaction"},
}
# Functions that make the *at call if dir_fd is given, or if the architecture has no other.
_BY_DIRECTORY: Final = {
    "mkdir": ("mkdir", "mkdirat"),
    "symlink": ("symlink", "symlinkat"),
    "unlink": ("unlink", "unlinkat"),
    "rmdir": ("rmdir", "unlinkat"),
    "chmod": ("chmod", "fchmodat"),
    "chown": ("chown", "fchownat"),
}


def _noting(function: Callable[..., Any], call: str) -> Callable[..., Any]:
    def noting(*args: Any, **options: Any) -> Any:
        sc.note(call)
        return function(*args, **options)

    return noting


def _noting_directory(function: Callable[..., Any], plain: str, at: str) -> Callable[..., Any]:
    def noting(*args: Any, **options: Any) -> Any:
        sc.note(at if sc.AT_ONLY or options.get("dir_fd") is not None else plain)
        return function(*args, **options)

    return noting


def _noting_creation(function: Callable[..., Any]) -> Callable[..., Any]:
    def noting(path: Any, flags: int, *args: Any, **options: Any) -> Any:
        if flags & os.O_CREAT:
            sc.note("openat")
        return function(path, flags, *args, **options)

    return noting


def _replacements() -> list[tuple[ModuleType, str, Callable[..., Any]]]:
    found: list[tuple[ModuleType, str, Callable[..., Any]]] = [(os, "open", _noting_creation(os.open))]
    for module, functions in _ALWAYS.items():
        found += [(module, name, _noting(getattr(module, name), call)) for name, call in functions.items()]
    for name, (plain, at) in _BY_DIRECTORY.items():
        found.append((os, name, _noting_directory(getattr(os, name), plain, at)))
    return found


_REPLACEMENTS: Final = _replacements()  # made once, in the process that inits are cloned from


def note_in_init() -> None:
    """Record the calls of this process, a container's init, from here on. This cannot be undone."""
    for module, name, function in _REPLACEMENTS:
        setattr(module, name, function)

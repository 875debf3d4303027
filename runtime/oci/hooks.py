"""Hooks: programs that config.json runs at certain points of a container's life.

Source: runtime-spec config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle", defines the points and the effect of a
failure.

    prestart, createRuntime    the runtime's namespaces; mounts are done, pivot_root is not; cwd is the bundle
    createContainer            the container's namespaces, before pivot_root; cwd is the container's root
    startContainer             the container's namespaces and root, before execve; under the seccomp filter
    poststart                  the runtime's namespaces; a failure stops the container
    poststop                   the runtime's namespaces; a failure is a warning

Each hook gets the container's state as JSON on stdin, and as its environment exactly its `env`. A hook without `env`
inherits the runtime's environment; a startContainer hook inherits that of the container's program (as in runc and crun;
the specification does not say).
"""

from __future__ import annotations

import json
import os
import select
import time
from collections.abc import Callable, Mapping
from signal import SIGKILL
from typing import Any, Final, NamedTuple

from runtime import syscalls as sc
from runtime.errors import RuntimeFault, SpecError, StartError

KINDS: Final = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
IN_RUNTIME: Final = ("prestart", "createRuntime")
IN_CONTAINER: Final = ("createContainer", "startContainer")
_OUTPUT_SHOWN: Final = 4096  # bytes of a failed hook's output quoted in the error


class Hook(NamedTuple):
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...] | None  # None: inherit
    timeout: float | None  # seconds


def parse(hooks: Mapping[str, Any]) -> dict[str, tuple[Hook, ...]]:
    """Parse the `hooks` object: kind → hooks. Raises SpecError with the field's path."""
    found: dict[str, tuple[Hook, ...]] = {}
    for kind, entries in hooks.items():
        if kind not in KINDS or entries is None:
            continue
        if not isinstance(entries, list):
            raise SpecError(f"hooks.{kind}: must be an array, not {type(entries).__name__}")
        found[kind] = tuple(_parse_one(entry, f"hooks.{kind}[{n}]") for n, entry in enumerate(entries))
    return found


def _parse_one(entry: Any, where: str) -> Hook:
    if not isinstance(entry, dict):
        raise SpecError(f"{where}: must be an object, not {type(entry).__name__}")
    path = entry.get("path")
    if not isinstance(path, str) or not path.startswith("/"):
        raise SpecError(f"{where}.path: {path!r} is not an absolute path")
    lists = {}
    for key in ("args", "env"):
        lists[key] = entry.get(key) or []
        if not isinstance(lists[key], list) or not all(isinstance(text, str) for text in lists[key]):
            raise SpecError(f"{where}.{key}: must be an array of strings")
    timeout = entry.get("timeout")
    if timeout is not None and (not isinstance(timeout, int) or isinstance(timeout, bool) or timeout <= 0):
        raise SpecError(f"{where}.timeout: must be a positive number of seconds")
    env = None if entry.get("env") is None else tuple(lists["env"])
    return Hook(path, tuple(lists["args"]), env, timeout)


def run_all(
    kind: str,
    hooks: tuple[Hook, ...],
    state: Mapping[str, Any],
    environment: Mapping[bytes, bytes] | None = None,
    confine: Callable[[], None] | None = None,
) -> None:
    """Run the hooks in order. The first failure raises StartError, and the rest are not run.

    `environment`: for hooks without `env`, instead of ours. `confine`: called in each hook's process before execve.
    """
    for number, hook in enumerate(hooks):
        run(hook, state, f"error running {kind} hook #{number}", environment, confine)


def warn_all(kind: str, hooks: tuple[Hook, ...], state: Mapping[str, Any]) -> list[str]:
    """Run all hooks, also after a failure. Returns the failures as sentences (poststop)."""
    warnings = []
    for number, hook in enumerate(hooks):
        try:
            run(hook, state, f"error running {kind} hook #{number}")
        except StartError as error:
            warnings.append(str(error))
    return warnings


def run(
    hook: Hook,
    state: Mapping[str, Any],
    who: str,
    environment: Mapping[bytes, bytes] | None = None,
    confine: Callable[[], None] | None = None,
) -> None:
    """Run one hook and wait for it.

    StartError if it cannot be executed, exits with a code other than 0, or exceeds its timeout (it is then killed).
    """
    stdin = _memory("state", json.dumps(state).encode())
    output = _memory("output", b"")
    try:
        given = _environment(hook, environment)
        try:
            if confine is None:
                sc.note("clone3")
                pid = _spawn(hook, given, stdin, output)
            else:
                sc.note("clone")
                pid = _spawn_confined(confine, hook, given, stdin, output)
        except OSError as error:
            raise StartError(
                f"{who}: fork/exec {hook.path}: {os.strerror(error.errno or 0).lower()}"
            ) from error
        status = _wait(pid, hook.timeout)
        if status is None:
            raise StartError(f"{who}: {hook.path} did not finish within its timeout of {hook.timeout} s")
        if status != 0:
            ended = f"exit status {status}" if status > 0 else f"signal: {_signal_words(-status)}"
            said = os.pread(output, _OUTPUT_SHOWN, 0).decode(errors="replace").strip()
            raise StartError(f"{who}: {ended}, stdout: , stderr: {said}")
    finally:
        os.close(stdin)
        os.close(output)


def _spawn(hook: Hook, environment: Mapping[Any, Any], stdin: int, output: int) -> int:
    actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, output, output))]
    return os.posix_spawn(
        hook.path, hook.args or (hook.path,), environment, file_actions=actions,
        setsigmask=(), setsigdef=(13, 25),  # SIGPIPE and SIGXFSZ: Python ignores them
    )  # fmt: skip


def _spawn_confined(
    confine: Callable[[], None], hook: Hook, environment: Mapping[Any, Any], stdin: int, output: int
) -> int:
    """Only for a single-threaded process. Exit code 127 means that the hook could not be executed, as in a shell."""
    pid = os.fork()
    if pid:
        return pid
    try:
        for number, fd in enumerate((stdin, output, output)):
            os.dup2(fd, number)
        confine()
        os.execve(hook.path, hook.args or (hook.path,), environment)
    except (OSError, RuntimeFault) as error:
        os.write(2, f"{hook.path}: {error}".encode())
    finally:
        os._exit(127)


def _signal_words(number: int) -> str:
    """The signal's description in Go's spelling, for example `bad system call`."""
    import _signal  # type: ignore[import-not-found]  # without `signal`'s enum conversions

    return (_signal.strsignal(number) or str(number)).lower()


def _environment(hook: Hook, default: Mapping[bytes, bytes] | None) -> Mapping[Any, Any]:
    if hook.env is not None:
        return dict(entry.partition("=")[::2] for entry in hook.env)
    return os.environ if default is None else default


def _memory(name: str, content: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    sc.write_all(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _wait(pid: int, timeout: float | None) -> int | None:
    """The exit code, or the negative number of the signal that killed it. None if it was killed after `timeout`
    seconds."""
    if timeout is not None:
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        deadline = time.monotonic() + timeout
        ended = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        os.close(pidfd)
        if not ended:
            os.kill(pid, SIGKILL)
            os.waitpid(pid, 0)
            return None
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

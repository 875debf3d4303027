"""The interface to a process in a container whose input and output are streamed."""

from __future__ import annotations

from typing import Protocol

from kubelite.kube.json import Json

# Seconds for which output is read after the process has ended. A child process can keep the pipe open for ever.
DRAIN_SECONDS = 1.0


class ExecSession(Protocol):
    """A process in a container, started by the shim. The session owns the descriptors, which callers may set
    non-blocking; `close()` closes those that are still open. With a tty, stdin and stdout are the same pty master and
    stderr is None."""

    @property
    def stdin(self) -> int | None: ...
    @property
    def stdout(self) -> int | None: ...
    @property
    def stderr(self) -> int | None: ...
    @property
    def tty(self) -> bool: ...

    def close_stdin(self) -> None:
        """Close stdin after the client's last input; `stdin` is None afterwards. Does nothing with a tty."""
        ...

    async def resize(self, width: int, height: int) -> None: ...
    async def wait(self) -> int:
        """Wait for the process; return its exit code (128 + signal if a signal killed it)."""
        ...

    async def close(self, *, kill: bool = True) -> None:
        """Close the descriptors; with `kill`, also kill the process if it still runs (the client disconnected). A
        second call does nothing."""
        ...


def is_size(cells: int) -> bool:
    """Whether a terminal can be as wide or as high (struct winsize has 16 bits for each)."""
    return 0 <= cells < 1 << 16


def exit_status(code: int) -> Json:
    """Return the Status for the error channel; kubectl takes its own exit code from the cause ExitCode."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def not_started(sentence: str) -> Json:
    """Return the Status for a program that cannot be executed, with a shell's exit code (POSIX: 126, 127)."""
    missing = "not found" in sentence or "no such file" in sentence.lower()
    return exit_status(127 if missing else 126)

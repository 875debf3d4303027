"""The files in a pod's run directory: writing, reading and removing them.

shim.sock      the shim's socket, bound by the forkserver before the fork
sandbox.json   SandboxConfig, written first: names the cgroup to remove if the shim dies before it writes state.json
state.json     SandboxRecord, written by rename at each change: any later daemon, older or newer, can adopt it
shim.log       the shim's warnings and errors; usually empty
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self, TypeVar

from runtime.files import read_bytes, write_all
from runtime.shim.protocol import SandboxConfig, SandboxRecord

SOCKET = "shim.sock"
CONFIG = "sandbox.json"
STATE = "state.json"
LOG = "shim.log"

_T = TypeVar("_T", SandboxRecord, SandboxConfig)


class Written(NamedTuple):
    """What stat(2) says of a file as it was written. Another writer changes at least one of these."""

    inode: int
    size: int
    modified: int  # nanoseconds

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def write_json(run_dir: str, name: str, data: dict[str, Any]) -> Written:
    """Write a file by rename, so that a reader sees either the old or the new one. It is not synced: a reboot removes
    the run directory and everything it describes."""
    path = f"{run_dir}/{name}"
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, json.dumps(data, separators=(",", ":")).encode())
        written = Written.of(os.fstat(fd))
    finally:
        os.close(fd)
    os.rename(temporary, path)
    return written


def is_intact(run_dir: str, name: str, written: Written | None) -> bool:
    """Whether a file is as `write_json` left it."""
    try:
        return Written.of(os.stat(f"{run_dir}/{name}", follow_symlinks=False)) == written
    except OSError:
        return False


def read_json(run_dir: str, name: str) -> dict[str, Any] | None:
    """Read a JSON object. None if the file is missing or is not a JSON object (for example because the disk was
    full)."""
    try:
        data = json.loads(read_bytes(f"{run_dir}/{name}"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def read_state(run_dir: str) -> SandboxRecord | None:
    """The last record that the shim wrote; None if there is no readable one."""
    return _record(SandboxRecord, read_json(run_dir, STATE))


def read_config(run_dir: str) -> SandboxConfig | None:
    return _record(SandboxConfig, read_json(run_dir, CONFIG))


def _record(kind: type[_T], data: dict[str, Any] | None) -> _T | None:
    if data is None:
        return None
    try:
        return kind.from_json(data)
    except TypeError:  # a required field is missing
        return None


def remove_run_dir(run_dir: str) -> None:
    """Remove the directory and its files. Do nothing if it is missing."""
    try:
        names = os.listdir(run_dir)
    except FileNotFoundError:
        return
    for name in names:
        try:
            os.unlink(f"{run_dir}/{name}")
        except FileNotFoundError:
            continue
    try:
        os.rmdir(run_dir)
    except FileNotFoundError:
        return


def process_start(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat: the process's start time in clock ticks after boot; 0 if it does not exist or is a
    zombie."""
    fields = _stat_fields(pid)
    return 0 if not fields or fields[0] in (b"Z", b"X") else int(fields[19])


def parent_of(pid: int) -> int:
    """Field 4 of /proc/<pid>/stat: the pid of the process's parent; 0 if the process does not exist."""
    fields = _stat_fields(pid)
    return int(fields[1]) if fields else 0


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/<pid>/stat from the third on; [] if the process does not exist."""
    try:
        content = read_bytes(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return content.rpartition(b")")[2].split()  # the name (field 2) may contain anything


def shim_alive(record: SandboxRecord) -> bool:
    """Whether the process that wrote `record` still runs. It compares pid and start time, to detect a reused pid."""
    return record.pid > 0 and record.pid_start != 0 and process_start(record.pid) == record.pid_start


@contextmanager
def socket_path(run_dir: str) -> Iterator[str]:
    """The address of a run directory's socket through /proc/self/fd, because the directory's path may exceed the 108
    bytes of sun_path."""
    fd = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


def listen(run_dir: str) -> socket.socket:
    """Bind the shim's socket and listen. The directory has mode 0700, so the socket needs no permissions of its own."""
    listener = socket.socket(
        socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    )
    try:
        with socket_path(run_dir) as path:
            listener.bind(path)
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener


def answers(run_dir: str) -> bool:
    """Whether a process listens on the shim's socket, perhaps a shim that is still starting."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            with socket_path(run_dir) as path:
                probe.connect(path)
        except BlockingIOError:
            return True  # the backlog is full
        except OSError:
            return False
        return True


def occupied(run_dir: str) -> bool:
    """Whether the directory belongs to a living shim.

    With a state.json, the recorded process decides: a container's init that was being cloned when the shim was killed
    may hold the socket open a moment longer. Without it, the socket decides.
    """
    record = read_state(run_dir)
    return shim_alive(record) if record is not None else answers(run_dir)

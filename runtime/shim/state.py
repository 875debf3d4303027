"""What a pod's run directory holds, and how each file in it is written, read and removed.

shim.sock      the shim listens here (bound by the forkserver before the shim is forked)
sandbox.json   SandboxConfig, before anything else exists: says which cgroup to clean after a shim that died at birth
state.json     SandboxRecord, by rename at each change: adopted by any later daemon, older or newer
shim.log       what the shim has to complain about; usually empty
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from runtime.shim.protocol import SandboxConfig, SandboxRecord

SOCKET = "shim.sock"
CONFIG = "sandbox.json"
STATE = "state.json"
LOG = "shim.log"

_T = TypeVar("_T", SandboxRecord, SandboxConfig)


def write_json(run_dir: str, name: str, data: dict[str, Any]) -> None:
    """By rename, so that a reader sees the old or the new one. Not synced: the run directory dies with a reboot, as
    everything it describes does."""
    path = f"{run_dir}/{name}"
    temporary = f"{path}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        content = json.dumps(data, separators=(",", ":")).encode()
        while content:
            content = content[os.write(fd, content) :]
    finally:
        os.close(fd)
    os.rename(temporary, path)


def read_bytes(path: str) -> bytes:
    """The whole file, by three system calls where `open` takes eight."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def read_json(run_dir: str, name: str) -> dict[str, Any] | None:
    """None when the file is not there or is not a JSON object (a disk that was full at the wrong moment)."""
    try:
        data = json.loads(read_bytes(f"{run_dir}/{name}"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return data if isinstance(data, dict) else None


def read_state(run_dir: str) -> SandboxRecord | None:
    """The last thing the shim wrote down; None when there is no (readable) state of a shim."""
    return _record(SandboxRecord, read_json(run_dir, STATE))


def read_config(run_dir: str) -> SandboxConfig | None:
    return _record(SandboxConfig, read_json(run_dir, CONFIG))


def _record(kind: type[_T], data: dict[str, Any] | None) -> _T | None:
    if data is None:
        return None
    try:
        return kind.from_json(data)
    except TypeError:  # a field is missing: not ours
        return None


def remove_run_dir(run_dir: str) -> None:
    """Remove the directory and the files in it (there are no others than ours); fine when it is gone."""
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
    """Field 22 of /proc/<pid>/stat: clock ticks from boot to its start; 0 when it is gone or a zombie."""
    try:
        content = read_bytes(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = content.rpartition(b")")[2].split()  # the name (field 2) may contain anything
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def shim_alive(record: SandboxRecord) -> bool:
    """Whether the very process that wrote `record` still runs (pid and start time, so a reused pid is not it)."""
    return record.pid > 0 and record.pid_start != 0 and process_start(record.pid) == record.pid_start


@contextmanager
def socket_path(run_dir: str) -> Iterator[str]:
    """The address of a run directory's socket, through /proc/self/fd: the directory's own path may be longer than the
    108 bytes of sun_path."""
    fd = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET}"
    finally:
        os.close(fd)


def listen(run_dir: str) -> socket.socket:
    """Bind the shim's socket. The directory is 0700, so the socket needs no permissions of its own."""
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
    """Whether a process still has the shim's socket open (it may be one that is only just starting)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as probe:
        try:
            with socket_path(run_dir) as path:
                probe.connect(path)
        except BlockingIOError:
            return True  # its backlog is full
        except OSError:
            return False
        return True


def occupied(run_dir: str) -> bool:
    """Whether the directory is a living shim's. One that wrote its state is known by its process: a container's init
    cloned from it the moment it was killed has its socket open for an instant more. Before that, by its socket."""
    record = read_state(run_dir)
    return shim_alive(record) if record is not None else answers(run_dir)

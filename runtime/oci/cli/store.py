"""What a command leaves behind for the next one: a directory for each container, below --root.

    <root>/<id>/state.json    who it is: init's pid and start time, bundle, cgroup, annotations; written by rename
    <root>/<id>/config.json   config.json as it was at create: later changes of the bundle's change nothing
    <root>/<id>/seccomp.bpf   the compiled filter, for exec
    <root>/<id>/start.sock    to connect is to start
    <root>/<id>/gate          flock'd by the init for as long as it has not executed the program
    <root>/<id>/lock          flock'd by a command that changes the container

The status is never written down: it is asked of the kernel (`status`). Whatever kills a command, the next one sees
what is.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from runtime import syscalls as sc
from runtime.cgroups import Cgroup, open_cgroup
from runtime.errors import NotFoundError, StateError, SyscallError
from runtime.oci.container import Container
from runtime.oci.spec import Spec

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
OCI_VERSION: Final = "1.2.0"
_ID_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")


@dataclass(slots=True)
class Entry:
    """One container's directory, and what is written in it."""

    directory: str
    id: str
    bundle: str = ""
    rootfs: str = ""
    cgroup_path: str = ""
    oci_version: str = OCI_VERSION
    annotations: dict[str, str] = field(default_factory=dict)
    pid: int = 0
    pid_start: int = (
        0  # clock ticks after boot (proc_pid_stat(5), field 22): a pid alone may be somebody else's
    )
    created: str = ""

    @property
    def cgroup(self) -> Cgroup:
        return open_cgroup(self.cgroup_path)

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def save(self) -> None:
        """state.json, by rename."""
        data = {name: getattr(self, name) for name in _SAVED}
        self.write("state.json", json.dumps(data).encode())

    def write(self, name: str, content: bytes) -> None:
        draft = self.path(f".{name}.{os.getpid()}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        os.rename(draft, self.path(name))

    def spec(self) -> Spec:
        """config.json as it was at create; it was validated then."""
        with open(self.path("config.json"), "rb") as file:
            spec: Spec = json.loads(file.read())
        return spec

    def status(self) -> str:
        if not self.pid:
            return CREATING if self._locked("lock") else STOPPED
        if not alive(self.pid, self.pid_start):
            return STOPPED
        if self._locked("gate"):
            return CREATED
        return PAUSED if self.cgroup.frozen() else RUNNING

    def _locked(self, name: str) -> bool:
        try:
            fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def lock(self) -> int:
        """Wait for other commands that change this container. The descriptor is the lock."""
        fd = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def container(self) -> Container:
        """The engine's handle of its living init. StateError when it is dead. The caller closes its pidfd."""
        try:
            pidfd = sc.pidfd_open(self.pid)
        except SyscallError as error:
            if error.errno != errno.ESRCH:
                raise
            raise StateError("container not running") from error
        if not alive(self.pid, self.pid_start):  # looked at after opening: it cannot change any more
            os.close(pidfd)
            raise StateError("container not running")
        return Container(self.id, self.pid, pidfd, self.cgroup, self.spec(), _seccomp=self._filter())

    def _filter(self) -> tuple[bytes, int] | None:
        try:
            with open(self.path("seccomp.bpf"), "rb") as file:
                raw = file.read()
        except FileNotFoundError:
            return None
        return raw[8:], int.from_bytes(raw[:8], "little")

    def remove(self) -> None:
        """The directory, state.json last: without it, it is no container."""
        names = sorted(os.listdir(self.directory), key=lambda name: name == "state.json")
        for name in names:
            os.unlink(self.path(name))
        os.rmdir(self.directory)


_SAVED: Final = (
    "id", "bundle", "rootfs", "cgroup_path", "oci_version", "annotations", "pid", "pid_start", "created",
)  # fmt: skip


def check_id(container_id: str) -> str:
    if not container_id or container_id in (".", "..") or not _ID_CHARACTERS.issuperset(container_id):
        raise StateError("invalid container ID format")
    return container_id


def make(root: str, container_id: str) -> Entry:
    """A new directory. StateError when there is one already."""
    directory = f"{root}/{check_id(container_id)}"
    os.makedirs(root, mode=0o711, exist_ok=True)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        raise StateError("container with given ID already exists") from None
    except OSError as error:
        raise SyscallError(error.errno or 0, "mkdir", directory) from error
    return Entry(directory, container_id)


def load(root: str, container_id: str) -> Entry:
    """NotFoundError when there is none, or nothing but an empty directory."""
    directory = f"{root}/{check_id(container_id)}"
    try:
        with open(f"{directory}/state.json", "rb") as file:
            data: dict[str, Any] = json.loads(file.read())
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("container does not exist") from None
    except ValueError as error:
        raise StateError(f"{directory}/state.json is damaged ({error}): delete --force removes it") from error
    entry = Entry(directory, container_id)
    for name in _SAVED:
        if name in data:
            setattr(entry, name, data[name])
    return entry


def all_entries(root: str, warn: Callable[[str], None]) -> list[Entry]:
    """By name. What cannot be read is said and left out."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            found.append(load(root, name))
        except NotFoundError:
            continue
        except StateError as error:
            warn(str(error))
    return found


def start_time(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat; 0 when it is dead or a zombie."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fields = os.read(fd, 4096).rpartition(b") ")[2].split()
    except ProcessLookupError:
        return 0
    finally:
        os.close(fd)
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


def alive(pid: int, since: int) -> bool:
    return since != 0 and start_time(pid) == since

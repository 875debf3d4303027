"""What a command leaves behind for the next one: a directory for each container, below --root.

    <root>/<id>/state.json    who it is: init's pid and start time, bundle, cgroup, annotations; written by rename
    <root>/<id>/config.json   config.json as it was at create: later changes of the bundle's change nothing
    <root>/<id>/seccomp.bpf   the compiled filter, for exec
    <root>/<id>/mounted       its root's mount, where the container has no mount namespace of its own (shared_root)
    <root>/<id>/start.sock    to connect is to start
    <root>/<id>/gate          flock'd by the init for as long as it has not executed the program
    <root>/<id>/lock          flock'd by a command that changes the container
    <root>/@seccomp/          compiled filters by what they are of (runtime.security.seccomp); may go at any time

The status is never written down: it is asked of the kernel (`status`). Whatever kills a command, the next one sees
what is.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from runtime.errors import NotFoundError, SpecError, StateError, SyscallError
from runtime.oci.config import shape

if TYPE_CHECKING:
    from runtime.cgroups import Cgroup
    from runtime.oci.config.spec import Spec
    from runtime.oci.container import Container

CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
OCI_VERSION: Final = "1.3.0"
VERSION: Final = "0.1.0"
_ID_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_FILTERS: Final = "@seccomp"


@dataclass(slots=True)
class Entry:
    """One container's directory, and what is written in it."""

    directory: str
    id: str
    bundle: str = ""
    rootfs: str = ""
    cgroup_path: str = ""
    unit: str = ""  # systemd's, and the slice it is in
    slice: str = ""
    oci_version: str = OCI_VERSION
    annotations: dict[str, str] = field(default_factory=dict)
    pid: int = 0
    pid_start: int = (
        0  # clock ticks after boot (proc_pid_stat(5), field 22): a pid alone may be somebody else's
    )
    created: str = ""

    @property
    def cgroup(self) -> Cgroup:
        if not self.cgroup_path:
            from runtime.cgroups.nothing import NoCgroup

            return NoCgroup(self.pid)
        from runtime.cgroups import open_cgroup

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
        """config.json as it was at create. StateError when it is not what was validated then."""
        from runtime.oci.config.spec import validate

        path = self.path("config.json")
        try:
            with open(path, "rb") as file:
                return validate(shape.parse(file.read(), path))
        except (SpecError, OSError) as error:
            raise _damaged(path, error) from error

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

    def pidfd(self) -> int:
        """Of its living init; the caller closes it. StateError when it is dead."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError as error:
            raise StateError("container not running") from error
        if not alive(self.pid, self.pid_start):  # looked at after opening: it cannot change any more
            os.close(pidfd)
            raise StateError("container not running")
        return pidfd

    def container(self) -> Container:
        """The engine's handle of its living init. StateError when it is dead. The caller closes its pidfd."""
        from runtime.oci.container import Container

        pidfd = self.pidfd()
        return Container(
            self.id, self.pid, pidfd, self.cgroup, self.spec(), _seccomp=self._filter(), bundle=self.bundle
        )

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


_SHAPE: Final = {
    **dict.fromkeys(
        ("id", "bundle", "rootfs", "cgroup_path", "unit", "slice", "oci_version", "created"), str
    ),
    "annotations": shape.Each(str),
    "pid": shape.Range(0, (1 << 31) - 1),
    "pid_start": shape.U64,
}
_SAVED: Final = tuple(_SHAPE)
# What an older kubelite-oci did not write: a container that it made is still ours to delete
_LATER: Final = ("unit", "slice")
_NEEDED: Final = tuple(name for name in _SAVED if name not in _LATER)


def check_id(container_id: str) -> str:
    """The id, when it can name a directory (runc's rule). StateError in runc's words."""
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


def filters(root: str) -> str:
    """Where compiled seccomp filters are kept. No container can have this name."""
    return f"{root}/{_FILTERS}"


def load(root: str, container_id: str) -> Entry:
    """NotFoundError when there is none, or nothing but an empty directory."""
    directory = f"{root}/{check_id(container_id)}"
    try:
        with open(f"{directory}/state.json", "rb") as file:
            data: Any = shape.parse(file.read(), "it")
        shape.check([] if data is None else data, shape.Needs(_NEEDED, _SHAPE), "state.json")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("container does not exist") from None
    except SpecError as error:
        raise _damaged(f"{directory}/state.json", error) from error
    entry = Entry(directory, container_id)
    for name in _SAVED:
        setattr(entry, name, data.get(name) or getattr(entry, name))
    entry.id = container_id  # the directory's name, whatever is written in it
    return entry


def _damaged(path: str, error: BaseException) -> StateError:
    return StateError(f"{path} is damaged ({error}): delete --force removes the container")


def all_entries(root: str, warn: Callable[[str], None]) -> list[Entry]:
    """By name. What cannot be read is said and left out."""
    try:
        names = sorted(os.listdir(root))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        if name == _FILTERS:
            continue
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

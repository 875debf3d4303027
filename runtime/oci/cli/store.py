"""The containers' records on disk: a directory per container in --root.

    <root>/<id>/state.json    init's pid and start time, bundle, cgroup, annotations; written by rename
    <root>/<id>/config.json   a copy made by create; later changes to the bundle's config.json have no effect
    <root>/<id>/seccomp.bpf   the compiled filter, for exec
    <root>/<id>/mounted       the root's mount, if the container has no mount namespace of its own (shared_root)
    <root>/<id>/start.sock    a connection starts the program
    <root>/<id>/gate          flock'd by the init until it has executed the program
    <root>/<id>/lock          flock'd by a command that changes the container
    <root>/@seccomp/          compiled filters by content (runtime.security.seccomp); may be deleted at any time

The status is never stored; it is determined from the kernel's state (`status`). So the next command sees the actual
status even if a command was killed.
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
VERSION: Final = "0.2.0"
_ID_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_FILTERS: Final = "@seccomp"


@dataclass(slots=True)
class Entry:
    """A container's directory and record."""

    directory: str
    id: str
    bundle: str = ""
    rootfs: str = ""
    cgroup_path: str = ""
    unit: str = ""  # the systemd scope, and its slice
    slice: str = ""
    oci_version: str = OCI_VERSION
    annotations: dict[str, str] = field(default_factory=dict)
    pid: int = 0
    # Clock ticks after boot (proc_pid_stat(5), field 22). The pid alone may have been reused.
    pid_start: int = 0
    created: str = ""

    @property
    def cgroup(self) -> Cgroup:
        if not self.cgroup_path:
            from runtime.cgroups.no_cgroup import NoCgroup

            return NoCgroup(self.pid)
        from runtime.cgroups import open_cgroup

        return open_cgroup(self.cgroup_path)

    def path(self, name: str) -> str:
        return f"{self.directory}/{name}"

    def save(self) -> None:
        """Write state.json, by rename."""
        data = {name: getattr(self, name) for name in _SAVED}
        self.write("state.json", json.dumps(data).encode())

    def write(self, name: str, content: bytes) -> None:
        from runtime import syscalls as sc  # here, because commands that write nothing do not need it

        draft = self.path(f".{name}.{os.getpid()}")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            sc.write_all(fd, content)
            os.rename(draft, self.path(name))
        except BaseException:
            os.unlink(draft)
            raise
        finally:
            os.close(fd)

    def spec(self) -> Spec:
        """The config.json of create. StateError if it is no longer valid."""
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
        """Lock the container against other commands that change it, and wait for those. Closing the returned descriptor
        releases the lock."""
        fd = os.open(self.path("lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return fd

    def pidfd(self) -> int:
        """A pidfd of the init, which the caller closes. StateError if the init is dead."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError as error:
            raise StateError("container not running") from error
        if not alive(self.pid, self.pid_start):  # checked after opening, so the pid cannot be reused any more
            os.close(pidfd)
            raise StateError("container not running")
        return pidfd

    def container(self) -> Container:
        """The engine's Container of the running init. StateError if the init is dead. The caller closes its pidfd."""
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
        """Remove the directory, state.json last: a directory without it is not a container."""
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
# Fields that an older kubelite-oci did not write. We can still delete containers that it created.
_OPTIONAL: Final = ("unit", "slice")
_REQUIRED: Final = tuple(name for name in _SAVED if name not in _OPTIONAL)


def check_id(container_id: str) -> str:
    """The ID, if it can be a directory name (runc's rule). Otherwise StateError with runc's message."""
    if not container_id or container_id in (".", "..") or not _ID_CHARACTERS.issuperset(container_id):
        raise StateError("invalid container ID format")
    return container_id


def make(root: str, container_id: str) -> Entry:
    """Create the container's directory. StateError if it already exists."""
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
    """The directory of compiled seccomp filters. No container can have this name."""
    return f"{root}/{_FILTERS}"


def load(root: str, container_id: str) -> Entry:
    """Read a container's record. NotFoundError without state.json, StateError if it is damaged."""
    directory = f"{root}/{check_id(container_id)}"
    try:
        with open(f"{directory}/state.json", "rb") as file:
            data: Any = shape.parse(file.read(), "state.json")
        shape.check([] if data is None else data, shape.Needs(_REQUIRED, _SHAPE), "state.json")
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("container does not exist") from None
    except SpecError as error:
        raise _damaged(f"{directory}/state.json", error) from error
    entry = Entry(directory, container_id)
    for name in _SAVED:
        setattr(entry, name, data.get(name) or getattr(entry, name))
    entry.id = container_id  # the directory's name counts, not the recorded ID
    return entry


def _damaged(path: str, error: BaseException) -> StateError:
    return StateError(f"{path} is damaged ({error}): remove the container with delete --force")


def all_entries(root: str, warn: Callable[[str], None]) -> list[Entry]:
    """All containers, sorted by ID. Those with a damaged record are left out, with a warning."""
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
    """Field 22 of /proc/<pid>/stat; 0 if the process is dead or a zombie."""
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

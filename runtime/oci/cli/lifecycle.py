"""start, kill, delete, pause, resume: the life of a container that is there (runtime-spec runtime.md, "Operations").

These commands only ask and order: nothing of what makes containers is imported, which would take longer than they do.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without `signal`'s enum conversions
import contextlib
import os
import socket
from signal import SIGKILL
from typing import TYPE_CHECKING, Any, Final

from runtime.errors import CapabilityError, NotFoundError, RuntimeFault, StartError, StateError
from runtime.oci import termination
from runtime.oci.cli import context, store
from runtime.oci.cli.context import Context
from runtime.oci.cli.store import CREATED, PAUSED, RUNNING, STOPPED, Entry

if TYPE_CHECKING:
    from runtime.oci.hooks import Hook

Flags = dict[str, Any]
_START_SECONDS: Final = 60.0
_DEAD_SECONDS: Final = 10.0  # how long what was killed is waited for


# --- start ---


def start(at: Context, _flags: Flags, arguments: list[str]) -> int:
    """`start ID`: opens the gate, and returns when execve has succeeded. Raises RuntimeFault."""
    entry = store.load(at.root, arguments[0])
    lock = entry.lock()
    try:
        _start(entry)
        try:
            after_start(at, entry)
        except StartError:
            remove(at, entry, force=True)
            raise
    finally:
        os.close(lock)
    return 0


def _start(entry: Entry) -> None:
    status = entry.status()
    if status == STOPPED:
        raise StateError("cannot start a container that has stopped")
    if status in (RUNNING, PAUSED):
        raise StateError("cannot start an already running container")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as gate:
        gate.settimeout(_START_SECONDS)
        try:
            with short_path(entry, "start.sock") as path:
                gate.connect(path)
            said = gate.recv(1 << 17)
        except ConnectionResetError:
            said = b""
        except (ConnectionRefusedError, FileNotFoundError) as error:
            raise StateError("cannot start a container that has stopped") from error
        except TimeoutError as error:
            raise StateError(f"container {entry.id} did not start within {_START_SECONDS:.0f} s") from error
    if said:
        _raise_start_error(entry, said)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(entry.path("start.sock"))


def _raise_start_error(entry: Entry, said: bytes) -> None:
    from runtime.oci import handshake, stub

    if (failed := stub.failure(said)) is not None:
        code, call = failed
        program = entry.spec()["process"]["args"][0] if call == "execve" else f"container {entry.id}"
        raise handshake.stub_failed(code, call, program)
    handshake.raise_reported(f"container {entry.id}", said)


def after_start(at: Context, entry: Entry) -> None:
    """poststart. StartError from the first that fails, which is the last that runs: the caller then stops and destroys
    the container (runtime.md, Lifecycle, 9, 12 and 13, as of 1.3; before it was a warning)."""
    from_create = _late_hooks(at, entry, "poststart", "running", pid=entry.pid)
    if from_create is not None:
        from runtime.oci import hooks

        hooks.run_all("poststart", *from_create)


def _after_stop(at: Context, entry: Entry) -> None:
    """poststop: a failure is a warning, and the others run all the same (Lifecycle, 13)."""
    from_create = _late_hooks(at, entry, "poststop", "stopped")
    if from_create is not None:
        from runtime.oci import hooks

        for warning in hooks.warn_all("poststop", *from_create):
            at.log.warning(warning)


def _late_hooks(
    at: Context, entry: Entry, kind: str, status: str, pid: int = 0
) -> tuple[tuple[Hook, ...], dict[str, Any]] | None:
    """The hooks of this kind and the state they get; None where config.json has none."""
    if b'"' + kind.encode() + b'"' not in _read_or(entry.path("config.json")):
        return None  # nearly always: not even parsed
    from runtime.oci import hooks, prepare

    try:
        spec = entry.spec()
    except StateError as error:
        at.log.warning(f"no {kind} hooks were run: {error}")
        return None
    steps = hooks.parse(spec.get("hooks") or {}).get(kind, ())
    return steps, prepare.hook_state(spec, entry.id, entry.bundle, status, pid)


def _read_or(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


@contextlib.contextmanager
def short_path(entry: Entry, name: str) -> Any:
    """A path that fits a socket's address (108 bytes), however deep --root is."""
    fd = os.open(entry.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


# --- kill, pause, resume ---


def kill(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`kill ID [SIGNAL]`: to its first process, or to all of them (`--all`). StateError when it does not run."""
    entry = store.load(at.root, arguments[0])
    number = parse_signal(arguments[1] if len(arguments) > 1 else "SIGTERM")
    if flags.get("all"):
        _kill_all(entry, number)
        return 0
    if entry.status() == STOPPED:
        if number == SIGKILL and _kill_the_rest(entry):
            return 0
        raise StateError("container not running")
    pidfd = entry.pidfd()
    alone = number == SIGKILL and not _ends_all(entry.pid)
    try:
        _signal.pidfd_send_signal(pidfd, number)
        if alone:
            _kill_the_rest(entry)
        if number == SIGKILL and (cgroup := entry.cgroup).frozen():  # what is frozen dies only thawed
            cgroup.thaw()
    except ProcessLookupError as error:
        raise StateError("container not running") from error
    finally:
        os.close(pidfd)
    return 0


def _ends_all(pid: int) -> bool:
    """Whether it is process 1 of a pid namespace, which all that is in it dies with."""
    status = _read_or(f"/proc/{pid}/status")
    return (
        next((line.split()[-1] for line in status.splitlines() if line.startswith(b"NSpid:")), b"1") == b"1"
    )


def _kill_the_rest(entry: Entry) -> bool:
    """What lives in the cgroup of a container that shares its pid namespace, whether its init does or not: SIGKILL is
    for all of it (as runc, since 1.2). False: nobody."""
    cgroup = entry.cgroup
    if not cgroup.exists() or not cgroup.pids():
        return False
    termination.signal_all(cgroup, SIGKILL)
    return True


def _kill_all(entry: Entry, number: int) -> None:
    """Each process of its cgroup, whether its init lives or not (it may have had no pid namespace of its own)."""
    cgroup = entry.cgroup
    if not cgroup.exists():
        raise StateError("container not running")
    termination.signal_all(cgroup, number)


def parse_signal(text: str) -> int:
    """`15`, `TERM`, `SIGTERM`, `sigterm`, `SIGRTMIN+3`. StateError in runc's words for what is none."""
    if text.isdecimal() and int(text) <= 64:  # 0: is there anybody? (kill(2))
        return int(text)
    name = text.upper()
    name = name if name.startswith("SIG") else f"SIG{name}"
    base, plus, offset = name.partition("+") if "+" in name else name.partition("-")
    found = getattr(_signal, base, None)
    if isinstance(found, int) and "_" not in base:
        number = int(found) + (int(f"{plus}{offset}") if offset.isdecimal() else 0)
        if 0 < number <= 64 and (not plus or (base in ("SIGRTMIN", "SIGRTMAX") and offset.isdecimal())):
            return number
    raise StateError(f"unknown signal {_quoted(text)}")


def _quoted(text: str) -> str:
    """As Go's %q, which callers of runc look for."""
    import json

    return json.dumps(text, ensure_ascii=False)


def pause(at: Context, _flags: Flags, arguments: list[str]) -> int:
    """`pause ID`: freezes its cgroup. StateError when it is frozen already, or has ended."""
    entry = store.load(at.root, arguments[0])
    if entry.status() not in (RUNNING, CREATED):  # nor one that is paused already (runc, in these words)
        raise StateError("container not running")
    entry.cgroup.freeze()
    return 0


def resume(at: Context, _flags: Flags, arguments: list[str]) -> int:
    """`resume ID`: thaws its cgroup. StateError when it is not frozen."""
    entry = store.load(at.root, arguments[0])
    if entry.status() != PAUSED:
        raise StateError("container not paused")
    entry.cgroup.thaw()
    return 0


# --- delete ---


def delete(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`delete ID`: what has ended (`--force`: whatever it is, and whatever a damaged record left) is removed."""
    force = bool(flags.get("force"))
    try:
        entry = store.load(at.root, arguments[0])
    except NotFoundError:
        if not force:
            raise
        _remove_rest(at.root, arguments[0])
        return 0
    except StateError:
        if not force:
            raise
        _remove_rest(at.root, arguments[0])
        return 0
    remove(at, entry, force=force)
    return 0


def remove(at: Context, entry: Entry, *, force: bool) -> None:
    """What `delete` does with a container whose record can be read: its process, cgroup and unit go, its hooks run, the
    record goes last. StateError for one that still runs, unless forced."""
    status = entry.status()
    # A container that is only created is deleted too: runc and crun do, whatever runtime.md ("Delete") says
    if status not in (STOPPED, CREATED) and not force:
        raise StateError(f"cannot delete container {entry.id} that is not stopped: {status}")
    if entry.pid:
        _end_init(entry)
    if entry.cgroup_path:
        entry.cgroup.remove()
    _unmount_root(entry)
    _leave_class(entry)
    if entry.unit:
        try:
            from runtime.oci.cli import placing

            placing.stop(entry)
        except RuntimeFault as error:  # it is empty, and collected by systemd in the end
            at.log.warning(f"unit {entry.unit}: {error}")
    _after_stop(at, entry)
    with contextlib.suppress(FileNotFoundError):  # deleted by another at the same moment
        entry.remove()


def _unmount_root(entry: Entry) -> None:
    """Of a container without a mount namespace of its own."""
    if mounted := _read_or(entry.path("mounted")):  # hardly ever
        from runtime.oci.rootfs import shared_root

        shared_root.unmount(os.fsdecode(mounted))


def _leave_class(entry: Entry) -> None:
    """linux.intelRdt."""
    if b'"intelRdt"' not in _read_or(entry.path("config.json")):
        return  # nearly always: not even parsed
    wanted = entry.spec().get("linux", {}).get("intelRdt")
    if wanted is not None:
        from runtime.oci.optional import intel_rdt

        with contextlib.suppress(CapabilityError):  # unmounted since: nothing of it is left
            intel_rdt.leave(wanted, entry.id, intel_rdt.root())


def _end_init(entry: Entry) -> None:
    """SIGKILL, and wait: a container without a pid namespace of its own has an init that is nobody's but ours."""
    try:
        pidfd = entry.pidfd()
    except StateError:
        return
    try:
        with contextlib.suppress(ProcessLookupError):
            _signal.pidfd_send_signal(pidfd, SIGKILL)
        if entry.cgroup.frozen():
            entry.cgroup.thaw()
        termination.has_exited(pidfd, _DEAD_SECONDS)
    finally:
        os.close(pidfd)
    with contextlib.suppress(ChildProcessError):  # `run`: it is our own child
        os.waitpid(entry.pid, os.WNOHANG)


def _remove_rest(root: str, container_id: str) -> None:
    """A directory that holds no readable state: what a create killed in its first moment leaves, or somebody damaged.
    Its cgroup is then known from config.json alone, if that is there."""
    directory = f"{root}/{store.check_id(container_id)}"
    if not os.path.isdir(directory):
        return
    from runtime.cgroups import open_cgroup

    entry = store.Entry(directory, container_id)
    with contextlib.suppress(RuntimeFault):
        wanted = entry.spec().get("linux", {}).get("cgroupsPath", "")
        open_cgroup(context.cgroup_path(container_id, wanted)).remove()
    _unmount_root(entry)
    entry.remove()

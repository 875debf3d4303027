"""The commands start, kill, delete, pause and resume (runtime-spec runtime.md, "Operations").

These commands import nothing that creates containers: the import would take longer than the command.
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
_DEAD_SECONDS: Final = 10.0  # how long to wait for a killed process to die


# --- start ---


def start(at: Context, _flags: Flags, arguments: list[str]) -> int:
    """`start ID`: let the init execute its program; return when execve has succeeded. Raises RuntimeFault."""
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
    from runtime.oci import execve_stub, handshake

    if (failed := execve_stub.failure(said)) is not None:
        code, call = failed
        program = entry.spec()["process"]["args"][0] if call == "execve" else f"container {entry.id}"
        raise handshake.stub_failed(code, call, program)
    handshake.raise_reported(f"container {entry.id}", said)


def after_start(at: Context, entry: Entry) -> None:
    """Run the poststart hooks until one fails with a StartError. The caller then stops and deletes the container
    (runtime.md, "Lifecycle", steps 9, 12 and 13, as of 1.3; before, a failure was a warning)."""
    from_create = _late_hooks(at, entry, "poststart", "running", pid=entry.pid)
    if from_create is not None:
        from runtime.oci import hooks

        hooks.run_all("poststart", *from_create)


def _after_stop(at: Context, entry: Entry) -> None:
    """Run all poststop hooks. A failure is a warning, and the rest still run ("Lifecycle", step 13)."""
    from_create = _late_hooks(at, entry, "poststop", "stopped")
    if from_create is not None:
        from runtime.oci import hooks

        for warning in hooks.warn_all("poststop", *from_create):
            at.log.warning(warning)


def _late_hooks(
    at: Context, entry: Entry, kind: str, status: str, pid: int = 0
) -> tuple[tuple[Hook, ...], dict[str, Any]] | None:
    """The hooks of this kind and the state they receive; None if config.json has none."""
    if b'"' + kind.encode() + b'"' not in _read_or(entry.path("config.json")):
        return None  # the common case, without parsing
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
    """A path that fits in a socket address (108 bytes), however long --root is."""
    fd = os.open(entry.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)


# --- kill, pause, resume ---


def kill(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`kill ID [SIGNAL]`: signal the container's init, or all its processes (`--all`). StateError if it does not
    run."""
    entry = store.load(at.root, arguments[0])
    number = parse_signal(arguments[1] if len(arguments) > 1 else "SIGTERM")
    if flags.get("all"):
        _kill_all(entry, number)
        return 0
    if entry.status() == STOPPED:
        if number == SIGKILL and _kill_remaining(entry):
            return 0
        raise StateError("container not running")
    pidfd = entry.pidfd()
    alone = number == SIGKILL and not _is_namespace_init(entry.pid)
    try:
        _signal.pidfd_send_signal(pidfd, number)
        if alone:
            _kill_remaining(entry)
        if number == SIGKILL and (cgroup := entry.cgroup).frozen():  # a frozen process dies only when thawed
            cgroup.thaw()
    except ProcessLookupError as error:
        raise StateError("container not running") from error
    finally:
        os.close(pidfd)
    return 0


def _is_namespace_init(pid: int) -> bool:
    """Whether the process is process 1 of a pid namespace. All other processes in the namespace die with it."""
    status = _read_or(f"/proc/{pid}/status")
    return (
        next((line.split()[-1] for line in status.splitlines() if line.startswith(b"NSpid:")), b"1") == b"1"
    )


def _kill_remaining(entry: Entry) -> bool:
    """Kill all processes in the cgroup of a container without its own pid namespace, even if its init has exited.

    SIGKILL is meant for the whole container (as in runc since 1.2). False: the cgroup has no processes.
    """
    cgroup = entry.cgroup
    if not cgroup.exists() or not cgroup.pids():
        return False
    termination.signal_all(cgroup, SIGKILL)
    return True


def _kill_all(entry: Entry, number: int) -> None:
    """Signal each process in the cgroup, even if the init has exited: without its own pid namespace, others may outlive
    it."""
    cgroup = entry.cgroup
    if not cgroup.exists():
        raise StateError("container not running")
    termination.signal_all(cgroup, number)


def parse_signal(text: str) -> int:
    """The number of a signal such as `15`, `TERM`, `SIGTERM`, `sigterm` or `SIGRTMIN+3`. Otherwise StateError with
    runc's message."""
    if text.isdecimal() and int(text) <= 64:  # 0 only tests for existence (kill(2))
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
    """Quoted as by Go's %q, which callers of runc parse."""
    import json

    return json.dumps(text, ensure_ascii=False)


def pause(at: Context, _flags: Flags, arguments: list[str]) -> int:
    """`pause ID`: freeze the container's cgroup. StateError if it is already frozen or has exited."""
    entry = store.load(at.root, arguments[0])
    # runc also rejects an already paused container with this message
    if entry.status() not in (RUNNING, CREATED):
        raise StateError("container not running")
    entry.cgroup.freeze()
    return 0


def resume(at: Context, _flags: Flags, arguments: list[str]) -> int:
    """`resume ID`: thaw the container's cgroup. StateError if it is not frozen."""
    entry = store.load(at.root, arguments[0])
    if entry.status() != PAUSED:
        raise StateError("container not paused")
    entry.cgroup.thaw()
    return 0


# --- delete ---


def delete(at: Context, flags: Flags, arguments: list[str]) -> int:
    """`delete ID`: remove a stopped container; with `--force`, also a running one or one with a damaged record."""
    force = bool(flags.get("force"))
    try:
        entry = store.load(at.root, arguments[0])
    except NotFoundError:
        if not force:
            raise
        _remove_damaged(at.root, arguments[0])
        return 0
    except StateError:
        if not force:
            raise
        _remove_damaged(at.root, arguments[0])
        return 0
    remove(at, entry, force=force)
    return 0


def remove(at: Context, entry: Entry, *, force: bool) -> None:
    """Remove a container with a readable record: end its init, remove its cgroup and unit, run its poststop hooks, and
    remove the record last. StateError if it runs and `force` is not given."""
    status = entry.status()
    # A created container is deleted too, as by runc and crun, although runtime.md ("Delete") forbids it.
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
            from runtime.oci.cli import container_cgroup

            container_cgroup.stop(entry)
        except RuntimeFault as error:  # the unit is empty, and systemd collects it later
            at.log.warning(f"unit {entry.unit}: {error}")
    _after_stop(at, entry)
    with contextlib.suppress(FileNotFoundError):  # another command has just deleted it
        entry.remove()


def _unmount_root(entry: Entry) -> None:
    """Unmount the root of a container without its own mount namespace."""
    if mounted := _read_or(entry.path("mounted")):  # rare
        from runtime.oci.rootfs import shared_root

        shared_root.unmount(os.fsdecode(mounted))


def _leave_class(entry: Entry) -> None:
    """Remove the container's resctrl class (linux.intelRdt)."""
    if b'"intelRdt"' not in _read_or(entry.path("config.json")):
        return  # the common case, without parsing
    wanted = entry.spec().get("linux", {}).get("intelRdt")
    if wanted is not None:
        from runtime.oci.optional import intel_rdt

        with contextlib.suppress(CapabilityError):  # resctrl has been unmounted since: nothing to remove
            intel_rdt.leave(wanted, entry.id, intel_rdt.root())


def _end_init(entry: Entry) -> None:
    """Kill the init and wait for it to die."""
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
    with contextlib.suppress(ChildProcessError):  # after `run` it is our own child
        os.waitpid(entry.pid, os.WNOHANG)


def _remove_damaged(root: str, container_id: str) -> None:
    """Remove a container directory without a readable state.json, left by a killed create or damaged since.

    Its cgroup is known only from config.json, if that exists.
    """
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

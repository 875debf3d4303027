"""Create a container in a child of the shim, so that the memory that it takes is freed when the child exits.

    shim                                     child                                   the container's init
    clone3 ────────────────────────────────► read config.json, plan, make the cgroup
                                             clone3 with CLONE_PARENT ─────────────► build the root …
                                             answer its requests     ◄─────────────► ready: wait for start
    recv ◄── pid, warnings, descriptors ──── exit

The init is a child of the shim as if the shim had cloned it: the shim reaps it, and it dies with the shim. Creating
writes to half a megabyte: byte code as it runs, config.json, the plan. A shim would keep these pages for the life of
its pod. What the shim keeps instead is a handle with the descriptors of the init.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any, Final, NoReturn

from runtime import errors
from runtime import syscalls as sc
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault, SpecError, StateError, SyscallError
from runtime.files import read_bytes
from runtime.oci import container as engine
from runtime.oci import prepare, spawn
from runtime.oci.config import shape
from runtime.oci.config import spec as oci
from runtime.oci.optional import calls
from runtime.shim import streams
from runtime.shim.protocol import CreateContainer, RootfsOverlay

if TYPE_CHECKING:
    from runtime.oci.pending import PendingExec
    from runtime.oci.rootfs.procfs import Procfs

# For the whole of create. Each step that waits for the init has its own, shorter limit (HANDSHAKE_SECONDS).
CREATE_SECONDS: Final = 180.0
_PACKET: Final = 1 << 17
# Characters of a text in a packet, of which JSON takes up to 12 bytes each. A packet has several texts. No path of a
# program is longer (PATH_MAX).
_TEXT: Final = 4096
_FDS: Final = 3  # the init's pidfd, the socket to it, and the master of its terminal


class Container(engine.Container):
    """A container that a child of the shim has created.

    Its `spec` contains only what `start` needs, until the first exec reads config.json again.
    """

    own_pid_namespace = True
    _complete = False

    def begin_exec(self, process: dict[str, Any], **options: Any) -> PendingExec:
        if not self._complete:
            spec = prepare.with_mappings(oci.validate(read_spec(self.bundle)))
            self._seccomp = prepare.compile_filter(spec.get("linux", {}))
            self.spec, self._complete = spec, True
        return super().begin_exec(process, **options)


def create(request: CreateContainer, ends: streams.Ends, procfs: Procfs | None) -> Container:
    """Create the container. Its init waits for `start`.

    Raises what engine.create raises; nothing of the container remains then. `ends` receives the master of a terminal
    that the engine opens in the container.
    """
    with contextlib.ExitStack() as stack:
        shim = spawn.own_pidfd(stack)
        ours, theirs = spawn.channel_pair(stack)
        pid, pidfd = _clone()
        if pid == 0:
            _run(request, ends, procfs, shim, theirs)
        stack.callback(os.close, pidfd)
        theirs.close()
        ours.settimeout(CREATE_SECONDS)
        try:
            packet, fds, flags, _ = socket.recv_fds(ours, _PACKET, _FDS)
        except TimeoutError:
            packet, fds, flags = b"", [], 0
        except BaseException:
            _abandon(request, pidfd)
            raise
        for fd in fds:
            os.set_inheritable(fd, False)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):  # the second: no more descriptors may be open
            for fd in fds:
                os.close(fd)
            _abandon(request, pidfd)
            raise StateError(f"container {request.container_id}: the shim could not receive its descriptors")
        if not packet:
            _abandon(request, pidfd)
            raise StateError(f"container {request.container_id}: the process that creates it was killed")
        # The child exits by itself, and the shim's loop reaps it with the other children that it does not know.
        return received(request, ends, json.loads(packet), fds)


def _clone() -> tuple[int, int]:
    """(pid, pidfd) of a copy of this process; (0, -1) in the copy. Signals are blocked meanwhile, because a pending
    handler would run in both."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return sc.clone3(0, exit_signal=signal.SIGCHLD)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def received(
    request: CreateContainer, ends: streams.Ends, message: dict[str, Any], fds: list[int]
) -> Container:
    """The container that the child's message describes. Raises the error that it reports."""
    if "error" in message:
        raise _rebuilt(message["error"])
    pidfd, channel, *master = fds
    if isinstance(ends, streams.GivenTerminal) and master:
        ends.take(master[0])
    made = Container(
        request.container_id,
        message["pid"],
        pidfd,
        open_cgroup(message["cgroup"]),
        {"process": {"args": [message["program"]]}},
        tuple(message["warnings"]),
        message["times"],
        socket.socket(fileno=channel),
        None,
        request.bundle,
        message["mounted"],
    )
    made.own_pid_namespace = message["own_pid_namespace"]
    return made


def _abandon(request: CreateContainer, pidfd: int) -> None:
    """Kill the child and what it has created. Only a child that was killed, or that hangs, leaves anything."""
    with contextlib.suppress(SyscallError):
        sc.pidfd_send_signal(pidfd, signal.SIGKILL)
    with contextlib.suppress(RuntimeFault, OSError):
        path = cgroup_path(read_spec(request.bundle), request.bundle)
        cgroup = open_cgroup(path)
        cgroup.kill()
        cgroup.remove()


# --- the child ---


def _run(
    request: CreateContainer,
    ends: streams.Ends,
    procfs: Procfs | None,
    shim: int,
    channel: socket.socket,
) -> NoReturn:
    code = 1
    try:
        gc.disable()  # a collection would write to, and so copy, every page shared with the shim
        signal.set_wakeup_fd(-1)  # it would wake the shim's loop
        sc.prctl(sc.PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            spec = read_spec(request.bundle)
            made = create_here(request, spec, ends, procfs, parent=shim)
        except BaseException as error:  # noqa: BLE001 - no exception may escape into the shim's code
            channel.send(json.dumps({"error": _described(error)}).encode())
        else:
            _tell(channel, made, ends)
        code = 0
    finally:
        os._exit(code)


def _tell(channel: socket.socket, made: engine.Container, ends: streams.Ends) -> None:
    message = {
        "pid": made.pid,
        "cgroup": made.cgroup.path,
        "program": made.spec["process"]["args"][0][:_TEXT],
        "warnings": [warning[:_TEXT] for warning in made.warnings],
        "times": made.times,
        "mounted": made.mounted,
        "own_pid_namespace": oci.namespaces(made.spec).get("pid") == "",
    }
    assert made._channel is not None
    fds = [made.pidfd, made._channel.fileno()]
    if isinstance(ends, streams.GivenTerminal) and ends.master >= 0:
        fds.append(ends.master)
    try:
        socket.send_fds(channel, [json.dumps(message).encode()], fds)
    except OSError:
        made.delete()  # the shim has died, or has given up
        raise


def _described(error: BaseException) -> dict[str, Any]:
    """An error as JSON, from which `_rebuilt` makes one of the same class."""
    known = isinstance(error, RuntimeFault)
    message = str(error) if known or isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return {
        "class": type(error).__name__ if known else "OSError" if isinstance(error, OSError) else "",
        "message": message[:_TEXT],
        "reason": getattr(error, "reason", RuntimeFault.reason),
        "retriable": getattr(error, "retriable", False),
        "errno": getattr(error, "errno", None) or 0,
        "call": getattr(error, "call", ""),
        "about": str(getattr(error, "about", ""))[:_TEXT],
        "notes": [note[:_TEXT] for note in getattr(error, "__notes__", [])],
    }


def _rebuilt(told: dict[str, Any]) -> Exception:
    error: Exception
    kind = getattr(errors, told["class"], RuntimeFault)
    if told["class"] == "OSError":
        error = OSError(told["errno"], told["message"])
    elif kind is SyscallError:
        error = SyscallError(told["errno"], told["call"], told["about"])
        error.args = (told["message"],)
    else:
        error = kind(told["message"], reason=told["reason"], retriable=told["retriable"])
    for note in told["notes"]:
        error.add_note(note)
    return error


def create_here(
    request: CreateContainer,
    spec: dict[str, Any],
    ends: streams.Ends,
    procfs: Procfs | None,
    *,
    parent: int | None = None,
) -> engine.Container:
    """Create the container in this process. `parent`: a pidfd of the process that its init becomes a child of."""
    path = cgroup_path(spec, request.bundle)
    set_oom_group(spec)
    given = ends.take if isinstance(ends, streams.GivenTerminal) else None
    return engine.create(
        spec,  # type: ignore[arg-type]
        container_id=request.container_id,
        bundle=request.bundle,
        stdio=engine.Stdio(ends.stdin, ends.stdout, ends.stderr) if given is None else None,
        console_slave=ends.stdin if request.tty and given is None else None,
        console=given,
        rootfs=RootfsOverlay.from_json(request.rootfs) if request.rootfs is not None else None,
        cgroup_path=path,
        procfs=procfs,
        note_calls=calls.note_in_init,
        parent=parent,
    )


def cgroup_path(spec: dict[str, Any], bundle: str) -> str:
    path: str = (spec.get("linux") or {}).get("cgroupsPath") or ""
    if not path:
        raise SpecError(f"linux.cgroupsPath is missing in {bundle}/config.json")
    return path


def set_oom_group(spec: dict[str, Any]) -> None:
    """Make the OOM killer kill the whole container instead of one process (memory.oom.group), as kubelet does on cgroup
    v2. The engine ignores the setting on v1."""
    resources = spec["linux"].setdefault("resources", {})
    resources["unified"] = {"memory.oom.group": "1", **(resources.get("unified") or {})}


def read_spec(bundle: str) -> dict[str, Any]:
    try:
        spec = shape.parse(read_bytes(f"{bundle}/config.json"), f"{bundle}/config.json")
    except OSError as error:
        raise SpecError(f"{bundle}/config.json cannot be read: {error.strerror}") from error
    if not isinstance(spec, dict):
        raise SpecError(f"{bundle}/config.json is not a JSON object")
    return spec

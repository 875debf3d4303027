"""Run in the forkserver what every shim will do, as far as that has no lasting effect.

CPython writes to memory as it runs code: it specializes byte code (and counts up to that), assigns version numbers to
types, functions and dictionaries, and fills caches. Each write copies a page that the fork shares, and takes time.
After a rehearsal these writes are already done when a shim is forked.

It leaves nothing behind. Files are in a tmpfs that is not attached anywhere. Creating the container fails at its
cgroup, which is our own and so in use. The kernel chooses the socket's name. The tmpfs and the socket end with their
descriptors, even after kill -9.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from runtime import syscalls as sc
from runtime.cgroups import open_cgroup
from runtime.errors import RuntimeFault, StateError
from runtime.oci.rootfs.operations import DeviceNode, DevLinks, MakeDirectory
from runtime.oci.rootfs.root import Root
from runtime.oci.rootfs.rootfs import plan
from runtime.security import paths, seccomp
from runtime.security.capability_names import DEFAULT_CAPS
from runtime.shim import creator, streams
from runtime.shim.loop import Loop
from runtime.shim.protocol import CreateContainer, Op, RootfsOverlay, SandboxConfig, SandboxRecord
from runtime.shim.sandbox import Place
from runtime.shim.shim import Shim
from runtime.shim.supervisor import Supervisor, open_log

ROUNDS = 4  # since 3.12 byte code is specialized on its second run; some code runs only every other round


def rehearse(
    cgroup: str, warn: Callable[[str], None], *, rounds: int = ROUNDS, shim_only: bool = False
) -> None:
    """Run the rehearsal. `cgroup`: the caller's own. `shim_only`: without what a shim's children do, whose memory is
    freed when they exit. A failure is passed to `warn`; its only effect is slower or larger shims."""
    before = signal.getsignal(signal.SIGCHLD)
    try:
        for _ in range(rounds):
            with ExitStack() as stack:
                _run_once(cgroup, stack, shim_only=shim_only)
    except (RuntimeFault, OSError) as error:
        warn(f"the rehearsal failed: {error}")
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, before)
        if before == signal.SIG_IGN:
            _reap_children()


def _reap_children() -> None:
    """Reap children that exited during the rehearsal. The kernel reaps only while SIGCHLD is ignored, not with a shim's
    handler."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _run_once(cgroup: str, stack: ExitStack, *, shim_only: bool) -> None:
    directory = detached_tmpfs(stack)
    request = _request(cgroup, directory)
    if not shim_only:
        _rehearse_create(cgroup, request, stack)
        root = Root(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        stack.callback(os.close, root.fd)
        stack.callback(lambda: os.close(root.cached_directory("/dev")))
        overlay = RootfsOverlay(["/lower"], "/upper", "/work")
        for operation in plan(_spec(cgroup), bundle="/bundle", overlay=overlay).operations:  # type: ignore[arg-type]
            operation.describe()
            if isinstance(operation, DeviceNode | DevLinks | MakeDirectory):
                operation.execute(root)
    # last, so that its type lookups remain in the interpreter's cache
    _rehearse_container(cgroup, directory, request, stack)
    _rehearse_requests(cgroup, directory, stack)


def detached_tmpfs(stack: ExitStack) -> str:
    """The path, valid only in this process, of a directory on a detached tmpfs."""
    context = sc.fsopen("tmpfs")
    stack.callback(os.close, context)
    sc.fsconfig(context, sc.FSCONFIG_CMD_CREATE)
    directory = sc.fsmount(context)
    stack.callback(os.close, directory)
    return f"/proc/self/fd/{directory}"


def _rehearse_requests(cgroup: str, directory: str, stack: ExitStack) -> None:
    """A shim that answers some requests."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    listener.bind("")
    listener.listen(1)
    config = SandboxConfig("uid", "id", directory, cgroup, cgroup, "host", resources={"cpu": {"shares": 2}})
    config = SandboxConfig.from_json(json.loads(json.dumps(config.to_json())))
    shim = Shim(config, Place(open_cgroup(cgroup), None, [], 0.0), listener)
    stack.callback(shim.loop.close)
    stack.callback(shim.close)
    shim.write_state()
    daemon = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC))
    daemon.connect(listener.getsockname())
    shim.loop.run_once()
    requests: list[dict[str, Any]] = [
        {"op": Op.SUBSCRIBE},
        {"op": Op.ANNOTATE, "annotations": {"ip": "10.0.0.1"}},
        {"op": Op.STATE},
        {"op": Op.START, "container_id": "none"},
    ]
    for number, request in enumerate(requests):
        daemon.send(json.dumps({"id": number, **request}).encode())
        shim.loop.run_once()
        answer = json.loads(daemon.recv(1 << 16))
        if "ok" in answer:
            SandboxRecord.from_json(answer["ok"]["sandbox"])


def _request(cgroup: str, directory: str) -> CreateContainer:
    """A request to create a container, with its config.json in `directory`."""
    with open(f"{directory}/config.json", "w", encoding="ascii") as file:
        json.dump(_spec(cgroup), file)
    places = {name: f"{directory}/{name}" for name in ("upper", "work")}
    request = CreateContainer(
        container_id="id",
        name="main",
        attempt=0,
        bundle=directory,
        rootfs={"lower": ["/lower"], **places},
        log_path=f"{directory}/pod/main/0.log",
    )
    return CreateContainer.from_json(json.loads(json.dumps(request.to_json())))


def _rehearse_create(cgroup: str, request: CreateContainer, stack: ExitStack) -> None:
    """What the child of a shim does: create a container, which fails at its cgroup."""
    ends = streams.Pipes(stdin=False)
    stack.callback(ends.close)
    shim = os.pidfd_open(os.getpid())
    stack.callback(os.close, shim)
    with contextlib.suppress(StateError):  # the expected failure
        creator.create_here(request, creator.read_spec(request.bundle), ends, None, parent=shim)


def _rehearse_container(cgroup: str, directory: str, request: CreateContainer, stack: ExitStack) -> None:
    """What the shim itself does for a container: have it created, which fails at its cgroup; start it, read its output
    and write its record."""
    loop = Loop(lambda: None, lambda: None)
    stack.callback(loop.close)
    supervisor = Supervisor(loop, lambda _: None, lambda _: None, lambda *_: None)
    with contextlib.suppress(StateError):  # the expected failure
        supervisor.create(request)
    with ExitStack() as undo:
        ends = streams.Pipes(stdin=False)
        undo.callback(ends.close)
        ours, init = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        undo.callback(init.close)
        told = {
            "pid": os.getpid(),
            "cgroup": cgroup,
            "program": "/program",
            "warnings": [],
            "times": "",
            "mounted": "",
            "own_pid_namespace": True,
        }
        fds = [os.pidfd_open(os.getpid()), ours.detach()]
        handle = creator.received(request, ends, json.loads(json.dumps(told)), fds)
        undo.callback(os.close, handle.pidfd)
        made = supervisor.adopt(request, handle, ends, open_log(request, undo))
        supervisor.containers["id"] = made
        undo.callback(made.release_stdio)
        init.send(b'{"steps": "1 exec\\n execve\\n"}')
        init.shutdown(socket.SHUT_WR)
        supervisor.start("id")
        os.write(ends.stdout, b"a line\n")
        loop.run_once()
        json.dumps(made.record().to_json())
        undo.callback(supervisor.containers.clear)


def _spec(cgroup: str) -> dict[str, Any]:
    """A config.json like that of a pod without special settings."""
    caps = list(DEFAULT_CAPS)
    options = ["nosuid", "noexec", "nodev"]
    mounts: list[dict[str, Any]] = [
        {"destination": f"/{name}", "type": kind, "source": kind, "options": options}
        for name, kind in (("proc", "proc"), ("dev", "tmpfs"), ("sys", "sysfs"), ("dev/pts", "devpts"))
    ]
    mounts.append(
        {"destination": "/etc/hosts", "type": "bind", "source": "/x", "options": ["rbind", "rprivate"]}
    )
    mounts.append({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": [*options, "ro"]})
    shared = [
        {"type": kind, "path": f"/proc/self/ns/{name}"}
        for kind, name in (("network", "net"), ("uts", "uts"), ("ipc", "ipc"))
    ]
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
            "args": ["/program"],
            "env": ["PATH=/bin", "HOSTNAME=host"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "oomScoreAdj": 1000,
            "noNewPrivileges": False,
        },
        "root": {"path": "root", "readonly": False},
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "cgroup"}, {"type": "pid"}, *shared],
            "cgroupsPath": cgroup,
            "resources": {
                "cpu": {"shares": 2, "period": 100000, "quota": -1},
                "memory": {"limit": -1, "swap": -1},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "maskedPaths": list(paths.masked_paths()),
            "readonlyPaths": list(paths.READONLY_PATHS),
            "seccomp": seccomp.default_profile(frozenset(caps)),
        },
    }

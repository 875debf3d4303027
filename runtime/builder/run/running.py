"""RUN: its OCI config.json (pure), and the builder's side of the runner.

The container gets what docker build gives: the default capabilities, seccomp and AppArmor profile, no terminal, and
nothing of the host except its resolver configuration. Mount points created for the RUN do not remain in the layer.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import runtime
from runtime import syscalls as sc
from runtime.builder.copy.accounts import User
from runtime.builder.errors import BuildError, Cancelled
from runtime.images.layers.lower import LowerView, final_path, is_opaque
from runtime.security import seccomp_default
from runtime.security.capability_names import adjust
from runtime.security.paths import READONLY_PATHS, masked_paths

Json = dict[str, Any]
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
# -I -S ignores the user's environment. The import path is that of this process, with this package's location first.
_PROGRAM = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[3]); from runtime.builder.run.runner import main; "
    "sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))"
)
HOSTNAME = "build"
_HOSTS = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


@dataclass(frozen=True, slots=True)
class Attached:
    """The address of an attached network namespace in the pods' network."""

    address: str


Attach = Callable[[int], AbstractContextManager[Attached]]


@dataclass(frozen=True, slots=True)
class Overlay:
    """Files of another stage, to mount at `at`, a directory of the session. With an `upper` they are writable, and
    changes are discarded."""

    lower: Sequence[str]
    at: str
    scratch: str
    upper: str = ""
    work: str = ""


@dataclass(frozen=True, slots=True)
class Secret:
    content: bytes
    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, slots=True)
class RunJob:
    """One RUN. `binds`: OCI mounts of its --mount flags; `network`: default, none or host."""

    args: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    user: User
    lower: Sequence[str]
    upper: str
    work: str
    directory: str  # in the session's directory, for bundle, hosts and secrets
    cgroup: str
    network: str = "default"
    binds: Sequence[Json] = ()
    overlays: Sequence[Overlay] = ()
    secrets: Sequence[Secret] = ()
    secrets_at: str = ""
    resources: Json = field(default_factory=dict)
    socketcall: bool = True  # see seccomp_default.resolve
    apparmor: str = ""  # the name of a profile that is loaded
    shm_size: int = 64 << 20


def spec(job: RunJob, caps: Sequence[str], machine: str, kernel: tuple[int, int]) -> Json:
    """The config.json of a RUN. Pure, except that it looks up which masked paths exist."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **job.env}
    environment.setdefault("HOME", job.user.home)
    user: Json = {"uid": job.user.uid, "gid": job.user.gid}
    if job.user.groups:
        user["additionalGids"] = list(job.user.groups)
    capabilities = {"bounding": list(caps), "effective": list(caps), "permitted": list(caps)}
    return {
        "ociVersion": "1.2.0",
        "process": {
            "terminal": False,
            "user": user,
            "args": list(job.args),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": job.cwd,
            "capabilities": capabilities,
            "rlimits": [],
            "noNewPrivileges": False,
            **({"apparmorProfile": job.apparmor} if job.apparmor else {}),
        },
        "hostname": HOSTNAME,
        "root": {"path": "merged", "readonly": False},
        "mounts": _mounts(job),
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "pid", "ipc", "uts", "cgroup")],
            "cgroupsPath": job.cgroup,
            "resources": {**job.resources, "devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": masked_paths(),
            "readonlyPaths": list(READONLY_PATHS),
            "seccomp": seccomp_default.resolve(
                frozenset(caps), machine=machine, kernel=kernel, socketcall=job.socketcall
            ),
        },
    }


def _mounts(job: RunJob) -> list[Json]:
    quiet = ["nosuid", "noexec", "nodev"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
    made = [
        _mount("/proc", "proc", "proc", quiet),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", pts),
        _mount("/dev/shm", "tmpfs", "shm", [*quiet, "mode=1777", f"size={job.shm_size}"]),
        _mount("/dev/mqueue", "mqueue", "mqueue", quiet),
        _mount("/sys", "sysfs", "sysfs", [*quiet, "ro"]),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*quiet, "relatime", "ro"]),
        _mount("/etc/hosts", "bind", f"{job.directory}/hosts", ["rbind", "rprivate", "rw"]),
        _mount("/etc/resolv.conf", "bind", f"{job.directory}/resolv.conf", ["rbind", "rprivate", "rw"]),
    ]
    taken = {mount["destination"] for mount in job.binds}
    made = [mount for mount in made if mount["destination"] not in taken] + list(job.binds)
    return sorted(made, key=lambda mount: len([part for part in mount["destination"].split("/") if part]))


def _mount(destination: str, kind: str, source: str, options: list[str]) -> Json:
    return {"destination": destination, "type": kind, "source": source, "options": options}


def run(
    job: RunJob,
    attach: Attach,
    output: Callable[[bytes], None],
    cancelled: Callable[[int], AbstractContextManager[None]],
) -> None:
    """Run a job to its end. `cancelled(fd)` is held meanwhile; cancelling shuts that socket down. Raises BuildError
    (without a place) if the program cannot be started or fails, and Cancelled."""
    _write_files(job)
    caps = adjust((), ())
    mount_points = _missing_mount_points(job)
    release = os.uname().release.split(".")
    kernel = int(release[0]), int("".join(c for c in release[1] if c.isdigit()) or 0)
    document = {
        "id": os.path.basename(job.cgroup) or "build",
        "spec": spec(job, caps, os.uname().machine, kernel),
        "bundle": job.directory,
        "lower": list(job.lower),
        "upper": job.upper,
        "work": job.work,
        "cgroup": job.cgroup,
        "own_network": job.network != "host",
        "attach": job.network == "default",
        "overlays": [
            {"lower": list(o.lower), "at": o.at, "upper": o.upper, "work": o.work, "scratch": o.scratch}
            for o in job.overlays
        ],
        "secrets": [
            {"hex": s.content.hex(), "uid": s.uid, "gid": s.gid, "mode": s.mode} for s in job.secrets
        ],
        "secrets_at": job.secrets_at,
    }
    answer = _run_job(job, document, attach, output, cancelled)
    _remove_empty_mount_points(job, mount_points)
    if "error" in answer:
        raise BuildError(f"cannot start RUN: {answer['error']}")
    if answer["exit"]:
        for warning in answer["warnings"]:
            output(warning.encode() + b"\n")
        shown = _shown(job.args)
        oom = f": the kernel killed it at its memory limit{_limit(job)}" if answer["oom"] else ""
        raise BuildError(f"RUN failed with exit code {answer['exit']}{oom}: {shown}")


def _shown(args: Sequence[str]) -> str:
    text = " ".join(args)
    return text if len(text) <= 200 else f"{text[:199]}…"


def _write_files(job: RunJob) -> None:
    os.makedirs(f"{job.directory}/merged", exist_ok=True)
    _write(f"{job.directory}/hosts", _HOSTS)
    _write(f"{job.directory}/resolv.conf", _resolv_conf(job.network))


def _resolv_conf(network: str) -> str:
    """The host's resolv.conf. A resolver on the host's loopback is unreachable from another network namespace; then
    systemd-resolved's upstream servers are used."""
    if network == "none":
        return ""
    text = ""
    for path in ("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"):
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        if network == "host" or "nameserver 127." not in text:
            break
    return text


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)


def _limit(job: RunJob) -> str:
    limit = job.resources.get("memory", {}).get("limit")
    return f" of {limit >> 20}Mi (kubelite build --memory, or the setting build_memory)" if limit else ""


def _run_job(
    job: RunJob, document: Json, attach: Attach, output: Callable[[bytes], None],
    cancelled: Callable[[int], AbstractContextManager[None]],
) -> Json:  # fmt: skip
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_inheritable(writing, True)
    path = json.dumps([_ROOT, *filter(None, sys.path)])
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM, str(theirs.fileno()), str(writing), path],
        stdin=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(), writing),
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"},
        start_new_session=True,  # Ctrl-C is for the builder
    )
    theirs.close()
    os.close(writing)
    try:
        with ours, cancelled(ours.fileno()), ours.makefile("rb") as lines:
            ours.sendall(json.dumps(document).encode() + b"\n")
            if not document["attach"]:
                return _outcome(reading, lines, output)
            first = json.loads(lines.readline() or b"{}")
            if "network" not in first:
                return first or _gone()
            with attach(process.pid) as attached:
                _write(f"{job.directory}/hosts", f"{_HOSTS}{attached.address}\t{HOSTNAME}\n")
                ours.sendall(b"go\n")
                return _outcome(reading, lines, output)
    except (BrokenPipeError, ConnectionResetError):
        return _gone()
    finally:
        os.close(reading)
        process.wait()


def _outcome(reading: int, lines: Any, output: Callable[[bytes], None]) -> Json:
    """Pass on the program's output until it ends. Returns the runner's answer."""
    while chunk := os.read(reading, 65536):
        output(chunk)
    found: Json = json.loads(lines.readline() or b"{}")
    return found or _gone()


def _gone() -> Json:
    raise Cancelled


def _missing_mount_points(job: RunJob) -> list[str]:
    """The mount points, and their parent directories, that the layers below do not have; parents first. If a mount
    point is a dangling link (an image's /etc/resolv.conf → ../run/…), its target is listed."""
    view = LowerView(job.lower)
    missing: dict[str, None] = {}
    for destination in [mount["destination"] for mount in _mounts(job)]:
        whole = os.fsdecode(final_path(view, os.fsencode(destination.strip("/"))))
        parts = [part for part in whole.split("/") if part]
        for count in range(1, len(parts) + 1):
            path = "/".join(parts[:count])
            if path not in missing and view.resolve(os.fsencode(path)) is None:
                missing[path] = None
    return list(missing)


def _remove_empty_mount_points(job: RunJob, mount_points: list[str]) -> None:
    """Remove the mount points that the program left empty from the layer, and the directories that are in the layer
    only because of them.

    The program may have replaced a parent of a mount point by a link to anywhere. So the parents are opened beneath the
    layer, without following links, and everything else is done by descriptor.
    """
    view = LowerView(job.lower)
    upper = os.open(job.upper, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        touched: dict[str, None] = {}
        for path in reversed(mount_points):
            with suppress(OSError):
                _remove_if_empty(upper, path)
                touched[os.path.dirname(path)] = None
        for directory in sorted(touched, key=len, reverse=True):
            path = directory
            while path and _removed_copy(upper, path, view):
                path = os.path.dirname(path)
    finally:
        os.close(upper)


@contextmanager
def _beneath(upper: int, path: str) -> Iterator[int]:
    """A directory of the layer. Raises OSError, also if a link is on the way to it."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    fd = sc.openat2(upper, path or ".", flags, resolve=sc.RESOLVE_BENEATH | sc.RESOLVE_NO_SYMLINKS)
    try:
        yield fd
    finally:
        os.close(fd)


def _remove_if_empty(upper: int, path: str) -> None:
    above, _, name = path.rpartition("/")
    with _beneath(upper, above) as parent:
        st = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(st.st_mode):
            os.rmdir(name, dir_fd=parent)
        elif stat.S_ISREG(st.st_mode) and st.st_size == 0:
            os.unlink(name, dir_fd=parent)


def _removed_copy(upper: int, path: str, view: LowerView) -> bool:
    """Remove a directory of the layer if it is empty and equals the one below: overlayfs copied it up only for its
    content. Returns whether it did."""
    below = view.find(os.fsencode(path))
    if below is None or not stat.S_ISDIR(below.stat.st_mode):
        return False
    above, _, name = path.rpartition("/")
    try:
        with _beneath(upper, above) as parent, _beneath(parent, name) as directory:
            st, before = os.fstat(directory), below.stat
            if is_opaque(directory) or os.listdir(directory):
                return False
            if (st.st_mode, st.st_uid, st.st_gid) != (before.st_mode, before.st_uid, before.st_gid):
                return False
            os.rmdir(name, dir_fd=parent)
    except OSError:
        return False
    return True

"""Shared by kernel tests: the root check, a busybox root, unique names, and a check for leftovers."""

from __future__ import annotations

import contextlib
import gc
import glob
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runtime import cgroups
from runtime import syscalls as sc
from runtime.cgroups import Cgroup, layout, open_cgroup
from runtime.errors import SyscallError
from runtime.oci import container as engine
from runtime.oci.config.spec import Spec
from runtime.oci.container import Container, Stdio
from runtime.oci.pending import ExecHandle
from runtime.oci.rootfs import idmap
from runtime.shim.protocol import RootfsOverlay
from tests.kernel.cgroup_kit import leftovers
from tests.programs import BUSYBOX

# fmt: off
APPLETS = (
    "sh", "cat", "ls", "id", "true", "false", "sleep", "echo", "mount", "umount", "hostname", "env", "ps", "stat",
    "readlink", "touch", "mkdir", "rm", "grep", "head", "tty", "test", "kill", "printf", "dd", "wc", "chmod", "sync",
    "tail", "nc", "find", "sort", "ln",
)
# fmt: on


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root")
    for item in items:
        if item.get_closest_marker("kernel"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def busybox_rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with busybox and a few files; tests must not change it (use an overlay or a copy)."""
    if not BUSYBOX:
        pytest.skip("needs busybox")
    return make_rootfs(tmp_path_factory.mktemp("busybox"))


def make_rootfs(root: Path) -> Path:
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root"):
        (root / name).mkdir()
    (root / "tmp").chmod(0o1777)
    root.chmod(0o755)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nweb:x:1000:\n")
    (root / "etc/motd").write_text("from the image\n")
    return root


def cannot_map_ids(path: Path) -> bool:
    """Whether the file system of this directory refuses an id-mapped mount (hostfs, for one)."""
    userns = idmap.namespace(*[[{"containerID": 0, "hostID": 65536, "size": 1}]] * 2)
    tree = sc.open_tree(sc.AT_FDCWD, str(path), sc.OPEN_TREE_CLONE)
    try:
        sc.mount_setattr(tree, "", sc.AT_EMPTY_PATH, sc.MOUNT_ATTR_IDMAP, userns_fd=userns)
    except SyscallError:
        return True
    finally:
        os.close(tree)
        os.close(userns)
    return False


@pytest.fixture
def token() -> str:
    """A name unique to this test, for cgroups, network names and other global names."""
    return f"klt-{secrets.token_hex(4)}"


@pytest.fixture
def cgroup_name(token: str) -> Iterator[str]:
    """A cgroup path for this test, `/klt-…`. Processes in it are killed at the end, and it is removed."""
    yield f"/{token}"
    open_cgroup(f"/{token}").remove()


@dataclass(frozen=True)
class Traces:
    """What a test process can leave on the machine, as far as it can be distinguished from other tests."""

    mounts: frozenset[str]
    children: frozenset[int]
    cgroups: frozenset[str]
    netns: frozenset[str]
    fds: frozenset[str]


def look(marks: tuple[str, ...]) -> Traces:
    """Mounts and cgroups with one of `marks` in their name, our own children and descriptors, and their network
    namespaces."""
    gc.collect()  # descriptors of objects that are no longer used, of this test or an earlier one
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = frozenset(line for line in file if any(mark in line for mark in marks))
    children = frozenset(_descendants(os.getpid()))
    points = {*layout().hierarchies, *([layout().unified] if layout().unified else [])}
    cgroups = {
        p for point in points for mark in marks for p in glob.glob(f"{point}/*{mark}*") if "/" not in mark
    }
    own = os.readlink("/proc/self/ns/net")
    spaces = {f"{pid} {ns}" for pid in children if (ns := _netns(pid)) not in ("", own)}
    spaces |= {p for mark in marks if "/" not in mark for p in glob.glob(f"/run/netns/*{mark}*")}
    return Traces(
        mounts, children, frozenset(cgroups), frozenset(spaces), frozenset(os.listdir("/proc/self/fd"))
    )


def _descendants(pid: int) -> set[int]:
    found: set[int] = set()
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        for child in map(int, file.read().split()):
            found |= {child, *_descendants(child)}
    return found


def _netns(pid: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/net")
    return ""


@pytest.fixture
def no_leaks(tmp_path: Path, token: str) -> Iterator[Callable[[], None]]:
    """Fail a test that leaves mounts, processes, cgroups, network namespaces or descriptors. Calling it checks
    immediately. Request it BEFORE fixtures that clean up, so that it checks after them."""
    marks = (str(tmp_path), token)
    before = look(marks)

    def check() -> None:
        assert look(marks) == before

    yield check
    check()


@dataclass
class Result:
    """The result of a container or exec. `code` is the exit code, or 128 + signal as in a shell."""

    code: int
    out: str
    err: str = ""


@dataclass
class Engine:
    """Runs containers for a test and removes all of them."""

    tmp: Path
    rootfs: Path
    cgroup: str
    made: list[Container] = field(default_factory=list)
    outputs: dict[int, tuple[int, int]] = field(default_factory=dict)

    def spec(self, *args: str, **process: Any) -> dict[str, Any]:
        """A config.json like that of a pod's container, on an overlay of busybox."""
        caps = [
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_MKNOD",
        ]
        return {
            "ociVersion": "1.2.0",
            "root": {"path": "merged"},
            "process": {
                "args": list(args),
                "env": ["PATH=/bin"],
                "cwd": "/",
                "user": {"uid": 0, "gid": 0},
                "capabilities": {kind: caps for kind in ("bounding", "effective", "permitted")},
                **process,
            },
            "mounts": [
                mount("/proc", "proc", "nosuid", "noexec", "nodev"),
                mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
                mount(
                    "/dev/pts",
                    "devpts",
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ),
                mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
            ],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")]},
        }

    def create(self, spec: dict[str, Any], *, lower: list[str] | None = None, **options: Any) -> Container:
        number = len(list(self.tmp.glob("bundle*")))
        bundle = self.tmp / f"bundle{number}"
        bundle.mkdir()
        overlay = RootfsOverlay(lower or [str(self.rootfs)], f"{bundle}/upper", f"{bundle}/work")
        out, err = os.memfd_create("out"), os.memfd_create("err")
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            options.setdefault("stdio", Stdio(null, out, err))
            options.setdefault("rootfs", overlay)
            options.setdefault("bundle", str(bundle))
            made = engine.create(
                _as_spec(spec), container_id=f"c{number}", cgroup_path=f"{self.cgroup}/c{number}", **options
            )
        except BaseException:
            os.close(out)
            os.close(err)
            raise
        finally:
            os.close(null)
        self.made.append(made)
        self.outputs[made.pid] = (out, err)
        return made

    def start(self, spec: dict[str, Any], **options: Any) -> Container:
        made = self.create(spec, **options)
        made.start()
        return made

    def run(self, spec: dict[str, Any], **options: Any) -> Result:
        """Run a container from create to delete."""
        made = self.start(spec, **options)
        result = self.wait(made)
        self.delete(made)
        return result

    def sh(self, script: str, **process: Any) -> Result:
        return self.run(self.spec("sh", "-c", script, **process))

    def wait(self, made: Container) -> Result:
        code = _exit_code(os.waitpid(made.pid, 0)[1])
        return Result(code, *(read_all(fd) for fd in self.outputs[made.pid]))

    def exec(self, made: Container, *args: str, **process: Any) -> Result:
        out, null = os.memfd_create("out"), os.open("/dev/null", os.O_RDONLY)
        request = {"args": list(args), "cwd": "/", "env": ["PATH=/bin"], **process}
        try:
            handle: ExecHandle = made.exec(request, stdio=Stdio(null, out, out))
            code = _exit_code(os.waitpid(handle.pid, 0)[1])
            os.close(handle.pidfd)
            return Result(code, read_all(out))
        finally:
            os.close(out)
            os.close(null)

    def delete(self, made: Container) -> None:
        made.delete()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(made.pid, 0)
        for fd in self.outputs.pop(made.pid, ()):
            os.close(fd)
        self.made.remove(made)


def _as_spec(spec: dict[str, Any]) -> Spec:
    return spec  # type: ignore[return-value]


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def read_all(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    with open(fd, encoding="utf-8", errors="replace", closefd=False) as file:
        return file.read()


def mount(destination: str, fstype: str, *options: str, source: str = "") -> dict[str, Any]:
    return {"destination": destination, "type": fstype, "source": source or fstype, "options": list(options)}


@pytest.fixture
def oci(
    no_leaks: Callable[[], None], tmp_path: Path, busybox_rootfs: Path, cgroup_name: str
) -> Iterator[Engine]:
    """The engine. Its containers are removed after the test, and leftovers fail the test."""
    made = Engine(tmp_path, busybox_rootfs, cgroup_name)
    yield made
    for container in reversed(made.made.copy()):  # one may be in the pid namespace of an earlier one
        made.delete(container)
    # the leak check runs after the cleanup of cgroup_name, so leftovers of delete() are checked here
    left = open_cgroup(cgroup_name)
    assert left.pids() == [] if left.exists() else True


# --- a cgroup of the test's own (cgroup_kit.py) ---


@pytest.fixture(scope="module")
def machine() -> cgroups.Layout:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    return cgroups.layout()


@pytest.fixture
def parent(machine: cgroups.Layout, request: pytest.FixtureRequest) -> Iterator[Cgroup]:
    """A cgroup for this test. Processes that the test leaves in it are killed, and it must be gone afterwards."""
    group = open_cgroup(f"/kubelite-test-{os.getpid()}/{abs(hash(request.node.name)) % 10**8}", machine)
    top = open_cgroup(os.path.dirname(group.path), machine)
    try:
        yield group
    finally:
        top.remove(5.0)
        assert leftovers(machine, top.path) == []


@pytest.fixture
def group(parent: Cgroup, machine: cgroups.Layout) -> Cgroup:
    made = open_cgroup(f"{parent.path}/c1", machine)
    made.create()
    return made

"""Tests of any OCI runtime, given by its path, from its callers' view: a command, files, and what the kernel shows.

    pytest tests/conformance                                   kubelite-oci, and runc if it is installed
    pytest tests/conformance --oci-runtime /usr/bin/crun       another one, alone

The tests import nothing of the engine. `DIFFERENCES` lists known differences of runtimes with their reasons; the test
must then fail with this runtime.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.programs import BUSYBOX
from tests.waiting import until

OURS = str(Path(sys.executable).with_name("kubelite-oci"))
SECONDS = 30

# (runtime, test) → why the runtime fails the test
DIFFERENCES: dict[tuple[str, str], str] = {
    ("runc", "test_start_reports_a_program_that_cannot_be_executed"): "runc's start returns before execve",
    ("runc", "test_all_kinds_in_order_with_their_state"): "runc 1.1 runs poststart at create",
    ("runc", "test_cpu_affinity_of_an_exec"): "runc 1.1 does not know execCPUAffinity",
    ("runc", "test_id_map_option_of_a_bind_mount"): "runc 1.1 has no id-mapped mounts",
    ("crun", "test_invalid_memory_policy"): "crun 1.21 does not know memoryPolicy",
    ("crun", "test_an_agent_answers_for_exec"): "crun tells the agent of no pid of the container's",
    ("crun", "test_limits_need_a_cgroup"): "crun leaves limits out where an ordinary user has no cgroup",
    ("crun", "test_without_a_user_namespace"): "crun makes a user namespace that is not asked for",
    ("runc", "test_device_in_place_of_another_file"): "runc takes what is there, whatever it is",
    ("crun", "test_device_in_place_of_another_file"): "crun takes what is there, whatever it is",
    ("runc", "test_cve_2023_28642_a_false_proc"): "runc starts nothing without the container's own procfs",
    ("runc", "test_time_offsets"): "runc 1.1 has no time namespaces",
    ("runc", "test_personality"): "runc 1.1 leaves an exec's as it is",
    ("runc", "test_processors_are_the_cgroups"): "runc 1.1 keeps the caller's",
    ("runc", "test_a_cgroup_that_is_in_use"): "a warning in runc 1.1",
    ("runc", "test_pidfd_through_a_socket"): "runc 1.1 has no --pidfd-socket",
    ("runc", "test_memory_policy"): "runc 1.1 does not know memoryPolicy, which came with 1.3",
    ("runc", "test_invalid_memory_policy"): "runc 1.1 does not know memoryPolicy",
    ("runc", "test_an_empty_memory_policy"): "runc 1.1 does not know memoryPolicy",
    ("runc", "test_time_namespace_with_offsets"): "runc 1.1 has no time namespaces",
    ("runc", "test_a_bind_of_a_container_path_follows_no_link_out"): "runc takes it for a path of the host",
    ("runc", "test_ambiguous_sub_cgroups"): "runc 1.1 takes the last",
    ("runc", "test_a_limit_of_no_processes"): "runc 1.1 takes it for no limit",
    ("runc", "test_flags_that_an_option_clears"): "runc 1.1 keeps them if no option sets one",
    ("runc", "test_flags_kept_by_remount"): "runc 1.1 clears them",
    ("runc", "test_locked_flags_of_a_bind"): "runc 1.1 knows no locked flags",
    (
        "runc",
        "test_nothing_is_left_without_a_mount_namespace",
    ): "runc leaves its mounts, and makes the machine's slaves",
    ("runc", "test_two_roots_over_each_other"): "runc leaves its mounts",
    ("runc", "test_exec_without_a_mount_namespace"): "runc's exec is in the machine's root then",
    ("runc", "test_failures_in_a_joined_mount_namespace"): "runc leaves what it has mounted",
    (
        "crun",
        "test_all_kinds_in_order_with_their_state",
    ): "crun 1.21 calls the status created while it creates",
    ("crun", "test_a_failed_poststart_ends_the_container"): "crun 1.21 goes on, as before 1.3",
    ("crun", "test_poststop_follows_a_failed_poststart"): "crun 1.21 goes on, as before 1.3",
}

# the same for differences that show only sometimes: the test does not run with this runtime
UNSTEADY: dict[tuple[str, str], str] = {
    ("runc", "test_no_pivot_needs_a_mount_namespace"): "runc moves its root over the machine's",
    ("runc", "test_process_1_keeps_its_root"): "runc takes the machine's root away",
    ("runc", "test_the_machines_mount_namespace_by_its_path"): "runc takes the machine's root away",
    ("runc", "test_the_machines_root_needs_a_mount_namespace"): "runc mounts it over itself",
    ("runc", "test_binds_of_earlier_binds"): "runc 1.1 opens sources first, in user namespaces",
    (
        "runc",
        "test_run_holds_signals_until_the_program_runs",
    ): "runc sends them on while its own init may still get them instead of the program",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--oci-runtime", action="append", default=[], help="an OCI runtime to test, by path")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "runtime" in metafunc.fixturenames:
        paths = metafunc.config.getoption("--oci-runtime", default=[]) or [
            OURS,
            shutil.which("runc") or "runc",
        ]
        paths = [p for p in paths if (os.path.basename(p), metafunc.function.__name__) not in UNSTEADY]
        metafunc.parametrize("runtime", paths, indirect=True, ids=[os.path.basename(path) for path in paths])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if os.geteuid() != 0 and "conformance" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@dataclass
class Done:
    code: int
    out: str
    err: str


@dataclass
class Runtime:
    """A runtime with its own --root."""

    path: str
    root: Path
    made: list[str] = field(default_factory=list)
    within: tuple[str, ...] = ()  # the start of the command line

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    def command(self, *args: str) -> list[str]:
        return [*self.within, self.path, "--root", str(self.root), *args]

    def __call__(self, *args: str, check: bool = False, **options: Any) -> Done:
        # A container that outlives the command keeps its stdout open. Files are used because reading a pipe would wait
        # for its end.
        with open(self.root.parent / "out", "w+b") as out, open(self.root.parent / "err", "w+b") as err:
            options = {
                "stdin": subprocess.DEVNULL,
                "stdout": out,
                "stderr": err,
                "timeout": SECONDS,
                **options,
            }
            code = subprocess.run(self.command(*args), check=False, **options).returncode
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        done = Done(code, *texts)
        assert not check or code == 0, f"{args}: {done}"
        return done

    def state(self, container_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("state", container_id, check=True).out)
        return found

    def status(self, container_id: str) -> str:
        return str(self.state(container_id)["status"])

    def until(self, container_id: str, status: str) -> None:
        until(lambda: self.status(container_id) == status, f"{container_id} is {status}")


def left_below(root: Path) -> list[str]:
    """The entries of a runtime's state directory, without the compiled filters that crun and kubelite-oci cache
    there."""
    return sorted(entry.name for entry in root.iterdir() if entry.name not in (".cache", "@seccomp"))


@pytest.fixture
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    path = request.param
    if shutil.which(path) is None:
        pytest.skip(f"needs {os.path.basename(path)}")
    if not BUSYBOX:
        pytest.skip("needs busybox")
    reason = DIFFERENCES.get((os.path.basename(path), request.node.originalname))
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    made = Runtime(path, tmp_path / "state")
    made.root.mkdir()
    yield made
    for container_id in made.made:
        made("delete", "--force", container_id)
    left = left_below(made.root)
    assert left == [], f"{made.name} left {left}"
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = [line for line in file if str(tmp_path) in line]
    assert mounts == [], f"{made.name} left mounts: {mounts}"


@dataclass
class Bundle:
    """A directory with a busybox root and a config.json that tests change before use."""

    runtime: Runtime
    path: Path
    id: str
    config: dict[str, Any]

    @property
    def rootfs(self) -> Path:
        return self.path / "rootfs"

    @property
    def process(self) -> dict[str, Any]:
        found: dict[str, Any] = self.config["process"]
        return found

    @property
    def linux(self) -> dict[str, Any]:
        found: dict[str, Any] = self.config["linux"]
        return found

    def write(self, *args: str) -> None:
        if args:
            self.process["args"] = list(args)
        (self.path / "config.json").write_text(json.dumps(self.config))

    def namespaces(self, **changes: str | None) -> None:
        """kind=path joins a namespace, kind="" creates a new one, kind=None leaves it out."""
        kept = [n for n in self.linux["namespaces"] if n["type"] not in changes]
        for kind, path in changes.items():
            if path is not None:
                kept.append({"type": kind, **({"path": path} if path else {})})
        self.linux["namespaces"] = kept

    def mount(self, destination: str, kind: str, *options: str, source: str = "", **more: Any) -> None:
        entry = {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}
        self.config["mounts"].append({**entry, **more})

    def run(self, *args: str, **options: Any) -> Done:
        """Run in the foreground, from create to delete."""
        self.write(*args)
        return self.runtime("run", "--bundle", str(self.path), self.id, **options)

    def sh(self, script: str, **options: Any) -> Done:
        return self.run("sh", "-c", script, **options)

    def create(self, *args: str, flags: tuple[str, ...] = (), check: bool = True, **options: Any) -> Done:
        self.write(*args)
        return self.runtime("create", "--bundle", str(self.path), *flags, self.id, check=check, **options)

    def start(self, *args: str, **options: Any) -> int:
        """Create and start the container. Return its pid."""
        self.create(*args, **options)
        self.runtime("start", self.id, check=True)
        return int(self.runtime.state(self.id)["pid"])


_APPLETS = (
    "sh cat ls id true false sleep echo mount hostname env ps stat readlink touch mkdir rm grep head tty test"
)


@pytest.fixture
def bundle(runtime: Runtime, tmp_path: Path) -> Bundle:
    return make_bundle(runtime, tmp_path / "bundle")


@pytest.fixture
def hardened(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs that is mounted nosuid, nodev and noexec."""
    place = tmp_path / "hardened"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid,nodev,noexec", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def bind_flags(bundle: Bundle, source: Path, *options: str) -> set[str]:
    """The flags that a container sees on a bind of `source` with these options."""
    bundle.mount("/bind", "bind", *options, source=str(source))
    out = bundle.run("cat", "/proc/self/mountinfo", check=True).out
    (found,) = (line.split()[5] for line in out.splitlines() if line.split()[4] == "/bind")
    return set(found.split(",")) - {"relatime"}


@pytest.fixture
def another(runtime: Runtime, tmp_path: Path) -> Callable[[], Bundle]:
    """Further bundles for the same runtime."""
    return lambda: make_bundle(runtime, tmp_path / f"bundle-{secrets.token_hex(3)}")


def make_bundle(runtime: Runtime, path: Path) -> Bundle:
    root = path / "rootfs"
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in [
        *_APPLETS.split(),
        "chmod",
        "seq",
        "wc",
        "sort",
        "tail",
        "dd",
        "umount",
        "chown",
        "pwd",
        "kill",
    ]:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/home/web:/bin/sh\n")
    container_id = f"klt-{secrets.token_hex(4)}"
    runtime.made.append(container_id)
    return Bundle(runtime, path, container_id, example(container_id))


def _mount(destination: str, kind: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": kind, "source": kind, "options": list(options)}


def example(container_id: str) -> dict[str, Any]:
    """A config.json as container engines write it."""
    caps = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs"},
        "hostname": "conformance",
        "process": {
            "args": ["true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {kind: caps for kind in ("bounding", "effective", "permitted")},
        },
        "mounts": [
            _mount("/proc", "proc", "nosuid", "noexec", "nodev"),
            _mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
            _mount(
                "/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"
            ),
            _mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
            _mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
        ],
        "linux": {
            "cgroupsPath": f"/{container_id}",
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


def cgroup_file(container_id: str, v1: str, v2: str) -> Path:
    """`v1` is controller/file."""
    controller, _, name = v1.partition("/")
    old = Path(f"/sys/fs/cgroup/{controller}/{container_id}/{name}")
    return old if old.parent.parent.exists() else Path(f"/sys/fs/cgroup/{container_id}/{v2}")


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return text.rpartition(") ")[2][0] not in "ZX"


@contextlib.contextmanager
def killed_at_the_end(child: subprocess.Popen[Any]) -> Iterator[subprocess.Popen[Any]]:
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
            child.wait()

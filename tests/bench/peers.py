"""Who is measured, and how each starts one container of the same image and says when its first instruction ran.

Each peer lives in a network namespace of its own (entered with nsenter: `ip netns exec` hides the cgroup mounts) and
in a cgroup of its own, whose CPU account tells what a start really cost whatever else the machine is doing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.account import Account
from tests.e2e.node import IMAGE, Node

FIRST = re.compile(rb"first (\d+)")
PATIENCE = 30.0
SETTLED = 0.3  # seconds


@dataclass(slots=True)
class Sample:
    """One start: milliseconds to the first instruction and to its removal, CPU milliseconds of both; KiB that only
    this container's guardian has (its shim, conmon), and KiB of the daemon when nothing runs. 0 = there is none."""

    start_ms: float
    stop_ms: float
    cpu_ms: float
    pod_kib: int = 0
    daemon_kib: int = 0


@dataclass(slots=True)
class Peer:
    """`start(name)` returns Unix nanoseconds of the first instruction; `stop(name)` returns when nothing is left."""

    name: str
    start: Callable[[str], int]
    stop: Callable[[str], None]
    account: Account
    notes: list[str] = field(default_factory=list)
    guardian: Callable[[str], int] = lambda _name: 0  # pid of the process that minds a running container
    daemon: Callable[[], int] = lambda: 0

    def sample(self, name: str) -> Sample:
        daemon = pss(self.daemon())
        used = self.account.used()
        began = time.time_ns()
        first = self.start(name)
        guardian = pss(self.guardian(name))
        stopping = time.time_ns()
        self.stop(name)
        ended = time.time_ns()
        time.sleep(
            SETTLED
        )  # what is left for later (a log line, a commit, the next spare) belongs to this pod
        cpu = self.account.used() - used
        return Sample((first - began) / 1e6, (ended - stopping) / 1e6, cpu / 1e6, guardian, daemon)


def pss(pid: int) -> int:
    """KiB of memory that a process has, its share of what it shares included (proc_pid_smaps(5))."""
    with contextlib.suppress(OSError):
        found = re.search(r"^Pss: +(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) if found else 0
    return 0


def first_instruction(read: Callable[[], bytes]) -> int:
    """Wait for the stamp; the time is the one in it, however late we look."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        match = FIRST.search(read())
        if match:
            return int(match[1])
        time.sleep(0.0005)
    raise TimeoutError("the container never said that it ran")


def read_glob(directory: Path, pattern: str) -> bytes:
    found = b""
    for path in directory.glob(pattern):
        with contextlib.suppress(OSError):
            found += path.read_bytes()
    return found


@contextlib.contextmanager
def kubelite(base: Path, store: Path) -> Iterator[Peer]:
    """Manifest rename → first instruction, and file removal → nothing left."""
    node = Node(base / "kubelite")
    node.run_dir.parent.mkdir()
    node.run_dir.symlink_to(
        tempfile.mkdtemp(prefix="kubelite-bench-", dir=MEMORY)
    )  # as /run is on any machine
    node.prepare()
    account = Account("kubelite", (node.cgroup_parent,))
    shutil.copytree(store, node.root / "images", symlinks=True)
    with account:
        node.start()
        account.add_tree(node.daemon.pid if node.daemon else 0)

    def start(name: str) -> int:
        node.apply(f"{name}.yaml", MANIFEST.format(name=name, image=IMAGE))
        return first_instruction(lambda: read_glob(node.log_dir, f"pods/default_{name}_*/main/0.log"))

    def stop(name: str) -> None:
        (node.manifests / f"{name}.yaml").unlink()
        pods = node.root / "pods"
        until = time.monotonic() + PATIENCE
        while list(pods.iterdir()) and time.monotonic() < until:
            time.sleep(0.0005)

    def shim(_name: str) -> int:
        states = list(node.run_dir.glob("shims/*/state.json"))
        return int(json.loads(states[0].read_text())["pid"]) if states else 0

    try:
        yield Peer(
            "kubelite",
            start,
            stop,
            account,
            guardian=shim,
            daemon=lambda: node.daemon.pid if node.daemon else 0,
        )
    finally:
        run_dir = node.run_dir.resolve()
        node.destroy()
        shutil.rmtree(run_dir, ignore_errors=True)
        account.close()


#: Where a machine keeps /run: in memory.
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None

MANIFEST = """apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 5
  containers:
  - {{name: main, image: "{image}", imagePullPolicy: Never, command: [/stamp]}}
"""


@contextlib.contextmanager
def oci(name: str, base: Path, rootfs: Path) -> Iterator[Peer]:
    """`runc run` or `crun run` of a bundle: no image store, no network, no daemon; what an engine alone costs."""
    account = Account(name, ())
    bundle = base / f"{name}-bundle"
    bundle.mkdir()
    subprocess.run([name, "spec"], cwd=bundle, check=True)
    spec = json.loads((bundle / "config.json").read_text())
    spec["root"] = {"path": str(rootfs), "readonly": True}
    spec["process"].update(terminal=False, args=["/stamp"])
    spec["linux"]["cgroupsPath"] = f"/{account.cgroup}/c"
    (bundle / "config.json").write_text(json.dumps(spec))
    out = bundle / "out"
    root = ["--root", str(base / f"{name}-state")]

    def start(identity: str) -> int:
        out.write_bytes(b"")
        with out.open("wb") as file:
            command = [name, *root, "run", "--detach", "--bundle", str(bundle), identity]
            # its complaints go to a file: a pipe would be held open by the container itself
            done = subprocess.run(
                account.wrap(command), check=False, stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )
        if done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, command, stderr=out.read_bytes())
        return first_instruction(out.read_bytes)

    def stop(identity: str) -> None:
        subprocess.run(account.wrap([name, *root, "kill", identity, "TERM"]), check=True)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            done = subprocess.run(
                account.wrap([name, *root, "delete", identity]), check=False, capture_output=True
            )
            if done.returncode == 0:
                return
        raise TimeoutError(done.stderr)

    try:
        with account, v1_hugetlb() if name == "crun" else contextlib.nullcontext():
            yield Peer(f"{name} run", start, stop, account, ["bundle only: no network, no image store"])
    finally:
        account.close()


@contextlib.contextmanager
def v1_hugetlb() -> Iterator[None]:
    """crun refuses a hybrid machine whose cgroup2 mount still has a controller; the last one, hugetlb, goes to v1."""
    unified, place = Path("/sys/fs/cgroup/unified/cgroup.controllers"), Path("/sys/fs/cgroup/hugetlb")
    if not unified.exists() or not unified.read_text().strip() or place.is_dir():
        yield
        return
    place.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "cgroup", "-o", "hugetlb", "hugetlb", str(place)], check=True, capture_output=True
        )
        yield
    finally:
        subprocess.run(["umount", str(place)], check=False, capture_output=True)
        place.rmdir()


@contextlib.contextmanager
def podman(base: Path, archive: Path) -> Iterator[Peer]:
    """`podman kube play` of the same manifest, with runc (its default engine refuses hybrid cgroups)."""
    account = Account("podman", ())
    home = base / "podman"
    command = [
        "podman",
        "--root",
        str(home / "root"),
        "--runroot",
        str(home / "run"),
        "--tmpdir",
        str(home / "tmp"),
        "--runtime",
        "runc",
        "--cgroup-manager",
        "cgroupfs",
        "--storage-driver",
        "overlay",
    ]
    environ = {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}

    def run(*arguments: str, text: str = "") -> bytes:
        full = account.wrap(inside([*command, *arguments]))
        return subprocess.run(full, input=text.encode(), check=True, capture_output=True, env=environ).stdout

    with network_namespace() as inside:
        run("load", "-i", str(archive))

        def start(name: str) -> int:
            run("kube", "play", "-", text=MANIFEST.format(name=name, image=IMAGE))
            return first_instruction(lambda: run("logs", f"{name}-main"))

        def stop(name: str) -> None:
            run("pod", "rm", "--force", "--time", "5", name)

        try:
            with account:
                yield Peer("podman kube play", start, stop, account)
        finally:
            subprocess.run(
                inside([*command, "system", "reset", "--force"]),
                check=False,
                capture_output=True,
                env=environ,
            )
            account.close()


@contextlib.contextmanager
def docker(base: Path, archive: Path) -> Iterator[Peer]:
    """`docker run --detach` against a dockerd of its own."""
    account = Account("docker", ())
    home = base / "docker"
    home.mkdir()
    host = f"unix://{home}/sock"
    with network_namespace() as inside, (home / "log").open("wb") as log:
        daemon = subprocess.Popen(
            account.wrap(
                inside(
                    [
                        "dockerd",
                        "--data-root",
                        str(home / "data"),
                        "--exec-root",
                        str(home / "exec"),
                        "-H",
                        host,
                        "--pidfile",
                        str(home / "pid"),
                        "--cgroup-parent",
                        f"/{account.cgroup}",
                    ]
                )
            ),
            stdout=log,
            stderr=log,
        )

        def run(*arguments: str) -> bytes:
            done = subprocess.run(
                account.wrap(["docker", "-H", host, *arguments]), check=True, capture_output=True
            )
            return done.stdout

        def answers() -> bool:
            done = subprocess.run(["docker", "-H", host, "version"], check=False, capture_output=True)
            return done.returncode == 0

        def start(name: str) -> int:
            run("run", "--detach", "--name", name, "--entrypoint", "/stamp", IMAGE)
            return first_instruction(lambda: run("logs", name))

        try:
            until = time.monotonic() + PATIENCE
            while not answers():
                if daemon.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"dockerd does not start: {(home / 'log').read_text()[-300:]}")
                time.sleep(0.1)
            run("load", "-i", str(archive))
            with account:
                yield Peer("docker run", start, lambda name: void(run("rm", "--force", name)), account)
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(PATIENCE)
            account.close()


@contextlib.contextmanager
def bare(base: Path, rootfs: Path, program: Path) -> Iterator[Peer]:
    """The C program that does only the kernel's work (bare.c)."""
    account = Account("bare", ())
    places = {name: base / "bare" / name for name in ("upper", "work", "merged")}
    for place in places.values():
        place.mkdir(parents=True)
    out = base / "bare" / "out"
    running: dict[str, subprocess.Popen[bytes]] = {}

    def start(name: str) -> int:
        out.write_bytes(b"")
        command = [str(program), str(rootfs), *(str(p) for p in places.values()), "/stamp"]
        with out.open("wb") as file:
            running[name] = subprocess.Popen(account.wrap(command), stdout=file)
        return first_instruction(out.read_bytes)

    def stop(name: str) -> None:
        # the program's child is PID 1 of its namespace: it gets the signal by its pid here
        parent = running.pop(name)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        parent.wait(PATIENCE)

    with account:
        yield Peer(
            "bare kernel work",
            start,
            stop,
            account,
            ["C: namespaces, overlay, mounts, exec; no veth, no limits"],
        )
    account.close()


@contextlib.contextmanager
def network_namespace() -> Iterator[Callable[[list[str]], list[str]]]:
    """A network namespace with loopback up; gives the function that puts a command into it."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep infinity"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            yield lambda inner: ["nsenter", f"--net=/proc/{holder.pid}/ns/net", *inner]
        finally:
            holder.kill()


def void(_: object) -> None:
    """A result that nobody wants."""

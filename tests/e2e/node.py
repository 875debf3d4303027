"""A whole node for a test: its own directories, cgroups, bridge and network namespace, and the interfaces that users
have."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import waiting
from tests.e2e import api
from tests.programs import BUSYBOX, PACKED_BUSYBOX

REPO = Path(__file__).resolve().parents[2]
KUBELITE = (sys.executable, "-m", "kubelite")
IMAGE = "localhost/kubelite/busybox:latest"
PATIENCE = waiting.PATIENCE  # factor for all timeouts (see tests/waiting.py)
TIMEOUT = 30.0


class NoSuchPod(AssertionError):
    """There is no pod of this name. `Node.wait` keeps waiting."""


@dataclass(slots=True)
class Finished:
    """The result of a command."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Node:
    """A node below `base`. Call `start()` and `kill()` as often as needed; at the end `destroy()`, then
    `leftovers()`."""

    base: Path
    name: str = field(default_factory=lambda: f"t{secrets.token_hex(3)}")
    settings: dict[str, str] = field(default_factory=dict)
    daemon: subprocess.Popen[bytes] | None = None
    holder: subprocess.Popen[bytes] | None = None
    program: tuple[str, ...] = KUBELITE  # the command that `start` runs

    @property
    def manifests(self) -> Path:
        return self.base / "manifests"

    @property
    def root(self) -> Path:
        return self.base / "root"

    @property
    def run_dir(self) -> Path:
        return self.base / "run"

    @property
    def log_dir(self) -> Path:
        return self.base / "log"

    @property
    def log(self) -> Path:
        return self.base / "daemon.log"

    @property
    def bridge(self) -> str:
        return f"kl{self.name}"

    @property
    def cgroup_parent(self) -> str:
        return f"kubelite-{self.name}"

    def environ(self) -> dict[str, str]:
        values = {
            "MANIFESTS": self.manifests,
            "ROOT": self.root,
            "RUN_DIR": self.run_dir,
            "LOG_DIR": self.log_dir,
            "SOCKET": self.run_dir / "kubelite.sock",
            "LISTEN": "127.0.0.1:10255",
            "BRIDGE": self.bridge,
            "POD_CIDR": "10.77.0.0/24",
            "CGROUP_PARENT": self.cgroup_parent,
            "NODE_NAME": self.name,
            "EVICTION_HARD": "none",  # tests do not depend on how full the machine's disk is
            "CONFIG": self.base / "config.yaml",
            **self.settings,
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KUBELITE_")}
        return {
            **kept,
            "PYTHONDONTWRITEBYTECODE": "1",
            "CONTAINERS_REGISTRIES_CONF": str(self.base / "no-registries.conf"),
            "REGISTRY_AUTH_FILE": str(
                self.base / "no-logins.json"
            ),  # not the settings of the user who runs the tests
            **{f"KUBELITE_{k}": str(v) for k, v in values.items()},
        }

    # -- life ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        for path in (self.manifests, self.root, self.run_dir, self.log_dir):
            path.mkdir(parents=True, exist_ok=True)
        (self.base / "config.yaml").touch()
        # a process that only keeps the node's network namespace, independently of the daemon
        self.holder = subprocess.Popen(
            [
                "unshare",
                "--net",
                "sh",
                "-c",
                f"{BUSYBOX} ip link set lo up && echo up && exec sleep infinity",
            ],
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"up\n"

    def in_netns(self, *command: str) -> list[str]:
        assert self.holder is not None
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", *command]

    def start(self, *, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.daemon = subprocess.Popen(
                self.in_netns(*self.program, "serve"),
                cwd=REPO,
                env=self.environ(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        if wait:
            self.wait(self.answers, "the daemon to answer")

    def answers(self) -> bool:
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise AssertionError(f"the daemon ended with {self.daemon.returncode}:\n{self.tail()}")
        return self.ask("/api/v1/pods")[0] == 200

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Signal the daemon and wait for its end."""
        assert self.daemon is not None
        self.daemon.send_signal(number)
        self.daemon.wait(TIMEOUT * PATIENCE)

    def stop(self) -> None:
        if self.daemon is not None and self.daemon.poll() is None:
            self.kill(signal.SIGTERM)

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.kill(number)
        self.start()

    def reboot(self) -> None:
        """Lose everything but the disk, and start again."""
        self.kill()
        for state in (self.run_dir / "shims").glob(
            "*/state.json"
        ):  # also of a completed pod, if it still exists
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(json.loads(state.read_text())["pid"]), signal.SIGKILL)
        waiting.until(
            lambda: not [left for left in self.leftovers() if left.startswith("process")], "all to have ended"
        )
        self.remove_cgroups()
        shutil.rmtree(self.run_dir)
        self.run_dir.mkdir()
        subprocess.run(self.in_netns(BUSYBOX, "ip", "link", "del", self.bridge), check=True)
        self.start()

    def destroy(self) -> None:
        try:
            self.cli("reset", "--yes", "--now", timeout=60)
            if self.daemon is not None:
                self.daemon.wait(TIMEOUT * PATIENCE)
        finally:
            for process in (self.daemon, self.holder):
                if process is not None and process.poll() is None:
                    process.kill()
                    process.wait()
            if self.holder is not None and self.holder.stdout is not None:
                self.holder.stdout.close()

    def leftovers(self) -> list[str]:
        """What is left of this node on the machine."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                groups = Path(f"/proc/{pid}/cgroup").read_text()
                ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
                if self.cgroup_parent in groups and not ended:
                    found.append(f"process {pid}: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.base) in line:
                found.append(f"mount {line.split()[4]}")
        found.extend(f"cgroup {directory}" for directory in self.cgroup_tops())
        found.extend(f"directory {path}" for path in (self.run_dir / "shims").glob("*"))
        found.extend(f"directory {path}" for path in (self.root / "pods").glob("*"))
        return found

    def cgroup_tops(self) -> list[Path]:
        """The node's own cgroup in each hierarchy."""
        return waiting.cgroup_places(self.cgroup_parent)

    def remove_cgroups(self) -> None:
        """Remove the cgroups, as a reboot does. Killed processes may still be exiting or may just have forked."""
        for procs in (path for top in self.cgroup_tops() for path in top.rglob("cgroup.procs")):
            for pid in procs.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        waiting.remove_cgroup(self.cgroup_parent)

    def tail(self, lines: int = 30) -> str:
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )

    # -- use ----------------------------------------------------------------------------------------------------

    def cli(
        self, *arguments: str, check: bool = True, stdin: bytes | None = None, timeout: float = TIMEOUT
    ) -> Finished:
        """Run `kubelite …`. With `check`, a failure raises an AssertionError with the output."""
        command = [*KUBELITE, *arguments]
        if arguments[:1] == ("reset",) and self.holder is not None and self.holder.poll() is None:
            command = self.in_netns(
                *command
            )  # it checks the network, and the node's network is not the machine's
        done = subprocess.run(
            command,
            cwd=REPO,
            env=self.environ(),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout * PATIENCE,
            check=False,
        )
        finished = Finished(
            done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check and finished.code != 0:
            said = f"{finished.out}{finished.err}\n-- daemon:\n{self.tail()}"
            raise AssertionError(f"kubelite {' '.join(arguments)} → {finished.code}\n{said}")
        return finished

    def json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "-o", "json").out)

    def ask(self, target: str, *, table: bool = False) -> tuple[int, bytes]:
        """Return status and body of a GET of the API; (0, reason) if no daemon answers."""
        try:
            return api.get(self.environ()["KUBELITE_SOCKET"], target, timeout=TIMEOUT * PATIENCE, table=table)
        except (OSError, http.client.HTTPException) as error:
            return 0, str(error).encode()

    def pod(self, name: str, namespace: str = "default") -> dict[str, Any]:
        code, body = self.ask(api.PODS.format(namespace=namespace, name=name))
        said = f"pod {name}: {code} {body.decode(errors='replace')}\n-- daemon:\n{self.tail()}"
        if code == 404:
            raise NoSuchPod(said)
        assert code == 200, said
        found: dict[str, Any] = json.loads(body)
        found.setdefault("status", {})
        return found

    def container(self, name: str, container: str = "main") -> dict[str, Any]:
        """The pod's container status; empty before there is one."""
        status = self.pod(name)["status"]
        every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
        return next((c for c in every if c["name"] == container), {})

    def status_of(self, name: str) -> str:
        """The STATUS column; empty if there is no such pod or no daemon."""
        code, body = self.ask(api.PODS.format(namespace="default", name=name), table=True)
        return api.cell(body, 2) if code == 200 else ""

    def logs(self, name: str) -> str:
        """The log of the pod's only container so far; empty before it exists."""
        code, body = self.ask(api.PODS.format(namespace="default", name=name) + "/log")
        return body.decode(errors="replace") if code == 200 else ""

    def pid(self, name: str, container: str = "main") -> int:
        """The host pid of a pod's running container. Waits for it, because the status may still show an ended instance
        as running."""
        found: list[dict[str, Any]] = []

        def runs() -> bool:
            every = json.loads(self.cli("inspect", f"default/{name}").out)["containers"]
            found[:] = [c for c in every if c["name"] == container]
            return [c["state"] for c in found].count("running") == 1

        self.wait(runs, f"one {container} of {name} to run")
        return next(int(c["pid"]) for c in found if c["state"] == "running")

    def apply(self, file: str, text: str) -> Path:
        """Put a manifest into the directory atomically."""
        path = self.manifests / file
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text)
        temporary.rename(path)
        return path

    def wait(self, condition: Callable[[], object], what: str, timeout: float = TIMEOUT) -> None:
        timeout *= PATIENCE
        until = time.monotonic() + timeout
        last: object = None
        while time.monotonic() < until:
            try:
                last = condition()
            except NoSuchPod as none:
                last = none
            else:
                if last:
                    return
            time.sleep(0.03)
        raise AssertionError(f"waited {timeout} s for {what}; got {last!r}\n-- daemon:\n{self.tail()}")

    def wait_status(self, name: str, *wanted: str, timeout: float = TIMEOUT) -> None:
        seen: list[str] = []

        def there() -> bool:
            seen.append(self.status_of(name))
            return seen[-1] in wanted

        try:
            self.wait(there, f"pod {name} to be {wanted}", timeout)
        except AssertionError as error:
            described = self.cli("describe", "pod", name, check=False).out
            raise AssertionError(f"{error}\nstatuses: {list(dict.fromkeys(seen))}\n{described}") from None

    def wait_gone(self, name: str, timeout: float = TIMEOUT) -> None:
        path = api.PODS.format(namespace="default", name=name)
        self.wait(lambda: self.ask(path)[0] == 404, f"pod {name} to go", timeout)

    def events(self, reason: str = "") -> list[dict[str, Any]]:
        code, body = self.ask("/api/v1/events")
        assert code == 200, f"events: {code} {body.decode(errors='replace')}\n-- daemon:\n{self.tail()}"
        items: list[dict[str, Any]] = json.loads(body)["items"]
        return [e for e in items if reason in ("", e["reason"])]

    def get(self, url: str) -> str:
        """The body of a page on the node's own loopback."""
        return self.fetch(url).body.decode()

    def fetch(
        self, url: str, method: str = "GET", headers: Mapping[str, str] | None = None, timeout: float = 5.0
    ) -> api.Answer:
        """Fetch any URL in the node's network namespace. Raises OSError or http.client.HTTPException."""
        assert self.holder is not None
        netns = f"/proc/{self.holder.pid}/ns/net"
        return api.fetch(netns, url, method=method, headers=headers or {}, timeout=timeout * PATIENCE)

    def doctor(self) -> list[dict[str, Any]]:
        """The errors that `kubelite doctor` finds, after a moment for what is being removed."""
        findings: list[dict[str, Any]] = []
        for _ in range(50):
            answer = self.cli("doctor", "-o", "json", check=False)
            findings = [f for f in json.loads(answer.out)["findings"] if f["level"] == "error"]
            if not findings:
                return []
            time.sleep(0.1)
        return findings


@contextlib.contextmanager
def running_node(base: Path, images: Path | None, **settings: str) -> Iterator[Node]:
    """A started node with the test image in its store. The test fails if anything is left at the end."""
    node = Node(base, settings={key.upper(): value for key, value in settings.items()})
    node.prepare()
    if images is not None:
        subprocess.run(["cp", "-a", "--reflink=auto", str(images), str(node.root / "images")], check=True)
    try:
        node.start()
        yield node
        found = node.doctor()
        assert not found, found
    finally:
        node.destroy()
    left = node.leftovers()
    assert not left, left


def pack_image(directory: Path) -> Path:
    """Pack the busybox image with kubelite. Return the `images` directory of the store."""
    node = Node(directory)
    node.prepare()
    try:
        node.start()
        node.cli("image", "pack", PACKED_BUSYBOX, "-t", IMAGE)
        return node.root / "images"
    finally:
        node.destroy()


def wait_fd(descriptor: int, timeout: float = TIMEOUT) -> bool:
    return bool(select.select([descriptor], [], [], timeout * PATIENCE)[0])

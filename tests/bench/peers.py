"""What a peer is asked to do, and podman and docker doing it. kubelite is in node_peer.py, engines alone in engines.py.

Every peer runs the same program from the same root file system, with the same two volumes: an empty one, and a
directory of the machine into which each container writes when its first instruction ran. Nobody's own commands are
needed to see a container start or end, so looking costs no peer anything.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.account import Account
from tests.bench.caged import Cage, Refused
from tests.e2e.node import IMAGE

GRACE = 5  # seconds that a container has to end; ours ends at once


class CannotDo(Exception):
    """The peer has nothing for this row: "–" in the table."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What all peers are given."""

    base: Path  # everything of the benchmark is below
    rootfs: Path  # /stamp and mount points
    archive: Path  # the same as a tar
    store: Path  # the same as kubelite's image store
    bare: Path  # bare.c, compiled

    def stamps(self, peer: str) -> Path:
        path = self.base / f"stamps-{peer}"
        path.mkdir(exist_ok=True)
        return path


@dataclass(frozen=True, slots=True)
class Span:
    """Unix nanoseconds: when the order was given, and when nothing was left to do for it."""

    began: int
    ended: int

    @property
    def ms(self) -> float:
        return (self.ended - self.began) / 1e6


class Peer:
    """One of those beside each other. Times are Unix nanoseconds."""

    name = ""
    program = ""  # what must be installed
    many = True  # whether a hundred at once are asked of it
    idle_seconds = 8.0  # for how long idle CPU is counted

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.base = bench.base / self.name.replace(" ", "-")
        self.base.mkdir()
        self.stamps = bench.stamps(self.base.name)

    @property
    def account(self) -> Account:
        raise NotImplementedError

    def start(self, names: list[str]) -> int:
        """Start pods; returns when the order was given. They need not run yet."""
        raise CannotDo

    def remove(self, names: list[str]) -> Span:
        """End them by SIGTERM and wait until nothing of them is left."""
        raise CannotDo

    def edit(self, name: str) -> int:
        """Give a pod's container another command; returns when the order was given."""
        raise CannotDo

    def restarts(self) -> bool:
        """Whether it starts a container again that was killed."""
        return True

    def list_ms(self) -> float:
        """The command that shows its pods, the whole process."""
        raise CannotDo

    def scrape_ms(self) -> float:
        raise CannotDo

    def adopt_ms(self, names: list[str]) -> float:
        """Kill the daemon and start it: from that start until it minds all of `names` and calls them ready."""
        raise CannotDo

    def memory_kib(self) -> int:
        return self.account.pss_kib()

    def close(self) -> None:
        """Leave nothing behind, whatever has happened."""

    # -- looking ------------------------------------------------------------------------------------------------

    def stamps_of(self, name: str) -> list[int]:
        """When the container of that pod began, each time."""
        path = self.stamps / name
        if not path.exists():
            return []
        return [int(line.split()[1]) for line in path.read_text().splitlines()]

    def wait_stamps(self, names: list[str], count: int = 1, patience: float = 120.0) -> list[int]:
        """Until each has begun `count` times; the time of that beginning, however late we look."""
        until = time.monotonic() + patience
        found: list[int] = []
        for name in names:
            while len(times := self.stamps_of(name)) < count:
                if time.monotonic() > until:
                    raise Refused(f"{name} did not start (time {count}) within {patience:.0f} s")
                time.sleep(0.001 if len(names) == 1 else 0.02)
            found.append(times[count - 1])
        return found


def pod_manifest(name: str, stamps: Path, *, edited: bool = False) -> str:
    command = f"[/stamp, {name}, edited]" if edited else f"[/stamp, {name}]"
    return f"""apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: bench}}}}
spec:
  terminationGracePeriodSeconds: {GRACE}
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    command: {command}
    volumeMounts: [{{name: data, mountPath: /data}}, {{name: bench, mountPath: /bench}}]
  volumes:
  - {{name: data, emptyDir: {{}}}}
  - {{name: bench, hostPath: {{path: {stamps}, type: Directory}}}}
"""


class CagedPeer(Peer):
    """One that lives in a cage."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self._account = Account(self.base.name)
        try:
            self.cage = Cage(self._account, self.base / "cage")
            self.prepare()
        except BaseException:
            self.close()
            raise

    @property
    def account(self) -> Account:
        return self._account

    def prepare(self) -> None:
        """Before the first order."""

    def close(self) -> None:
        if hasattr(self, "cage"):
            self.cage.close()
        self._account.close()
        shutil.rmtree(self.base, ignore_errors=True)


class Podman(CagedPeer):
    """`podman kube play` of the same manifests."""

    name = "podman (crun)"
    program = "podman"
    engine = "crun"

    def prepare(self) -> None:
        self._podman = [
            *(
                "podman",
                "--root",
                f"{self.base}/root",
                "--runroot",
                "/run/podman",
                "--tmpdir",
                "/run/podman-tmp",
            ),
            *("--runtime", self.engine, "--cgroup-manager", "cgroupfs", "--storage-driver", "overlay"),
            *("--events-backend", "file", "--log-level", "fatal"),
        ]
        self.cage.run([*self._podman, "import", str(self.bench.archive), IMAGE])

    def _manifests(self, names: list[str], **how: bool) -> str:
        return "---\n".join(pod_manifest(name, self.stamps, **how) for name in names)

    def start(self, names: list[str]) -> int:
        return self.cage.run([*self._podman, "kube", "play", "-"], text=self._manifests(names)).began

    def remove(self, names: list[str]) -> Span:
        done = self.cage.run([*self._podman, "kube", "down", "-"], text=self._manifests(names))
        return Span(done.began, done.ended)

    def edit(self, name: str) -> int:
        text = self._manifests([name], edited=True)
        return self.cage.run([*self._podman, "kube", "play", "--replace", "-"], text=text).began

    def list_ms(self) -> float:
        done = self.cage.run([*self._podman, "pod", "ps"])
        return (done.ended - done.began) / 1e6


class PodmanRunc(Podman):
    name = "podman (runc)"
    engine = "runc"


class Docker(CagedPeer):
    """`docker run --detach` against a dockerd of its own; so many at once as it is quickest with on two cores."""

    name = "docker"
    program = "dockerd"

    def prepare(self) -> None:
        if shutil.which("docker") is None:
            raise Refused("the command docker is not installed (Debian: docker-cli)")
        self._docker = ["docker", "-H", "unix:///run/dockerd.sock"]
        log = self.base / "dockerd.log"
        places = [
            "--data-root",
            f"{self.base}/data",
            "--exec-root",
            "/run/docker",
            "--pidfile",
            "/run/dockerd.pid",
        ]
        self.cage.spawn(["dockerd", *places, "-H", "unix:///run/dockerd.sock"], out=log)
        until = time.monotonic() + 60
        while True:
            try:
                self.cage.run([*self._docker, "version"])
                break
            except Refused as error:
                if time.monotonic() > until:
                    words = " ".join(log.read_text(errors="replace").split())[-300:]
                    raise Refused(f"dockerd does not start: {words}") from error
            time.sleep(0.2)
        self.cage.run([*self._docker, "import", str(self.bench.archive), IMAGE])

    def _run(self, name: str) -> list[str]:
        volumes = ["--volume", "/data", "--volume", f"{self.stamps}:/bench"]
        return [
            *(*self._docker, "run", "--detach", "--restart", "always", "--name", name, *volumes),
            *(IMAGE, "/stamp", name),
        ]

    def start(self, names: list[str]) -> int:
        return self.cage.run(*map(self._run, names), parallel=8).began

    def remove(self, names: list[str]) -> Span:
        stop = [*self._docker, "stop", "--time", str(GRACE), *names]
        done = self.cage.run(stop, [*self._docker, "rm", "--volumes", *names])
        return Span(done.began, done.ended)

    def list_ms(self) -> float:
        done = self.cage.run([*self._docker, "ps"])
        return (done.ended - done.began) / 1e6

"""The operations of a peer, and podman and docker. kubelite is in node_peer.py, engines alone are in engines.py.

Every peer runs the same program from the same root file system, with the same two volumes: an empty one, and a
directory of the machine into which each container writes when its first instruction ran. Nobody's own commands are
needed to see a container start or end, so looking costs no peer anything.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench import builds, pulls
from tests.bench.account import Account
from tests.bench.caged import Cage, Refused
from tests.e2e.node import IMAGE

GRACE = 5  # grace period of a container in seconds; the stamp program exits at once


class CannotDo(Exception):
    """The peer does not support this row: "–" in the table."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The input of all peers."""

    base: Path  # the directory of the benchmark
    rootfs: Path  # /stamp and mount points
    archive: Path  # the same as a tar
    store: Path  # the same as kubelite's image store
    bare: Path  # bare.c, compiled
    registry: Path | None = None  # the config of a registry with the images to pull
    context: Path | None = None  # of the image to build

    def stamps(self, peer: str) -> Path:
        path = self.base / f"stamps-{peer}"
        path.mkdir(exist_ok=True)
        return path


@dataclass(frozen=True, slots=True)
class Span:
    """Unix nanoseconds: when the order was given, and when it was done."""

    began: int
    ended: int

    @property
    def ms(self) -> float:
        return (self.ended - self.began) / 1e6


class Peer:
    """A peer of the benchmark. Times are Unix nanoseconds."""

    name = ""
    program = ""  # the required programs
    many = True  # whether a hundred pods are started at once
    idle_seconds = 8.0  # duration of idle measurements in seconds

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.base = bench.base / self.name.replace(" ", "-")
        self.base.mkdir()
        self.stamps = bench.stamps(self.base.name)

    @property
    def account(self) -> Account:
        raise NotImplementedError

    def start(self, names: list[str]) -> int:
        """Start pods. Return when the order was given; they need not run yet."""
        raise CannotDo

    def remove(self, names: list[str]) -> Span:
        """End them with SIGTERM and wait until nothing of them is left."""
        raise CannotDo

    def build(self) -> Span:
        """Build `bench.context`, by what it has done before; an image of its own is there at the end."""
        raise CannotDo

    def edit(self, name: str) -> int:
        """Change the command of a pod's container. Return when the order was given."""
        raise CannotDo

    def restarts(self) -> bool:
        """Whether it restarts a killed container."""
        return True

    def list_ms(self) -> float:
        """The duration of the command that lists its pods, including the start of the process."""
        raise CannotDo

    def scrape_ms(self) -> float:
        raise CannotDo

    def adopt_ms(self, names: list[str]) -> float:
        """Kill the daemon and start it: from that start until it minds all of `names` and calls them ready."""
        raise CannotDo

    def pull(self, reference: str, place: str) -> Span:
        """Get an image from the registry and unpack it, into a store that is empty; `place` names it."""
        raise CannotDo

    def memory_kib(self) -> int:
        return self.account.pss_kib()

    def close(self) -> None:
        """Remove everything, also after failures."""

    # -- looking ------------------------------------------------------------------------------------------------

    def stamps_of(self, name: str) -> list[int]:
        """The start times of the pod's container."""
        path = self.stamps / name
        if not path.exists():
            return []
        return [int(line.split()[1]) for line in path.read_text().splitlines()]

    def wait_stamps(self, names: list[str], count: int = 1, patience: float = 120.0) -> list[int]:
        """Wait until each has started `count` times. Return the time of that start, which does not depend on when it is
        read."""
        until = time.monotonic() + patience
        found: list[int] = []
        for name in names:
            while len(times := self.stamps_of(name)) < count:
                if time.monotonic() > until:
                    raise Refused(f"{name} did not start (time {count}) within {patience:.0f} s")
                time.sleep(0.001 if len(names) == 1 else 0.02)
            found.append(times[count - 1])
        return found


def pod_manifest(
    name: str, stamps: Path, *, edited: bool = False, probed: int = 0, own_users: bool = False
) -> str:
    """`probed`: a port of the node's own loopback that is asked each second whether the container lives. `own_users`:
    in a user namespace."""
    port = f"httpGet: {{host: 127.0.0.1, port: {probed}, path: /{name}}}, periodSeconds: 1"
    probe = f"    livenessProbe: {{{port}}}\n" if probed else ""
    users = "  hostUsers: false\n" if own_users else ""
    command = f"[/stamp, {name}, edited]" if edited else f"[/stamp, {name}]"
    return f"""apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: bench}}}}
spec:
  terminationGracePeriodSeconds: {GRACE}
{users}  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    command: {command}
{probe}    volumeMounts: [{{name: data, mountPath: /data}}, {{name: bench, mountPath: /bench}}]
  volumes:
  - {{name: data, emptyDir: {{}}}}
  - {{name: bench, hostPath: {{path: {stamps}, type: Directory}}}}
"""


class CagedPeer(Peer):
    """A peer in a cage."""

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

    def serve(self) -> None:
        """The registry, on the cage's loopback."""
        if not hasattr(self, "_served"):
            self._served = True
            self.cage.spawn(
                ["docker-registry", "serve", str(self.bench.registry)], out=self.base / "registry.log"
            )
            wait = "for _ in $(seq 400); do curl -sfo /dev/null http://$0/v2/ && exit 0; sleep 0.05; done; exit 1"
            self.cage.run(["sh", "-c", wait, pulls.HOST])

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

    def pull(self, reference: str, place: str) -> Span:
        self.serve()
        podman = [word.replace(f"{self.base}/root", f"{self.base}/{place}") for word in self._podman]
        podman = [word.replace("/run/podman", f"/run/{place}") for word in podman]
        done = self.cage.run([*podman, "pull", "-q", "--tls-verify=false", reference])
        return Span(done.began, done.ended)


class PodmanRunc(Podman):
    name = "podman (runc)"
    engine = "runc"

    def pull(self, reference: str, place: str) -> Span:
        raise CannotDo  # it is the same as with crun


class SkopeoUmoci(CagedPeer):
    """`skopeo copy` into an OCI layout, then `umoci unpack`: only pulls."""

    name = "skopeo + umoci"
    program = "umoci"
    many = False

    def pull(self, reference: str, place: str) -> Span:
        self.serve()
        layout = f"{self.base}/{place}"
        copy = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:x"]
        done = self.cage.run(copy, ["umoci", "unpack", "--image", f"{layout}:x", f"{layout}-bundle"])
        return Span(done.began, done.ended)


class Buildah(CagedPeer):
    """`buildah bud --layers`: only builds."""

    name = "buildah"
    program = "buildah"
    many = False

    def build(self) -> Span:
        places = ("--root", f"{self.base}/root", "--runroot", "/run/buildah", "--storage-driver", "overlay")
        # its own limits may be higher than this machine allows
        how = ("--isolation", "chroot", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
        context = str(self.bench.context)
        done = self.cage.run(["buildah", *places, "bud", "-q", "--layers", *how, "-t", builds.NAME, context])
        return Span(done.began, done.ended)


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

    def pull(self, reference: str, place: str) -> Span:
        """By a daemon of its own: its store is empty. It has a bridge of its own too: with `--bridge none` a dockerd
        removes docker0, which is the other's."""
        self.serve()
        bridge = (
            "ip link show pulls || { ip link add pulls type bridge && ip addr add 172.31.0.1/24 dev pulls; }"
        )
        self.cage.run(["sh", "-c", bridge])
        socket = f"unix:///run/{place}.sock"
        places = [
            "--data-root",
            f"{self.base}/{place}",
            "--exec-root",
            f"/run/{place}",
            "--pidfile",
            f"/run/{place}.pid",
        ]
        log = self.base / f"{place}.log"
        self.cage.spawn(["dockerd", *places, "-H", socket, "--bridge", "pulls", "--iptables=false"], out=log)
        wait = 'for _ in $(seq 600); do docker -H "$0" version >/dev/null 2>&1 && exit 0; sleep 0.1; done; exit 1'
        self.cage.run(["sh", "-c", wait, socket])
        done = self.cage.run(["docker", "-H", socket, "pull", "-q", reference])
        self.cage.run(["sh", "-c", 'kill $(cat "$0")', f"/run/{place}.pid"])
        return Span(done.began, done.ended)

    def build(self) -> Span:
        """Without buildkit, whose client Debian's docker-cli does not bring."""
        done = self.cage.run(
            [
                "env",
                "DOCKER_BUILDKIT=0",
                *self._docker,
                "build",
                "-q",
                "-t",
                builds.NAME,
                str(self.bench.context),
            ]
        )
        return Span(done.began, done.ended)

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

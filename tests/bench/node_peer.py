"""kubelite as a peer: a node as in the end-to-end tests, with an account of its CPU time and memory."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.bench import builds, pulls
from tests.bench.account import Account
from tests.bench.caged import Refused
from tests.bench.peers import Bench, Peer, Span, pod_manifest
from tests.e2e.node import KUBELITE, REPO, Node

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # in memory, like /run on a machine


PREFIX = f"kubelite-bench-{os.getpid()}-"  # prefix of directories: a later run recognizes them


class InstalledNode(Node):
    """Its code is compiled once, as for an installed package. Test nodes write no bytecode."""

    def environ(self) -> dict[str, str]:
        kept = {key: value for key, value in Node.environ(self).items() if key != "PYTHONDONTWRITEBYTECODE"}
        return {**kept, "PYTHONPYCACHEPREFIX": str(self.base.parent / "bytecode")}


class Kubelite(Peer):
    """Renaming a manifest into the directory starts a pod, removing the file ends it."""

    name = "kubelite"
    idle_seconds = 20.0  # between two relists

    def __init__(self, bench: Bench, *, pod_cidr: str = "10.77.0.0/22") -> None:
        super().__init__(bench)
        self.node = InstalledNode(self.base / "node", f"b{os.getpid()}", {"POD_CIDR": pod_cidr})
        self.node.run_dir.parent.mkdir()
        self._memory = tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY)
        self.node.run_dir.symlink_to(self._memory)
        self._registry: subprocess.Popen[bytes] | None = None
        self._account = Account("kubelite", (self.node.cgroup_parent,))
        try:
            self.node.prepare()
            shutil.copytree(bench.store, self.node.root / "images", symlinks=True)
            self.start_daemon()
        except BaseException:
            self.close()
            raise

    @property
    def account(self) -> Account:
        return self._account

    def start_daemon(self) -> None:
        self.node.start()
        assert self.node.daemon is not None
        self._account.add_tree(self.node.daemon.pid)

    def restart_daemon(self) -> None:
        self.node.kill(signal.SIGKILL)
        self.start_daemon()

    @contextlib.contextmanager
    def answering(self) -> Iterator[int]:
        """A server on the node's loopback that says yes, on nobody's account; its port. At /gap it tells the longest
        time, in seconds, between two requests of one path, and begins anew."""
        source = (
            "import http.server as h, time\n"
            "last, gaps = {}, {}\n"
            "class Yes(h.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        now, path = time.monotonic(), self.path\n"
            "        if path != '/gap':\n"
            "            gaps[path] = max(gaps.get(path, 0.0), now - last.get(path, now))\n"
            "            last[path] = now\n"
            "        self.send_response(200)\n"
            "        self.end_headers()\n"
            "        if path == '/gap':\n"
            "            self.wfile.write(str(max(gaps.values(), default=0.0)).encode())\n"
            "            gaps.clear()\n"
            "    def log_message(self, *_): pass\n"
            "h.ThreadingHTTPServer.request_queue_size = 1024\n"  # otherwise a burst is refused and counted as late
            "s = h.ThreadingHTTPServer(('127.0.0.1', 0), Yes)\n"
            "print(s.server_port, flush=True)\n"
            "s.serve_forever()\n"
        )
        command = self.node.in_netns(sys.executable, "-c", source)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                yield int(server.stdout.readline())
            finally:
                server.kill()

    def start(self, names: list[str], *, probed: int = 0, own_users: bool = False) -> int:
        return self.put(
            {name: pod_manifest(name, self.stamps, probed=probed, own_users=own_users) for name in names}
        )

    def put(self, texts: Mapping[str, str]) -> int:
        """All files are first written outside the directory and then renamed into it together. Return when."""
        ready = self.base / "ready"
        ready.mkdir(exist_ok=True)
        for name, text in texts.items():
            (ready / f"{name}.yaml").write_text(text)
        began = time.time_ns()
        for name in texts:
            (ready / f"{name}.yaml").rename(self.node.manifests / f"{name}.yaml")
        return began

    def remove(self, names: list[str]) -> Span:
        """Wait until nothing is left: no directory, shim, lease, log or object."""
        began = time.time_ns()
        for name in names:
            (self.node.manifests / f"{name}.yaml").unlink()
        until = time.monotonic() + 120
        while self._left(names):
            if time.monotonic() > until:
                raise Refused(f"after 120 s there is still something of {self._left(names)[:3]}")
            time.sleep(0.001 if len(names) == 1 else 0.02)
        ended = time.time_ns()
        while self.api("/api/v1/pods")["items"]:  # the objects go before the directories, but look
            if time.monotonic() > until:
                raise Refused("pods are still listed whose manifests are gone")
            ended = time.time_ns()
        return Span(began, ended)

    def _left(self, names: list[str]) -> list[str]:
        places = (self.node.root / "pods", self.node.run_dir / "shims", self.node.log_dir / "pods")
        return [entry for place in places for entry in os.listdir(place)]

    def edit(self, name: str) -> int:
        return self.edit_all([name])

    def edit_all(self, names: list[str]) -> int:
        return self.put({name: pod_manifest(name, self.stamps, edited=True) for name in names})

    def list_ms(self) -> float:
        began = time.time_ns()
        self.node.cli("get", "pods")
        return (time.time_ns() - began) / 1e6

    def scrape_ms(self) -> float:
        """From the node's own loopback, like a scraper on the machine."""
        url = f"http://{self.node.environ()['KUBELITE_LISTEN']}/metrics"
        command = [
            "curl",
            "-sS",
            "-o",
            f"{self.base}/metrics",
            "-w",
            "%{time_total}",
            "--max-time",
            "30",
            url,
        ]
        done = subprocess.run(self.node.in_netns(*command), capture_output=True, check=True, text=True)
        return float(done.stdout) * 1000

    def scraped(self) -> int:
        """Bytes of the last scrape."""
        return (self.base / "metrics").stat().st_size

    def adopt_ms(self, names: list[str]) -> float:
        self.node.kill(signal.SIGKILL)
        told = self.node.log.stat().st_size
        began = time.time_ns()
        self.node.start(wait=False)
        ended = self._all_ready(len(names), time.monotonic() + 60, between=0.005)
        assert self.node.daemon is not None
        self._account.add_tree(self.node.daemon.pid)
        if f"adopted {len(names)} pods".encode() not in self.node.log.read_bytes()[told:]:
            raise Refused(f"the daemon did not adopt all {len(names)} pods")
        return (ended - began) / 1e6

    def pull(self, reference: str, place: str) -> Span:
        """The existing store is moved away; the daemon creates a new one."""
        if self._registry is None:
            self._registry = self._serve()
        (self.node.root / "images").rename(self.base / place)
        try:
            return self._pull(reference)
        finally:
            (self.node.root / "images").rename(self.base / f"{place}-pulled")
            (self.base / place).rename(self.node.root / "images")

    def _pull(self, reference: str) -> Span:
        said = self.base / "pull.log"
        with said.open("wb") as log:
            began = time.time_ns()
            command = subprocess.Popen(
                [*KUBELITE, "pull", "-q", reference],
                cwd=REPO,
                env=self.node.environ(),
                stdout=log,
                stderr=log,
            )
            self._account.add_tree(command.pid)
            code = command.wait(180)
            ended = time.time_ns()
        if code:
            raise Refused(f"kubelite pull: {said.read_text(errors='replace')}")
        return Span(began, ended)

    def _serve(self) -> subprocess.Popen[bytes]:
        """The registry, on the node's loopback and on its account, as in the others' cages."""
        with (self.base / "registry.log").open("wb") as log:
            command = self.node.in_netns("docker-registry", "serve", str(self.bench.registry))
            found = subprocess.Popen(command, stdout=log, stderr=log)
        self._account.add_tree(found.pid)
        asking = self.node.in_netns("curl", "-sfo", "/dev/null", f"http://{pulls.HOST}/v2/")
        pulls.wait_for(asking, "docker-registry")
        return found

    def build(self) -> Span:
        began = time.time_ns()
        self.node.cli("build", "-q", "-t", builds.NAME, str(self.bench.context), timeout=120)
        return Span(began, time.time_ns())

    def wait_ready(self, count: int) -> int:
        return self._all_ready(count, time.monotonic() + 120, between=0.3)

    def _all_ready(self, count: int, until: float, *, between: float) -> int:
        """Wait until so many pods are ready. Return the time in Unix nanoseconds. The API answers only after
        adoption."""
        found = 0
        while time.monotonic() < until:
            time.sleep(between)  # the response costs the daemon something, too
            try:
                items = self.api("/api/v1/pods")["items"]
            except (OSError, http.client.HTTPException, ValueError):
                continue
            found = sum(map(_is_ready, items))
            if found == len(items) == count:
                return time.time_ns()
        raise Refused(f"{found} of {count} pods are ready")

    def api(self, path: str) -> dict[str, Any]:
        connection = _Local(self.node.run_dir / "kubelite.sock")
        try:
            connection.request("GET", path)
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return found

    def close(self) -> None:
        if self._registry is not None:
            self._registry.kill()
            self._registry.wait()
        try:
            if self.node.holder is not None:
                self.node.destroy()
        finally:
            for pid in self._account.processes():  # only if `reset` failed
                os.kill(pid, signal.SIGKILL)
            self._account.close()
            shutil.rmtree(self._memory, ignore_errors=True)
            shutil.rmtree(self.base, ignore_errors=True)


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


class _Local(http.client.HTTPConnection):
    """HTTP on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self._path)


def pack(base: Path, rootfs: Path, image: str) -> Path:
    """Pack the benchmark's image into an image store with kubelite."""
    node = Node(base / "pack")
    node.prepare()
    try:
        node.start()
        node.cli("image", "pack", str(rootfs / "stamp"), "-t", image, "--file", f"{rootfs}/stamp:/stamp")
        store = base / "store"
        shutil.copytree(node.root / "images", store, symlinks=True)
    finally:
        node.destroy()
    return store

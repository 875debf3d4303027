"""A small node for the shim's tests: a forkserver, sandboxes, busybox containers, and a check for leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.cgroups import layout, open_cgroup
from runtime.shim.client import ShimClient, read_state, shim_alive
from runtime.shim.protocol import ContainerRecord, CreateContainer, ExecRequest, SandboxConfig, SandboxRecord
from runtime.shim.warm.forkserver_client import Forkserver
from tests.programs import BUSYBOX
from tests.waiting import SECONDS
from tests.waiting import until_async as until

APPLETS = (
    "sh sleep echo cat true false kill yes dd head seq stty tty id ls ps hostname ifconfig setsid printf"
)


class Pod:
    """A sandbox and a subscribed client of its shim."""

    def __init__(self, node: Node, config: SandboxConfig, record: SandboxRecord) -> None:
        self.node = node
        self.config = config
        self.record = record
        self.events: list[dict[str, Any]] = []
        self.client: ShimClient

    async def connect(self) -> ShimClient:
        self.client = await ShimClient.connect(self.config.run_dir, on_event=self.events.append)
        await self.client.subscribe()
        return self.client

    def spec(self, args: list[str], container_id: str, **process: Any) -> dict[str, Any]:
        namespace = f"/proc/{self.record.pid}/ns"
        dev = ["nosuid", "mode=755", "size=65536k"]
        pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
        return {
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin"],
                "cwd": "/",
                "terminal": False,
                "oomScoreAdj": 500,
                **process,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": dev},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": pts},
            ],
            "linux": {
                "cgroupsPath": f"{self.config.cgroup}/{container_id}",
                "resources": {},
                "namespaces": [
                    {"type": "pid"},
                    {"type": "mount"},
                    {"type": "cgroup"},
                    *(
                        {"type": k, "path": f"{namespace}/{n}"}
                        for k, n in (("network", "net"), ("ipc", "ipc"))
                    ),
                    {"type": "uts", "path": f"{namespace}/uts"},
                ],
            },
        }

    async def create(
        self,
        *args: str,
        process: dict[str, Any] | None = None,
        resources: dict[str, Any] | None = None,
        change: Callable[[dict[str, Any]], None] | None = None,
        **request: Any,
    ) -> str:
        """Make the bundle and create the container; returns its id."""
        made = self.request(*args, process=process, resources=resources, change=change, **request)
        await self.client.create(made)
        return made.container_id

    def request(
        self,
        *args: str,
        process: dict[str, Any] | None = None,
        resources: dict[str, Any] | None = None,
        change: Callable[[dict[str, Any]], None] | None = None,
        **request: Any,
    ) -> CreateContainer:
        """Make the bundle; returns the request to create its container."""
        container_id = uuid.uuid4().hex * 2
        bundle = self.node.base / "bundles" / container_id
        for name in ("rootfs", "upper", "work"):
            (bundle / name).mkdir(parents=True)
        spec = self.spec(list(args), container_id, **(process or {}))
        spec["linux"]["resources"] = resources or {}
        if request.get("tty"):
            spec["process"]["terminal"] = True
        if change is not None:
            change(spec)
        (bundle / "config.json").write_text(json.dumps(spec))
        rootfs = {
            "lower": [str(self.node.layer)],
            "upper": str(bundle / "upper"),
            "work": str(bundle / "work"),
        }
        given = {"log_path": str(self.log_path(container_id)), **request}
        return CreateContainer(container_id, "main", 0, str(bundle), rootfs, **given)

    async def start(self, *args: str, **options: Any) -> str:
        container_id = await self.create(*args, **options)
        await self.client.start(container_id)
        return container_id

    async def run(self, *args: str, **options: Any) -> ContainerRecord:
        """Start a container and wait for its exit."""
        return await self.ended(await self.start(*args, **options))

    async def ended(self, container_id: str, seconds: float = SECONDS) -> ContainerRecord:
        """Wait for the exit event; returns its record."""

        def found() -> ContainerRecord | None:
            exits = [e["container"] for e in self.events if e["event"] == "exit"]
            return next((ContainerRecord.from_json(c) for c in exits if c["id"] == container_id), None)

        record: ContainerRecord = await until(found, f"the end of {container_id}", seconds)
        return record

    async def exec(self, container_id: str, *args: str, **options: Any) -> Any:
        process: dict[str, Any] = {
            "args": list(args),
            "env": ["PATH=/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
        }
        process["terminal"] = bool(options.get("tty"))
        process |= options.pop("process", {})
        return await self.client.exec(ExecRequest(container_id, uuid.uuid4().hex, process, **options))

    async def exec_exit(self, exec_id: str) -> int:
        def found() -> list[int]:
            return [e["exit_code"] + 1 for e in self.events if e.get("exec_id") == exec_id]

        return int((await until(found))[0]) - 1

    def log_path(self, container_id: str) -> Path:
        return self.node.base / "logs" / container_id[:12] / "0.log"

    def log(self, container_id: str) -> list[tuple[str, str, str]]:
        """(stream, tag, text) of each line of the log."""
        lines = self.log_path(container_id).read_text().splitlines()
        return [(p[1], p[2], p[3]) for p in (line.split(" ", 3) for line in lines)]


class Node:
    """Use as `node.run(story)`: starts a node, runs the story, stops, and asserts that nothing is left."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.tag = f"kls-{uuid.uuid4().hex[:8]}"
        self.layer = base / "layer"
        self.forkserver = Forkserver()
        self.pods: list[Pod] = []
        (self.layer / "bin").mkdir(parents=True)
        for name in ("proc", "sys", "dev", "tmp", "etc"):
            (self.layer / name).mkdir()
        shutil.copy(BUSYBOX, self.layer / "bin/busybox")
        for name in APPLETS.split():
            (self.layer / "bin" / name).symlink_to("busybox")

    def config(self, **changes: Any) -> SandboxConfig:
        uid = str(uuid.uuid4())
        values: dict[str, Any] = {
            "uid": uid,
            "sandbox_id": uuid.uuid4().hex * 2,
            "run_dir": str(self.base / "run" / uid),
            "cgroup": f"/{self.tag}/pod{uid}",
            "shim_cgroup": f"/{self.tag}/shims",
            "hostname": "web-0",
        }
        return SandboxConfig(**(values | changes))

    async def pod(self, **changes: Any) -> Pod:
        config = self.config(**changes)
        pod = Pod(self, config, await self.forkserver.spawn(config))
        self.pods.append(pod)
        await pod.connect()
        return pod

    def run(self, story: Callable[[Node], Awaitable[None]]) -> None:
        """Start a forkserver, run the story, and shut down every sandbox that still answers."""

        async def play() -> None:
            await self.forkserver.start()
            try:
                await story(self)
                for pod in self.pods:
                    if shim_alive(pod.record) and os.path.exists(pod.config.run_dir):
                        await (await pod.connect()).shutdown(force=True)
            finally:
                await self.forkserver.close()

        asyncio.run(play())
        self.assert_clean()

    def cgroups(self) -> list[str]:
        where = layout()
        points = {*where.hierarchies, *([where.unified] if where.unified else [])}
        return [
            directory
            for point in points
            for directory, _, _ in os.walk(f"{point}/{self.tag}")
            if not directory.endswith((self.tag, "/shims"))
        ]

    def processes(self) -> list[int]:
        """The pids in cgroups with our tag, except zombies that the machine's init has yet to reap."""
        found = []
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                waits_for_init = "State:\tZ" in status and "PPid:\t1\n" in status
                if self.tag in Path(f"/proc/{pid}/cgroup").read_text() and not waits_for_init:
                    found.append(pid)
        return found

    def assert_clean(self) -> None:
        """Assert that no process, cgroup, run directory or mount is left."""
        end = time.monotonic() + SECONDS
        while self.processes() and time.monotonic() < end:
            time.sleep(0.01)
        assert self.processes() == []
        assert self.cgroups() == []
        run = self.base / "run"
        assert not run.exists() or os.listdir(run) == []
        assert f"{self.base}/bundles" not in Path("/proc/self/mountinfo").read_text()

    def sweep(self) -> None:
        """Clean up after a failed test."""
        run = self.base / "run"
        for name in os.listdir(run) if run.exists() else []:
            record = read_state(str(run / name))
            if record is not None and shim_alive(record):
                os.kill(record.pid, signal.SIGKILL)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        open_cgroup(f"/{self.tag}").remove()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    try:
        yield made
    finally:
        made.sweep()

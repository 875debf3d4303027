"""A `Cri` in memory with the rules of the real one and its own clock. It raises an error if a rule is broken.

In a `FakeCri`, containers run until the test ends them (`exit`); they obey or ignore their stop signal, sandboxes are
lost, and the machine reboots. It rejects what must never be requested: two running instances of one name, a start
without a sandbox, the removal of a running container.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kubelite.node.decide.container_details import user_text
from kubelite.node.model.cri import (
    ContainerRequest,
    ContainerState,
    ExecResult,
    ObservedContainer,
    ObservedImage,
    ObservedPod,
    ObservedSandbox,
    Rates,
    SandboxRequest,
)
from runtime.errors import ImageError, NotFoundError, RuntimeFault, StartError


class BrokenRule(AssertionError):
    """The node was asked for something that must never be requested."""


class FakeCri:
    """See the module's docstring. `advance` moves `now`; everything else changes only by calls."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now
        self.sandboxes: dict[str, ObservedSandbox] = {}
        self.containers: dict[str, list[ObservedContainer]] = {}
        self.images: dict[str, ObservedImage] = {}
        self.calls: list[tuple[str, str]] = []  # (call, uid/container name)
        self.updates: dict[str, dict[str, Any]] = {}  # container id → resources as last updated
        self.requests: list[ContainerRequest] = []
        self.sandbox_requests: list[SandboxRequest] = []
        self.stubborn: set[str] = set()  # container names that ignore their stop signal
        self.stop_exit_code = 143
        self.fail_sandbox: RuntimeFault | None = None
        self.fail_start: dict[str, RuntimeFault] = {}
        self.pullable: dict[str, ObservedImage] = {}
        self.pull_error: ImageError | None = None
        self.exec_result: ExecResult | RuntimeFault = ExecResult(0)
        self._ids = itertools.count(1)

    # -- the test's hand ----------------------------------------------------------------------------------------

    def add_image(self, reference: str, **config: Any) -> ObservedImage:
        identity = f"sha256:{hashlib.sha256(reference.encode()).hexdigest()}"
        image = ObservedImage(
            identity, f"docker.io/library/{reference}", config=config or {"Cmd": ["/bin/sh"]}
        )
        self.images[reference] = image
        return image

    def advance(self, seconds: float) -> None:
        """Let time pass. Containers whose stop deadline passes are killed."""
        self.now += seconds
        for uid, found in self.containers.items():
            for c in found:
                if c.state is ContainerState.RUNNING and 0 < c.stop_deadline <= self.now:
                    self._end(uid, c, 137, signal=9)

    def alive(self, uid: str) -> list[ObservedContainer]:
        living = (ContainerState.RUNNING, ContainerState.CREATED)
        return [c for c in self.containers.get(uid, []) if c.state in living]

    def exit(self, uid: str, name: str, code: int = 0, **more: Any) -> None:
        """The running instance of `name` exits by itself."""
        for c in self.alive(uid):
            if c.name == name:
                self._end(uid, c, code, **more)

    def lose_sandbox(self, uid: str) -> None:
        """The shim is killed: its records are lost and its containers are dead."""
        self.sandboxes.pop(uid, None)
        self.containers[uid] = [self._gone(c) for c in self.containers.get(uid, [])]

    def reboot(self) -> None:
        """Everything is lost, also the records."""
        self.sandboxes.clear()
        self.containers.clear()

    def _gone(self, c: ObservedContainer) -> ObservedContainer:
        if c.state in (ContainerState.RUNNING, ContainerState.CREATED):
            return replace(c, state=ContainerState.UNKNOWN, sandbox_id="gone", exit_code=137)
        return replace(c, sandbox_id="gone")

    def _end(self, uid: str, c: ObservedContainer, code: int, **more: Any) -> None:
        end = {"state": ContainerState.EXITED, "exit_code": code, "finished_at": self.now, "pid": 0, **more}
        self._put(uid, replace(c, **end))

    def _put(self, uid: str, container: ObservedContainer) -> None:
        found = [c for c in self.containers.get(uid, []) if c.id != container.id]
        self.containers[uid] = [*found, container]

    def _find(self, uid: str, identity: str) -> ObservedContainer:
        for c in self.containers.get(uid, []):
            if c.id == identity:
                return c
        raise NotFoundError(f"no container {identity}")

    # -- Cri ----------------------------------------------------------------------------------------------------

    async def observe(self, uid: str) -> ObservedPod:
        return self.look(uid)

    def look(self, uid: str) -> ObservedPod:
        found = sorted(self.containers.get(uid, []), key=lambda c: (c.name, c.attempt))
        return ObservedPod(uid, self.sandboxes.get(uid), tuple(found))

    async def run_sandbox(self, request: SandboxRequest) -> ObservedSandbox:
        self.calls.append(("run_sandbox", request.uid))
        if self.fail_sandbox is not None:
            raise self.fail_sandbox
        if request.uid in self.sandboxes:
            raise BrokenRule("two sandboxes of one pod")
        self.sandbox_requests.append(request)
        sandbox = ObservedSandbox(
            id=f"s{next(self._ids)}",
            ready=True,
            pid=1000 + next(self._ids),
            created_at=self.now,
            ip="" if request.host_network else "10.88.0.7",
            host_network=request.host_network,
            spec_hash=request.spec_hash,
            cgroup=request.cgroup,
            resources_hash=request.resources_hash,
            bandwidth=request.bandwidth,
        )
        self.sandboxes[request.uid] = sandbox
        return sandbox

    async def update_sandbox(self, uid: str, *, resources: dict[str, Any], resources_hash: str) -> None:
        self.calls.append(("update_sandbox", uid))
        self.sandboxes[uid] = replace(self.sandboxes[uid], resources_hash=resources_hash)

    async def limit_sandbox(self, uid: str, rates: Rates) -> None:
        self.calls.append(("limit_sandbox", uid))
        self.sandboxes[uid] = replace(self.sandboxes[uid], bandwidth=rates)

    async def stop_sandbox(self, uid: str) -> None:
        self.calls.append(("stop_sandbox", uid))
        for c in self.alive(uid):
            self._end(uid, c, 137, signal=9)
        self.lose_sandbox(uid)

    async def remove_pod(self, uid: str) -> None:
        self.calls.append(("remove_pod", uid))
        if uid in self.sandboxes:
            raise BrokenRule("files of a pod removed under its sandbox")
        self.containers.pop(uid, None)

    async def start_container(self, request: ContainerRequest) -> ObservedContainer:
        uid = request.uid
        self.calls.append(("start_container", request.name))
        sandbox = self.sandboxes.get(uid)
        if sandbox is None:
            raise BrokenRule(f"start of {request.name} without a sandbox")
        if any(c.name == request.name for c in self.alive(uid)):
            raise BrokenRule(f"two instances of {request.name}")
        if any(c.name == request.name and c.attempt == request.attempt for c in self.containers.get(uid, [])):
            raise BrokenRule(f"attempt {request.attempt} of {request.name} twice")
        self.requests.append(request)
        failure = self.fail_start.get(request.name)
        if failure is not None and not isinstance(failure, StartError):
            raise failure
        made = ObservedContainer(
            id=request.id or f"c{next(self._ids)}",
            name=request.name,
            attempt=request.attempt,
            state=ContainerState.RUNNING,
            image=request.image_ref,
            image_id=request.image.id,
            pid=2000 + next(self._ids),
            created_at=self.now,
            started_at=self.now,
            spec_hash=request.spec_hash,
            resources_hash=request.resources_hash,
            log_path=request.log_path,
            sandbox_id=sandbox.id,
            crash_count=request.crash_count,
            user=user_text(request.spec.get("process", {}).get("user", {})),
            post_start="pending" if request.post_start else "",
            checks_hash=request.checks_hash,
        )
        self._put(uid, made)
        if failure is not None:
            self._end(uid, made, 128, reason="StartError", message=str(failure), started_at=0.0)
            raise failure
        return made

    async def stop_container(
        self, uid: str, container_id: str, *, signal: int, grace: float, killed_for: str = ""
    ) -> None:
        c = self._find(uid, container_id)
        if killed_for:
            self._put(uid, c := replace(c, killed_for=killed_for))
        self.calls.append(("stop_container", c.name))
        if c.state is ContainerState.CREATED:
            self._end(uid, c, 137, signal=9)
        elif c.state is ContainerState.RUNNING:
            deadline = self.now + grace
            if c.stop_signal:
                deadline = min(deadline, c.stop_deadline)
            c = replace(c, stop_deadline=deadline, stop_signal=c.stop_signal or signal)
            self._put(uid, c)
            if signal == 9 or (signal and c.name not in self.stubborn):
                self._end(uid, c, self.stop_exit_code)

    async def label_container(self, uid: str, container_id: str, labels: dict[str, str]) -> None:
        c = self._find(uid, container_id)
        self.calls.append(("label_container", c.name))
        done = labels.get("post_start", c.post_start)
        why = labels.get("post_start_error", c.post_start_error)
        self._put(uid, replace(c, post_start=done, post_start_error=why))

    async def update_container(
        self, uid: str, container_id: str, *, resources: dict[str, Any], resources_hash: str
    ) -> None:
        c = self._find(uid, container_id)
        self.calls.append(("update_container", c.name))
        self.updates[container_id] = resources
        self._put(uid, replace(c, resources_hash=resources_hash))

    async def remove_container(self, uid: str, container_id: str, *, keep_log: bool = False) -> None:
        c = self._find(uid, container_id)
        self.calls.append(("remove_container", c.name))
        if c in self.alive(uid):
            raise BrokenRule(f"removal of {c.name}, which is alive")
        self.containers[uid] = [other for other in self.containers[uid] if other.id != container_id]

    async def exec(
        self, uid: str, container_id: str, command: list[str], *, timeout: float | None
    ) -> ExecResult:
        c = self._find(uid, container_id)
        self.calls.append(("exec", " ".join([c.name, *command])))
        if c.state is not ContainerState.RUNNING:
            raise BrokenRule(f"exec in {c.name}, which does not run")
        if isinstance(self.exec_result, RuntimeFault):
            raise self.exec_result
        return self.exec_result

    def image(self, reference: str) -> ObservedImage | None:
        return self.images.get(reference)

    async def pull(self, uid: str, reference: str, secrets: Sequence[dict[str, Any]] = ()) -> ObservedImage:
        self.calls.append(("pull", reference))
        if self.pull_error is not None:
            raise self.pull_error
        if reference not in self.pullable:
            raise ImageError(f"{reference}: not found", reason="ErrImagePull")
        self.images[reference] = self.pullable[reference]
        return self.images[reference]

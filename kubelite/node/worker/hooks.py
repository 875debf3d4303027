"""Run lifecycle hooks in the background. Their states are an input of the decision.

A hook is an exec through the pod's shim, a GET from the node, or a sleep (Kubernetes lifecycle/handlers.go). It belongs
to one instance of a container and runs at least once: a hook interrupted by the daemon's end runs again. The success of
a postStart hook is recorded with the instance. A preStop hook is limited to the grace period.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from kubelite.node.model.actions import Hook, HookPhase
from kubelite.node.model.cri import Cri, ObservedPod
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.pod_view import is_alive
from kubelite.node.model.recorder import WARNING, PodEvents
from kubelite.node.probing import exchange
from kubelite.node.probing.http_get import fetch
from kubelite.node.probing.prober import http_get
from manifests.types.core import Container, LifecycleHandler, Pod
from runtime.errors import NotFoundError, RuntimeFault

log = logging.getLogger(__name__)
AGENT = "kube-lifecycle/1.36"
MAX_ERROR = 1024  # characters of a hook's error message; the rest is cut off
LONG = 3600.0  # seconds for a GET: hooks have no timeout field
_EVENTS = {
    Hook.POST_START: ("FailedPostStartHook", "PostStartHook failed"),
    Hook.PRE_STOP: ("FailedPreStopHook", "PreStopHook failed"),
}


class HookFailed(RuntimeFault):
    reason = "HookFailed"


@dataclass(frozen=True, slots=True)
class HookRun:
    """A hook of an instance. It may run for `limit` seconds."""

    pod: Pod
    container: Container
    container_id: str
    hook: Hook
    ip: str  # the pod's address
    events: PodEvents
    limit: float | None = None

    @property
    def uid(self) -> str:
        return self.pod.metadata.uid or ""

    @property
    def key(self) -> tuple[str, Hook]:
        return self.container_id, self.hook


def handler_of(container: Container, hook: Hook) -> LifecycleHandler | None:
    lifecycle = container.lifecycle
    if lifecycle is None:
        return None
    return lifecycle.post_start if hook is Hook.POST_START else lifecycle.pre_stop


class Hooks:
    """All running and recently ended hooks. Calls `wake(uid)` when a hook ends."""

    def __init__(self, cri: Cri, config: NodeConfig, *, wake: Callable[[str], None]) -> None:
        self._cri = cri
        self._config = config
        self._wake = wake
        self._phases: dict[str, dict[tuple[str, Hook], HookPhase]] = {}
        self._tasks: dict[tuple[str, Hook], asyncio.Task[None]] = {}
        self._limits: dict[tuple[str, Hook], asyncio.Timeout] = {}

    def states(self, uid: str, observed: ObservedPod) -> Mapping[tuple[str, Hook], HookPhase]:
        """Return the states of the hooks of the pod's running instances. Cancel the hooks of other instances."""
        phases = self._phases.get(uid)
        if not phases:
            return {}
        alive = {c.id for c in observed.containers if is_alive(c)}
        for key in [key for key in phases if key[0] not in alive]:
            del phases[key]
            self._give_up(key)
        return dict(phases)

    def begin(self, run: HookRun) -> None:
        """Start a hook. If it is running already, it continues, but not beyond the new limit."""
        phases = self._phases.setdefault(run.uid, {})
        if phases.get(run.key) is HookPhase.RUNNING:
            limit = self._limits.get(run.key)
            if limit is not None and run.limit is not None and not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + run.limit)
            return
        phases[run.key] = HookPhase.RUNNING
        task = asyncio.get_running_loop().create_task(self._run(run), name=f"{run.hook}-{run.container.name}")
        self._tasks[run.key] = task

    async def _run(self, run: HookRun) -> None:
        phase = HookPhase.DONE
        try:
            async with asyncio.timeout(run.limit) as limit:
                self._limits[run.key] = limit
                await self._act(run)
            if run.hook is Hook.POST_START:
                await self._cri.label_container(run.uid, run.container_id, {"post_start": "done"})
        except NotFoundError:  # it has ended meanwhile
            phase = HookPhase.FAILED
        except (TimeoutError, RuntimeFault, OSError, exchange.WireError) as error:
            phase = HookPhase.FAILED
            name, said = run.container.name, str(error) or "its time was up"
            log.warning("%s hook of %s: %s", run.hook, name, said, extra={"uid": run.uid})
            # without the output, which may contain secrets
            run.events.container(name, WARNING, *_EVENTS[run.hook])
            if run.hook is Hook.POST_START:
                await self._keep_error(run, said)
        self._tasks.pop(run.key, None)
        self._limits.pop(run.key, None)
        if run.uid in self._phases:
            self._phases[run.uid][run.key] = phase
            self._wake(run.uid)

    async def _keep_error(self, run: HookRun, said: str) -> None:
        """Record the error with the instance: its status shows it when the instance has ended (Kubernetes
        lifecycle/handlers.go)."""
        handler, metadata = handler_of(run.container, run.hook), run.pod.metadata
        who = f'for Container "{run.container.name}" in Pod "{metadata.name}_{metadata.namespace}({run.uid})"'
        what = "Sleep lifecycle hook"
        if handler is not None and handler.exec is not None:
            what = f"Exec lifecycle hook ([{' '.join(handler.exec.command)}])"
        elif handler is not None and handler.http_get is not None:
            what = f"HTTP lifecycle hook ({handler.http_get.path})"
        text = f"{what} {who} failed - error: {said}"[:MAX_ERROR]
        with contextlib.suppress(RuntimeFault):  # the container is gone
            await self._cri.label_container(run.uid, run.container_id, {"post_start_error": text})

    async def _act(self, run: HookRun) -> None:
        handler = handler_of(run.container, run.hook)
        if handler is None:  # an edit removed the hook
            return
        if handler.exec is not None:
            command = list(handler.exec.command)
            done = await self._cri.exec(run.uid, run.container_id, command, timeout=None)
            if done.exit_code:
                # kubelet's format: the error ends with stderr, which is part of `output` here, and so is left empty
                said = f"command '{' '.join(command)}' exited with {done.exit_code}: "
                raise HookFailed(f"{said}, message: {json.dumps(done.output, ensure_ascii=False)}")
        elif handler.http_get is not None:
            host = self._config.host_ip if run.pod.spec.host_network else run.ip
            await fetch(http_get(run.container, handler.http_get, host, AGENT), LONG)  # any response: success
        elif handler.sleep is not None:
            await asyncio.sleep(handler.sleep.seconds)
        else:
            raise HookFailed("invalid handler: tcpSocket")  # as in kubelet

    def forget(self, uid: str) -> None:
        for key in self._phases.pop(uid, {}):
            self._give_up(key)

    def _give_up(self, key: tuple[str, Hook]) -> None:
        self._limits.pop(key, None)
        if (task := self._tasks.pop(key, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for uid in list(self._phases):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

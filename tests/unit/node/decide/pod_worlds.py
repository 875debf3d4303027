"""Worlds for tests of the decision: short ways to make pods, and a fake node on which decisions are carried out until
nothing is left to do."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from kubelite.kube.times import rfc3339
from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.model import resources
from kubelite.node.model.actions import (
    Facts,
    Hook,
    HookPhase,
    PodActions,
    PullPhase,
    PullStatus,
    StartContainer,
)
from kubelite.node.model.cri import ContainerRequest, SandboxRequest
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.probe_results import Health, Kind, Tally, health, probes
from kubelite.node.spec import hashes
from kubelite.node.worker.hooks import handler_of
from manifests.types.core import Pod
from tests.unit.node.fake_cri import BrokenRule, FakeCri

CONFIG = NodeConfig(
    "node", "192.0.2.1", "/var/lib/kubelite", "/var/log/pods", memory_bytes=8 << 30, cpu_milli=4000
)
UID = "0b0e0000-0000-4000-8000-000000000001"


def container(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "app:1", "imagePullPolicy": "IfNotPresent", **more}


def make_pod(*containers: dict[str, Any] | str, **spec: Any) -> Pod:
    """A pod with these containers, given as objects or by name. Init containers: `initContainers`."""
    meta = {"name": "web", "namespace": "default", "uid": UID, "generation": 1}
    made = [container(c) if isinstance(c, str) else c for c in containers or ("app",)]
    return Pod.parse({"metadata": meta, "spec": {"restartPolicy": "Always", "containers": made, **spec}})


def edited(pod: Pod, change: dict[str, Any]) -> Pod:
    """The pod with other spec fields and the same status."""
    doc = pod.to_json()
    doc["spec"].update(change)
    return Pod.parse(doc)


def deleted(pod: Pod, *, grace: int = 30, began: float = 1_700_000_000.0 - 60) -> Pod:
    """The pod, with a deletion that began then (Unix seconds)."""
    doc = pod.to_json()
    doc["metadata"].update(deletionTimestamp=rfc3339(began + grace), deletionGracePeriodSeconds=grace)
    return Pod.parse(doc)


def facts_of(fake: FakeCri, pod: Pod, **more: Any) -> Facts:
    references = {c.image or "" for c in [*pod.spec.init_containers, *pod.spec.containers]}
    return Facts(now=fake.now, images={r: fake.image(r) for r in references}, **more)


class World:
    """One pod on a fake node, driven without files and without a store."""

    def __init__(self, pod: Pod, fake: FakeCri | None = None) -> None:
        self.fake = fake or FakeCri()
        self.fake.add_image("app:1")
        self.pod = pod
        self.exists = True
        self.pulls: dict[tuple[str, int], PullStatus] = {}
        self.started: list[tuple[str, int]] = []
        self.tallies: dict[tuple[str, Kind], Tally] = {}  # by container id
        self.well = False  # probes that have not run yet succeed
        self.hooks: dict[tuple[str, Hook], HookPhase] = {}  # by container id

    def facts(self) -> Facts:
        return facts_of(self.fake, self.pod, pulls=self.pulls, health=self.health(), hooks=self.hooks)

    def health(self) -> dict[str, Health]:
        """The probe results of every running instance: those that the test has set, otherwise none (or, with `well`,
        success)."""
        specs = {c.name: c for c in [*self.pod.spec.init_containers, *self.pod.spec.containers]}
        untold = Tally(good=True) if self.well else Tally()
        return {
            c.id: health(spec, {kind: self.tallies.get((c.id, kind), untold) for kind, _ in probes(spec)})
            for c in self.fake.alive(UID)
            if (spec := specs.get(c.name)) is not None
        }

    def decide(self) -> PodActions:
        return compute_pod_actions(self.pod, self.fake.look(UID), self.facts(), CONFIG)

    def step(self) -> PodActions:
        """One round: decide, write the status if records are to be removed, act, write the status."""
        actions = self.decide()
        if actions.kill_sandbox or actions.remove:
            self.write_status(actions)
        _drive(self._apply(actions))
        if self.exists:
            self.write_status(self.decide())
        return actions

    def write_status(self, actions: PodActions) -> None:
        status = compute_pod_status(self.pod, self.fake.look(UID), actions, self.facts(), CONFIG)
        self.pod = self.pod.model_copy(update={"status": type(status).parse(status.to_json())})

    def settle(self, steps: int = 40) -> PodActions:
        """Run rounds until there is nothing to do now. Delays are not waited for."""
        for _ in range(steps):
            before = self.pod.status.to_json()
            actions = self.step()
            if not self.exists or (not actions.effects and before == self.pod.status.to_json()):
                return actions
        raise BrokenRule(f"it never settles: {actions.describe()} {actions.reasons}")

    def converge(self, rounds: int = 200) -> PodActions:
        """Settle and advance the time to the next round, until nothing waits for a time."""
        for _ in range(rounds):
            actions = self.settle()
            if not self.exists or actions.next_look is None:
                return actions
            self.fake.advance(max(actions.next_look - self.fake.now, 0.1))
        raise BrokenRule(f"it never converges: {actions.reasons} {actions.next_look}")

    async def _apply(self, actions: PodActions) -> None:
        fake = self.fake
        for stop in actions.stop:
            await fake.stop_container(
                UID, stop.id, signal=stop.signal, grace=stop.grace, killed_for=stop.killed_for
            )
            if stop.pre_stop:
                self._begin_hook(stop.id, Hook.PRE_STOP)
        for pull in actions.pull:
            self.pulls[pull.name, pull.attempt] = PullStatus(PullPhase.PULLED)
            fake.images.setdefault(pull.reference, fake.images["app:1"])
        if actions.kill_sandbox:
            await fake.stop_sandbox(UID)
        if actions.create_sandbox:
            wanted = resources.pod_resources(self.pod, CONFIG)
            made_from, limits = hashes.sandbox_hash(self.pod), hashes.resources_hash(wanted)
            names = (UID, "default", "web", "web", "/kubelite/pod")
            await fake.run_sandbox(SandboxRequest(*names, made_from, resources_hash=limits))
        if actions.update_sandbox:
            wanted = resources.pod_resources(self.pod, CONFIG)
            await fake.update_sandbox(UID, resources=wanted, resources_hash=hashes.resources_hash(wanted))
        for start in actions.start:
            await self._start(start)
        for hook in actions.post_start:
            self._begin_hook(hook.id, Hook.POST_START)
        for update in actions.update:
            changed = dict(update.resources)
            await fake.update_container(
                UID, update.id, resources=changed, resources_hash=update.resources_hash
            )
        if actions.limit is not None:
            await fake.limit_sandbox(UID, actions.limit)
        for removal in actions.remove:
            await fake.remove_container(UID, removal.id)
        if actions.finish:
            await fake.remove_pod(UID)
            self.exists = False

    def _begin_hook(self, identity: str, hook: Hook) -> None:
        if self.hooks.get((identity, hook)) is HookPhase.RUNNING and hook is Hook.POST_START:
            raise BrokenRule(f"{hook} of {identity} twice at once")
        self.hooks[identity, hook] = HookPhase.RUNNING

    def end_hook(self, identity: str, hook: Hook, *, good: bool = True) -> None:
        self.hooks[identity, hook] = HookPhase.DONE if good else HookPhase.FAILED
        if hook is Hook.POST_START and good:
            _drive(self.fake.label_container(UID, identity, {"post_start": "done"}))

    def restart_daemon(self) -> None:
        """Forget what only the daemon knew."""
        self.hooks.clear()
        self.pulls.clear()

    async def _start(self, start: StartContainer) -> None:
        if start.discard:
            await self.fake.remove_container(UID, start.discard)
        spec = next(
            c for c in [*self.pod.spec.init_containers, *self.pod.spec.containers] if c.name == start.name
        )
        image = self.fake.image(spec.image or "")
        assert image is not None
        limits = resources.container_resources(spec)
        self.started.append((start.name, start.attempt))
        await self.fake.start_container(
            ContainerRequest(
                uid=UID,
                id="",
                name=start.name,
                attempt=start.attempt,
                image=image,
                image_ref=spec.image or "",
                spec={},
                spec_hash=hashes.container_hash(self.pod, spec),
                resources_hash=hashes.resources_hash(limits),
                log_path="",
                crash_count=start.crash_count,
                post_start=handler_of(spec, Hook.POST_START) is not None,
            )
        )


def _drive(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits, without an event loop: thousands of worlds then take seconds."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("the fake waited")

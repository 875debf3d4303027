"""PURE: what is to be done to a pod now. `compute_pod_actions` is the one place where that is decided.

Values in, one frozen value out; sync_pod applies it in field order and never chooses again. It is level-triggered: the
same world gives the same answer, and a world that has arrived gives nothing to do. Rules: restart, back-off and init
order C2, termination C3, images C10 of the pod semantics; edits in place are kubelite's own (see hashes).

    decide ─┬─ deleted?               _delete: mains, then sidecars, then the sandbox, then every trace
            ├─ over (phase, deadline)? _wind_down: stop what still runs, give the sandbox back
            ├─ no sandbox?            _from_nothing: which containers run again, then a sandbox for them
            ├─ wrong sandbox?         _replace_sandbox: stop all, then as from nothing
            └─ else                   _in_sandbox: strays, init containers in order, then the others
"""

from __future__ import annotations

import signal
from typing import Any

from kubelite.node import hashes, resources
from kubelite.node.actions import (
    Facts,
    Failed,
    Hook,
    HookPhase,
    PodActions,
    PostStart,
    PullImage,
    PullPhase,
    PullSeen,
    RemoveContainer,
    StartContainer,
    StopContainer,
    UpdateContainer,
    Waiting,
    signal_number,
)
from kubelite.node.config import NodeConfig
from kubelite.node.cri import ContainerSeen, ContainerState, PodSeen, SandboxSeen
from kubelite.node.pod_view import View, in_sandbox, is_alive, never_ran, views
from kubelite.node.probes import Health, Kind, health, kill_grace, kill_message
from kubelite.node.times import go_duration, unix
from kubelite.node.unsupported import blocked_containers
from kubelite.node.usage import excess
from manifests.core import Container, Pod
from runtime.errors import ImageError
from runtime.images import reference as references

CRASH_RESET = 600.0  # an instance that ran longer than this starts the count anew
DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"
MIN_GRACE = 2.0
RETRY = 10.0
LONGEST_RETRY = 60.0  # seconds: no failure that is not a crash or a pull waits longer for another try


def restart_policy(pod: Pod, container: Container) -> str:
    """Always, OnFailure or Never, for one container: its own rule, else the pod's; a pod's Always means OnFailure for
    its init containers."""
    if container.restart_policy:
        return container.restart_policy
    policy = pod.spec.restart_policy or "Always"
    if policy == "Always" and any(c.name == container.name for c in pod.spec.init_containers):
        return "OnFailure"
    return policy


def should_restart(pod: Pod, container: Container, exit_code: int) -> bool:
    """Whether a container that ended with this code runs again: the first of its own rules that fits, else its policy
    (K podutil ContainerShouldRestart)."""
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes if rule.action == "Restart" else None
        if codes is not None and (exit_code in codes.values) is (codes.operator == "In"):
            return True
    policy = restart_policy(pod, container)
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def grace_period(pod: Pod) -> float:
    """Seconds between the stop signal and SIGKILL; at least one (C3)."""
    grace = pod.spec.termination_grace_period_seconds
    if pod.metadata.deletion_timestamp and pod.metadata.deletion_grace_period_seconds is not None:
        grace = pod.metadata.deletion_grace_period_seconds
    return float(max(1, 30 if grace is None else grace))


def pod_ref(pod: Pod) -> str:
    """kubelet's format.Pod: name_namespace(uid)."""
    return f"{pod.metadata.name}_{pod.metadata.namespace or 'default'}({pod.metadata.uid})"


def health_of(facts: Facts, container: Container, instance: ContainerSeen) -> Health:
    """What the probes of a running instance say; before the first try what is assumed."""
    return facts.health.get(instance.id) or health(container, {})


def compute_pod_actions(pod: Pod, seen: PodSeen, facts: Facts, config: NodeConfig) -> PodActions:
    """Decide. `pod.status` is the pod's last written status."""
    return Decision(pod, seen, facts, config).decide()


class Decision:
    """One decision in the making: a method for each question, gathering the answer; it lives for one call."""

    def __init__(self, pod: Pod, seen: PodSeen, facts: Facts, config: NodeConfig) -> None:
        self.pod, self.seen, self.facts, self.config = pod, seen, facts, config
        self.now = facts.now
        self.views = views(pod, seen)
        self.inits, self.mains = pod.spec.init_containers, pod.spec.containers
        self.sidecars = {c.name for c in self.inits if restart_policy(pod, c) == "Always"}
        self.blocked = blocked_containers(pod)
        self.stop: list[StopContainer] = []
        self.pull: list[PullImage] = []
        self.start: list[StartContainer] = []
        self.post_start: list[PostStart] = []
        self.update: list[UpdateContainer] = []
        self.remove: list[RemoveContainer] = []
        self.waiting: dict[str, Waiting] = {}
        self.finished: set[str] = set()
        self.reasons: list[str] = []
        self.wakes: list[float] = []
        self.rest: dict[str, Any] = {}

    def decide(self) -> PodActions:
        if self.pod.metadata.deletion_timestamp:
            self._delete()
        elif (over := self._over()) is not None:
            self._wind_down(over)
        elif self.seen.sandbox is None or not self.seen.sandbox.ready:
            self._from_nothing()
        elif self.seen.sandbox.spec_hash != hashes.sandbox_hash(self.pod):
            self._replace_sandbox()
        else:
            self._in_sandbox(self.seen.sandbox)
        return PodActions(
            stop=tuple(self.stop),
            pull=tuple(self.pull),
            start=tuple(self.start),
            post_start=tuple(self.post_start),
            update=tuple(self.update),
            remove=tuple(self.remove),
            waiting=self.waiting,
            finished=frozenset(self.finished),
            next_look=min(self.wakes, default=None),
            reasons=tuple(self.reasons),
            **self.rest,
        )

    # -- the end of a pod ---------------------------------------------------------------------------------------

    def _alive(self) -> list[ContainerSeen]:
        return [c for c in self.seen.containers if is_alive(c) and in_sandbox(self.seen, c)]

    def _delete(self) -> None:
        """C3: mains together, then sidecars one by one from the last, then the sandbox, then every trace."""
        self.finished.update(self.views)
        alive = self._alive()
        if alive:
            self.reasons.append("the pod is being deleted")
            self._stop_in_order(alive, grace_period(self.pod))
            return
        self.reasons.append("the pod is being deleted and nothing of it runs")
        self.rest["done"] = True
        if self.seen.sandbox is not None:
            self.rest["kill_sandbox"] = "the pod is being deleted"
        self.rest["finish"] = True

    def _over(self) -> Failed | None:
        """A pod whose end is recorded, or whose time is up, as (reason, message)."""
        status = self.pod.status
        if status.phase in ("Succeeded", "Failed"):
            return Failed(status.reason or "", status.message or "")
        limit, began = self.pod.spec.active_deadline_seconds, unix(status.start_time)
        if limit and began:
            if self.now >= began + limit:
                return Failed("DeadlineExceeded", DEADLINE_MESSAGE)
            self.wakes.append(began + limit)
        if self.facts.used and (sentence := excess(self.pod, self.facts.used)):
            return Failed("Evicted", sentence)
        return None

    def _wind_down(self, over: Failed) -> None:
        recorded = self.pod.status.phase in ("Succeeded", "Failed")
        if not recorded:
            self.rest["failed"] = over
        self.finished.update(self.views)
        alive = self._alive()
        self.reasons.append(f"the pod has ended ({self.pod.status.phase if recorded else over.reason})")
        if alive:  # what outgrew the node is not given the time to grow on (K eviction_manager.go)
            self._stop_in_order(alive, 1.0 if over.reason == "Evicted" else grace_period(self.pod))
            return
        self.rest["done"] = True
        if recorded and self.seen.sandbox is not None:
            self.rest["kill_sandbox"] = "the pod has ended"

    def _stop_in_order(self, alive: list[ContainerSeen], grace: float, message: str = "") -> None:
        mains = [c for c in alive if c.name not in self.sidecars]
        for container in mains:
            self._stop(container, grace, message)
        if mains:
            return
        order = [c.name for c in self.inits]
        last = max(alive, key=lambda c: order.index(c.name) if c.name in order else -1)
        self._stop(last, max(grace - self._spent(), MIN_GRACE), message)

    def _spent(self) -> float:
        """Seconds of the grace period that the containers stopped before took."""
        stopped = [c for c in self.seen.containers if c.stop_deadline and c.finished_at]
        ends = [c.finished_at for c in stopped]
        begins = [c.stop_deadline - grace_period(self.pod) for c in stopped]
        return max(0.0, max(ends) - min(begins)) if stopped else 0.0

    def _stop(self, container: ContainerSeen, grace: float, message: str = "", killed_for: str = "") -> None:
        """Ask for a stop unless one that ends no later is under way; its preStop hook comes first."""
        number = self._stop_signal(container)
        if container.state is ContainerState.CREATED:
            number, grace = int(signal.SIGKILL), 0.0
        elif self._has_pre_stop(container) and not container.stop_signal:
            self._pre_stop(container, grace, message, killed_for)
            return
        elif container.stop_deadline > 0 and container.stop_deadline <= self.now + grace + 0.5:
            self.wakes.append(max(container.stop_deadline, self.now) + 1.0)
            return
        text = message or f"Stopping container {container.name}"
        self.stop.append(StopContainer(container.id, container.name, number, grace, text, killed_for))
        self.wakes.append(self.now + grace + 1.0)

    def _spec_of(self, container: ContainerSeen) -> Container | None:
        return next((c for c in [*self.inits, *self.mains] if c.name == container.name), None)

    def _has_pre_stop(self, container: ContainerSeen) -> bool:
        spec = self._spec_of(container)
        return spec is not None and spec.lifecycle is not None and spec.lifecycle.pre_stop is not None

    def _pre_stop(self, container: ContainerSeen, grace: float, message: str, killed_for: str) -> None:
        """The hook eats the grace; the signal gets what it leaves, and two seconds at least (C3). Until the signal the
        shim's deadline stands those two seconds behind the grace: nobody is killed before he was told."""
        phase = self.facts.hooks.get((container.id, Hook.PRE_STOP))
        left = container.stop_deadline - MIN_GRACE - self.now if container.stop_deadline else grace
        begun = container.stop_deadline > 0
        if begun and phase in (HookPhase.DONE, HookPhase.FAILED):
            number, rest = self._stop_signal(container), max(min(left, grace), MIN_GRACE)
            self.stop.append(StopContainer(container.id, container.name, number, rest, "", killed_for))
            self.wakes.append(self.now + rest + 1.0)
            return
        if not begun or phase is None or left > grace + 0.5:
            left = max(min(left, grace), 0.1)
            text = "" if begun else message or f"Stopping container {container.name}"
            hook = StopContainer(
                container.id, container.name, 0, left + MIN_GRACE, text, killed_for, pre_stop=left
            )
            self.stop.append(hook)
        self.wakes.append(self.now + max(left, 0.0) + MIN_GRACE + 1.0)

    def _stop_signal(self, container: ContainerSeen) -> int:
        """spec stopSignal > image STOPSIGNAL > SIGTERM."""
        spec = self._spec_of(container)
        if spec is not None and spec.lifecycle is not None and spec.lifecycle.stop_signal:
            return signal_number(spec.lifecycle.stop_signal)
        image = self.facts.images.get(container.image)
        return signal_number(image.config.get("StopSignal") if image is not None else None)

    # -- the sandbox --------------------------------------------------------------------------------------------

    def _from_nothing(self, *, by_edit: bool = False) -> None:
        """There is no sandbox (any more): who runs (again), and is it worth one? (K kuberuntime computePodActions)"""
        if self.seen.sandbox is not None:
            why = "the sandbox's settings changed" if by_edit else "the sandbox is lost"
            self.rest["kill_sandbox"] = why
        todo = [c for c in self.mains if self._runs_from_nothing(c, by_edit=by_edit)]
        self.finished.update(c.name for c in self.mains if c not in todo)
        if not todo:
            self._done("no container is to run again")
            return
        for container in [*self.inits, *self.mains]:
            if container.name not in self.finished:
                self._default_waiting(container)
        if not self._may_create():
            return
        past = any(view.attempts for view in self.views.values())
        self.rest["create_sandbox"] = self.rest.get("kill_sandbox") or (
            "the sandbox is gone" if past else "the pod is new"
        )
        self.reasons.append(f"a sandbox is needed: {self.rest['create_sandbox']}")
        if self.inits:
            self._want(self.inits[0], init=True, fresh=True)
        else:
            for container in todo:
                if self._may_start_after_hooks(container):
                    self._want(container, fresh=True)

    def _runs_from_nothing(self, container: Container, *, by_edit: bool) -> bool:
        view, policy = self.views[container.name], restart_policy(self.pod, container)
        if policy == "Never" and not by_edit and not (view.again and view.attempts):
            return not any(v.attempts and not v.again for v in self._past_of_never(container))
        return self._should_run(container)

    def _past_of_never(self, container: Container) -> list[View]:
        """What forbids a container of a Never pod to run in a new sandbox: itself, and init containers, having run."""
        return [
            self.views[container.name],
            *(self.views[c.name] for c in self.inits if c.name not in self.sidecars),
        ]

    def _should_run(self, container: Container) -> bool:
        view = self.views[container.name]
        if view.attempts == 0 or view.again or view.ended is None:
            return True
        return should_restart(self.pod, container, view.ended.exit_code)

    def _due(self, at: float) -> bool:
        """Whether the time set for another try has come. One further away than any wait lasts was set before the clock
        was set back."""
        config = self.config
        longest = max(config.crash_back_off.maximum, config.pull_back_off.maximum, LONGEST_RETRY)
        return self.now >= at or at > self.now + longest

    def _may_create(self) -> bool:
        failure = self.facts.sandbox_failure
        if failure and failure.spec_hash == hashes.sandbox_hash(self.pod) and not self._due(failure.retry_at):
            self.reasons.append(f"the sandbox is tried again later: {failure.message}")
            self.wakes.append(failure.retry_at)
            return False
        return True

    def _replace_sandbox(self) -> None:
        alive = self._alive()
        self.reasons.append("the sandbox was made from other settings")
        if not alive:
            self._from_nothing(by_edit=True)
            return
        for container in [*self.inits, *self.mains]:
            if not self.views[container.name].alive:
                self._default_waiting(container)
        for one in alive:
            self._stop(one, grace_period(self.pod))

    # -- in the sandbox -----------------------------------------------------------------------------------------

    def _in_sandbox(self, sandbox: SandboxSeen) -> None:
        wanted = hashes.resources_hash(resources.pod_resources(self.pod, self.config))
        if sandbox.resources_hash and sandbox.resources_hash != wanted:
            self.rest["update_sandbox"] = True
            self.reasons.append("the pod's limits changed")
        self._strays()
        begun = any(self.views[c.name].current is not None for c in self.mains)
        if begun and not self._any_main_left():
            self._end_sidecars()
        elif not begun and (failure := self._failed_init()):
            self._init_failure(failure)
        elif self._init_containers(initialised=begun):
            for container in self.mains:
                self._main(container)
        self._dead_instances()

    def _strays(self) -> None:
        """Instances of containers that the pod no longer has."""
        for container in self.seen.containers:
            if container.name in self.views:
                continue
            if is_alive(container) and in_sandbox(self.seen, container):
                self.reasons.append(f"container {container.name} is no longer in the pod")
                self._stop(container, grace_period(self.pod))
            else:
                self.remove.append(RemoveContainer(container.id, container.name, container.attempt))

    def _any_main_left(self) -> bool:
        return any(self.views[c.name].alive or self._should_run(c) for c in self.mains)

    def _end_sidecars(self) -> None:
        self.finished.update(self.views)
        alive = [c for c in self._alive() if c.name in self.views]
        if alive:
            self.reasons.append("every container has ended: the sidecars are stopped")
            self._stop_in_order(alive, grace_period(self.pod))
        else:
            self._done("every container has ended and none is to run again")

    def _done(self, why: str) -> None:
        self.finished.update(self.views)
        self.reasons.append(why)
        self.rest["done"] = True

    def _init_containers(self, *, initialised: bool) -> bool:
        """Go down the init containers, strictly in order; True when the others may run."""
        for index, container in enumerate(self.inits):
            for later in [*self.inits[index:], *self.mains]:
                if not initialised and not self.views[later.name].alive:
                    self._default_waiting(later)
            through = (
                self._sidecar(container, initialised=initialised)
                if container.name in self.sidecars
                else initialised or self._init(container)
            )
            if not through:
                return False
            if container.name not in self.sidecars:
                self.finished.add(container.name)
                self.waiting.pop(container.name, None)
        return True

    def _init(self, container: Container) -> bool:
        view = self.views[container.name]
        if view.alive:
            self._keep(container, view)
            return False
        if view.current is None or self._should_run(container):
            self._want(container, init=True, fresh=view.current is None)
            return False
        return True

    def _failed_init(self) -> str:
        """The init container whose failure is final, "" when there is none."""
        for container in self.inits:
            view = self.views[container.name]
            ended = view.ended if view.current is not None else None
            if ended and ended.exit_code and not self._should_run(container):
                return container.name
        return ""

    def _init_failure(self, name: str) -> None:
        self.rest["init_failed"] = name
        self.reasons.append(f"init container {name} failed and is not to run again")
        alive = [c for c in self._alive() if c.name in self.views]
        if alive:
            self.finished.update(self.views)
            self._stop_in_order(alive, grace_period(self.pod))
        else:
            self._done("nothing of the pod runs")

    def _sidecar(self, container: Container, *, initialised: bool) -> bool:
        view = self.views[container.name]
        if view.alive:
            self._keep(container, view)
            return initialised or self._started(container, view)
        self._want(container, init=True, fresh=view.current is None)
        return initialised

    def _main(self, container: Container) -> None:
        view = self.views[container.name]
        if view.alive:
            self._keep(container, view)
        elif self._should_run(container):
            self._default_waiting(container)
            if self._may_start_after_hooks(container):
                self._want(container, fresh=view.current is None)
        else:
            self.finished.add(container.name)

    def _may_start_after_hooks(self, container: Container) -> bool:
        """A postStart hook holds up the containers behind it, as in kubelet, where people make use of that. (Without
        hooks all start beside each other.)"""
        for before in self.mains[: self.mains.index(container)]:
            if before.lifecycle is None or before.lifecycle.post_start is None:
                continue
            current = self.views[before.name].current
            starting = any(start.name == before.name for start in self.start)
            if starting or (current is not None and is_alive(current) and current.post_start == "pending"):
                self.reasons.append(
                    f"container {container.name} waits for the postStart hook of {before.name}"
                )
                return False
        return True

    def _started(self, container: Container, view: View) -> bool:
        """Whether a sidecar lets the next one begin: it runs, is to go on, and its startup probe has succeeded."""
        current = view.current
        if current is None or not view.running or any(stop.name == container.name for stop in self.stop):
            return False
        if current.post_start == "pending":
            return False
        return health_of(self.facts, container, current).started

    def _keep(self, container: Container, view: View) -> None:
        """It runs: is it what is wanted?"""
        current = view.current
        assert current is not None
        if current.state is ContainerState.CREATED:
            self.reasons.append(f"container {container.name} was created but never started: it is made anew")
            self._stop(current, 0.0)
        elif current.spec_hash != hashes.container_hash(self.pod, container):
            self.reasons.append(f"the definition of container {container.name} changed: it is restarted")
            message = f"Container {container.name} definition changed, will be restarted"
            self._stop(current, grace_period(self.pod), message)
        elif current.stop_deadline > 0:
            self._stop(current, grace_period(self.pod), killed_for=current.killed_for)
        elif current.post_start == "pending":
            self._post_start(container, current)
        elif (failed := health_of(self.facts, container, current).failed) is not None:
            self._kill_unhealthy(container, current, failed)
        else:
            self._limits(container, current)

    def _post_start(self, container: Container, current: ContainerSeen) -> None:
        self._default_waiting(container)
        phase = self.facts.hooks.get((current.id, Hook.POST_START))
        if phase is None:
            self.reasons.append(f"container {container.name} runs: its postStart hook is next")
            self.post_start.append(PostStart(current.id, container.name))
        elif phase is HookPhase.FAILED:
            self.reasons.append(f"the postStart hook of container {container.name} failed: it is killed")
            self._stop(current, grace_period(self.pod), "FailedPostStartHook", Hook.POST_START)

    def _kill_unhealthy(self, container: Container, current: ContainerSeen, failed: Kind) -> None:
        self.reasons.append(f"container {container.name} failed its {failed} probe: it is killed")
        restarts = restart_policy(self.pod, container) != "Never"
        grace = kill_grace(container, failed, grace_period(self.pod))
        self._stop(current, grace, kill_message(container.name, failed, restarts=restarts), failed)

    def _limits(self, container: Container, current: ContainerSeen) -> None:
        limits = resources.container_resources(container)
        wanted = hashes.resources_hash(limits)
        if current.resources_hash != wanted:
            self.reasons.append(
                f"the limits of container {container.name} changed: they are updated in place"
            )
            self.update.append(UpdateContainer(current.id, container.name, limits, wanted))

    # -- starting -----------------------------------------------------------------------------------------------

    def _default_waiting(self, container: Container) -> None:
        reason = "PodInitializing" if self.inits else "ContainerCreating"
        self.waiting.setdefault(container.name, Waiting(reason))

    def _want(self, container: Container, *, init: bool = False, fresh: bool = False) -> None:
        """Start it, or say what it waits for: a field that does not work, its back-off, a failed start, its image."""
        name, view = container.name, self.views[container.name]
        self._default_waiting(container)
        if name in self.blocked:
            self._wait(name, Waiting("CreateContainerConfigError", self.blocked[name]))
            return
        crashes, ready_at, wait = self._back_off(container, view, fresh=fresh)
        if self.now < ready_at:
            message = (
                f"back-off {go_duration(wait)} restarting failed container={name} pod={pod_ref(self.pod)}"
            )
            self._wait(name, Waiting("CrashLoopBackOff", message), ready_at)
            return
        failure = self.facts.start_failures.get(name)
        if (
            failure
            and not self._due(failure.retry_at)
            and failure.spec_hash == hashes.container_hash(self.pod, container)
        ):
            self._wait(name, Waiting(failure.reason, failure.message), failure.retry_at)
            return
        if self._image_ready(container, view.attempts):
            newest = self.seen.latest(name)
            discard = newest.id if newest is not None and never_ran(newest) else ""
            why = self._why(container, view)
            self.reasons.append(f"container {name} is started: {why}")
            self.start.append(StartContainer(name, view.attempts, init, why, crashes, discard))

    def _wait(self, name: str, waiting: Waiting, until: float | None = None) -> None:
        self.waiting[name] = waiting
        self.reasons.append(f"container {name} waits: {waiting.reason}: {waiting.message}".rstrip(": "))
        if until is not None:
            self.wakes.append(until)

    def _why(self, container: Container, view: View) -> str:
        if view.attempts == 0:
            return "it has not run yet"
        if view.current is None:
            return "its sandbox is new"
        if view.again or view.ended is None:
            return "it was stopped to be made anew"
        return f"it ended with exit code {view.ended.exit_code}, restartPolicy {restart_policy(self.pod, container)}"

    def _back_off(self, container: Container, view: View, *, fresh: bool) -> tuple[int, float, float]:
        """(crashes in a row before the next instance, when it may start, the wait): C2, from recorded facts alone."""
        newest, ended = view.current, view.ended
        if fresh or newest is None or ended is None or view.again or self._edited(container, newest):
            return 0, 0.0, 0.0
        crashes = newest.crash_count
        if ended.started_at and ended.finished_at - ended.started_at > CRASH_RESET:
            crashes = 0
        wait = self.config.crash_back_off.wait(crashes)
        known = (
            0 < ended.finished_at <= self.now + 1.0
        )  # an end in the future (the clock was set back) bounds no wait
        return crashes + 1, ended.finished_at + wait if wait and known else 0.0, wait

    def _edited(self, container: Container, instance: ContainerSeen) -> bool:
        limits = hashes.resources_hash(resources.container_resources(container))
        return instance.spec_hash != hashes.container_hash(self.pod, container) or (
            instance.resources_hash != limits
        )

    def _image_ready(self, container: Container, attempt: int) -> bool:
        """Whether the start can go ahead; else a pull is under way or asked for, or the wait is said (C10)."""
        reference = container.image or ""
        here = self.facts.images.get(reference) is not None
        pull = self.facts.pulls.get((container.name, attempt))
        policy = container.image_pull_policy or "IfNotPresent"
        if policy == "Never" and not here and (wrong := _not_a_name(reference)):
            message = f'Failed to apply default image tag "{reference}": {wrong}'
            self._wait(container.name, Waiting("InvalidImageName", message), self.now + RETRY)
            return False
        if policy == "Never" and not here:
            message = f'Container image "{reference}" is not present with pull policy of Never'
            self._wait(container.name, Waiting("ErrImageNeverPull", message), self.now + RETRY)
            return False
        if here and (policy != "Always" or (pull is not None and pull.phase is PullPhase.PULLED)):
            return True
        if pull is None or pull.phase is PullPhase.PULLED or self._pull_again(pull):
            self.reasons.append(
                f"container {container.name} waits for its image {reference} (policy {policy})"
            )
            self.pull.append(PullImage(container.name, attempt, reference))
        elif pull.phase is PullPhase.PULLING:
            self.reasons.append(f"container {container.name} waits for its image {reference} to be pulled")
        else:
            self._wait_for_pull(container, pull)
        return False

    def _pull_again(self, pull: PullSeen) -> bool:
        return pull.phase is PullPhase.FAILED and self._due(pull.retry_at)

    def _wait_for_pull(self, container: Container, pull: PullSeen) -> None:
        """The failure itself for a second, then that it is waited for, as kubelet's next look shows it."""
        if self.now < pull.failed_at + 1.0:
            self._wait(container.name, Waiting(pull.reason, pull.error), pull.failed_at + 1.0)
            return
        if pull.reason == "InvalidImageName":
            self._wait(container.name, Waiting(pull.reason, pull.error), pull.retry_at)
            return
        message = f'Back-off pulling image "{container.image}": {pull.reason}: {pull.error}'
        self._wait(container.name, Waiting("ImagePullBackOff", message), pull.retry_at)

    # -- cleaning up --------------------------------------------------------------------------------------------

    def _dead_instances(self) -> None:
        """Of each container the newest dead instance is kept (its logs and end are what people ask for), older go."""
        discarded = {start.discard for start in self.start}
        for name in self.views:
            dead = sorted(
                (c for c in self.seen.containers if c.name == name and not self._is_live(c)),
                key=lambda c: c.attempt,
            )
            for container in dead[:-1]:
                if container.id not in discarded:
                    self.remove.append(RemoveContainer(container.id, name, container.attempt))

    def _is_live(self, container: ContainerSeen) -> bool:
        return is_alive(container) and in_sandbox(self.seen, container)


def _not_a_name(reference: str) -> str:
    """Why this is no image's name; "" when it is one."""
    try:
        references.parse(reference)
    except ImageError as error:
        return str(error)
    return ""

"""Decides what to do to a pod now. `compute_pod_actions` is the only place where that is decided.

Values go in, and one frozen value comes out; worker/sync_pod.py applies it in field order and makes no choices of its
own. The decision is level-triggered: the same input has the same result, and a pod in its desired state needs no
action. The rules are in docs/explanation/pod-semantics.md (restarts and back-off, termination, images). Edits of a
running pod in place are an extension of kubelite (see spec/hashes.py).

    decide ─┬─ deleted?               _delete: main containers, then sidecars, then the sandbox, then all its files
            ├─ over (phase, deadline)? _wind_down: stop what still runs, then the sandbox
            ├─ not scheduled here?    it stays Pending; pods of lower priority may be preempted for it
            ├─ no sandbox?            _from_nothing: which containers run again, then a sandbox for them
            ├─ sandbox outdated?      _replace_sandbox: stop all, then as without a sandbox
            └─ else                   _in_sandbox: strays, init containers in order, then the others
"""

from __future__ import annotations

from kubelite.node.decide import shutdown_order
from kubelite.node.decide.disk_limits import excess
from kubelite.node.decide.pod_rules import grace_period, health_of, restart_policy
from kubelite.node.decide.restart_all import RestartingAll
from kubelite.node.decide.starting import Starting
from kubelite.node.decide.sysctls import SYSCTL_FORBIDDEN, forbidden
from kubelite.node.decide.unsupported import unenforceable
from kubelite.node.model.actions import (
    Facts,
    Failed,
    Hook,
    HookPhase,
    PodActions,
    PostStart,
    PreemptPod,
    RemoveContainer,
    UpdateContainer,
    Waiting,
)
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedPod, ObservedSandbox
from kubelite.node.model.ephemeral import target_of
from kubelite.node.model.errors import CreateError
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.pod_view import View, in_sandbox, is_alive
from kubelite.node.model.probe_results import Kind, kill_grace, kill_message
from kubelite.node.spec import hashes, limits
from kubelite.node.spec.bandwidth import pod_bandwidth
from manifests.types.core import Container, Pod

DEADLINE_MESSAGE = "Pod was active on the node longer than the specified deadline"


def compute_pod_actions(pod: Pod, observed: ObservedPod, facts: Facts, config: NodeConfig) -> PodActions:
    """Decide what to do. `pod.status` is the pod's last recorded status."""
    return Decision(pod, observed, facts, config).decide()


class Decision(RestartingAll, Starting):
    """One decision in progress. Each method answers one question and collects actions; an object serves one call."""

    def decide(self) -> PodActions:
        if self.pod.metadata.deletion_timestamp:
            self._delete()
        elif (over := self._over()) is not None:
            self._wind_down(over)
        elif self.facts.scheduling.reason:
            self.reasons.append(f"the pod is not scheduled to this node: {self.facts.scheduling.message}")
            if victims := self.facts.scheduling.victims:
                self.reasons.append("pods of lower priority are preempted for it")
                want = self.facts.scheduling.short_of
                self.preempt += [PreemptPod(one.uid, f"{one.namespace}/{one.name}", want) for one in victims]
        elif self.observed.sandbox is None and (sentence := unenforceable(self.pod)):
            self._block(Failed("AppArmor", sentence))
        elif self.observed.sandbox is None or not self.observed.sandbox.ready:
            self._from_nothing()
        elif self.observed.sandbox.spec_hash != hashes.sandbox_hash(self.pod):
            self._replace_sandbox()
        else:
            self._in_sandbox(self.observed.sandbox)
        return self._actions()

    # -- the end of a pod ---------------------------------------------------------------------------------------

    def _delete(self) -> None:
        """Stop main containers in parallel, then sidecars one by one from the last, then the sandbox; remove all
        files."""
        self.finished.update(self.views)
        alive = self._alive()
        if alive:
            self.reasons.append("the pod is being deleted")
            self.withdraw = any(not one.stop_deadline for one in alive if one.name not in self.sidecars)
            self._stop_in_order(alive, grace_period(self.pod))
            return
        self.reasons.append("the pod is being deleted and none of its containers run")
        self.done = True
        if self.observed.sandbox is not None:
            self.kill_sandbox = "the pod is being deleted"
        self.finish = True

    def _over(self) -> Failed | None:
        """Why the pod is over: its end is recorded, its deadline has passed, or the node rejects, evicts or stops
        it."""
        if self.recorded.over is not None:
            return self.recorded.over
        limit, began = self.pod.spec.active_deadline_seconds, self.recorded.began
        if limit and began:
            if self.now >= began + limit:
                return Failed("DeadlineExceeded", DEADLINE_MESSAGE)
            self.wakes.append(began + limit)
        began_here = self.observed.sandbox is not None or any(view.attempts for view in self.views.values())
        # forbidden sysctls count at admission only
        if not began_here and (sentence := forbidden(self.pod, self.config.unsafe_sysctls)):
            return Failed(SYSCTL_FORBIDDEN, sentence)
        if (scheduling := self.facts.scheduling).rejected:
            return Failed(scheduling.reason, scheduling.message)
        if self.facts.evicted:
            return Failed("Evicted", self.facts.evicted)
        if self.facts.shutdown is not None:
            return Failed(shutdown_order.REASON, shutdown_order.MESSAGE)
        if self.facts.used and (sentence := excess(self.pod, self.facts.used)):
            return Failed("Evicted", sentence)
        return None

    def _wind_down(self, over: Failed) -> None:
        recorded = self.recorded.phase
        if not recorded:
            self.failed = over
        self.finished.update(self.views)
        alive = self._alive()
        which = "is being stopped" if alive else "has ended"
        self.reasons.append(f"the pod {which} ({recorded or over.reason})")
        if alive:  # an evicted pod gets no time to use more of the resource (Kubernetes eviction_manager.go)
            grace = 1.0 if over.reason == "Evicted" else grace_period(self.pod)
            if self.facts.shutdown is not None:
                grace = min(grace, max(self.facts.shutdown, 1.0))
            self._stop_in_order(alive, grace)
            return
        self.done = True
        if recorded and self.observed.sandbox is not None:
            self.kill_sandbox = "the pod has ended"

    def _block(self, why: Failed) -> None:
        """Create nothing, and let the pod stay Pending (Kubernetes pkg/kubelet/kubelet.go, SyncPod: canRunPod)."""
        self.must_not_run = why
        self.reasons.append(f"the pod must not run on this host: {why.message}")
        for container in [*self.inits, *self.mains]:
            self.waiting[container.name] = Waiting("Blocked")

    # -- the sandbox --------------------------------------------------------------------------------------------

    def _from_nothing(self, *, by_edit: bool = False) -> None:
        """Without a ready sandbox: find the containers to start, and create a sandbox if there are any (Kubernetes
        pkg/kubelet/kuberuntime, computePodActions)."""
        if self.observed.sandbox is not None:
            why = "the sandbox's settings changed" if by_edit else "the sandbox was lost"
            self.kill_sandbox = why
        todo = [c for c in self.mains if self._runs_from_nothing(c, by_edit=by_edit)]
        self.finished.update(c.name for c in self.mains if c not in todo)
        if not todo:
            self._done("no container will run again")
            return
        for container in [*self.inits, *self.mains]:
            if container.name not in self.finished:
                self._default_waiting(container)
        if not self._may_create():
            return
        ran_before = any(view.attempts for view in self.views.values())
        self.create_sandbox = self.kill_sandbox or ("the sandbox is gone" if ran_before else "the pod is new")
        self.reasons.append(f"a sandbox is needed: {self.create_sandbox}")
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
        """The containers that must not have run before if a container with policy Never is to run in a new sandbox:
        itself and the regular init containers."""
        return [
            self.views[container.name],
            *(self.views[c.name] for c in self.inits if c.name not in self.sidecars),
        ]

    def _may_create(self) -> bool:
        if self._volumes_wait():
            return False
        failure = self.facts.sandbox_failure
        if (
            failure
            and failure.spec_hash == hashes.creation_hash(self.pod)
            and not self._due(failure.retry_at)
        ):
            self.reasons.append(f"creating the sandbox is retried later: {failure.message}")
            self.wakes.append(failure.retry_at)
            return False
        return True

    def _replace_sandbox(self) -> None:
        alive = self._alive()
        self.reasons.append(
            "the settings of the sandbox changed: it is recreated, and all containers restart in the new one"
        )
        if not alive:
            self._from_nothing(by_edit=True)
            return
        for container in [*self.inits, *self.mains]:
            if not self.views[container.name].alive:
                self._default_waiting(container)
        for one in alive:
            self._stop(one, grace_period(self.pod))

    # -- in the sandbox -----------------------------------------------------------------------------------------

    def _in_sandbox(self, sandbox: ObservedSandbox) -> None:
        wanted = hashes.resources_hash(limits.pod_limits(self.pod, self.config))
        if sandbox.resources_hash and sandbox.resources_hash != wanted:
            self.update_sandbox = True
            self.reasons.append("the pod's limits changed")
        self._bandwidth(sandbox)
        self._strays()
        if (trigger := self._restarts_all()) is not None:
            self._restart_all(trigger)
            return
        for container in self.ephemerals:
            self._ephemeral(container)
        begun = any(self.views[c.name].current is not None for c in self.mains)
        if begun and not self._any_main_left():
            self._end_sidecars()
        elif not begun and (failure := self._failed_init()):
            self._init_failure(failure)
        elif self._init_containers(initialised=begun):
            for container in self.mains:
                self._main(container)
        self._dead_instances()

    def _bandwidth(self, sandbox: ObservedSandbox) -> None:
        """Change the limits of bandwidth in place. If an annotation is no such value, those in force stay."""
        try:
            wanted = pod_bandwidth(self.pod)
        except CreateError as error:
            self.reasons.append(f"the pod keeps its limits of bandwidth: {error}")
            return
        if wanted != sandbox.bandwidth:
            self.limit = wanted
            self.reasons.append("the pod's limits of bandwidth changed")

    def _ephemeral(self, container: Container) -> None:
        """Start an ephemeral container once, independently of the others. If it has a target, wait until that runs."""
        view = self.views[container.name]
        if view.attempts:
            if not view.alive:
                self.finished.add(container.name)
            elif view.current is not None and view.current.state is ContainerState.CREATED:
                self._stop(view.current, 0.0)
            return
        target = target_of(self.pod, container.name)
        if target and not self.views[target].running:
            self._wait(container.name, Waiting("ContainerCreating", f"its target {target} is not running"))
            return
        self._want(container, fresh=True)

    def _strays(self) -> None:
        """Stop, then remove, the instances of containers that the pod no longer has. Of each other container, stop all
        live instances but the newest."""
        for container in self.observed.containers:
            if container.name in self.views:
                current = self.views[container.name].current
                if self._is_live(container) and current is not None and container.id != current.id:
                    self.reasons.append(f"container {container.name} runs twice: the older one is stopped")
                    self._stop(container, grace_period(self.pod))
            elif self._is_live(container):
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
            self.reasons.append("all main containers have ended: the sidecars are stopped")
            self._stop_in_order(alive, grace_period(self.pod))
        else:
            self._done("all containers have ended and none will run again")

    def _done(self, why: str) -> None:
        self.finished.update(self.views)
        self.reasons.append(why)
        self.done = True

    def _init_containers(self, *, initialised: bool) -> bool:
        """Handle the init containers in their order. Return True if the main containers may run."""
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
        """The init container that has failed for good; "" if there is none."""
        for container in self.inits:
            view = self.views[container.name]
            ended = view.ended if view.current is not None else None
            if ended and ended.exit_code and not self._should_run(container):
                return container.name
        return ""

    def _init_failure(self, name: str) -> None:
        self.init_failed = name
        self.reasons.append(f"init container {name} failed and will not run again")
        alive = [c for c in self._alive() if c.name in self.views]
        if alive:
            self.finished.update(self.views)
            self._stop_in_order(alive, grace_period(self.pod))
        else:
            self._done("none of the pod's containers run")

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
        """Whether no earlier container's postStart hook is pending. Such a hook delays the containers after it, as with
        kubelet, because manifests rely on that. Without hooks all containers start in parallel."""
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
        """Whether a sidecar lets the next container start: it runs, is not being stopped, and has started."""
        current = view.current
        if current is None or not view.running or any(stop.name == container.name for stop in self.stop):
            return False
        if current.post_start == "pending":
            return False
        return health_of(self.facts, container, current).started

    def _keep(self, container: Container, view: View) -> None:
        """Compare a live container with its specification, and stop or update it if they differ."""
        current = view.current
        assert current is not None
        if current.state is ContainerState.CREATED:
            self.reasons.append(f"container {container.name} was created but not started: it is recreated")
            self._stop(current, 0.0)
        elif current.spec_hash != hashes.container_hash(self.pod, container):
            self.reasons.append(f"the definition of container {container.name} changed: it is restarted")
            message = f"Container {container.name} definition changed, will be restarted"
            self._stop(current, grace_period(self.pod), message)
        elif current.stop_deadline > 0:
            self._stop(current, grace_period(self.pod), killed_for=current.killed_for)
        elif self._content_changed(container, current):
            self.reasons.append(
                f"the ConfigMaps or Secrets of container {container.name} changed: it is restarted"
            )
            message = f"Container {container.name} configuration changed, will be restarted"
            self._stop(current, grace_period(self.pod), message)
        elif current.post_start == "pending":
            self._post_start(container, current)
        elif (failed := health_of(self.facts, container, current).failed) is not None:
            self._kill_unhealthy(container, current, failed)
        else:
            self._limits(container, current)

    def _content_changed(self, container: Container, current: ObservedContainer) -> bool:
        """Whether ConfigMaps or Secrets of the container changed, if the pod's annotation enables the restart. An
        instance that started before the annotation was set has no hash and keeps running."""
        wanted = self.facts.content.get(container.name, "")
        return bool(wanted and current.content_hash and wanted != current.content_hash)

    def _post_start(self, container: Container, current: ObservedContainer) -> None:
        self._default_waiting(container)
        phase = self.facts.hooks.get((current.id, Hook.POST_START))
        if phase is None:
            self.reasons.append(f"container {container.name} runs: its postStart hook is next")
            self.post_start.append(PostStart(current.id, container.name))
        elif phase is HookPhase.FAILED:
            self.reasons.append(f"the postStart hook of container {container.name} failed: it is killed")
            self._stop(current, grace_period(self.pod), "FailedPostStartHook", Hook.POST_START)

    def _kill_unhealthy(self, container: Container, current: ObservedContainer, failed: Kind) -> None:
        self.reasons.append(f"container {container.name} failed its {failed} probe: it is killed")
        restarts = restart_policy(self.pod, container) != "Never"
        grace = kill_grace(container, failed, grace_period(self.pod))
        self._stop(current, grace, kill_message(container.name, failed, restarts=restarts), failed)

    def _limits(self, container: Container, current: ObservedContainer) -> None:
        """Update limits in place, unless resizePolicy requires a restart for the resource that changed."""
        name, wanted = container.name, self._limits_of(container)
        mark = hashes.resources_hash(wanted)
        if current.resources_hash == mark:
            return
        changed = hashes.resized(current.resources_hash, mark)
        rules = {rule.resource_name: rule.restart_policy for rule in container.resize_policy}
        if restart := next((r for r in changed if rules.get(r) == "RestartContainer"), ""):
            self.reasons.append(
                f"the {restart} of container {name} changed: it is restarted, as its resizePolicy requires"
            )
            self._stop(current, grace_period(self.pod), f"Container {name} resize requires restart")
            return
        self.reasons.append(f"the limits of container {name} changed: they are updated in place")
        self.update.append(UpdateContainer(current.id, name, wanted, mark))

    # -- cleaning up --------------------------------------------------------------------------------------------

    def _dead_instances(self) -> None:
        """Keep only the newest dead instance of each container, for its log and exit status. Remove older ones."""
        discarded = {start.discard for start in self.start}
        for name in self.views:
            dead = sorted(
                (c for c in self.observed.containers if c.name == name and not self._is_live(c)),
                key=lambda c: (c.attempt, c.created_at),
            )
            for container in dead[:-1]:
                if container.id not in discarded:
                    self.remove.append(RemoveContainer(container.id, name, container.attempt))

    def _is_live(self, container: ObservedContainer) -> bool:
        return is_alive(container) and in_sandbox(self.observed, container)

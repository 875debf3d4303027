"""What the worker remembers about a pod between rounds: only what cannot be observed again. If a restart loses it, the
cost is one retry.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from kubelite.node.decide.back_off import LONGEST_RETRY, crash_back_off
from kubelite.node.decide.explanation import Look
from kubelite.node.model.actions import Facts, PodActions, SandboxFailure, StartFailure, VolumeFailure
from kubelite.node.model.cri import ObservedPod
from kubelite.node.model.node_config import BackOff
from kubelite.node.model.recorder import PodEvents
from kubelite.node.model.schedule import Resize
from kubelite.node.worker.sync_pod import Results, sandbox_failure
from manifests.types.core import Pod

RETRY = BackOff(1.0, 30.0)  # of a failed sync, and of a sandbox that could not be created
_RETRY_VOLUMES = BackOff(0.5, LONGEST_RETRY)
LASTED = 600.0  # seconds; a sandbox that is lost after this time is recreated at once
_MOUNTING = frozenset({"ContainerCreating", "PodInitializing"})  # reasons while a volume cannot be mounted
_FOR_WANT_OF_CONTENT = _MOUNTING | {"CreateContainerConfigError"}


@dataclass(slots=True)
class Memory:
    """What the worker remembers about a pod between two rounds."""

    written: dict[str, Any] | None = None  # the status that is being written
    pod: Pod | None = None  # as of the last round
    starts: dict[str, StartFailure] = field(default_factory=dict)
    sandbox: SandboxFailure | None = None
    sandbox_failures: int = 0  # consecutive: not created, or lost early
    #: container → consecutive failures of its mounts
    mount_failures: dict[str, int] = field(default_factory=dict)
    volumes: VolumeFailure | None = None
    volume_failures: int = 0  # consecutive
    sandbox_since: float = 0.0  # Unix time when the current sandbox was created; 0 = no sandbox should exist
    sync_failures: int = 0
    said: set[str] = field(default_factory=set)  # warnings about fields that were sent for this generation
    resize: Resize | None = None  # why a resize waits
    resize_error: str = ""  # why the last resize failed
    evicted: str = ""  # why the node evicts it
    shutdown: float | None = None  # seconds it has to end in a node shutdown
    settled: tuple[Pod, ObservedPod, Facts] | None = None  # the last inputs, if the decision has no deadline
    removed: bool = False  # nothing of the pod is left but its record, which its Job has yet to count
    look: Look | None = None
    change: Look | None = None  # the last round that acted

    def content_changed(self) -> None:
        """Retry at once what failed because a ConfigMap or Secret was missing."""
        for name, failure in list(self.starts.items()):
            if failure.reason in _FOR_WANT_OF_CONTENT:
                del self.starts[name]
        self.volumes, self.volume_failures = None, 0
        self.mount_failures.clear()

    def notice_loss(self, pod: Pod, observed: ObservedPod, node: BackOff, now: float) -> None:
        """Back off before a sandbox that ended by itself soon after its creation is recreated. `node`: the node's
        back-off."""
        if observed.sandbox is not None and observed.sandbox.ready:
            self.sandbox_since = self.sandbox_since or observed.sandbox.created_at
            return
        if not self.sandbox_since:
            return
        lasted = now - self.sandbox_since >= LASTED
        self.sandbox_since = 0.0
        self.sandbox_failures = 0 if lasted else self.sandbox_failures + 1
        wait = crash_back_off(pod, node).wait(self.sandbox_failures - 1)
        self.sandbox = sandbox_failure(pod, "the last one ended by itself", now + wait)

    def remember(self, pod: Pod, actions: PodActions, results: Results, now: float) -> None:
        """Remember the results of the actions."""
        for name, failure in results.starts.items():
            before = self.starts.pop(name, None)
            if failure is not None:
                self.starts[name] = self._backed_off(name, failure, before, now)
            else:
                self.mount_failures.pop(name, None)
        self.resize_error = results.resize_error
        if results.volumes:
            self.volume_failures += 1
            wait = _RETRY_VOLUMES.wait(self.volume_failures)
            self.volumes = VolumeFailure(results.volumes, pod.metadata.generation or 0, now + wait)
        elif actions.create_sandbox or actions.start:
            self.volumes, self.volume_failures = None, 0
        if actions.kill_sandbox:
            self.sandbox_since = 0.0
        if results.made_sandbox is not None:
            self.sandbox = None
            self.sandbox_since = results.made_sandbox.created_at or now
        elif results.sandbox:
            self.sandbox_failures += 1
            wait = RETRY.wait(self.sandbox_failures)
            self.sandbox = sandbox_failure(pod, results.sandbox, now + wait)

    def _backed_off(
        self, name: str, failure: StartFailure, before: StartFailure | None, now: float
    ) -> StartFailure:
        """Delay the retry of a mount longer after each failure (Kubernetes pkg/util/goroutinemap/exponentialbackoff).
        An edit of the container resets the delay."""
        if failure.reason not in _MOUNTING:
            self.mount_failures.pop(name, None)
            return failure
        same = before is not None and before.spec_hash == failure.spec_hash
        count = self.mount_failures[name] = self.mount_failures.get(name, 0) + 1 if same else 1
        return dataclasses.replace(failure, retry_at=now + _RETRY_VOLUMES.wait(count))


@dataclass(slots=True)
class Turn:
    """One round of a pod: the pod that is decided on, its last observation, and what to do."""

    uid: str
    pod: Pod
    observed: ObservedPod
    facts: Facts
    actions: PodActions
    memory: Memory
    events: PodEvents


def timeless(facts: Facts) -> Facts:
    """Return a copy of the facts without the time."""
    return dataclasses.replace(facts, now=0.0, start_failures=dict(facts.start_failures))

"""What is known of one pod between two looks at it, and during one. Only what nobody else can tell is kept: losing all
of it (a restart) costs a retry, nothing else.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from kubelite.node.decide.explanation import Look
from kubelite.node.decide.pod_rules import crash_back_off
from kubelite.node.model.actions import Facts, PodActions, SandboxFailure, StartFailure
from kubelite.node.model.cri import ObservedPod
from kubelite.node.model.node_config import BackOff
from kubelite.node.model.recorder import PodEvents
from kubelite.node.model.schedule import Resize
from kubelite.node.worker.sync_pod import Results, sandbox_failure
from manifests.types.core import Pod

MAX_RETRY = 30.0  # seconds
LASTED = 600.0  # a sandbox that stood this long and is lost is made anew at once
_FOR_WANT_OF_CONTENT = frozenset({"CreateContainerConfigError", "ContainerCreating", "PodInitializing"})


@dataclass(slots=True)
class Memory:
    """What is known of one pod between two looks."""

    written: dict[str, Any] | None = None  # the status on its way to the store, over what we know of the rest
    pod: Pod | None = None  # as it was last looked at
    starts: dict[str, StartFailure] = field(default_factory=dict)
    sandbox: SandboxFailure | None = None
    sandbox_failures: int = 0  # in a row: not made, or lost early
    sandbox_since: float = 0.0  # when the one that should stand was made; 0 = none should
    sync_failures: int = 0
    said: set[str] = field(default_factory=set)  # warnings about fields, once for each generation
    resize: Resize | None = None  # why an edit of its resources waits
    resize_error: str = ""  # why new limits did not take
    evicted: str = ""  # why the node wants back what it uses
    shutdown: float | None = None  # seconds that it has before the machine ends
    settled: tuple[Pod, ObservedPod, Facts] | None = (
        None  # what the last look was made from, if time changes nothing
    )
    look: Look | None = None
    change: Look | None = None  # the last one that led to anything

    def content_changed(self) -> None:
        """A ConfigMap or Secret of the pod's namespace did: what failed for want of one need not wait."""
        for name, failure in list(self.starts.items()):
            if failure.reason in _FOR_WANT_OF_CONTENT:
                del self.starts[name]

    def notice_loss(self, pod: Pod, observed: ObservedPod, node: BackOff, now: float) -> None:
        """A sandbox that ended by itself soon after it was made is not made again at full speed. `node`: the node's own
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
        """What came of the actions."""
        for name, failure in results.starts.items():
            self.starts.pop(name, None)
            if failure is not None:
                self.starts[name] = failure
        self.resize_error = results.resize_error
        if actions.kill_sandbox:
            self.sandbox_since = 0.0
        if results.made_sandbox is not None:
            self.sandbox = None
            self.sandbox_since = results.made_sandbox.created_at or now
        elif results.sandbox:
            self.sandbox_failures += 1
            wait = min(2.0 ** min(self.sandbox_failures - 1, 10), MAX_RETRY)
            self.sandbox = sandbox_failure(pod, results.sandbox, now + wait)


@dataclass(slots=True)
class Turn:
    """A look at a pod under way: the pod as it is decided on, what was last seen of it, what is to be done."""

    uid: str
    pod: Pod
    observed: ObservedPod
    facts: Facts
    actions: PodActions
    memory: Memory
    events: PodEvents


def timeless(facts: Facts) -> Facts:
    """All but the time, and apart from what is kept on."""
    return dataclasses.replace(facts, now=0.0, start_failures=dict(facts.start_failures))

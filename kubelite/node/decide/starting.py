"""PURE: whether a container that is wanted can start now, and what it waits for if not: a field that does not work
here, its back-off (C2), a start that failed, its image (C10).
"""

from __future__ import annotations

from kubelite.kube.durations import go_duration
from kubelite.node.decide.decision_state import Draft
from kubelite.node.decide.pod_rules import crash_back_off, restart_policy
from kubelite.node.model.actions import (
    Hook,
    PullImage,
    PullPhase,
    PullSeen,
    StartContainer,
    Waiting,
    volume_pull,
)
from kubelite.node.model.pod_view import View, never_ran, pod_ref
from kubelite.node.spec import hashes
from manifests.types.core import Container
from runtime.errors import ImageError
from runtime.images import reference as references

CRASH_RESET = 600.0  # an instance that ran longer than this starts the count anew
RETRY = 10.0
TOLD = 1.0  # seconds for which a failure itself is shown, before what is waited for


class Starting(Draft):
    """The half of a decision that begins containers."""

    def _want(self, container: Container, *, init: bool = False, fresh: bool = False) -> None:
        """Start it, or say what it waits for: a field that does not work, its back-off, a failed start, its image."""
        name, view = container.name, self.views[container.name]
        self._default_waiting(container)
        if name in self.blocked:
            self._wait(name, Waiting("CreateContainerConfigError", self.blocked[name]))
            return
        crashes, ready_at, wait = self._back_off(container, view, fresh=fresh)
        if self.now < ready_at and (failed := _just_failed(view, self.now)) is not None:
            self._wait(name, failed, min(view.ended.finished_at + TOLD, ready_at) if view.ended else ready_at)
            return
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
        if self._images_ready(container, view.attempts):
            newest = self.seen.latest(name)
            discard = newest.id if newest is not None and never_ran(newest) else ""
            why = self._why(container, view)
            self.reasons.append(f"container {name} is started: {why}")
            self.start.append(
                StartContainer(
                    name, view.attempts, init, why, crashes, discard, self.facts.cpus.get(name, "")
                )
            )

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
        wait = crash_back_off(self.pod, self.config.crash_back_off).wait(crashes)
        known = (
            0 < ended.finished_at <= self.now + 1.0
        )  # an end in the future (the clock was set back) bounds no wait
        return crashes + 1, ended.finished_at + wait if wait and known else 0.0, wait

    def _images_ready(self, container: Container, attempt: int) -> bool:
        """Whether the start can go ahead: its own image is here, and those that it has as volumes."""
        policy = container.image_pull_policy or "IfNotPresent"
        ready = self._image_ready(
            container, PullImage(container.name, attempt, container.image or ""), policy
        )
        mounted = {mount.name for mount in container.volume_mounts}
        for volume in self.pod.spec.volumes:
            if ready and volume.image is not None and volume.name in mounted:
                pull = PullImage(volume_pull(volume.name), 0, volume.image.reference or "")
                ready = self._image_ready(container, pull, volume.image.pull_policy or "IfNotPresent")
        return ready

    def _image_ready(self, container: Container, wanted: PullImage, policy: str) -> bool:
        """Whether an image is here; else a pull is under way or asked for, or the wait is said (C10)."""
        reference = wanted.reference
        here = self.facts.images.get(reference) is not None
        pull = self.facts.pulls.get((wanted.name, wanted.attempt))
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
            if wanted not in self.pull:  # two containers may wait for one volume
                self.pull.append(wanted)
        elif pull.phase is PullPhase.PULLING:
            self.reasons.append(f"container {container.name} waits for its image {reference} to be pulled")
        else:
            self._wait_for_pull(container, reference, pull)
        return False

    def _pull_again(self, pull: PullSeen) -> bool:
        return pull.phase is PullPhase.FAILED and self._due(pull.retry_at)

    def _wait_for_pull(self, container: Container, reference: str, pull: PullSeen) -> None:
        """The failure itself for a second, then that it is waited for, as kubelet's next look shows it."""
        if self.now < pull.failed_at + TOLD:
            self._wait(container.name, Waiting(pull.reason, pull.error), pull.failed_at + TOLD)
            return
        if pull.reason == "InvalidImageName":
            self._wait(container.name, Waiting(pull.reason, pull.error), pull.retry_at)
            return
        message = f'Back-off pulling image "{reference}": {pull.reason}: {pull.error}'
        self._wait(container.name, Waiting("ImagePullBackOff", message), pull.retry_at)


def _just_failed(view: View, now: float) -> Waiting | None:
    """What kubelet says of a start that failed until its next look, which then tells of the back-off."""
    newest, ended = view.current, view.ended
    if newest is None or ended is None or not ended.finished_at <= now < ended.finished_at + TOLD:
        return None
    if newest.reason == "StartError":
        return Waiting("RunContainerError", newest.message)
    return (
        Waiting("PostStartHookError", newest.post_start_error)
        if newest.killed_for == Hook.POST_START
        else None
    )


def _not_a_name(reference: str) -> str:
    """Why this is no image's name; "" when it is one."""
    try:
        references.parse(reference)
    except ImageError as error:
        return str(error)
    return ""

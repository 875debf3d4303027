"""Whether a container can start now and, if not, what it waits for: an unsupported field, its back-off, a failed start,
or its image (docs/explanation/pod-semantics.md, "Restarts and back-off" and "Images").
"""

from __future__ import annotations

from kubelite.kube.durations import go_duration
from kubelite.node.decide.back_off import AT_ONCE, Restart, crash_back_off, restart_of
from kubelite.node.decide.decision_state import DecisionState
from kubelite.node.decide.pod_rules import restart_policy
from kubelite.node.model.actions import (
    Hook,
    PullImage,
    PullPhase,
    PullStatus,
    StartContainer,
    Waiting,
    volume_pull,
)
from kubelite.node.model.pod_view import View, never_ran, pod_ref
from kubelite.node.spec import hashes
from manifests.types.core import Container
from runtime.errors import ImageError
from runtime.images import reference as references

RETRY = 10.0
DEBUG_PULLS = 3  # attempts to pull the image of an ephemeral container
#: Prefix of images built on this node, as in podman. No registry serves them: the name of a local one has a port.
LOCAL = "localhost/"
TOLD = 1.0  # seconds for which the status shows a failure before it shows the back-off


class Starting(DecisionState):
    """The part of a decision that starts containers."""

    def _want(self, container: Container, *, init: bool = False, fresh: bool = False) -> None:
        """Start the container, or record what it waits for: an unsupported field, back-off, a failed start, an
        image."""
        name, view = container.name, self.views[container.name]
        self._default_waiting(container)
        if name in self.blocked:
            self._wait(name, Waiting("CreateContainerConfigError", self.blocked[name]))
            return
        if self._volumes_wait():
            return
        restart = self._restart(container, view, fresh=fresh)
        if self.now < restart.at and (failed := _just_failed(view, self.now)) is not None:
            until = min(view.ended.finished_at + TOLD, restart.at) if view.ended else restart.at
            self._wait(name, failed, until)
            return
        if self.now < restart.at:
            delay, ref = go_duration(restart.delay), pod_ref(self.pod)
            message = f"back-off {delay} restarting failed container={name} pod={ref}"
            self._wait(name, Waiting("CrashLoopBackOff", message), restart.at)
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
            newest = self.observed.latest(name)
            discard = newest.id if newest is not None and never_ran(newest) else ""
            why = self._why(container, view)
            self.reasons.append(f"container {name} is started: {why}")
            self.start.append(
                StartContainer(
                    name, view.attempts, init, why, restart.crashes, discard, self.facts.cpus.get(name, "")
                )
            )

    def _volumes_wait(self) -> bool:
        """Whether a failed volume mount waits for its retry. Until then, neither the sandbox nor any container starts
        (Kubernetes pkg/kubelet/kubelet.go, SyncPod: WaitForAttachAndMount)."""
        failure = self.facts.volume_failure
        if (
            failure is None
            or failure.generation != (self.pod.metadata.generation or 0)
            or self._due(failure.retry_at)
        ):
            return False
        reason = f"volumes cannot be mounted, which is retried later: {failure.message}"
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.wakes.append(failure.retry_at)
        return True

    def _why(self, container: Container, view: View) -> str:
        if view.attempts == 0:
            return "it has not run yet"
        if view.current is None:
            return "its sandbox is new"
        if view.again or view.ended is None:
            return "it was stopped to be recreated"
        return f"it ended with exit code {view.ended.exit_code}, restartPolicy {restart_policy(self.pod, container)}"

    def _restart(self, container: Container, view: View, *, fresh: bool) -> Restart:
        """When the container may start: at once, unless its last instance crashed and nothing has changed since."""
        newest, ended = view.current, view.ended
        if fresh or newest is None or ended is None or view.again or self._edited(container, newest):
            return AT_ONCE
        # an edit changed the probe or hook for which it was killed; such an edit restarts no running container
        if newest.killed_for and newest.checks_hash not in ("", hashes.checks_hash(container)):
            return AT_ONCE
        return restart_of(crash_back_off(self.pod, self.config.crash_back_off), newest, ended, self.now)

    def _images_ready(self, container: Container, attempt: int) -> bool:
        """Whether the container's image and the images of its volumes are present."""
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
        """Whether an image is present. If not, request a pull or record what the container waits for."""
        reference = wanted.reference
        image = self.facts.images.get(reference)
        here = image is not None
        pull = self.facts.pulls.get((wanted.name, wanted.attempt))
        if policy == "Never" and not here and (wrong := _not_a_name(reference)):
            message = f'Failed to apply default image tag "{reference}": {wrong}'
            self._wait(container.name, Waiting("InvalidImageName", message), self.now + RETRY)
            return False
        if policy == "Never" and reference in self.facts.unverified:
            message = (
                f'Container image "{reference}" is on this node, but this pod has no credentials that have pulled it, '
                "and its pull policy is Never"
            )
            self._wait(container.name, Waiting("ErrImageNeverPull", message), self.now + RETRY)
            return False
        if policy == "Never" and not here:
            message = f'Container image "{reference}" is not present with pull policy of Never'
            self._wait(container.name, Waiting("ErrImageNeverPull", message), self.now + RETRY)
            return False
        pulled = pull is not None and pull.phase is PullPhase.PULLED
        if reference in self.facts.unverified and not pulled:
            policy = "Always"  # the registry decides, as for an image that is not here
        if image is not None and (policy != "Always" or pulled or image.reference.startswith(LOCAL)):
            return True
        if pull is not None and self._gave_up(container, pull):
            message = (
                f"{pull.error}; no longer pulled after {pull.failures} attempts: add another debug container"
            )
            self._wait(container.name, Waiting(pull.reason, message))
        elif pull is None or pull.phase is PullPhase.PULLED or self._pull_again(pull):
            self.reasons.append(
                f"container {container.name} waits for its image {reference} (policy {policy})"
            )
            if wanted not in self.pull:  # two containers may need the same volume
                self.pull.append(wanted)
        elif pull.phase is PullPhase.PULLING:
            self.reasons.append(f"container {container.name} waits for its image {reference} to be pulled")
        else:
            self._wait_for_pull(container, reference, pull)
        return False

    def _pull_again(self, pull: PullStatus) -> bool:
        return pull.phase is PullPhase.FAILED and self._due(pull.retry_at)

    def _gave_up(self, container: Container, pull: PullStatus) -> bool:
        """Whether the image of a debug container is no longer pulled. After so many failures nobody waits for it, and
        the container cannot be removed from the pod."""
        debug = any(container.name == one.name for one in self.ephemerals)
        return debug and pull.phase is PullPhase.FAILED and pull.failures >= DEBUG_PULLS

    def _wait_for_pull(self, container: Container, reference: str, pull: PullStatus) -> None:
        """Show the failure for one second, then the back-off, as kubelet's next sync does."""
        if self.now < pull.failed_at + TOLD:
            self._wait(container.name, Waiting(pull.reason, pull.error), pull.failed_at + TOLD)
            return
        if pull.reason == "InvalidImageName":
            self._wait(container.name, Waiting(pull.reason, pull.error), pull.retry_at)
            return
        message = f'Back-off pulling image "{reference}": {pull.reason}: {pull.error}'
        self._wait(container.name, Waiting("ImagePullBackOff", message), pull.retry_at)


def _just_failed(view: View, now: float) -> Waiting | None:
    """The waiting state that kubelet shows after a failed start, until its next sync shows the back-off."""
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
    """Why this is not a valid image name; "" if it is valid."""
    try:
        references.parse(reference)
    except ImageError as error:
        return str(error)
    return ""

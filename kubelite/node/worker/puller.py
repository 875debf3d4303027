"""Pull images in the background, with kubelet's back-off for each image of each pod.

A pull belongs to one start (container and attempt): with the pull policy Always, each start asks the registry again.
The worker is woken when a pull ends, and reads the result from `states`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kubelite.node.model.actions import PullImage, PullPhase, PullStatus
from kubelite.node.model.cri import Cri, ObservedImage
from kubelite.node.model.node_config import BackOff
from kubelite.node.model.recorder import NORMAL, WARNING, PodEvents
from kubelite.node.spec import pull_secrets
from kubelite.node.spec.cluster_objects import find_for
from kubelite.node.spec.env import Find
from kubelite.node.spec.pull_secrets import PullSecrets, Secret
from kubelite.node.worker.pull_records import PullRecords
from manifests.types.core import Pod
from runtime.errors import ImageError, RuntimeFault
from runtime.images import reference as references
from runtime.images.registry.auth import login_hash, matching, read_config

log = logging.getLogger(__name__)
_REASONS = ("ErrImagePull", "InvalidImageName", "RegistryUnavailable", "SignatureValidationFailed")


@dataclass(slots=True)
class _Pull:
    reference: str
    status: PullStatus
    secrets: tuple[str, ...] = ()  # imagePullSecrets at that time
    task: asyncio.Task[None] | None = None


def _secret_names(pod: Pod) -> tuple[str, ...]:
    return tuple(ref.name or "" for ref in pod.spec.image_pull_secrets)


def _failed_with_others(pull: _Pull, pod: Pod) -> bool:
    """Whether a pull failed with other imagePullSecrets than the pod has now."""
    return pull.status.phase is PullPhase.FAILED and pull.secrets != _secret_names(pod)


class Puller:
    """The running and recently ended pulls. `wake(uid)` is called when a pull ends."""

    def __init__(
        self,
        cri: Cri,
        back_off: BackOff,
        records: PullRecords,
        *,
        find: Find,
        clock: Callable[[], float],
        wake: Callable[[str], None],
    ) -> None:
        self._cri = cri
        self._records = records
        self._find = find
        self._back_off = back_off
        self._clock = clock
        self._wake = wake
        self._pulls: dict[str, dict[tuple[str, int], _Pull]] = {}
        self._failures: dict[tuple[str, str], int] = {}  # (uid, reference) → consecutive failures

    def states(
        self, uid: str, images: Mapping[str, str], pod: Pod | None = None
    ) -> dict[tuple[str, int], PullStatus]:
        """Return the states of the pod's pulls, without those of an image that a container no longer has. With `pod`,
        pulls that failed with other imagePullSecrets are also left out, so that an edit of these ends the back-off."""
        pulls = self._pulls.get(uid, {})
        found = {key: pull for key, pull in pulls.items() if images.get(key[0]) == pull.reference}
        if pod is not None:
            found = {key: pull for key, pull in found.items() if not _failed_with_others(pull, pod)}
        return {key: pull.status for key, pull in found.items()}

    def retry(self, uid: str) -> None:
        """Retry the pod's failed pulls at once, because a Secret of its namespace has changed."""
        for pull in self._pulls.get(uid, {}).values():
            if pull.status.phase is PullPhase.FAILED and pull.secrets:
                pull.status = replace(pull.status, retry_at=pull.status.failed_at)

    def begin(self, pod: Pod, wanted: PullImage, events: PodEvents) -> None:
        uid = pod.metadata.uid or ""
        pulls = self._pulls.setdefault(uid, {})
        for key, pull in list(pulls.items()):
            if key[0] == wanted.name:
                del pulls[key]
                if _failed_with_others(pull, pod):
                    self._failures.pop((uid, pull.reference), None)
                if pull.task is not None:
                    pull.task.cancel()
        if _is_a_name(wanted.reference):
            _say(events, wanted, NORMAL, "Pulling", f'Pulling image "{wanted.reference}"')
        secrets = pull_secrets.collect(pod, find_for(pod, self._find), read_config)
        if secrets.problems:
            missing = ", ".join(secrets.problems)
            message = (
                f"Unable to retrieve some image pull secrets ({missing}); attempting to pull the image may not "
                "succeed."
            )
            events.pod(WARNING, "FailedToRetrieveImagePullSecret", message)
        verifies = bool(self.unverified(pod, {wanted.reference: self._cri.image(wanted.reference)}))
        pull = _Pull(wanted.reference, PullStatus(PullPhase.PULLING), _secret_names(pod))
        pull.task = asyncio.get_running_loop().create_task(
            self._pull(uid, wanted, pull, events, secrets, verifies=verifies), name=f"pull-{wanted.reference}"
        )
        pulls[wanted.name, wanted.attempt] = pull

    async def _pull(
        self,
        uid: str,
        wanted: PullImage,
        pull: _Pull,
        events: PodEvents,
        secrets: PullSecrets,
        *,
        verifies: bool,
    ) -> None:
        began, key = self._clock(), (uid, wanted.reference)
        try:
            image = await self._recorded(uid, wanted.reference, secrets)
        except Exception as error:  # any error: the pod must not wait for a pull that has ended
            self._failures[key] = self._failures.get(key, 0) + 1
            now = self._clock()
            reason = getattr(error, "reason", "")
            reason = reason if reason in _REASONS else "ErrImagePull"
            if not isinstance(error, (RuntimeFault, OSError)):
                log.exception("pulling %s failed", wanted.reference)
            wait = self._back_off.wait(self._failures[key])
            said = f"{error}{self._hint(wanted.reference, reason, verifies=verifies)}"
            pull.status = PullStatus(PullPhase.FAILED, reason, said, now, now + wait, self._failures[key])
            if reason == "InvalidImageName":
                message = f'Failed to apply default image tag "{wanted.reference}": {error}'
                _say(events, wanted, WARNING, "InspectFailed", message)
            else:
                message = f'Failed to pull image "{wanted.reference}": {said}'
                _say(events, wanted, WARNING, "Failed", message)
            _say(events, wanted, WARNING, "Failed", f"Error: {reason}")
        else:
            self._failures.pop(key, None)
            pull.status = PullStatus(PullPhase.PULLED)
            took = f"{self._clock() - began:.3f}s".replace(".000s", "s")
            message = (
                f'Successfully pulled image "{wanted.reference}" in {took} ({took} including waiting). '
                f"Image size: {image.size} bytes."
            )
            _say(events, wanted, NORMAL, "Pulled", message)
        pull.task = None
        self._wake(uid)

    async def _recorded(self, uid: str, reference: str, secrets: PullSecrets) -> ObservedImage:
        """Pull an image, and record with which credentials. OSError if that cannot be recorded."""
        begun = asyncio.ensure_future(asyncio.to_thread(self._records.begin, reference))
        image: ObservedImage | None = None
        try:
            await asyncio.shield(begun)
            image = await self._cri.pull(uid, reference, secrets.configs)
        finally:
            secret = secrets.accepted(image.login) if image is not None else None
            await asyncio.shield(self._end(begun, reference, image, secret))
        return image

    async def _end(
        self, begun: asyncio.Future[None], reference: str, image: ObservedImage | None, secret: Secret | None
    ) -> None:
        """Record the end of a pull, unless its beginning could not be recorded. A thread cannot be cancelled: if the
        pull was, the thread that records the beginning ends first."""
        await asyncio.wait([begun])
        if not begun.cancelled() and begun.exception() is None:
            await asyncio.to_thread(self._records.ended, reference, image, secret)

    def unverified(self, pod: Pod, images: Mapping[str, ObservedImage | None]) -> frozenset[str]:
        """The references of present images that the pod may use only after a pull of its own."""
        found: PullSecrets | None = None

        def secrets(name: str) -> list[Secret]:
            nonlocal found
            found = found or pull_secrets.collect(pod, find_for(pod, self._find), read_config)
            configs = [read_config(one["config"], one["source"]) for one in found.configs]
            logins = matching(references.parse(name), configs)
            accepted = [found.accepted((login.source, login_hash(login))) for login in logins]
            return [secret for secret in accepted if secret is not None]

        return self._records.unverified(images, secrets)

    def _hint(self, reference: str, reason: str, *, verifies: bool) -> str:
        """Advice to append to the error of a failed pull; "" if there is none."""
        if reason == "InvalidImageName":
            return ""
        if verifies:
            return (
                "; the image is on this node, but a pod may use it only with credentials that have pulled it (setting "
                "image_pull_credentials_verification_policy): add imagePullSecrets"
            )
        if self._cri.image(reference) is not None:  # present but pulled: the policy is Always
            return (
                "; the image is on this node, but imagePullPolicy is Always (the default for the tag latest or none): "
                "add imagePullPolicy: IfNotPresent to use it"
            )
        if references.parse(reference).registry == "localhost":
            return f"; names below localhost/ are for images of this node: kubelite build -t {reference}"
        return ""

    def forget(self, uid: str) -> None:
        """Cancel the pulls of a pod that is gone or terminating."""
        for pull in self._pulls.pop(uid, {}).values():
            if pull.task is not None:
                pull.task.cancel()
        for key in [key for key in self._failures if key[0] == uid]:
            del self._failures[key]

    async def close(self) -> None:
        tasks = [
            pull.task for pulls in self._pulls.values() for pull in pulls.values() if pull.task is not None
        ]
        for uid in list(self._pulls):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)


def _say(events: PodEvents, wanted: PullImage, kind: str, reason: str, message: str) -> None:
    """Send an event about the image: at the container, or at the pod for an image volume."""
    if "/" in wanted.name:
        events.pod(kind, reason, message)
    else:
        events.container(wanted.name, kind, reason, message)


def _is_a_name(reference: str) -> bool:
    try:
        references.parse(reference)
    except ImageError:
        return False
    return True

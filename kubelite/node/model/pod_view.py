"""Pure: the history of each container of a pod, from all sources.

The records of a container's instances (ObservedPod) contain its history. If they no longer exist, because the machine
was rebooted or the sandbox replaced, the pod's last recorded status is used. `views` combines both into one value per
container. The decision and the status are computed from these values.

The status also stores the decision to restart: a container that has ended but is recorded as waiting was about to be
restarted; one recorded as terminated was not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kubelite.kube.times import unix
from kubelite.node.model.cri import ALIVE, ContainerState, ObservedContainer, ObservedPod
from kubelite.node.model.ephemeral import every_container
from manifests.types.core import Container, ContainerStateTerminated, ContainerStatus, Pod, PodStatus

LOST_EXIT_CODE = 137
LOST_REASON = "ContainerStatusUnknown"
LOST_MESSAGE = "The container could not be located when the pod was terminated"
SKIPPED_MESSAGE = (
    "Unable to get init container status from container runtime and pod has been initialized, "
    "treat it as exited normally"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How an instance ended."""

    exit_code: int
    finished_at: float = 0.0
    started_at: float = 0.0


@dataclass(frozen=True, slots=True)
class View:
    """The history of one container. `current`: its newest instance in the present sandbox; `ended`: how its newest
    instance ended; `attempts`: the number of instances; `again`: kubelite stopped the newest one in order to restart
    it."""

    name: str
    current: ObservedContainer | None = None
    ended: Ended | None = None
    attempts: int = 0
    again: bool = False

    @property
    def alive(self) -> bool:
        return self.current is not None and is_alive(self.current)

    @property
    def running(self) -> bool:
        return self.current is not None and self.current.state is ContainerState.RUNNING


def is_alive(container: ObservedContainer) -> bool:
    return container.state in ALIVE


def never_ran(container: ObservedContainer) -> bool:
    """Whether an instance ended before its program started (the daemon died in between). It does not count as an
    attempt."""
    return (
        container.state is ContainerState.EXITED
        and not container.started_at
        and container.reason != "StartError"
    )


def ended_of(container: ObservedContainer) -> Ended:
    if container.state is ContainerState.UNKNOWN:
        return Ended(LOST_EXIT_CODE, container.finished_at, container.started_at)
    return Ended(container.exit_code, container.finished_at, container.started_at)


def in_sandbox(observed: ObservedPod, container: ObservedContainer) -> bool:
    """Whether an instance belongs to the present sandbox. Records of earlier sandboxes only serve as history."""
    if observed.sandbox is None or not observed.sandbox.ready:
        return False
    return container.sandbox_id in ("", observed.sandbox.id)


def statuses(status: PodStatus) -> Iterable[ContainerStatus]:
    return [
        *status.init_container_statuses,
        *status.container_statuses,
        *status.ephemeral_container_statuses,
    ]


def views(pod: Pod, observed: ObservedPod) -> Mapping[str, View]:
    """The view of each container of the pod, by name."""
    recorded = {status.name: status for status in statuses(pod.status)}
    return {c.name: _view(c, observed, recorded.get(c.name)) for c in every_container(pod)}


def _view(container: Container, observed: ObservedPod, recorded: ContainerStatus | None) -> View:
    newest = observed.latest(container.name)
    old = _from_status(container.name, recorded)
    if newest is None and not old.attempts and container.name in observed.logged:
        # only log files of earlier instances exist: the restart count follows from them
        return View(container.name, attempts=observed.logged[container.name] + 1, again=True)
    if newest is None or newest.attempt + 1 < old.attempts:
        return old
    current = newest if in_sandbox(observed, newest) else None
    if is_alive(newest) and current is not None:
        return View(container.name, current, None, newest.attempt + 1)
    if never_ran(newest):
        return View(
            container.name, current, old.ended if newest.attempt else None, newest.attempt, again=True
        )
    end = Ended(LOST_EXIT_CODE, 0.0, newest.started_at) if is_alive(newest) else ended_of(newest)
    again = newest.stop_deadline > 0 and not newest.killed_for
    if current is None and recorded is not None and _is_record_of(recorded, newest):
        again = again or old.again
    return View(container.name, current, end, newest.attempt + 1, again)


def _is_record_of(recorded: ContainerStatus, container: ObservedContainer) -> bool:
    return recorded.restart_count == container.attempt


def _from_status(name: str, recorded: ContainerStatus | None) -> View:
    """The view according to the last recorded status alone."""
    if recorded is None or recorded.state is None:
        return View(name)
    state, last = recorded.state, recorded.last_state.terminated if recorded.last_state else None
    if state.running is not None:
        lost = Ended(LOST_EXIT_CODE, 0.0, unix(state.running.started_at))
        return View(name, None, lost, recorded.restart_count + 1)
    if state.terminated is not None and state.terminated.message == SKIPPED_MESSAGE:
        return View(name)  # its status says Completed, but it never ran
    if state.terminated is not None:
        return View(name, None, _ended(state.terminated), recorded.restart_count + 1)
    if last is not None:
        return View(name, None, _ended(last), recorded.restart_count + 1, again=True)
    return View(name)


def _ended(state: ContainerStateTerminated) -> Ended:
    return Ended(state.exit_code, unix(state.finished_at), unix(state.started_at))


def pod_ref(pod: Pod) -> str:
    """kubelet's format.Pod: name_namespace(uid)."""
    return f"{pod.metadata.name}_{pod.metadata.namespace or 'default'}({pod.metadata.uid})"

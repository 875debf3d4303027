"""Back-off: how long the restart of a crashed container is delayed, from recorded facts, and whether a delay is over.

As in kubelet, the first restart is immediate; later ones wait 10 s, 20 s, … up to 5 minutes after the container's end.
The settings `crash_backoff_initial` and `crash_backoff_max`, or a pod's annotations, change the numbers.
"""

from __future__ import annotations

from typing import NamedTuple

from kubelite.kube.durations import parse_duration
from kubelite.node.model.cri import ObservedContainer
from kubelite.node.model.node_config import BackOff, NodeConfig
from kubelite.node.model.pod_view import Ended
from manifests.types.core import Pod

BACK_OFF_INITIAL = "kubelite.io/crash-back-off-initial"  # annotations of a pod
BACK_OFF_MAX = "kubelite.io/crash-back-off-max"
CRASH_RESET = 600.0  # seconds: an instance that ran longer resets the crash count
LONGEST_RETRY = 60.0  # seconds: the longest delay after failures other than crashes and failed pulls
_CLOCK_SLACK = 1.0  # seconds: an end further in the future was recorded before the clock was set back


class Restart(NamedTuple):
    """The next restart of a container."""

    crashes: int  # consecutive crashes before the next instance
    at: float  # Unix seconds; 0.0: at once
    delay: float  # seconds after the container's end


AT_ONCE = Restart(0, 0.0, 0.0)


def crash_back_off(pod: Pod, node: BackOff) -> BackOff:
    """The back-off from the pod's annotations (durations: `30s`, `2m`), else the node's. An invalid duration is
    ignored, and `unsupported` reports it."""
    found = {key: back_off_annotation(pod, key) for key in (BACK_OFF_INITIAL, BACK_OFF_MAX)}
    if not any(found.values()):
        return node
    return BackOff(found[BACK_OFF_INITIAL] or node.initial, found[BACK_OFF_MAX] or node.maximum)


def back_off_annotation(pod: Pod, key: str) -> float | None:
    """Seconds; None if the annotation is missing or is not a positive duration."""
    try:
        return parse_duration(pod.metadata.annotations[key]) or None
    except (KeyError, ValueError):
        return None


def restart_of(back_off: BackOff, newest: ObservedContainer, ended: Ended, now: float) -> Restart:
    """The restart of a container that crashed. `newest`: its newest instance, which has the crash count; `ended`: the
    one that ran last."""
    crashes = newest.crash_count
    if ended.started_at and _ran_long(ended):
        crashes = 0
    delay = back_off.wait(crashes)
    known = ended.finished_at > 0 and _is_past(ended, now)
    return Restart(crashes + 1, ended.finished_at + delay if delay and known else 0.0, delay)


def restart_all_of(back_off: BackOff, trigger: ObservedContainer, now: float) -> Restart:
    """The restart of all containers of a pod after `trigger` ended. The delay grows with the attempts of `trigger`."""
    delay = back_off.wait(trigger.attempt)
    due = trigger.finished_at + (0.0 if _ran_long(trigger) else delay)
    return Restart(trigger.attempt, due if _is_past(trigger, now) else 0.0, delay)


def is_due(at: float, now: float, pod: Pod, config: NodeConfig) -> bool:
    """Whether the time of the next attempt has come. A time that is further away than the longest delay was set before
    the clock was set back, and counts as past."""
    longest = max(
        crash_back_off(pod, config.crash_back_off).maximum, config.pull_back_off.maximum, LONGEST_RETRY
    )
    return now >= at or at > now + longest


def _ran_long(instance: Ended | ObservedContainer) -> bool:
    return instance.finished_at - instance.started_at > CRASH_RESET


def _is_past(instance: Ended | ObservedContainer, now: float) -> bool:
    """Whether the recorded end is not in the future. An end in the future (the clock was set back) delays nothing."""
    return instance.finished_at <= now + _CLOCK_SLACK

"""What controllers ask about pods, and how they make one: readiness, availability, deletion order, template.

Sources: Kubernetes pkg/api/v1/pod/util.go, pkg/controller/controller_utils.go. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cmp_to_key
from typing import Any, NamedTuple

from kubelite.controllers.references import is_terminating, owner_reference
from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINAL_PHASES
from kubelite.kube.times import parse_time
from manifests.types.annotations import DELETION_COST

_PHASE_RANKS = {"Pending": 0, "Unknown": 1, "Running": 2}
_NANOSECONDS = 1e9
_COST = re.compile(r"-[0-9]+|0|[1-9][0-9]*")  # neither a plus sign nor leading zeros


def phase(pod: Json) -> str:
    found = (pod.get("status") or {}).get("phase") or "Pending"
    return str(found)


def has_succeeded(pod: Json) -> bool:
    return phase(pod) == "Succeeded"


def has_failed(pod: Json) -> bool:
    return phase(pod) == "Failed"


def has_ended(pod: Json) -> bool:
    """Whether all containers have stopped for good (IsPodTerminal)."""
    return phase(pod) in TERMINAL_PHASES


def is_active(pod: Json) -> bool:
    """Whether a pod counts as a replica: it has not ended and is not terminating (IsPodActive)."""
    return not has_ended(pod) and not is_terminating(pod)


def still_terminates(pod: Json) -> bool:
    """Whether a pod is terminating and its containers may still run (IsPodTerminating)."""
    return is_terminating(pod) and not has_ended(pod)


def is_ready(pod: Json) -> bool:
    return _ready_condition(pod) is not None


def ready_since(pod: Json) -> float | None:
    """Return the Unix second at which a pod became ready; None if it is not ready."""
    found = _ready_condition(pod)
    return None if found is None else parse_time(found.get("lastTransitionTime"))


def available_at(pod: Json, min_ready_seconds: int) -> float | None:
    """Return the Unix second from which a pod is available, if it stays ready; None if it is not ready. 0.0: a ready
    pod whose time does not matter, since `min_ready_seconds` is 0."""
    found = _ready_condition(pod)
    if found is None:
        return None
    if min_ready_seconds <= 0:
        return 0.0
    since = parse_time(found.get("lastTransitionTime"))
    return None if since is None else since + min_ready_seconds


def is_available(pod: Json, min_ready_seconds: int, now: float) -> bool:
    """Whether a pod has been ready for `min_ready_seconds` (IsPodAvailable)."""
    at = available_at(pod, min_ready_seconds)
    return at is not None and at <= now


def next_availability(pods: Iterable[Json], min_ready_seconds: int, now: float) -> float | None:
    """Return in how many seconds the next ready pod becomes available, None if no pod waits for it
    (FindMinNextPodAvailabilityCheck)."""
    times = (available_at(pod, min_ready_seconds) for pod in pods)
    return min((at - now for at in times if at is not None and at > now), default=None)


def scaled(value: int | str, total: int, *, up: bool) -> int:
    """Return a number of pods that is given as a number or as a percentage of all, rounded up or down
    (apimachinery pkg/util/intstr GetScaledValueFromIntOrPercent)."""
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * total
    return -(-share // 100) if up else share // 100


def pod_from_template(template: Json, owner: Json) -> Json:
    """Return a new pod of an owner's template, as `Create` takes it: with `generateName` (GetPodFromTemplate). Its spec
    is the template's own: it must not be changed in place."""
    given = template.get("metadata") or {}
    metadata: Json = {
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"].get("namespace", "default"),
        "ownerReferences": [owner_reference(owner)],
    }
    for key in ("labels", "annotations"):
        if given.get(key):
            metadata[key] = dict(given[key])
    if given.get("finalizers"):
        metadata["finalizers"] = list(given["finalizers"])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.get("spec") or {}}


def deletion_order(pods: Iterable[Json], now: float, min_ready_seconds: int = 0) -> list[Json]:
    """Sort active pods so that those which are deleted first come first (ActivePodsWithRanks).

    Of two pods, the first rule that distinguishes them decides. First comes the one
    - that has no node;
    - that is pending, then one of unknown phase, then a running one;
    - that is not ready;
    - that is not available yet, with `min_ready_seconds` (a TODO in Kubernetes, which may therefore delete an available
      pod of an old ReplicaSet that a rollout needs);
    - with the lower deletion cost;
    - that has been ready for a shorter time;
    - with more restarts;
    - that is younger.
    Times are compared by the binary logarithm of their age; if these are equal, by uid. Kubernetes also ranks pods by
    how many of the same owner are on their node, which makes no difference on one node.
    """
    ranks = (_rank(pod, now, min_ready_seconds) for pod in pods)
    return [rank.pod for rank in sorted(ranks, key=cmp_to_key(_compare))]


class _Rank(NamedTuple):
    """What `deletion_order` compares. `first`: the rules before the times; the lower one is deleted first."""

    first: tuple[bool, int, bool, bool, int]
    ready: float | None
    restarts: tuple[int, int]
    created: float | None
    uid: str
    now: float
    pod: Json


def _rank(pod: Json, now: float, min_ready_seconds: int) -> _Rank:
    metadata = pod["metadata"]
    ready = is_ready(pod)
    return _Rank(
        first=(
            bool((pod.get("spec") or {}).get("nodeName")),
            _PHASE_RANKS.get(phase(pod), 0),
            ready,
            is_available(pod, min_ready_seconds, now),
            _deletion_cost(metadata.get("annotations") or {}),
        ),
        ready=ready_since(pod),
        restarts=_restarts(pod),
        created=parse_time(metadata.get("creationTimestamp")),
        uid=metadata.get("uid") or "",
        now=now,
        pod=pod,
    )


def _compare(one: _Rank, other: _Rank) -> int:
    """Return a negative number if `one` is deleted first."""
    if one.first != other.first:
        return -1 if one.first < other.first else 1
    if one.first[2] and one.ready != other.ready:
        return _younger_first(one, other, one.ready, other.ready)
    if one.restarts != other.restarts:
        return -1 if one.restarts > other.restarts else 1
    if one.created != other.created:
        return _younger_first(one, other, one.created, other.created)
    return 0


def _younger_first(one: _Rank, other: _Rank, first: float | None, second: float | None) -> int:
    if first is None or second is None:  # a missing time counts as the youngest
        return -1 if first is None else 1
    difference = _age_rank(one.now - first) - _age_rank(other.now - second)
    return difference or (-1 if one.uid < other.uid else 1)


def _age_rank(seconds: float) -> int:
    return int(math.log2(seconds * _NANOSECONDS)) if seconds > 0 else -1


def _deletion_cost(annotations: Mapping[str, Any]) -> int:
    """pkg/apis/core/v1/helper GetDeletionCostFromPodAnnotations: an invalid cost counts as 0."""
    text = annotations.get(DELETION_COST)
    if not isinstance(text, str) or not _COST.fullmatch(text):
        return 0
    cost = int(text)
    return cost if -(2**31) <= cost < 2**31 else 0


def _restarts(pod: Json) -> tuple[int, int]:
    """The most restarts of a container, and of a sidecar container (maxContainerRestarts)."""
    status = pod.get("status") or {}
    regular = max(
        (found.get("restartCount", 0) for found in status.get("containerStatuses") or ()), default=0
    )
    sidecars = {
        container["name"]
        for container in (pod.get("spec") or {}).get("initContainers") or ()
        if container.get("restartPolicy") == "Always"
    }
    if not sidecars:
        return regular, 0
    found = status.get("initContainerStatuses") or ()
    return regular, max((one.get("restartCount", 0) for one in found if one["name"] in sidecars), default=0)


def _ready_condition(pod: Json) -> Json | None:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready":
            found: Json = condition
            return found if found["status"] == "True" else None
    return None

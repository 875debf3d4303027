"""Failed pods of a ReplicaSet: how long to wait before they are replaced, and which ones are deleted.

A pod whose containers always restart fails only when the node rejects or evicts it. A cluster's scheduler does not
bind such a pod's successor to the same node; here, the node may reject it at once, again and again. So the successors
wait, as those of a DaemonSet do in Kubernetes (pkg/controller/daemon/daemon_controller.go, failedPodsBackoff).
Failures are counted from the pods that exist, so nothing is remembered, and a new template begins anew.

Kubernetes keeps 12,500 ended pods of a whole cluster (pkg/controller/podgc/gc_controller.go, gcTerminated). Here the
number is by ReplicaSet, large enough to count the failures.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.controllers.decide.jobs.back_off import finished_at
from kubelite.controllers.decide.pods import has_ended, has_failed
from kubelite.controllers.references import is_terminating
from kubelite.kube.json import Json

INITIAL, MAXIMUM = 1.0, 300.0  # seconds
WINDOW = 3600.0  # seconds for which a failure counts
ROUNDS = 10  # ended pods that are kept, in multiples of the replicas
MOST = 100  # replicas that count as one round of failures


def wait(pods: Iterable[Json], replicas: int, now: float) -> float:
    """Return the seconds until pods may be created; `pods`: all that the ReplicaSet controls.

    Each replica is replaced once without a wait. With every further round of as many failures the wait doubles."""
    times = [at for pod in pods if has_failed(pod) and (at := finished_at(pod)) > now - WINDOW]
    rounds = (len(times) - 1) // _round(replicas) if times else 0
    if not rounds:
        return 0.0
    seconds = min(INITIAL * 2.0 ** min(rounds - 1, 20), MAXIMUM)
    return min(max(max(times) + seconds - now, 0.0), seconds)


def too_many(pods: Iterable[Json], replicas: int) -> list[Json]:
    """Return the ended pods to delete: the oldest ones, beyond `ROUNDS` for each replica."""
    ended = [pod for pod in pods if has_ended(pod) and not is_terminating(pod)]
    oldest_first = sorted(ended, key=lambda pod: (finished_at(pod), pod["metadata"]["name"]))
    return oldest_first[: max(0, len(ended) - ROUNDS * _round(replicas))]


def _round(replicas: int) -> int:
    return min(max(replicas, 1), MOST)

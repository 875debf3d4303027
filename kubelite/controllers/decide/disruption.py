"""PodDisruptionBudget: how many of its pods may be evicted now.

Source: Kubernetes pkg/controller/disruption/disruption.go. An eviction notes the pod in `status.disruptedPods` before
it deletes it; such a pod counts as unhealthy until it is terminating, for two minutes at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubelite.controllers.decide.deployments.limits import scaled
from kubelite.controllers.decide.pods import is_ready
from kubelite.controllers.model import Effect, Event, Plan, SetStatus, View
from kubelite.controllers.references import controller_of, is_terminating
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of, matches_labels
from kubelite.kube.times import rfc3339, unix

ALLOWED = "DisruptionAllowed"
DELETION_TIMEOUT = 120.0  # seconds

#: The kinds whose spec.replicas says how many pods there ought to be.
SCALABLE = ("ReplicationController", "ReplicaSet", "Deployment", "StatefulSet")

UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of "
    "the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please "
    'set ".spec.minAvailable" field of the PDB to an integer value.'
)


class _Unknown(Exception):
    """Nothing says how many pods there ought to be."""


def decide(view: View) -> Plan:
    """Set the status. Events are recorded when it changes. The view has all pods and all objects of `SCALABLE` of the
    namespace."""
    budget = view.owner
    selector = budget["spec"].get("selector")
    pods = [pod for pod in view.of("Pod") if matches_labels(selector, labels_of(pod))]
    events: list[Effect] = []
    if not pods:
        events.append(Event(budget, "Normal", "NoPods", "No matching pods found"))
    try:
        expected, desired, unmanaged = _expected(view, pods)
    except _Unknown as error:
        message = f"Failed to calculate the number of expected pods: {error}"
        events.append(Event(budget, "Warning", "CalculateExpectedPodCountFailed", message))
        return _plan(view, events, _failed(budget, str(error), view.now), None)
    if unmanaged:
        events.append(Event(budget, "Warning", "UnmanagedPods", UNMANAGED.format(_selector_text(selector))))
    disrupted, late = _disrupted(budget, pods, view.now)
    name = f"{budget['metadata'].get('namespace', 'default')}/{budget['metadata']['name']}"
    message = f"Pod was expected by PDB {name} to be deleted but it wasn't"
    events += [Event(pod, "Warning", "NotDeleted", message) for pod in late]
    healthy = _healthy(pods, disrupted)
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    status: Json = {
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"].get("generation", 1),
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    status["conditions"] = _conditions(budget, status, view.now)
    times = (unix(at) + DELETION_TIMEOUT - view.now for at in disrupted.values())
    again = min(times, default=None)
    return _plan(view, events, status, None if again is None else again + 1.0)


def _plan(view: View, events: Sequence[Effect], status: Json, again: float | None) -> Plan:
    if status == (view.owner.get("status") or {}):
        return Plan(again=again)
    return Plan((*events, SetStatus(view.owner["metadata"]["uid"], status)), again=again)


def _expected(view: View, pods: Sequence[Json]) -> tuple[int, int, bool]:
    """Return how many pods there ought to be, how many of them must be healthy, and whether nothing controls some of
    them (getExpectedPodCount). Percentages are rounded up. Raises _Unknown."""
    spec = view.owner["spec"]
    if (most := spec.get("maxUnavailable")) is not None:
        expected, unmanaged = _scale(view, pods)
        return expected, max(expected - scaled(most, expected, round_up=True), 0), unmanaged
    least = spec.get("minAvailable")
    if not isinstance(least, str):
        return (0, 0, False) if least is None else (len(pods), least, False)
    expected, unmanaged = _scale(view, pods)
    return expected, scaled(least, expected, round_up=True), unmanaged


def _scale(view: View, pods: Iterable[Json]) -> tuple[int, bool]:
    """Return the sum of the replicas of all controllers of the pods, and whether a pod has none (getExpectedScale)."""
    known = {doc["metadata"]["uid"]: doc for kind in SCALABLE for doc in view.of(kind)}
    scales: dict[str, int] = {}
    direct: dict[str, str] = {}  # the uid of a pod's controller → of what scales it
    unmanaged = False
    for pod in pods:
        reference = controller_of(pod)
        if reference is None:
            unmanaged = True
        elif reference["uid"] not in direct:
            found = _scaled_by(known, reference["uid"])
            if found is None:
                raise _Unknown(_why(reference, pod))
            direct[reference["uid"]] = found["metadata"]["uid"]
            scales[found["metadata"]["uid"]] = found["spec"].get("replicas", 1)
    return sum(scales.values()), unmanaged


def _scaled_by(known: dict[str, Json], uid: str) -> Json | None:
    """Return a pod's controller, or the Deployment that controls its ReplicaSet."""
    found = known.get(uid)
    above = None if found is None else controller_of(found)
    return known.get(above["uid"], found) if above is not None and above["kind"] == "Deployment" else found


def _why(reference: Json, pod: Json) -> str:
    """Return why nothing says how many pods there ought to be, in Kubernetes' words."""
    if reference["kind"] in SCALABLE:
        return f'found no controllers for pod "{pod["metadata"]["name"]}"'
    group = reference["apiVersion"].partition("/")[0] if "/" in reference["apiVersion"] else ""
    resource = f"{reference['kind'].lower()}s"
    return f"{resource}{'.' + group if group else ''} does not implement the scale subresource"


def _disrupted(budget: Json, pods: Iterable[Json], now: float) -> tuple[dict[str, str], list[Json]]:
    """Return the pods whose deletion was announced and has not begun, by name, and those for which it is overdue: they
    count again (buildDisruptedPodMap)."""
    announced = (budget.get("status") or {}).get("disruptedPods") or {}
    found: dict[str, str] = {}
    late: list[Json] = []
    for pod in pods:
        at = announced.get(pod["metadata"]["name"])
        if at is None or is_terminating(pod):
            continue
        if unix(at) + DELETION_TIMEOUT < now:
            late.append(pod)
        else:
            found[pod["metadata"]["name"]] = at
    return found, late


def _healthy(pods: Iterable[Json], disrupted: dict[str, str]) -> int:
    """countHealthyPods."""
    return sum(
        is_ready(pod) and not is_terminating(pod) and pod["metadata"]["name"] not in disrupted for pod in pods
    )


def _conditions(budget: Json, status: Json, now: float) -> list[Json]:
    """component-helpers apps/poddisruptionbudget UpdateDisruptionAllowedCondition."""
    allowed = status["disruptionsAllowed"] > 0
    return set_condition(
        budget,
        {
            "type": ALLOWED,
            "status": "True" if allowed else "False",
            "observedGeneration": status["observedGeneration"],
            "reason": "SufficientPods" if allowed else "InsufficientPods",
            "message": "",
        },
        now,
    )


def set_condition(budget: Json, condition: Json, now: float) -> list[Json]:
    """Return the conditions with one replaced; its lastTransitionTime changes only with its status
    (meta.SetStatusCondition)."""
    given = (budget.get("status") or {}).get("conditions") or ()
    old = next((found for found in given if found["type"] == condition["type"]), None)
    same = old is not None and old["status"] == condition["status"]
    at = old["lastTransitionTime"] if old is not None and same else rfc3339(now)
    return [found for found in given if found["type"] != condition["type"]] + [
        {**condition, "lastTransitionTime": at}
    ]


def _failed(budget: Json, why: str, now: float) -> Json:
    """Allow nothing while the count is unknown (failSafe)."""
    status = budget.get("status") or {}
    counts = {key: status.get(key, 0) for key in ("currentHealthy", "desiredHealthy", "expectedPods")}
    condition: Json = {"type": ALLOWED, "status": "False", "reason": "SyncFailed", "message": why}
    if generation := status.get("observedGeneration"):
        condition["observedGeneration"] = generation
    conditions = set_condition(budget, condition, now)
    return {**status, **counts, "disruptionsAllowed": 0, "conditions": conditions}


def _selector_text(selector: Json | None) -> str:
    """Return a selector as kubectl prints it."""
    given = selector or {}
    parts = [f"{key}={value}" for key, value in sorted((given.get("matchLabels") or {}).items())]
    for found in given.get("matchExpressions") or ():
        values = f" ({','.join(sorted(found['values']))})" if found.get("values") else ""
        parts.append(f"{found['key']} {found['operator']}{values}")
    return ",".join(parts) or "<all>"

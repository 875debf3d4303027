"""`kubelite why pdb/web`: how many pods a disruption budget lets go, which ones, and what keeps it from more."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kubelite.cli.names import PODS, path_of, resource_type
from kubelite.cli.output.foreign import harmless, indented
from kubelite.controllers.decide.disruption import ALLOWED
from kubelite.controllers.decide.evictions import judge
from kubelite.controllers.decide.pods import has_ended, is_ready
from kubelite.controllers.references import is_terminating
from kubelite.kube.label_selectors import labels_of, matches_labels
from kubelite.kube.objects import SOURCE

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

_NEVER = (
    "even with all pods healthy it allows none: lower minAvailable, raise maxUnavailable, or run more replicas; "
    "`kubelite drain --disable-eviction` does not ask budgets"
)
_NO_SCALE = "of pods that no workload with replicas controls, set spec.minAvailable to a number"


def why_budget(server: Client, namespace: str, name: str) -> Json:
    """Return the explanation of a PodDisruptionBudget, as `explain` does."""
    kind = resource_type("pdb")
    doc = server.get(path_of(kind, namespace, name))
    pods = server.get(path_of(PODS, namespace))["items"]
    return explain(doc, pods, server.get(path_of(kind, namespace))["items"], time.time())


def explain(doc: Json, pods: Sequence[Json], budgets: Sequence[Json], now: float) -> Json:
    """Return {"object", "status", "manifest", "conditions", "pods", "advice"}. `pods`, `budgets`: all of the namespace;
    `now`: Unix seconds. Pure."""
    metadata, spec = doc["metadata"], doc["spec"]
    own = [pod for pod in pods if matches_labels(spec.get("selector"), labels_of(pod)) and not has_ended(pod)]
    return {
        "object": f"PodDisruptionBudget {metadata.get('namespace', 'default')}/{metadata['name']}",
        "status": _status(doc),
        "manifest": (metadata.get("annotations") or {}).get(SOURCE, ""),
        "conditions": [
            f"{one['type']} is {one['status']}: {one['reason']}"
            + (f": {one['message']}" if one["message"] else "")
            for one in (doc.get("status") or {}).get("conditions") or ()
        ],
        "pods": [
            _pod_words(pod, budgets, now) for pod in sorted(own, key=lambda one: str(one["metadata"]["name"]))
        ],
        "advice": list(_advice(doc, own)),
    }


def _status(doc: Json) -> str:
    spec, status = doc["spec"], doc.get("status") or {}
    if "expectedPods" not in status:
        return "it has not been looked at yet"
    field = "maxUnavailable" if spec.get("maxUnavailable") is not None else "minAvailable"
    counts = f"{status['currentHealthy']} of {status['expectedPods']} pods are healthy"
    bound = f"{status['desiredHealthy']} must be ({field}: {spec.get(field)})"
    return f"{status['disruptionsAllowed']} may be evicted now; {counts}, {bound}"


def _pod_words(pod: Json, budgets: Sequence[Json], now: float) -> str:
    verdict, name = judge(pod, budgets, now), pod["metadata"]["name"]
    if is_terminating(pod):
        return f"{name} is being deleted"
    ready = "is ready" if is_ready(pod) else f"is not ready: `kubelite why {name}`"
    if verdict.code:
        return f"{name} {ready}; an eviction is refused: {verdict.cause or verdict.message}"
    return f"{name} {ready}; it may be evicted"


def _advice(doc: Json, pods: Sequence[Json]) -> Iterator[str]:
    status = doc.get("status") or {}
    if not pods:
        yield "no pod has the labels of spec.selector: `kubelite get pods --show-labels`"
        return
    allowed: Json = next((one for one in status.get("conditions") or () if one["type"] == ALLOWED), {})
    if allowed.get("reason") == "SyncFailed":
        yield _NO_SCALE
    elif status.get("expectedPods") and status["desiredHealthy"] >= status["expectedPods"]:
        yield _NEVER
    elif not status.get("disruptionsAllowed") and not all(map(is_ready, pods)):
        yield "the pods that are not ready count as missing: the next eviction is allowed when enough of them are ready"


def lines(found: Json) -> list[str]:
    """Return the explanation as text."""
    out = [f"{found['object']}: {harmless(found['status'])}"]
    out += [f"Manifest: {found['manifest']}"] if found["manifest"] else []
    for title, key in (("Pods", "pods"), ("Conditions", "conditions"), ("Try", "advice")):
        if found[key]:
            out += [f"{title}:", *(f"  - {indented(one, '    ')}" for one in found[key])]
    return out

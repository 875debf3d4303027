"""`kubelite why hpa/web`: how many pods an autoscaler wants, from which metrics, and what keeps it from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kubelite.api.kube.autoscaling.cells import targets_text
from kubelite.cli.errors import ServerError
from kubelite.cli.names import path_of, resource_type
from kubelite.cli.output.foreign import harmless, indented
from kubelite.kube.objects import REPLICAS, SOURCE

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

_CUSTOM = "only the metrics cpu and memory exist here, as Resource or ContainerResource: there is no metrics adapter"
#: reason of a condition, or a part of its message → what to do
_ADVICE = (
    ("missing request for", "set resources.requests in the workload's containers, or use an averageValue"),
    ("FailedGetPodsMetric", _CUSTOM),
    ("FailedGetObjectMetric", _CUSTOM),
    ("FailedGetExternalMetric", _CUSTOM),
    ("no metrics returned", "wait for the first samples: two are needed, 15 seconds apart"),
    ("pods might be unready", "`kubelite get pods` shows which pods are not ready"),
    ("TooManyReplicas", "raise spec.maxReplicas, if the machine has room"),
    (
        "ScalingDisabled",
        "the workload has 0 replicas, which switches the autoscaler off: `kubelite scale` it to 1",
    ),
    ("FailedGetScale", "spec.scaleTargetRef names no workload that exists"),
    ("AmbiguousSelector", "let one autoscaler be responsible for each workload"),
)


def why_autoscaler(server: Client, doc: Json) -> Json:
    """Return the explanation: {"object", "status", "manifest", "conditions", "target", "advice"}."""
    metadata, spec, status = doc["metadata"], doc["spec"], doc.get("status") or {}
    conditions = status.get("conditions") or []
    said = [f"{one['type']} is {one['status']}: {one['reason']}: {one['message']}" for one in conditions]
    metrics = targets_text(spec.get("metrics") or [], status.get("currentMetrics") or [])
    counts = f"{status.get('currentReplicas', 0)} replicas, {status.get('desiredReplicas', 0)} wanted"
    bounds = f"{spec.get('minReplicas', 1)} to {spec['maxReplicas']} allowed"
    return {
        "object": f"HorizontalPodAutoscaler {metadata.get('namespace', 'default')}/{metadata['name']}",
        "status": f"{metrics}; {counts}, {bounds}" if conditions else "it has not been looked at yet",
        "manifest": (metadata.get("annotations") or {}).get(SOURCE, ""),
        "conditions": said,
        "target": list(_target(server, doc)),
        "advice": list(dict.fromkeys(advice for part, advice in _ADVICE if any(part in one for one in said))),
    }


def _target(server: Client, doc: Json) -> Iterator[str]:
    """Return whether the manifest or the autoscaler has set the number of replicas, as a sentence."""
    ref, namespace = doc["spec"]["scaleTargetRef"], doc["metadata"].get("namespace", "default")
    name = f"{ref['kind'].lower()}/{ref['name']}"
    try:
        found = server.get(path_of(resource_type(ref["kind"]), namespace, ref["name"]))
    except ServerError as error:
        yield str(error)
        return
    now = found["spec"].get("replicas", 1)
    own = (found["metadata"].get("annotations") or {}).get(REPLICAS)
    if own is None:
        yield f"{name} has {now} replicas, as its manifest says"
    else:
        yield f"{name} has {now} replicas; its manifest says {own}, which applies again without the autoscaler"


def lines(found: Json) -> list[str]:
    """Return the explanation as text."""
    out = [f"{found['object']}: {harmless(found['status'])}"]
    out += [f"Manifest: {found['manifest']}"] if found["manifest"] else []
    for title, key in (("Target", "target"), ("Conditions", "conditions"), ("Try", "advice")):
        if found[key]:
            out += [f"{title}:", *(f"  - {indented(one, '    ')}" for one in found[key])]
    return out

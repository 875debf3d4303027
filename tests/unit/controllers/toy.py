"""A controller for the tests of the manager: it keeps as many pods as `spec.replicas` says."""

from __future__ import annotations

from kubelite.controllers.decide.pods import deletion_order, is_active, pod_from_template
from kubelite.controllers.model import Create, Delete, Effect, Plan, SetStatus, View
from kubelite.controllers.references import is_terminating, managed
from kubelite.kube.label_selectors import labels_of, matches_labels

calls: list[str] = []  # names of the objects that were decided about
fail = False


def decide(view: View) -> Plan:
    calls.append(view.owner["metadata"]["name"])
    if fail:
        raise ValueError("the toy is broken")
    spec = view.owner["spec"]
    found, effects = managed(view, "Pod", lambda doc: matches_labels(spec["selector"], labels_of(doc)))
    active = [pod for pod in found if is_active(pod)]
    more = spec["replicas"] - len(active)
    changes: list[Effect] = []
    if not is_terminating(view.owner):
        changes += [Create(pod_from_template(spec["template"], view.owner)) for _ in range(more)]
        surplus = deletion_order(active, view.now)[: max(0, -more)]
        changes += [Delete(pod["metadata"]["uid"]) for pod in surplus]
    status = {
        "replicas": len(active) + more,
        "observedGeneration": view.owner["metadata"].get("generation", 0),
    }
    return Plan((*effects, *changes, SetStatus(view.owner["metadata"]["uid"], status)))

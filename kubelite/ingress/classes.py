"""Pure: which Ingresses this node serves.

Source: Kubernetes plugin/pkg/admission/network/defaultingressclass (admission.go: Admit, getDefaultClass). Kubernetes
writes the default class into a new Ingress; here it counts whenever it is asked for, so that the order of manifests
does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable

from kubelite.ingress.model import CLASS, CLASS_ANNOTATION, CONTROLLER, DEFAULT_CLASS
from kubelite.kube.json import Json


def class_of(ingress: Json) -> str:
    """Return the class that an Ingress names, "" for none."""
    named = (ingress.get("spec") or {}).get("ingressClassName")
    return str(named or (ingress["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION) or "")


def not_served(ingress: Json, classes: Iterable[Json]) -> str:
    """Return why this node does not serve an Ingress, as a sentence; "" if it does. `classes`: all IngressClasses."""
    known = {one["metadata"]["name"]: one for one in classes}
    name = class_of(ingress)
    chosen = known.get(name) if name else default_class(known.values())
    if chosen is None:
        if name in ("", CLASS):
            return ""
        return (
            f'no IngressClass "{name}" exists: create one with `controller: {CONTROLLER}`, or name the class '
            f'"{CLASS}", which this node serves'
        )
    controller = chosen["spec"].get("controller", "")
    if controller == CONTROLLER:
        return ""
    whose = "the class" if name else "the default class"
    remedy = f"for this node, name an IngressClass of controller {CONTROLLER} in spec.ingressClassName"
    return f'{whose} "{chosen["metadata"]["name"]}" is of controller {controller}: {remedy}'


def default_class(classes: Iterable[Json]) -> Json | None:
    """Return the IngressClass of Ingresses that name none. Of several, the newest one counts, then the first name."""
    marked = [
        one for one in classes if (one["metadata"].get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    ]
    marked.sort(key=lambda one: one["metadata"]["name"])
    marked.sort(key=lambda one: one["metadata"].get("creationTimestamp") or "", reverse=True)
    return marked[0] if marked else None

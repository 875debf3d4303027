"""Pure: why a Service has no endpoints, or fewer than pods that it selects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubelite.kube.json import Json
from kubelite.kube.label_selectors import labels_of
from kubelite.services.backends import Backend, addresses_of, backend, selects
from kubelite.services.families import families_of

_SHOWN = 5  # names in a sentence
_NEW_ADDRESS = "a pod gets its addresses when it is created; delete it, so that a new one replaces it"


def explain(service: Json, pods: Iterable[Json], slices: Sequence[Json]) -> list[str]:
    """Return sentences that say where the traffic of a Service goes, and why some pods get none. `pods`: those of its
    namespace; `slices`: its EndpointSlices."""
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return [f"it is another name for {spec.get('externalName')}, and has no address and no endpoints"]
    if not spec.get("selector"):
        return _without_selector(service, slices)
    listed = list(pods)
    selected = [pod for pod in listed if selects(service, pod)]
    if not selected:
        return [_none_matches(spec["selector"], listed)]
    families = families_of(spec)
    found = [(pod, backend(service, pod)) for pod in selected]
    ready = [one for _, one in found if one is not None and one.ready and one.ports]
    said = (
        [f"{len(ready)} of {len(selected)} pods that it selects get traffic: {_names(selected, ready)}"]
        if ready
        else []
    )
    said += [sentence for pod, one in found if (sentence := _trouble(pod, one, families))]
    return said


def _without_selector(service: Json, slices: Sequence[Json]) -> list[str]:
    addresses = [ip for one in slices for end in one.get("endpoints") or () for ip in end["addresses"][:1]]
    if addresses:
        return [f"it has no selector: its EndpointSlices name {', '.join(addresses[:_SHOWN])}"]
    name = service["metadata"]["name"]
    return [
        "it has no selector, and no Endpoints or EndpointSlice says where its traffic goes: add a selector, Endpoints "
        f"with the name {name}, or an EndpointSlice with the label kubernetes.io/service-name: {name}"
    ]


def _none_matches(selector: Json, pods: Sequence[Json]) -> str:
    """Say what is nearest: the pods that have the labels, all but one."""
    text = ",".join(f"{key}={value}" for key, value in selector.items())
    best = max(pods, key=lambda pod: _held(selector, pod), default=None)
    if best is None:
        return f"no pod matches its selector {text}: the namespace has no pods"
    if not (held := _held(selector, best)):
        return f"no pod matches its selector {text}"
    labels = labels_of(best)
    wrong = [
        f"{key}={labels[key]}" if key in labels else f"no label {key}"
        for key, value in selector.items()
        if labels.get(key) != value
    ]
    near = f"pod {best['metadata']['name']} has {held} of {len(selector)} labels, and {' and '.join(wrong)}"
    return f"no pod matches its selector {text}: {near}"


def _held(selector: Json, pod: Json) -> int:
    labels = labels_of(pod)
    return sum(labels.get(key) == value for key, value in selector.items())


def _names(selected: Sequence[Json], ready: Sequence[Backend]) -> str:
    names = [one.name for one in ready[:_SHOWN]]
    more = len(ready) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _trouble(pod: Json, one: Backend | None, families: Sequence[str]) -> str:
    """Return why a pod gets no traffic, or not at all ports, or not by all families; "" if it gets it."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if one is None:
        phase = status.get("phase", "Pending")
        if phase in ("Succeeded", "Failed"):
            return f"pod {name} has ended ({phase})"
        if addresses_of(pod):
            return f"pod {name} has no {families[0]} address, and the service has no other: {_NEW_ADDRESS}"
        return f"pod {name} has no address yet (phase {phase}): `kubelite why {name}` explains why"
    if one.terminating:
        return f"pod {name} is terminating"
    if not one.ready:
        return f"pod {name} is not ready: {_not_ready(status)}"
    if one.missing:
        ports = ", ".join(one.missing)
        known = _port_names(pod)
        has = f"its containers name {known}" if known else "its containers name no ports"
        return f"pod {name} has no port named {ports}: {has}"
    if lacking := [family for family in families if not one.address(family)]:
        return f"pod {name} gets no traffic by {lacking[0]}, because it has no such address: {_NEW_ADDRESS}"
    return ""


def _not_ready(status: Json) -> str:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "Ready":
            return condition.get("message") or condition.get("reason") or "its condition Ready is False"
    return "it has no condition Ready yet"


def _port_names(pod: Json) -> str:
    containers = (pod.get("spec") or {}).get("containers") or ()
    return ", ".join(
        port["name"] for one in containers for port in one.get("ports") or () if port.get("name")
    )

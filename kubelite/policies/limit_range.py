"""LimitRange: defaults for the containers of new pods, and bounds for pods and claims. Pure.

Source: Kubernetes plugin/pkg/admission/limitranger/admission.go. Kubernetes compares Go maps in any order; here
resources are compared by name. As there, an existing pod never gets another default: a container keeps what it got at
its admission, which the annotation names, until its manifest has a value of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kubelite.kube.json import Json
from kubelite.policies.amounts import (
    Amounts,
    amounts,
    containers_of,
    limits_of,
    pod_limits,
    pod_requests,
    requests_of,
)
from manifests.types.quantity import Quantity

KIND = "LimitRange"
ANNOTATION = "kubernetes.io/limit-ranger"

_PREFIX = "LimitRanger plugin set: "
_PART = re.compile(r"(.+) (request|limit) for (container|init container) (\S+)")
_FIELDS = {"container": "containers", "init container": "initContainers"}

#: what admission set: (`container` or `init container`, its name, `request` or `limit`) → names of resources
Given = dict[tuple[str, str, str], set[str]]


class Violation(NamedTuple):
    """What an object may not have. `field`: `spec.containers[0].resources`."""

    field: str
    sentence: str


def with_defaults(pod: Json, ranges: Iterable[Json]) -> Json:
    """Return a new pod with the defaults of its namespace's LimitRanges (PodMutateLimitFunc)."""
    return _changed(pod, list(ranges), {}, {})


def kept(old: Json, new: Json, ranges: Iterable[Json]) -> Json:
    """Return an edited pod with the amounts that its containers got at admission. A container that the edit adds gets
    the defaults of today. `old`: the recorded pod; `new`: that of the manifest."""
    given, ranges = given_of(old), list(ranges)
    if not given and not ranges:
        return new
    before = {(what, one["name"]): one for what, one in _by_kind(old)}
    return _changed(new, ranges, before, given)


def given_of(pod: Json) -> Given:
    """Read the annotation of a pod."""
    text = (pod["metadata"].get("annotations") or {}).get(ANNOTATION, "")
    found: Given = {}
    for part in text.removeprefix(_PREFIX).split("; ") if text.startswith(_PREFIX) else ():
        if match := _PART.fullmatch(part):
            names, what, kind, container = match.groups()
            found[kind, container, what] = set(names.split(", "))
    return found


def _changed(pod: Json, ranges: Sequence[Json], before: dict[tuple[str, str], Json], given: Given) -> Json:
    """`before`: recorded containers by kind and name; `given`: what of them admission set."""
    limits, requests = _defaults(ranges)
    parts: list[str] = []
    spec = dict(pod["spec"])
    for kind, field in _FIELDS.items():
        if not spec.get(field):
            continue
        containers = []
        for container in spec[field]:
            known = before.get((kind, container["name"]))
            new = {"request": requests, "limit": limits}
            added = new if known is None else _held(known, kind, given)
            changed, said = _merged(container, added, kind)
            containers.append(changed)
            parts += said
        spec[field] = containers
    metadata = _annotated(pod["metadata"], parts)
    return pod if not parts and metadata is pod["metadata"] else {**pod, "metadata": metadata, "spec": spec}


def _held(known: Json, kind: str, given: Given) -> dict[str, Amounts]:
    """Return the amounts of a recorded container that admission set."""
    parts = {"request": requests_of, "limit": limits_of}
    found: dict[str, Amounts] = {}
    for what, part in parts.items():
        names = given.get((kind, known["name"], what), set())
        found[what] = {name: amount for name, amount in part(known).items() if name in names} if names else {}
    return found


def _annotated(metadata: Json, parts: Sequence[str]) -> Json:
    """The annotation says what the node set. One that a manifest has (of `get -o yaml`) does not count."""
    annotations = metadata.get("annotations") or {}
    if not parts and ANNOTATION not in annotations:
        return metadata
    left = {key: value for key, value in annotations.items() if key != ANNOTATION}
    return {
        **metadata,
        "annotations": {**left, **({ANNOTATION: _PREFIX + "; ".join(parts)} if parts else {})},
    }


def _merged(container: Json, added: dict[str, Amounts], kind: str) -> tuple[Json, list[str]]:
    """Return a container with what it lacks, and the parts of the annotation (mergeContainerResources)."""
    if not any(added.values()):
        return container, []
    had = {"request": requests_of(container), "limit": limits_of(container)}
    new = {
        what: {name: have for name, have in added[what].items() if name not in had[what]}
        for what in ("request", "limit")
    }
    parts = [
        f"{', '.join(sorted(names))} {what} for {kind} {container['name']}"
        for what, names in new.items()
        if names
    ]
    if not parts:
        return container, parts
    resources = dict(container.get("resources") or {})
    for what, names in new.items():
        if total := {**had[what], **names}:
            resources[f"{what}s"] = {name: str(amount) for name, amount in total.items()}
    return {**container, "resources": resources}, parts


def _defaults(ranges: Iterable[Json]) -> tuple[Amounts, Amounts]:
    """Return the default limits and requests of containers. The first range by name that has one counts."""
    limits: Amounts = {}
    requests: Amounts = {}
    for item in _items(ranges, "Container"):
        limits = {**amounts(item.get("default")), **limits}
        requests = {**amounts(item.get("defaultRequest")), **requests}
    return limits, requests


def _items(ranges: Iterable[Json], type_: str) -> Iterator[Json]:
    for one in ranges:
        for item in one["spec"].get("limits") or ():
            if item["type"] == type_:
                yield item


def _by_kind(pod: Json) -> Iterator[tuple[str, Json]]:
    for kind, field in _FIELDS.items():
        for container in pod["spec"].get(field) or ():
            yield kind, container


def pod_violations(pod: Json, ranges: Sequence[Json]) -> list[Violation]:
    """Return how a pod with its defaults is outside the bounds (PodValidateLimitFunc)."""
    found: list[Violation] = []
    for item in _items(ranges, "Container"):
        for path, container in containers_of(pod["spec"]):
            sentences = _bounds(item, requests_of(container), limits_of(container))
            found += [Violation(f"{path}.resources", sentence) for sentence in sentences]
    for item in _items(ranges, "Pod"):
        sentences = _bounds(item, pod_requests(pod["spec"]), pod_limits(pod["spec"]))
        found += [Violation("spec", sentence) for sentence in sentences]
    return found


def claim_violations(claim: Json, ranges: Sequence[Json]) -> list[Violation]:
    """Return how a claim is outside the bounds (PersistentVolumeClaimValidateLimitFunc)."""
    requests = amounts((claim["spec"].get("resources") or {}).get("requests"))
    found = []
    for item in _items(ranges, "PersistentVolumeClaim"):
        least = (_least(item["type"], name, bound, requests, {}) for name, bound in _sorted(item.get("min")))
        most = (
            _most_requested(item["type"], name, bound, requests) for name, bound in _sorted(item.get("max"))
        )
        found += [Violation("spec.resources.requests", one) for one in (*least, *most) if one]
    return found


def forbidden(what: str, name: str, violations: Iterable[Violation]) -> str:
    """Return the message of a refusal: `pods "web" is forbidden: …`. `what`: pods, persistentvolumeclaims."""
    sentences = list(dict.fromkeys(one.sentence for one in violations))
    said = sentences[0] if len(sentences) == 1 else f"[{', '.join(sentences)}]"
    return f'{what} "{name}" is forbidden: {said}'


def _bounds(item: Json, requests: Amounts, limits: Amounts) -> Iterator[str]:
    rules = (("min", _least), ("max", _most), ("maxLimitRequestRatio", _ratio))
    for field, rule in rules:
        for name, bound in _sorted(item.get(field)):
            if said := rule(item["type"], name, bound, requests, limits):
                yield said


def _sorted(given: Json | None) -> list[tuple[str, Quantity]]:
    return sorted(amounts(given).items())


def _least(type_: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    """minConstraint."""
    begins = f"minimum {name} usage per {type_} is {bound}"
    if name not in requests:
        return f"{begins}.  No request is specified"
    if requests[name] < bound:
        return f"{begins}, but request is {requests[name]}"
    if name in limits and limits[name] < bound:
        return f"{begins}, but limit is {limits[name]}"
    return ""


def _most(type_: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    """maxConstraint."""
    begins = f"maximum {name} usage per {type_} is {bound}"
    if name not in limits:
        return f"{begins}.  No limit is specified"
    if bound < limits[name]:
        return f"{begins}, but limit is {limits[name]}"
    if name in requests and bound < requests[name]:
        return f"{begins}, but request is {requests[name]}"
    return ""


def _most_requested(type_: str, name: str, bound: Quantity, requests: Amounts) -> str:
    """maxRequestConstraint."""
    begins = f"maximum {name} usage per {type_} is {bound}"
    if name not in requests:
        return f"{begins}.  No request is specified"
    return f"{begins}, but request is {requests[name]}" if bound < requests[name] else ""


def _ratio(type_: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    """limitRequestRatioConstraint."""
    begins = f"{name} max limit to request ratio per {type_} is {bound}"
    if name not in requests or not requests[name].nanos:
        return f"{begins}, but no request is specified or request is 0"
    if name not in limits or not limits[name].nanos:
        return f"{begins}, but no limit is specified or limit is 0"
    ratio = limits[name].exact() / requests[name].exact()
    return f"{begins}, but provided ratio is {float(ratio):.6f}" if ratio > bound.exact() else ""

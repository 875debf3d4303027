"""Which pods need a ConfigMap or a Secret. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubelite.kube.json import Json


def users_of(kind: str, name: str, pods: Iterable[Json]) -> list[str]:
    """Return the names of the pods whose containers cannot start without this ConfigMap or Secret, or whose images may
    not be pulled without it. `pods`: the documents of the object's namespace. Optional references do not count."""
    found = []
    for pod in pods:
        if not pod["metadata"].get("deletionTimestamp") and (kind, name) in set(_needed(pod["spec"])):
            found.append(pod["metadata"]["name"])
    return sorted(found)


def _needed(spec: Json) -> Iterator[tuple[str, str]]:
    for volume in spec.get("volumes") or ():
        yield from _sources(volume, secret="secretName")
        for part in (volume.get("projected") or {}).get("sources") or ():
            yield from _sources(part, secret="name")
    for key in ("initContainers", "containers"):
        for container in spec.get(key) or ():
            for source in container.get("envFrom") or ():
                yield from _given("ConfigMap", source.get("configMapRef"), "name")
                yield from _given("Secret", source.get("secretRef"), "name")
            for variable in container.get("env") or ():
                value = variable.get("valueFrom") or {}
                yield from _given("ConfigMap", value.get("configMapKeyRef"), "name")
                yield from _given("Secret", value.get("secretKeyRef"), "name")
    for secret in spec.get("imagePullSecrets") or ():
        yield from _given("Secret", secret, "name")


def _sources(part: Json, *, secret: str) -> Iterator[tuple[str, str]]:
    yield from _given("ConfigMap", part.get("configMap"), "name")
    yield from _given("Secret", part.get("secret"), secret)


def _given(kind: str, reference: Json | None, field: str) -> Iterator[tuple[str, str]]:
    if reference and not reference.get("optional") and reference.get(field):
        yield kind, reference[field]

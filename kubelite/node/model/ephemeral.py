"""Pure: a pod's ephemeral containers, which people add to a running pod to inspect it (`kubelite debug`).

They are part of the recorded pod but of no manifest, so an edit of the manifest keeps them. An ephemeral container runs
once and ends with the pod; no other container waits for it. With `targetContainerName` it shares the processes of that
container.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubelite.node.model.spec_cache import once_a_spec
from manifests.problems import InvalidObject, Problem, duplicate, forbidden, invalid, not_found
from manifests.types.core import Container, EphemeralContainer, Pod
from manifests.types.defaults import default_pod
from manifests.types.pod import PodSpec
from manifests.validation.container import Within, validate_container

FIELD = "ephemeralContainers"
_NEVER = (
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "resources",
    "resizePolicy",
)
_NEVER_EITHER = ("restartPolicy", "restartPolicyRules")


@once_a_spec
def ephemeral_containers(pod: Pod) -> tuple[Container, ...]:
    """The ephemeral containers as ordinary containers that never restart."""
    return tuple(_as_container(found) for found in pod.spec.ephemeral_containers)


def _as_container(found: EphemeralContainer) -> Container:
    values = {key: value for key, value in found.to_json().items() if key != "targetContainerName"}
    return Container.parse({**values, "restartPolicy": "Never"})


def every_container(pod: Pod) -> list[Container]:
    """All containers of the pod: init, main, ephemeral."""
    return [*pod.spec.init_containers, *pod.spec.containers, *ephemeral_containers(pod)]


def target_of(pod: Pod, name: str) -> str:
    """The container whose processes the ephemeral container `name` shares; "" if it has no target."""
    found = next((c for c in pod.spec.ephemeral_containers if c.name == name), None)
    return (found.target_container_name or "") if found is not None else ""


def changed(doc: Mapping[str, Any], wanted: list[dict[str, Any]]) -> dict[str, Any]:
    """The pod's document with these ephemeral containers: the existing ones, unchanged, and new ones. Raises
    InvalidObject."""
    before = _without_empty_resources(doc["spec"].get(FIELD) or [])
    given = Pod.parse({**doc, "spec": {**doc["spec"], FIELD: _without_empty_resources(wanted)}})
    pod = default_pod(given)
    old = Pod.parse({**doc, "spec": {**doc["spec"], FIELD: before}})
    problems = list(_problems(pod, old.spec))
    if problems:
        raise InvalidObject(problems)
    after = [container.to_json() for container in pod.spec.ephemeral_containers]
    generation = int(doc["metadata"].get("generation", 1)) + (after != before)
    metadata = {**doc["metadata"], "generation": generation}
    return {**doc, "metadata": metadata, "spec": {**doc["spec"], FIELD: after}}


def _without_empty_resources(containers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the containers without `resources: {}`. Clients add it, and the API adds it to what they read."""
    return [
        {key: value for key, value in container.items() if value or key != "resources"}
        for container in containers
    ]


def _problems(pod: Pod, old: PodSpec) -> list[Problem]:
    found: list[Problem] = []
    known = {c.name: c for c in old.ephemeral_containers}
    others = {c.name for c in [*pod.spec.init_containers, *pod.spec.containers]}
    seen: set[str] = set()
    within = Within.of(pod)
    for index, container in enumerate(pod.spec.ephemeral_containers):
        path = ("spec", FIELD, index)
        before = known.pop(container.name, None)
        if container.name in others or container.name in seen:
            found.append(duplicate((*path, "name"), container.name))
        seen.add(container.name)
        if before is not None:
            if before.to_json() != container.to_json():
                found.append(forbidden(path, "existing ephemeral containers may not be changed"))
            continue
        given = container.to_json()
        fields = [name for name in (*_NEVER, *_NEVER_EITHER) if given.get(name)]
        found += [forbidden((*path, name), "cannot be set for an Ephemeral Container") for name in fields]
        plain = Container.parse({k: v for k, v in given.items() if k not in (*fields, "targetContainerName")})
        found += validate_container(plain, path, within)
        target = container.target_container_name
        if target and target not in {c.name for c in pod.spec.containers}:
            found.append(not_found((*path, "targetContainerName"), target))
        for place, mount in enumerate(container.volume_mounts):
            if mount.sub_path or mount.sub_path_expr:
                here = (*path, "volumeMounts", place, "subPath")
                found.append(forbidden(here, "cannot be set for an Ephemeral Container"))
    if known:
        sentence = "existing ephemeral containers may not be removed"
        found.append(invalid(("spec", FIELD), ", ".join(known), sentence))
    return found

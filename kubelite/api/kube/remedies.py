"""Which command of kubelite does what a refused write of kubectl would have done. Pure.

Sources of the patches: kubectl pkg/cmd/set/set_image.go, pkg/polymorphichelpers/objectrestarter.go, objectpauser.go
and rollback.go, pkg/scale/scale.go, pkg/cmd/label/label.go, pkg/cmd/annotate/annotate.go.
"""

from __future__ import annotations

import json
import shlex
from typing import Any

from kubelite.kube.json import Json

#: plural → the kind as commands name it
WORKLOADS = {
    "daemonsets": "daemonset",
    "deployments": "deployment",
    "replicasets": "replicaset",
    "replicationcontrollers": "replicationcontroller",
    "statefulsets": "statefulset",
    "cronjobs": "cronjob",
    "jobs": "job",
}
_RESTARTED = "kubectl.kubernetes.io/restartedAt"


def remedy(plural: str, name: str, namespace: str, body: bytes) -> str:
    """Return the command for a patch, or a new Scale, of a workload or pod; "" if none does exactly this. `body`: as
    sent, with data of anybody; it may not be JSON."""
    try:
        patch: Any = json.loads(body)
    except ValueError:
        return ""
    kind = "pod" if plural == "pods" else WORKLOADS.get(plural, "")
    found = _command(patch, f"{kind}/{name}") if kind else ""
    return found and f"kubelite {found}{'' if namespace == 'default' else f' -n {namespace}'}"


def _command(patch: Any, target: str) -> str:
    if isinstance(patch, list):  # a JSON patch: only undo sends one
        paths = [one.get("path") for one in patch if isinstance(one, dict)]
        return f"rollout undo {target}" if "/spec/template" in paths else ""
    if isinstance(patch, dict) and patch.keys() == {"metadata"}:
        return _metadata_command(patch["metadata"], target)
    spec = patch.get("spec") if isinstance(patch, dict) else None
    if not isinstance(spec, dict) or patch.keys() - {"spec", "metadata", "kind", "apiVersion", "status"}:
        return ""
    if type(count := spec.get("replicas")) is int and spec.keys() == {"replicas"} and count >= 0:
        return f"scale {target} --replicas={count}"
    if spec.keys() == {"paused"}:
        return f"rollout {'pause' if spec['paused'] else 'resume'} {target}"
    template = spec if target.startswith("pod/") else _inner(spec, "template")
    if _RESTARTED in _inner(_inner(template, "metadata"), "annotations"):
        return f"rollout restart {target}"
    containers = template if target.startswith("pod/") else _inner(template, "spec")
    images = _images(containers)
    return f"set image {target} {' '.join(images)}" if images else ""


def _metadata_command(metadata: Any, target: str) -> str:
    """Return the command for a patch that changes nothing but labels, or nothing but annotations; "" for another."""
    for field, verb in (("labels", "label"), ("annotations", "annotate")):
        if (
            not isinstance(metadata, dict)
            or metadata.keys() != {field}
            or not isinstance(metadata[field], dict)
        ):
            continue
        changes = metadata[field]
        words = [
            f"{key}-" if value is None else shlex.quote(f"{key}={value}") for key, value in changes.items()
        ]
        overwrite = " --overwrite" if any(value is not None for value in changes.values()) else ""
        return f"{verb} {target} {' '.join(words)}{overwrite}" if words else ""
    return ""


def _images(spec: Json) -> list[str]:
    """Return CONTAINER=IMAGE for a patch that changes nothing but images; [] for another."""
    found: list[str] = []
    for key in (key for key in spec if not key.startswith("$setElementOrder/")):
        entries = spec[key] if key in ("containers", "initContainers") else None
        if not isinstance(entries, list):
            return []
        for one in entries:
            if not isinstance(one, dict) or one.keys() != {"name", "image"}:
                return []
            found.append(f"{one['name']}={one['image']}")
    return found


def _inner(doc: Json, key: str) -> Json:
    found = doc.get(key)
    return found if isinstance(found, dict) else {}

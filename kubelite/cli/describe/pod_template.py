"""Format the pod template of a workload. Pure.

Layout, order and wording are kubectl's (kubectl pkg/describe/describe.go DescribePodTemplate).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubelite.cli.describe.parts import annotation_lines, label_lines
from kubelite.cli.describe.pod import container_lines, toleration_lines
from kubelite.cli.describe.volumes import describe_volumes

if TYPE_CHECKING:
    from kubelite.kube.json import Json


def template_lines(template: Json) -> list[str]:
    """Return the lines of a pod template, which begin with the title."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    out = label_lines("Labels", metadata.get("labels") or {})
    if metadata.get("annotations"):
        out += annotation_lines(metadata["annotations"])
    if spec.get("serviceAccountName"):
        out.append(f"Service Account:\t{spec['serviceAccountName']}")
    out = [f"  {line}" for line in out]
    for key, title in (("initContainers", "Init Containers"), ("containers", "Containers")):
        if spec.get(key) or key == "containers":
            first, *rest = container_lines(title, spec.get(key) or [], None, {})
            # kubectl indents the title by two columns, a container's name by one, and what follows not at all
            out += [f"  {first}", *(line if line.startswith("    ") else f" {line}" for line in rest)]
    out += [f"  {line}" for line in describe_volumes(spec.get("volumes") or [])]
    if spec.get("priorityClassName"):
        out.append(f"  Priority Class Name:\t{spec['priorityClassName']}")
    last = label_lines("Node-Selectors", spec.get("nodeSelector") or {})
    last += toleration_lines(spec.get("tolerations") or [])
    return ["Pod Template:", *out, *(f"  {line}" for line in last)]

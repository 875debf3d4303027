"""Format the text of `describe hpa`, from a document, its events and `now`. Pure.

Layout and wording are kubectl's (kubectl pkg/describe/describe.go, describeHorizontalPodAutoscalerV2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kubelite.api.kube.autoscaling.cells import UNKNOWN, parts_of
from kubelite.cli.describe.parts import annotation_lines, date, label_lines, with_events

if TYPE_CHECKING:
    from kubelite.kube.json import Json


def describe_autoscaler(doc: Json, events: Sequence[Json] | None, now: float) -> str:
    metadata, spec, status = doc["metadata"], doc["spec"], doc.get("status") or {}
    target, current = spec["scaleTargetRef"], status.get("currentMetrics") or []
    out = [
        f"Name:\t{metadata['name']}",
        f"Namespace:\t{metadata.get('namespace', '')}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
        f"CreationTimestamp:\t{date(metadata.get('creationTimestamp'))}",
        f"Reference:\t{target['kind']}/{target['name']}",
        "Metrics:\t( current / target )",
    ]
    for place, metric in enumerate(spec.get("metrics") or ()):
        out.append(_metric(metric, current[place] if place < len(current) else {}))
    out += [
        f"Min replicas:\t{spec.get('minReplicas', '<unset>')}",
        f"Max replicas:\t{spec['maxReplicas']}",
    ]
    if behavior := spec.get("behavior"):
        out.append("Behavior:")
        for title, key in (("Scale Up", "scaleUp"), ("Scale Down", "scaleDown")):
            out += _rules(title, behavior.get(key))
    counts = f"{status.get('currentReplicas', 0)} current / {status.get('desiredReplicas', 0)} desired"
    out.append(f"{target['kind']} pods:\t{counts}")
    if conditions := status.get("conditions"):
        out += ["Conditions:", "  Type\tStatus\tReason\tMessage", "  ----\t------\t------\t-------"]
        out += [f"  {one['type']}\t{one['status']}\t{one['reason']}\t{one['message']}" for one in conditions]
    return with_events(out, events, now)


def _metric(metric: Json, current: Json) -> str:
    source, target, value = parts_of(metric, current)
    by_value = "averageValue" in target
    amount = value.get("averageValue" if by_value else "value", UNKNOWN)
    wanted = target.get("averageValue" if by_value else "value", UNKNOWN)
    match metric["type"]:
        case "Resource" | "ContainerResource":
            one = f' of container "{source["container"]}"' if "container" in source else ""
            what = f"  resource {source['name']}{one} on pods"
            if by_value:
                return f"{what}:\t{amount} / {wanted}"
            percent = target.get("averageUtilization")
            used = value.get("averageUtilization")
            now = UNKNOWN if used is None else f"{used}% ({value.get('averageValue')})"
            goal = "<auto>" if percent is None else f"{percent}%"
            return f"{what}  (as a percentage of request):\t{now} / {goal}"
        case "Pods":
            return f'  "{source["metric"]["name"]}" on pods:\t{amount} / {wanted}'
    kind = "target average value" if by_value else "target value"
    if metric["type"] == "Object":
        about = source["describedObject"]
        where = f'"{source["metric"]["name"]}" on {about["kind"]}/{about["name"]}'
        return f"  {where} ({kind}):\t{amount} / {wanted}"
    return f'  "{source["metric"]["name"]}" ({kind}):\t{amount} / {wanted}'


def _rules(title: str, rules: Json | None) -> Iterator[str]:
    if rules is None:
        return
    yield f"  {title}:"
    if (window := rules.get("stabilizationWindowSeconds")) is not None:
        yield f"    Stabilization Window: {window} seconds"
    if policies := rules.get("policies"):
        yield f"    Select Policy: {rules.get('selectPolicy') or 'Max'}"
        yield "    Policies:"
        for one in policies:
            yield f"      - Type: {one['type']}\tValue: {one['value']}\tPeriod: {one['periodSeconds']} seconds"

"""Format the text of `describe node` from documents and `now`. Pure.

Layout, order and wording are kubectl's (kubectl pkg/describe/describe.go describeNode), without a Lease.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from kubelite.api.kube.printers import node_roles
from kubelite.cli.describe.objects import condition_line
from kubelite.cli.describe.parts import annotation_lines, date, label_lines, truth, with_events
from kubelite.kube.durations import age_of
from kubelite.node.model.resources import pod_limits_exact, pod_requests_exact
from manifests.types.core import Pod
from manifests.types.meta import Quantity

if TYPE_CHECKING:
    from kubelite.kube.json import Json

Amounts = Mapping[str, Quantity]

_COUNTED = ("cpu", "memory", "ephemeral-storage")
_ZERO = Quantity("0")


def describe_node(node: Json, pods: Sequence[Json], events: Sequence[Json] | None, now: float) -> str:
    """`pods`: the pods scheduled to the node that have not ended."""
    metadata, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    out = [
        f"Name:\t{metadata['name']}",
        f"Roles:\t{node_roles(metadata)}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
        f"CreationTimestamp:\t{date(metadata.get('creationTimestamp'))}",
        *_taints(spec.get("taints") or ()),
        f"Unschedulable:\t{truth(spec.get('unschedulable'))}",
    ]
    if conditions := status.get("conditions"):
        out += ["Conditions:", "  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage"]
        out.append("  ----\t------\t-----------------\t------------------\t------\t-------")
        out += [condition_line(condition, "lastHeartbeatTime") for condition in conditions]
    out += ["Addresses:", *(f"  {a['type']}:\t{a['address']}" for a in status.get("addresses") or ())]
    for key in ("capacity", "allocatable"):
        if status.get(key):
            out += [
                f"{key.capitalize()}:",
                *(f"  {name}:\t{amount}" for name, amount in _amounts(status[key]).items()),
            ]
    out += _system_info(status.get("nodeInfo") or {})
    if spec.get("podCIDR"):
        out.append(f"PodCIDR:\t{spec['podCIDR']}")
    if spec.get("podCIDRs"):
        out.append(f"PodCIDRs:\t{','.join(spec['podCIDRs'])}")
    out += _resources(pods, _amounts(status.get("allocatable") or status.get("capacity") or {}), now)
    return with_events(out, events, now)


def _taints(taints: Iterable[Json]) -> list[str]:
    texts = sorted(f"{t['key']}{'=' + t['value'] if t.get('value') else ''}:{t['effect']}" for t in taints)
    first, *more = texts or ["<none>"]
    return [f"Taints:\t{first}", *(f"\t{text}" for text in more)]


def _system_info(info: Json) -> list[str]:
    return ["System Info:", *(f"  {title}:\t{info.get(key, '')}" for title, key in _SYSTEM)]


_SYSTEM = (
    ("Machine ID", "machineID"),
    ("System UUID", "systemUUID"),
    ("Boot ID", "bootID"),
    ("Kernel Version", "kernelVersion"),
    ("OS Image", "osImage"),
    ("Operating System", "operatingSystem"),
    ("Architecture", "architecture"),
    ("Container Runtime Version", "containerRuntimeVersion"),
    ("Kubelet Version", "kubeletVersion"),
    ("Kube-Proxy Version", "kubeProxyVersion"),
)


def _amounts(given: Json) -> Amounts:
    return {name: Quantity(given[name]) for name in sorted(given)}


def _resources(pods: Sequence[Json], room: Amounts, now: float) -> list[str]:
    """List each pod's requests and limits, and their totals."""
    out = [
        f"Non-terminated Pods:\t({len(pods)} in total)",
        "  Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge",
        "  ---------\t----\t\t------------\t----------\t---------------\t-------------\t---",
    ]
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    for doc in pods:
        pod = Pod.model_validate(doc)
        asked, limited = pod_requests_exact(pod), pod_limits_exact(pod)
        cells = [_share(of, name, room) for name in ("cpu", "memory") for of in (asked, limited)]
        age = age_of(doc["metadata"].get("creationTimestamp"), now)
        out.append("\t".join([f"  {doc['metadata']['namespace']}", doc["metadata"]["name"], "", *cells, age]))
        for total, more in ((requests, asked), (limits, limited)):
            total.update({name: total.get(name, _ZERO) + value for name, value in more.items()})
    out += [
        "Allocated resources:",
        "  (Total limits may be over 100 percent, i.e., overcommitted.)",
        "  Resource\tRequests\tLimits",
        "  --------\t--------\t------",
    ]
    other = [name for name in room if name not in (*_COUNTED, "pods")]
    for name in (*_COUNTED, *other):
        counted = name in _COUNTED or name.startswith("hugepages-")
        cells = [
            _share(total, name, room) if counted else str(total.get(name, _ZERO))
            for total in (requests, limits)
        ]
        out.append("\t".join([f"  {name}", *cells]))
    return out


def _share(of: Amounts, name: str, room: Amounts) -> str:
    """Return `50m (2%)`: an amount, and its share of the node's amount in whole percents."""
    amount, whole = of.get(name, _ZERO), room.get(name, _ZERO)
    return f"{amount} ({amount.nanos * 100 // whole.nanos if whole.nanos else 0}%)"

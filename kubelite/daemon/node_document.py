"""Build the v1 Node document that the API shows, from the node's facts and the daemon's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.node_facts import architecture, shown_taints
from kubelite.node.model.schedule import NodeFacts
from kubelite.telemetry.sampling.machine import machine
from kubelite.version import version

if TYPE_CHECKING:
    from runtime.images.store.store import ImageRecord

#: condition → (reason, message) when it is true, and when it is false, as kubelet words them
#: (Kubernetes pkg/kubelet/nodestatus/setters.go).
_PRESSURE = {
    "MemoryPressure": (
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ),
}

HEARTBEAT_SECONDS = 300
MOST_IMAGES, MOST_NAMES = 50, 5


@dataclass(frozen=True, slots=True)
class AgentState:
    """The daemon's state that the document shows."""

    started_at: float
    pod_cidrs: tuple[str, ...]
    now: float
    not_ready: str = ""  # why the node is not ready; "" = it is ready
    pressure_since: Mapping[str, float] | None = None  # condition → Unix seconds it last changed
    images: Sequence[ImageRecord] = ()  # one for each name of an image


def node_document(config: NodeConfig, facts: NodeFacts, stored: Mapping[str, Any], agent: AgentState) -> Json:
    """Build the document. `stored`: the node object that users patched; {} if nobody has."""
    kept = stored.get("metadata") or {}
    metadata: Json = {
        "name": config.node_name,
        "uid": config.node_name,
        "creationTimestamp": rfc3339(agent.started_at),
        "labels": dict(sorted(facts.labels.items())),
    }
    if kept.get("annotations"):
        metadata["annotations"] = dict(kept["annotations"])
    if kept.get("resourceVersion"):
        metadata["resourceVersion"] = kept["resourceVersion"]
    spec: Json = {}
    if agent.pod_cidrs:  # CNI plugins have addresses of their own
        spec = {"podCIDR": agent.pod_cidrs[0], "podCIDRs": list(agent.pod_cidrs)}
    if taints := shown_taints(facts, stored):
        spec["taints"] = taints
    if facts.unschedulable:
        spec["unschedulable"] = True
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": metadata,
        "spec": spec,
        "status": {
            "capacity": amounts({**config.capacity, **facts.devices}),
            "allocatable": amounts(facts.allocatable),
            "addresses": [
                *({"type": "InternalIP", "address": ip} for ip in config.host_ips),
                {"type": "Hostname", "address": config.node_name},
            ],
            "conditions": [
                {**c, "lastHeartbeatTime": rfc3339(_heartbeat(agent))} for c in _conditions(facts, agent)
            ],
            "nodeInfo": _node_info(),
            **({"images": _images(agent.images)} if agent.images else {}),
        },
    }


def _images(records: Iterable[ImageRecord]) -> list[Json]:
    """The images of the node, the largest first, as kubelet lists them (Kubernetes pkg/kubelet/nodestatus/setters.go,
    Images: nodeStatusMaxImages, MaxNamesPerImageInNodeStatus)."""
    names: dict[str, dict[str, None]] = {}
    sizes: dict[str, int] = {}
    for record in records:
        sizes[record.id] = record.size
        own = names.setdefault(record.id, {})
        own.update(dict.fromkeys([*record.repo_digests, *([record.reference] if record.reference else [])]))
    order = sorted(sizes, key=lambda identity: (-sizes[identity], identity))[:MOST_IMAGES]
    return [
        {
            "names": sorted(names[identity], key=lambda name: "@" not in name)[:MOST_NAMES],
            "sizeBytes": sizes[identity],
        }
        for identity in order
    ]


def amounts(found: Mapping[str, int]) -> dict[str, str]:
    """Format amounts as kubelet does: cores (or millicores), Ki of memory, bytes of disk."""
    return {name: _amount(name, value) for name, value in sorted(found.items())}


def _amount(name: str, value: int) -> str:
    if name == "cpu":
        return f"{value}m" if value % 1000 else str(value // 1000)
    if name == "memory" or name.startswith("hugepages-"):
        return f"{value // 1024}Ki" if value else "0"
    return str(value)


def _heartbeat(agent: AgentState) -> float:
    """Return the conditions' heartbeat time. It advances every five minutes, as kubelet's (nodeStatusReportFrequency).
    The conditions are evaluated for each request, but a watch must not report a change each time."""
    beats = (agent.now - agent.started_at) // HEARTBEAT_SECONDS
    return agent.started_at + beats * HEARTBEAT_SECONDS  # exactly the same number until the next heartbeat


def _conditions(facts: NodeFacts, agent: AgentState) -> list[Json]:
    from kubelite.node.model.node_facts import PRESSURE_TAINTS

    tainted = {taint.key for taint in facts.taints}
    since, started = agent.pressure_since or {}, agent.started_at
    made = []
    for kind, (pressed, free) in _PRESSURE.items():
        present = PRESSURE_TAINTS[kind] in tainted
        made.append(_condition(kind, present, *(pressed if present else free), since.get(kind, started)))
    ready = not agent.not_ready
    words = agent.not_ready or "kubelite is posting ready status"
    made.append(_condition("Ready", ready, "KubeliteReady" if ready else "KubeliteNotReady", words, started))
    return made


def _condition(kind: str, value: bool, reason: str, message: str, since: float) -> Json:
    return {
        "type": kind,
        "status": "True" if value else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": rfc3339(since),
    }


def _node_info() -> Json:
    here = machine()
    return {
        "machineID": here.machine_id,
        "systemUUID": here.system_uuid,
        "bootID": here.boot_id,
        "kernelVersion": here.kernel,
        "osImage": here.os_image,
        "containerRuntimeVersion": f"kubelite://{version()}",
        "kubeletVersion": f"v{version()}",
        "kubeProxyVersion": "",  # required by the schema: typed clients refuse a node without it
        "operatingSystem": "linux",
        "architecture": architecture(),
    }

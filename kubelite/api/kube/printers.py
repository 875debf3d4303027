"""Render documents as a `meta.k8s.io/v1` Table, as Kubernetes' API server does.

Source: Kubernetes pkg/printers/internalversion/printers.go (printPod, printEvent, printConfigMap, printSecret,
printNamespace, printNode). `-o wide` also shows the cells of priority 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from kubelite.api.kube.columns import AGE, NAME, NONE, Cells, Column
from kubelite.kube.durations import age_of, human_duration
from kubelite.kube.json import Json
from kubelite.kube.times import parse_time

TERMINAL_PHASES = ("Succeeded", "Failed")

POD_COLUMNS = (
    NAME,
    Column("Ready", description="Ready containers / all containers."),
    Column("Status", description="The phase, or the reason why the pod is not running."),
    Column("Restarts", description="Number of container restarts, and the time since the last one."),
    AGE,
    Column("IP", priority=1, description="IP address of the pod."),
    Column("Node", priority=1, description="Node the pod runs on."),
    Column("Nominated Node", priority=1),
    Column("Readiness Gates", priority=1),
)
EVENT_COLUMNS = (
    Column("Last Seen"),
    Column("Type"),
    Column("Reason"),
    Column("Object"),
    Column("Subobject", priority=1),
    Column("Source", priority=1),
    Column("Message"),
    Column("First Seen", priority=1),
    Column("Count", priority=1),
    Column("Name", format="name", priority=1),
)
CONFIG_MAP_COLUMNS = (NAME, Column("Data", "integer"), AGE)
SECRET_COLUMNS = (NAME, Column("Type"), Column("Data", "integer"), AGE)
CLAIM_COLUMNS = (
    NAME,
    Column("Status"),
    Column("Volume"),
    Column("Capacity"),
    Column("Access Modes"),
    Column("StorageClass"),
    Column("VolumeAttributesClass"),
    AGE,
    Column("VolumeMode", priority=1),
)
VOLUME_COLUMNS = (
    NAME,
    Column("Capacity"),
    Column("Access Modes"),
    Column("Reclaim Policy"),
    Column("Status"),
    Column("Claim"),
    Column("StorageClass"),
    Column("VolumeAttributesClass"),
    Column("Reason"),
    AGE,
    Column("VolumeMode", priority=1),
)
STORAGE_CLASS_COLUMNS = (
    NAME,
    Column("Provisioner"),
    Column("ReclaimPolicy"),
    Column("VolumeBindingMode"),
    Column("AllowVolumeExpansion"),
    AGE,
)
PRIORITY_CLASS_COLUMNS = (
    NAME,
    Column("Value"),
    Column("Global-Default", "boolean"),
    AGE,
    Column("PreemptionPolicy"),
)
TRUST_BUNDLE_COLUMNS = (NAME, Column("SignerName"))
NAMESPACE_COLUMNS = (NAME, Column("Status"), AGE)
NODE_COLUMNS = (
    NAME,
    Column("Status"),
    Column("Roles"),
    AGE,
    Column("Version"),
    Column("Internal-IP", priority=1),
    Column("External-IP", priority=1),
    Column("OS-Image", priority=1),
    Column("Kernel-Version", priority=1),
    Column("Container-Runtime", priority=1),
)


class PodSummary(NamedTuple):
    """The three computed columns of a pod."""

    ready: str
    status: str
    restarts: str


class _Tally:
    """Counts restarts and remembers when the last previous instance of a container ended."""

    def __init__(self) -> None:
        self.restarts = 0
        self.last: float | None = None

    def add(self, container: Json) -> None:
        self.restarts += container.get("restartCount", 0)
        ended = parse_time(container.get("lastState", {}).get("terminated", {}).get("finishedAt"))
        if ended is not None and (self.last is None or ended > self.last):
            self.last = ended

    def text(self, now: float) -> str:
        if self.restarts and self.last is not None:
            return f"{self.restarts} ({human_duration(now - self.last)} ago)"
        return str(self.restarts)


def summarize_pod(pod: Json, now: float) -> PodSummary:
    """Return READY, STATUS and RESTARTS of a pod, as printPod does."""
    spec, status = pod.get("spec", {}), pod.get("status", {})
    sidecars = {c["name"] for c in spec.get("initContainers", ()) if c.get("restartPolicy") == "Always"}
    total = len(spec.get("containers", ())) + len(sidecars)
    reason = _phase_reason(status)
    init = _init_progress(spec, status, sidecars)
    tally, ready = init.all, init.ready
    if init.reason:
        reason = init.reason
    if not init.reason or _condition(status, "Initialized"):
        tally = init.sidecars
        main, ready_mains = _main_reason(status, reason, tally)
        reason, ready = main, ready + ready_mains
    if pod.get("metadata", {}).get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in TERMINAL_PHASES:
            reason = "Terminating"
    return PodSummary(f"{ready}/{total}", reason, tally.text(now))


def _phase_reason(status: Json) -> str:
    gated = any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated"
        for c in status.get("conditions", ())
    )
    if gated:
        return "SchedulingGated"
    return str(status.get("reason") or status.get("phase") or "Pending")


class _Init(NamedTuple):
    reason: str  # "" after initialization
    ready: int  # sidecars that are ready
    all: _Tally
    sidecars: _Tally


def _init_progress(spec: Json, status: Json, sidecars: set[str]) -> _Init:
    """Evaluate the init containers up to the first that is not done. That one determines the pod's status."""
    everyone, restartable, ready = _Tally(), _Tally(), 0
    for index, container in enumerate(status.get("initContainerStatuses", ())):
        sidecar = container.get("name") in sidecars
        everyone.add(container)
        if sidecar:
            restartable.add(container)
        state = container.get("state", {})
        terminated, waiting = state.get("terminated"), state.get("waiting") or {}
        if terminated and terminated.get("exitCode", 0) == 0:
            continue
        if sidecar and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        if terminated:
            reason = f"Init:{_ended(terminated)}"
        elif waiting.get("reason") and waiting["reason"] != "PodInitializing":
            reason = f"Init:{waiting['reason']}"
        else:
            reason = f"Init:{index}/{len(spec.get('initContainers', ()))}"
        return _Init(reason, ready, everyone, restartable)
    return _Init("", ready, everyone, restartable)


def _main_reason(status: Json, reason: str, tally: _Tally) -> tuple[str, int]:
    """Return the reason and the number of ready containers. The loop runs backwards, so the first container takes
    precedence."""
    running, ready, failure = False, 0, ""
    for container in reversed(status.get("containerStatuses", ())):
        tally.add(container)
        state = container.get("state", {})
        waiting, terminated = state.get("waiting") or {}, state.get("terminated")
        if waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated:
            reason = _ended(terminated)
            if terminated.get("exitCode", 0) != 0:
                failure = reason
        elif container.get("ready") and "running" in state:
            running = True
            ready += 1
    if reason == "Completed":
        if running and _condition(status, "Ready"):
            reason = "Running"
        elif failure or running:
            reason = failure or "NotReady"
    return reason, ready


def _ended(terminated: Json) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _condition(status: Json, kind: str) -> bool:
    return any(c.get("type") == kind and c.get("status") == "True" for c in status.get("conditions", ()))


def pod_cells(pod: Json, now: float) -> Cells:
    spec, status, metadata = pod.get("spec", {}), pod.get("status", {}), pod.get("metadata", {})
    summary = summarize_pod(pod, now)
    addresses = status.get("podIPs") or ([{"ip": status["podIP"]}] if status.get("podIP") else [])
    return [
        metadata.get("name", ""),
        summary.ready,
        summary.status,
        summary.restarts,
        age_of(metadata.get("creationTimestamp"), now),
        addresses[0].get("ip") if addresses else NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _readiness_gates(spec, status),
    ]


def _readiness_gates(spec: Json, status: Json) -> str:
    gates = spec.get("readinessGates", ())
    if not gates:
        return NONE
    met = sum(_condition(status, gate.get("conditionType", "")) for gate in gates)
    return f"{met}/{len(gates)}"


def event_cells(event: Json, now: float) -> Cells:
    if "regarding" in event:  # of events.k8s.io
        from kubelite.api.kube.events.version_1 import as_core

        event = as_core(event)
    series = event.get("series") or {}
    first = age_of(event.get("firstTimestamp") or event.get("eventTime"), now)
    last_time = series.get("lastObservedTime") or event.get("lastTimestamp")
    source = event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    instance = source.get("host") or event.get("reportingInstance") or ""
    return [
        age_of(last_time, now) if last_time else first,
        event.get("type", ""),
        event.get("reason", ""),
        event_object(event),
        (event.get("involvedObject") or {}).get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        str(event.get("message", "")).strip(),
        first,
        series.get("count") or event.get("count") or 1,
        event.get("metadata", {}).get("name", ""),
    ]


def event_object(event: Json) -> str:
    """Return the object of the event in the form pod/web."""
    about = event.get("involvedObject") or {}
    kind = str(about.get("kind", "")).lower()
    return f"{kind}/{about['name']}" if about.get("name") else kind


def config_map_cells(doc: Json, now: float) -> Cells:
    size = len(doc.get("data") or {}) + len(doc.get("binaryData") or {})
    return [doc["metadata"]["name"], size, age_of(doc["metadata"].get("creationTimestamp"), now)]


_SHORT_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def access_modes(modes: Iterable[str] | None) -> str:
    return ",".join(_SHORT_MODES.get(mode, mode) for mode in modes or ())


def _volume_phase(doc: Json) -> str:
    """Return the phase of a PersistentVolume or a claim."""
    going = doc["metadata"].get("deletionTimestamp")
    return "Terminating" if going else str((doc.get("status") or {}).get("phase", ""))


def volume_cells(doc: Json, now: float) -> Cells:
    spec, status, claim = doc.get("spec") or {}, doc.get("status") or {}, doc["spec"].get("claimRef") or {}
    return [
        doc["metadata"]["name"],
        (spec.get("capacity") or {}).get("storage", ""),
        access_modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _volume_phase(doc),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        status.get("reason", ""),
        age_of(doc["metadata"].get("creationTimestamp"), now),
        spec.get("volumeMode") or "<unset>",
    ]


def storage_class_cells(doc: Json, now: float) -> Cells:
    metadata = doc["metadata"]
    default = (metadata.get("annotations") or {}).get(DEFAULT_CLASS) == "true"
    return [
        metadata["name"] + " (default)" * default,
        doc.get("provisioner", ""),
        doc.get("reclaimPolicy") or "Delete",
        doc.get("volumeBindingMode") or "Immediate",
        str(bool(doc.get("allowVolumeExpansion"))).lower(),
        age_of(metadata.get("creationTimestamp"), now),
    ]


def claim_cells(doc: Json, now: float) -> Cells:
    spec, status = doc.get("spec") or {}, doc.get("status") or {}
    return [
        doc["metadata"]["name"],
        _volume_phase(doc),
        spec.get("volumeName", ""),
        (status.get("capacity") or {}).get("storage", ""),
        access_modes(status.get("accessModes")),
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        age_of(doc["metadata"].get("creationTimestamp"), now),
        spec.get("volumeMode") or "<unset>",
    ]


def priority_class_cells(doc: Json, now: float) -> Cells:
    return [
        doc["metadata"]["name"],
        doc.get("value", 0),
        str(bool(doc.get("globalDefault"))).lower(),
        age_of(doc["metadata"].get("creationTimestamp"), now),
        doc.get("preemptionPolicy") or NONE,
    ]


def trust_bundle_cells(doc: Json, now: float) -> Cells:
    return [doc["metadata"]["name"], doc["spec"].get("signerName") or "<none>"]


def secret_cells(doc: Json, now: float) -> Cells:
    metadata = doc["metadata"]
    age = age_of(metadata.get("creationTimestamp"), now)
    return [metadata["name"], doc.get("type") or "Opaque", len(doc.get("data") or {}), age]


def namespace_cells(doc: Json, now: float) -> Cells:
    metadata = doc["metadata"]
    phase = (doc.get("status") or {}).get("phase", "Active")
    return [metadata["name"], phase, age_of(metadata.get("creationTimestamp"), now)]


def node_roles(metadata: Json) -> str:
    prefix = "node-role.kubernetes.io/"
    roles = sorted(k.removeprefix(prefix) for k in metadata.get("labels") or {} if k.startswith(prefix))
    return ",".join(roles) or NONE


def node_cells(doc: Json, now: float) -> Cells:
    metadata, status = doc["metadata"], doc.get("status") or {}
    info = status.get("nodeInfo") or {}
    addresses = {a.get("type"): a.get("address") for a in reversed(status.get("addresses", ()))}
    return [
        metadata["name"],
        ("Ready" if _condition(status, "Ready") else "NotReady")
        + ",SchedulingDisabled" * bool((doc.get("spec") or {}).get("unschedulable")),
        node_roles(metadata),
        age_of(metadata.get("creationTimestamp"), now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP") or NONE,
        addresses.get("ExternalIP") or NONE,
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


_PRINTERS: dict[str, tuple[tuple[Column, ...], Callable[[Json, float], Cells]]] = {
    "Pod": (POD_COLUMNS, pod_cells),
    "Event": (EVENT_COLUMNS, event_cells),
    "ConfigMap": (CONFIG_MAP_COLUMNS, config_map_cells),
    "PersistentVolumeClaim": (CLAIM_COLUMNS, claim_cells),
    "PersistentVolume": (VOLUME_COLUMNS, volume_cells),
    "StorageClass": (STORAGE_CLASS_COLUMNS, storage_class_cells),
    "PriorityClass": (PRIORITY_CLASS_COLUMNS, priority_class_cells),
    "ClusterTrustBundle": (TRUST_BUNDLE_COLUMNS, trust_bundle_cells),
    "Secret": (SECRET_COLUMNS, secret_cells),
    "Namespace": (NAMESPACE_COLUMNS, namespace_cells),
    "Node": (NODE_COLUMNS, node_cells),
}


def table(
    kind: str,
    docs: Iterable[Json],
    *,
    now: float,
    resource_version: int,
    include: str = "Metadata",
    api_version: str = "meta.k8s.io/v1",
) -> Json:
    """Return the Table of these objects. `include` (query includeObject): None, Metadata or Object, for each row."""
    columns, cells = _printer(kind)
    return {
        "kind": "Table",
        "apiVersion": api_version,
        "metadata": {"resourceVersion": str(resource_version)},
        "columnDefinitions": [column._asdict() for column in columns],
        "rows": [_row(cells(doc, now), doc, include, api_version) for doc in docs],
    }


def _printer(kind: str) -> tuple[tuple[Column, ...], Callable[[Json, float], Cells]]:
    if kind in _PRINTERS:
        return _PRINTERS[kind]
    if kind in ("Service", "Endpoints", "EndpointSlice"):
        from kubelite.api.kube.tables.services import PRINTERS as SERVICES

        return SERVICES[kind]
    if kind in ("Ingress", "IngressClass"):
        from kubelite.api.kube.tables.ingresses import PRINTERS as INGRESSES

        return INGRESSES[kind]
    if kind == "NetworkPolicy":
        from kubelite.api.kube.tables.network_policies import PRINTERS as NETWORK_POLICIES

        return NETWORK_POLICIES[kind]
    from kubelite.api.kube.workload_printers import PRINTERS

    return PRINTERS[kind]


def _row(cells: Cells, doc: Json, include: str, api_version: str) -> Json:
    row: Json = {"cells": cells}
    if include == "Object":
        row["object"] = doc
    elif include != "None":
        metadata = doc.get("metadata", {})
        row["object"] = {
            "kind": "PartialObjectMetadata",
            "apiVersion": api_version,
            "metadata": metadata,
        }
    return row

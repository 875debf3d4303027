"""`kubelite why deployment/web`: which condition is not as wanted, which pods are the cause, and which line of the
manifest that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.output.foreign import harmless, indented
from kubelite.cli.workloads.owned import owned_by
from kubelite.cli.workloads.pod_template import POD_SPECS, at
from kubelite.kube.objects import SOURCE

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.cli.workloads.changing import Target
    from kubelite.kube.json import Json

SHOWN = 3  # pods whose reasons are told; the others are counted
#: type of condition → the status that needs an explanation
_BAD = {
    "Available": "False",
    "Progressing": "False",
    "ReplicaFailure": "True",
    "Failed": "True",
    "Suspended": "True",
}
#: part of a sentence → the field of the container that it is about
_FIELDS = (
    ("readiness probe", "readinessProbe"),
    ("startup probe", "startupProbe"),
    ("liveness probe", "livenessProbe"),
    ("ImagePull", "image"),
    ("InvalidImageName", "image"),
    ("pull", "image"),
    ("memory", "resources"),
    ("ConfigMap", "env"),
    ("Secret", "env"),
    ("cannot be executed", "command"),
)


class PodReason(NamedTuple):
    """Why a pod is not ready. `path`: the field of the workload's manifest that it is about; () if unknown."""

    pod: str
    status: str
    reasons: list[str]
    advice: list[str]
    path: tuple[str | int, ...] = ()


def why_workload(server: Client, target: Target) -> Json:
    """Return the explanation of a workload: {"object", "status", "manifest", "conditions", "pods", "events"}."""
    doc = target.doc
    owned = owned_by(server, doc)
    troubled = [pod for pod in owned.pods if not _is_well(pod)]
    told = [_pod_reason(server, doc, pod) for pod in troubled[:SHOWN]]
    source = (doc["metadata"].get("annotations") or {}).get(SOURCE, "")
    return {
        "object": f"{doc['kind']} {target.namespace}/{target.name}",
        "status": status_words(doc),
        "manifest": source,
        "conditions": list(condition_words(doc)),
        "pods": [
            {**one._asdict(), "path": list(one.path), "line": line_of(source, doc, one.path)} for one in told
        ],
        "more": len(troubled) - len(told),
        "events": _warnings(server, doc),
    }


def reasons_of(server: Client, target: Target) -> list[str]:
    """Return the explanation's sentences, for a command that waits in vain."""
    found = why_workload(server, target)
    pods = [
        f"pod {one['pod']}: {sentence}"
        for one in found["pods"]
        for sentence in one["advice"] or one["reasons"]
    ]
    return [*found["conditions"], *pods]


def lines(found: Json) -> list[str]:
    """Return the explanation as text."""
    out = [f"{found['object']}: {found['status']}"]
    out += [f"Manifest: {found['manifest']}"] if found["manifest"] else []
    out += _section("Conditions", found["conditions"])
    if found["pods"]:
        out.append("Pods:")
    for one in found["pods"]:
        where = f", {found['manifest']}:{one['line']}" if one["line"] else ""
        out.append(f"  - {one['pod']} is {harmless(one['status'])}{where}")
        out += [f"      {indented(sentence, ' ' * 6)}" for sentence in (*one["reasons"], *one["advice"])]
    if found["more"]:
        out.append(f"  - {found['more']} more")
    return out + _section("Warnings", found["events"])


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"  - {indented(one, '    ')}" for one in sentences)] if sentences else []


def status_words(doc: Json) -> str:
    """Return the state of a workload in a few words."""
    spec, status = doc.get("spec") or {}, doc.get("status") or {}
    if doc["metadata"].get("deletionTimestamp"):
        return "it is being deleted"
    if doc["kind"] == "CronJob":
        active = len(status.get("active") or ())
        return (
            "it is suspended"
            if spec.get("suspend")
            else f"schedule {spec.get('schedule')}, {active} jobs active"
        )
    if doc["kind"] == "Job":
        active, good, bad = (status.get(key) or 0 for key in ("active", "succeeded", "failed"))
        return f"{good} of {spec.get('completions') or 1} completions, {active} pods active, {bad} failed"
    if doc["kind"] == "DaemonSet":
        ready, wanted = status.get("numberReady") or 0, status.get("desiredNumberScheduled") or 0
    else:
        ready, wanted = status.get("readyReplicas") or 0, spec.get("replicas", 1)
    paused = ", paused" if spec.get("paused") else ""
    return f"{ready} of {wanted} pods are ready{paused}"


def condition_words(doc: Json) -> Iterator[str]:
    """Yield a sentence for each condition that is not as it should be."""
    status, metadata = doc.get("status") or {}, doc["metadata"]
    if (status.get("observedGeneration") or 0) < (metadata.get("generation") or 0) and doc[
        "kind"
    ] != "CronJob":
        yield "its last change has not been observed yet"
    for one in status.get("conditions") or ():
        if _BAD.get(one["type"]) == one.get("status") or one.get("reason") == "DeploymentPaused":
            yield f"{one['type']} is {one.get('status')} ({one.get('reason')}): {one.get('message', '')}".rstrip(
                ": "
            )


def _is_well(pod: Json) -> bool:
    status = pod.get("status") or {}
    ready = any(c["type"] == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
    return ready or status.get("phase") == "Succeeded" or bool(pod["metadata"].get("deletionTimestamp"))


def _pod_reason(server: Client, doc: Json, pod: Json) -> PodReason:
    name, namespace = pod["metadata"]["name"], pod["metadata"].get("namespace") or "default"
    try:
        found = server.get(f"/kubelite/v1/why/{namespace}/{name}")
    except ServerError as error:
        if error.reason != "NotFound":
            raise
        return PodReason(name, "Pending", ["the node has not looked at it yet"], [])
    reasons, advice = list(found.get("reasons") or ()), list(found.get("advice") or ())
    path = path_of_trouble(doc, [*reasons, *advice])
    return PodReason(name, str(found.get("status") or ""), reasons, advice, path)


def path_of_trouble(doc: Json, sentences: Sequence[str]) -> tuple[str | int, ...]:
    """Return the field of a workload's document that the sentences about one of its pods are about. Pure."""
    where = POD_SPECS[doc["kind"]]
    spec: Json = at(doc, where) or {}
    for sentence in sentences:
        for key in ("containers", "initContainers"):
            for index, container in enumerate(spec.get(key) or ()):
                name = container["name"]
                if not sentence.startswith((f"{name}: ", f"container {name} ")):
                    continue
                field = next((field for word, field in _FIELDS if word in sentence), "")
                return (*where, key, index, *((field,) if field in container else ()))
    if any("schedul" in sentence for sentence in sentences):
        return where
    return ()


def line_of(source: str, doc: Json, path: Sequence[str | int]) -> int:
    """Return the line of a field in the manifest; 0 if the file cannot be read here, or has no such field."""
    if not source or not path:
        return 0
    from manifests.yaml.document import YamlDocument, read_documents

    metadata = doc["metadata"]
    try:
        with open(source, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return 0
    for found in read_documents(text):
        if not isinstance(found, YamlDocument) or not isinstance(found.data, dict):
            continue
        own = found.data.get("metadata") or {}
        place = (found.data.get("kind"), own.get("name"), own.get("namespace") or "default")
        if place == (doc["kind"], metadata["name"], metadata.get("namespace") or "default"):
            return found.locate(tuple(path))[0]
    return 0


def _warnings(server: Client, doc: Json) -> list[str]:
    """Return the messages of the workload's own Warning events, the newest last."""
    about = {"involvedObject.uid": doc["metadata"]["uid"], "type": "Warning"}
    query = {"fieldSelector": ",".join(f"{key}={value}" for key, value in about.items())}
    try:
        items = server.get("/api/v1/events", query=query)["items"]
    except CliError:
        return []
    items.sort(key=lambda event: str(event.get("lastTimestamp")))
    return list(dict.fromkeys(f"{event.get('reason')}: {event.get('message')}" for event in items))[-3:]

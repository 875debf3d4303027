"""`kubelite why deployment/web`: which condition is not as wanted, which pods are the cause, and which line of the
manifest that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.output.foreign import harmless, indented
from kubelite.cli.workloads.owned import owned_by
from kubelite.cli.workloads.pod_template import POD_SPECS, at
from kubelite.cli.workloads.rejected import rejected
from kubelite.cli.workloads.rollout_states import ROLLED_OUT, namespace_flag
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
#: the kinds whose status has observedGeneration
_OBSERVING = ("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet", "DaemonSet")
_NO_TIME_HELPS = ("BackOff", "Err", "Invalid", "Failed")  # in the state of a pod that needs somebody's help
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
    """Return the explanation of a workload: {"object", "status", "manifest", "rejected", "conditions", "pods", "more",
    "advice", "events"}. `rejected`: the errors for which an earlier version of the manifest applies."""
    doc = target.doc
    owned = owned_by(server, doc)
    troubled = [pod for pod in owned.pods if not _is_well(pod)]
    told = [_pod_reason(server, doc, pod) for pod in troubled[:SHOWN]]
    source = (doc["metadata"].get("annotations") or {}).get(SOURCE, "")
    errors = rejected(server, doc)
    return {
        "object": f"{doc['kind']} {target.namespace}/{target.name}",
        "status": status_words(doc, owned.sets),
        "manifest": source,
        "rejected": errors,
        "conditions": list(condition_words(doc)),
        "pods": [
            {**one._asdict(), "path": list(one.path), "line": line_of(source, doc, one.path)} for one in told
        ],
        "more": len(troubled) - len(told),
        "advice": rollout_advice(doc, [one.status for one in told]),
        "events": [said for said in _warnings(server, doc) if not any(error in said for error in errors)],
    }


def reasons_of(server: Client, target: Target) -> list[str]:
    """Return the explanation's sentences, for a command that waits in vain."""
    found = why_workload(server, target)
    pods = [
        f"pod {one['pod']}: {sentence}"
        for one in found["pods"]
        for sentence in one["advice"] or one["reasons"]
    ]
    return [*found["rejected"], *found["conditions"], *pods, *found["advice"]]


def lines(found: Json) -> list[str]:
    """Return the explanation as text."""
    out = [f"{found['object']}: {found['status']}"]
    out += [f"Manifest: {found['manifest']}"] if found["manifest"] else []
    out += _section("Errors in the manifest, so that an earlier version of it runs", found["rejected"])
    out += _section("Conditions", found["conditions"])
    if found["pods"]:
        out.append("Pods:")
    for one in found["pods"]:
        where = f", {found['manifest']}:{one['line']}" if one["line"] else ""
        out.append(f"  - {one['pod']} is {harmless(one['status'])}{where}")
        out += [f"      {indented(sentence, ' ' * 6)}" for sentence in (*one["reasons"], *one["advice"])]
    if found["more"]:
        out.append(f"  - {found['more']} more")
    return out + _section("Try", found["advice"]) + _section("Warnings", found["events"])


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    return [f"{title}:", *(f"  - {indented(one, '    ')}" for one in sentences)] if sentences else []


def status_words(doc: Json, sets: Sequence[Json] = ()) -> str:
    """Return the state of a workload in a few words. `sets`: the ReplicaSets of a Deployment."""
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
        counts = f"{good} of {spec.get('completions') or 1} completions, {active} pods active, {bad} failed"
        return f"{ended}; {counts}" if (ended := _job_end(status)) else counts
    if rolling := _rollout_words(doc, sets):
        return rolling
    if doc["kind"] == "DaemonSet":
        ready, wanted = status.get("numberReady") or 0, status.get("desiredNumberScheduled") or 0
    else:
        ready, wanted = status.get("readyReplicas") or 0, spec.get("replicas", 1)
    paused = ", paused" if spec.get("paused") else ""
    return f"{ready} of {wanted} pods are ready{paused}"


def condition_words(doc: Json) -> Iterator[str]:
    """Yield a sentence for each condition that is not as it should be."""
    status = doc.get("status") or {}
    if doc["kind"] in _OBSERVING and not _is_observed(doc):
        yield "its last change has not been observed yet"
    for one in status.get("conditions") or ():
        if _BAD.get(one["type"]) == one.get("status") or one.get("reason") == "DeploymentPaused":
            yield f"{one['type']} is {one.get('status')} ({one.get('reason')}): {one.get('message', '')}".rstrip(
                ": "
            )


def _is_observed(doc: Json) -> bool:
    seen = (doc.get("status") or {}).get("observedGeneration") or 0
    return bool(seen >= (doc["metadata"].get("generation") or 0))


def _job_end(status: Json) -> str:
    """Return `Complete` or `Failed`, with the condition's reason; "" while the Job runs."""
    for one in status.get("conditions") or ():
        if one["type"] in ("Complete", "Failed") and one.get("status") == "True":
            return f"{one['type']} ({one['reason']})" if one.get("reason") else str(one["type"])
    return ""


def is_rolling(doc: Json) -> bool:
    """Whether pods of an earlier template are still to be replaced. Pods that only start are no rollout."""
    spec, status = doc.get("spec") or {}, doc.get("status") or {}
    if doc["kind"] not in ROLLED_OUT or not _is_observed(doc):
        return False
    if doc["kind"] == "DaemonSet":
        updated, every = status.get("updatedNumberScheduled") or 0, status.get("currentNumberScheduled") or 0
        return bool(updated < every)
    updated, every = status.get("updatedReplicas") or 0, status.get("replicas") or 0
    if doc["kind"] == "StatefulSet":  # those below the partition keep the earlier template
        updates = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
        every = min(every, spec.get("replicas", 1) - (updates.get("partition") or 0))
    return bool(updated < every)


def _rollout_words(doc: Json, sets: Sequence[Json]) -> str:
    """Say how far a rollout has come, and which pods serve meanwhile; "" without a rollout."""
    if not is_rolling(doc):
        return ""
    spec, status = doc["spec"], doc["status"]
    if doc["kind"] == "DaemonSet":
        updated, wanted = status.get("updatedNumberScheduled") or 0, status.get("desiredNumberScheduled") or 0
        ready = status.get("numberReady") or 0
    else:
        updated, wanted = status.get("updatedReplicas") or 0, spec.get("replicas", 1)
        ready = status.get("readyReplicas") or 0
    state = "the rollout is paused" if spec.get("paused") else "a rollout is in progress"
    serving = f"{ready} pods are ready"
    if doc["kind"] == "Deployment" and sets:
        newest = max(sets, key=_revision)
        old = sum((one.get("status") or {}).get("readyReplicas") or 0 for one in sets if one is not newest)
        serving = f"{old} old pod{' serves' if old == 1 else 's serve'} meanwhile"
    return f"{state}: {updated} of {wanted} pods are updated, {serving}"


def _revision(one: Json) -> int:
    number = (one["metadata"].get("annotations") or {}).get("deployment.kubernetes.io/revision", "")
    return int(number) if number.isdigit() else 0


def rollout_advice(doc: Json, states: Sequence[str]) -> list[str]:
    """Return what helps with a rollout that does not end by itself. `states`: of its pods that are not ready. Pure."""
    if not is_rolling(doc):
        return []
    name, where = f"{doc['kind'].lower()}/{doc['metadata']['name']}", namespace_flag(doc)
    if doc["spec"].get("paused"):
        return [f"resume the rollout: kubelite rollout resume {name}{where}"]
    conditions = doc["status"].get("conditions") or ()
    late = any(one.get("reason") == "ProgressDeadlineExceeded" for one in conditions)
    if late or any(word in state for state in states for word in _NO_TIME_HELPS):
        return [f"correct the manifest, or restore the revision before: kubelite rollout undo {name}{where}"]
    return []


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
    from manifests.yaml.object_names import GeneratedNames, objects_in

    metadata = doc["metadata"]
    try:
        with open(source, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return 0
    names = GeneratedNames(source)
    for found in read_documents(text):
        if not isinstance(found, YamlDocument):
            continue
        for prefix, item in objects_in(found.data):
            if not isinstance(item, dict):
                continue
            own = names.named(item).get("metadata") or {}
            place = (item.get("kind"), own.get("name"), own.get("namespace") or "default")
            if place == (doc["kind"], metadata["name"], metadata.get("namespace") or "default"):
                return found.locate((*prefix, *path))[0]
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

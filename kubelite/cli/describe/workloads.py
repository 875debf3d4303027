"""Format the text of `describe` for workloads, from documents and `now`. Pure.

Layout, order and wording are kubectl's (kubectl pkg/describe/describe.go, a function per kind).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from kubelite.cli.describe.parts import annotation_lines, date, label_lines, with_events
from kubelite.cli.describe.pod_template import template_lines
from kubelite.kube.durations import human_duration
from kubelite.kube.label_selectors import selector_of, selector_text
from kubelite.kube.times import parse_time

if TYPE_CHECKING:
    from kubelite.kube.json import Json

Events = Sequence["Json"] | None
LONGEST = 50  # characters of a list of indexes, about


class Owned(NamedTuple):
    """The objects that a workload controls."""

    pods: Sequence[Json] = ()
    sets: Sequence[Json] = ()  # ReplicaSets of a Deployment


def describe_deployment(doc: Json, owned: Owned) -> list[str]:
    spec, status = doc["spec"], doc.get("status") or {}
    counts = (
        f"{spec.get('replicas', 1)} desired",
        f"{status.get('updatedReplicas') or 0} updated",
        f"{status.get('replicas') or 0} total",
        f"{status.get('availableReplicas') or 0} available",
        f"{status.get('unavailableReplicas') or 0} unavailable",
    )
    strategy = spec.get("strategy") or {}
    out = [
        *_names(doc),
        f"CreationTimestamp:\t{date(doc['metadata'].get('creationTimestamp'))}",
        *_notes(doc),
        f"Selector:\t{_selector(doc)}",
        f"Replicas:\t{' | '.join(counts)}",
        f"StrategyType:\t{strategy.get('type', '')}",
        f"MinReadySeconds:\t{spec.get('minReadySeconds') or 0}",
    ]
    if rolling := strategy.get("rollingUpdate"):
        most = f"{rolling.get('maxUnavailable')} max unavailable, {rolling.get('maxSurge')} max surge"
        out.append(f"RollingUpdateStrategy:\t{most}")
    out += [*template_lines(spec["template"]), *_conditions(status)]
    new = new_set(doc, owned.sets)
    old = [one for one in owned.sets if one is not new]
    if not old and new is None:
        return out
    return [*out, f"OldReplicaSets:\t{_sets(old)}", f"NewReplicaSet:\t{_sets([new] if new else [])}"]


def new_set(deployment: Json, sets: Iterable[Json]) -> Json | None:
    """Return the ReplicaSet of the Deployment's present template: the one with the Deployment's revision."""
    revision = (deployment["metadata"].get("annotations") or {}).get(REVISION)
    for one in sets:
        if revision is not None and (one["metadata"].get("annotations") or {}).get(REVISION) == revision:
            return one
    return None


REVISION = "deployment.kubernetes.io/revision"


def _sets(sets: Sequence[Json]) -> str:
    found = [
        f"{one['metadata']['name']} ({(one.get('status') or {}).get('replicas') or 0}/"
        f"{one['spec'].get('replicas', 1)} replicas created)"
        for one in sets
    ]
    return ", ".join(found) or "<none>"


def describe_replica_set(doc: Json, owned: Owned) -> list[str]:
    spec, status = doc["spec"], doc.get("status") or {}
    return [
        *_names(doc),
        f"Selector:\t{_selector(doc)}",
        *_notes(doc),
        *_controller(doc),
        f"Replicas:\t{status.get('replicas') or 0} current / {spec.get('replicas', 1)} desired",
        _pods_status(owned.pods),
        *template_lines(spec["template"]),
        *_conditions(status),
    ]


def describe_stateful_set(doc: Json, owned: Owned) -> list[str]:
    spec, status = doc["spec"], doc.get("status") or {}
    strategy = spec.get("updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    out = [
        *_names(doc),
        f"CreationTimestamp:\t{date(doc['metadata'].get('creationTimestamp'))}",
        f"Selector:\t{_selector(doc)}",
        *_notes(doc),
        f"Replicas:\t{spec.get('replicas', 1)} desired | {status.get('replicas') or 0} total",
        f"Update Strategy:\t{strategy.get('type', '')}",
    ]
    if rolling.get("partition") is not None:
        out.append(f"  Partition:\t{rolling['partition']}")
        if rolling.get("maxUnavailable") is not None:
            out.append(f"  MaxUnavailable:\t{rolling['maxUnavailable']}")
    out += [_pods_status(owned.pods), *template_lines(spec["template"])]
    return out + _claims(spec.get("volumeClaimTemplates") or [])


def _claims(templates: Sequence[Json]) -> list[str]:
    if not templates:
        return ["Volume Claims:\t<none>"]
    out = ["Volume Claims:"]
    for claim in templates:
        metadata, spec = claim["metadata"], claim.get("spec") or {}
        labels = label_lines("Labels", metadata.get("labels") or {})
        annotations = label_lines("Annotations", metadata.get("annotations") or {})
        requests = (spec.get("resources") or {}).get("requests") or {}
        out += [
            f"  Name:\t{metadata['name']}",
            f"  StorageClass:\t{spec.get('storageClassName') or ''}",
            *(f"  {line}" for line in (*labels, *annotations)),
            f"  Capacity:\t{requests.get('storage', '<default>')}",
            f"  Access Modes:\t[{' '.join(spec.get('accessModes') or ())}]",
        ]
    return out


def describe_daemon_set(doc: Json, owned: Owned) -> list[str]:
    spec, status = doc["spec"], doc.get("status") or {}
    nodes = (
        ("Desired Number of Nodes Scheduled", "desiredNumberScheduled"),
        ("Current Number of Nodes Scheduled", "currentNumberScheduled"),
        ("Number of Nodes Scheduled with Up-to-date Pods", "updatedNumberScheduled"),
        ("Number of Nodes Scheduled with Available Pods", "numberAvailable"),
        ("Number of Nodes Misscheduled", "numberMisscheduled"),
    )
    selected = spec["template"]["spec"].get("nodeSelector") or {}
    return [
        *_names(doc),
        f"Selector:\t{_selector(doc)}",
        f"Node-Selector:\t{_pairs(selected) or '<none>'}",
        *_notes(doc),
        *(f"{title}: {status.get(key) or 0}" for title, key in nodes),
        _pods_status(owned.pods),
        *template_lines(spec["template"]),
    ]


def describe_job(doc: Json, _owned: Owned) -> list[str]:
    spec, status = doc["spec"], doc.get("status") or {}
    out = [
        *_names(doc),
        f"Selector:\t{_selector(doc)}",
        *_notes(doc),
        *_controller(doc),
        *_given(spec, "parallelism", "Parallelism"),
        f"Completions:\t{_or_unset(spec.get('completions'))}",
        *_given(spec, "completionMode", "Completion Mode"),
        *_given(spec, "suspend", "Suspend"),
        *_given(spec, "backoffLimit", "Backoff Limit"),
        *_given(spec, "ttlSecondsAfterFinished", "TTL Seconds After Finished"),
    ]
    begin, end = status.get("startTime"), status.get("completionTime")
    out += [f"Start Time:\t{date(begin)}"] if begin else []
    out += [f"Completed At:\t{date(end)}"] if end else []
    if begin and end:
        out.append(f"Duration:\t{human_duration((parse_time(end) or 0.0) - (parse_time(begin) or 0.0))}")
    if spec.get("activeDeadlineSeconds") is not None:
        out.append(f"Active Deadline Seconds:\t{spec['activeDeadlineSeconds']}s")
    ready = "" if status.get("ready") is None else f" ({status['ready']} Ready)"
    ended = f"{status.get('succeeded') or 0} Succeeded / {status.get('failed') or 0} Failed"
    out.append(f"Pods Statuses:\t{status.get('active') or 0} Active{ready} / {ended}")
    if spec.get("completionMode") == "Indexed":
        out.append(f"Completed Indexes:\t{_indexes(status.get('completedIndexes') or '')}")
    return out + template_lines(spec["template"])


def _indexes(text: str) -> str:
    """Cut a list of indexes at the first comma after LONGEST characters."""
    comma = text.find(",", LONGEST)
    return "<none>" if not text else text if comma < 0 else f"{text[: comma + 1]}..."


def describe_cron_job(doc: Json, _owned: Owned) -> list[str]:
    spec, status = doc["spec"], doc.get("status") or {}
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    deadline = spec.get("startingDeadlineSeconds")
    suspended = spec.get("suspend")
    out = [
        *_names(doc),
        *_notes(doc),
        f"Schedule:\t{spec.get('schedule', '')}",
        f"Concurrency Policy:\t{spec.get('concurrencyPolicy', '')}",
        f"Suspend:\t{_or_unset(suspended)}",
        f"Successful Job History Limit:\t{_or_unset(spec.get('successfulJobsHistoryLimit'))}",
        f"Failed Job History Limit:\t{_or_unset(spec.get('failedJobsHistoryLimit'))}",
        f"Starting Deadline Seconds:\t{'<unset>' if deadline is None else f'{deadline}s'}",
        f"Selector:\t{selector_text(job['selector']) if job.get('selector') else '<unset>'}",
        f"Parallelism:\t{_or_unset(job.get('parallelism'))}",
        f"Completions:\t{_or_unset(job.get('completions'))}",
    ]
    if job.get("activeDeadlineSeconds") is not None:
        out.append(f"Active Deadline Seconds:\t{job['activeDeadlineSeconds']}s")
    out += template_lines(job.get("template") or {})
    last = status.get("lastScheduleTime")
    active = ", ".join(one.get("name", "") for one in status.get("active") or ())
    return [
        *out,
        f"Last Schedule Time:\t{date(last) if last else '<unset>'}",
        f"Active Jobs:\t{active or '<none>'}",
    ]


# -- parts ------------------------------------------------------------------------------------------------------


def _names(doc: Json) -> list[str]:
    metadata = doc["metadata"]
    return [f"Name:\t{metadata['name']}", f"Namespace:\t{metadata.get('namespace', '')}"]


def _notes(doc: Json) -> list[str]:
    metadata = doc["metadata"]
    return [
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
    ]


def _controller(doc: Json) -> list[str]:
    owner = next((o for o in doc["metadata"].get("ownerReferences") or () if o.get("controller")), None)
    return [f"Controlled By:\t{owner['kind']}/{owner['name']}"] if owner else []


def _given(spec: Json, key: str, title: str) -> list[str]:
    value = spec.get(key)
    return [] if value is None else [f"{title}:\t{str(value).lower() if isinstance(value, bool) else value}"]


def _or_unset(value: object) -> str:
    return "<unset>" if value is None else str(value)


def _pods_status(pods: Sequence[Json]) -> str:
    phases = [(pod.get("status") or {}).get("phase") or "Pending" for pod in pods]
    words = (("Running", "Running"), ("Pending", "Waiting"), ("Succeeded", "Succeeded"), ("Failed", "Failed"))
    return "Pods Status:\t" + " / ".join(f"{phases.count(phase)} {word}" for phase, word in words)


def _conditions(status: Json) -> list[str]:
    if not status.get("conditions"):
        return []
    out = ["Conditions:", "  Type\tStatus\tReason", "  ----\t------\t------"]
    return out + [f"  {c['type']} \t{c.get('status')}\t{c.get('reason', '')}" for c in status["conditions"]]


def _selector(doc: Json) -> str:
    selector = selector_of(doc)
    return "<none>" if selector is None else selector_text(selector) or "<none>"


def _pairs(given: Json) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(given.items()))


LINES: dict[str, Callable[[Json, Owned], list[str]]] = {
    "Deployment": describe_deployment,
    "ReplicaSet": describe_replica_set,
    "ReplicationController": describe_replica_set,
    "StatefulSet": describe_stateful_set,
    "DaemonSet": describe_daemon_set,
    "Job": describe_job,
    "CronJob": describe_cron_job,
}


def describe_workload(doc: Json, owned: Owned, events: Events, now: float) -> str:
    return with_events(LINES[doc["kind"]](doc, owned), events, now)

"""kube_job_* and kube_cronjob_* of the stored objects, as in kube-state-metrics (internal/store/job.go, cronjob.go)."""

from __future__ import annotations

from collections.abc import Sequence

from kubelite.controllers.decide.schedules import Times, UnknownZone, parsed, zone_of
from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.telemetry.metrics.kubestate.fields import (
    CREATED,
    Field,
    Kind,
    add_truth,
    conditions_of,
)
from kubelite.telemetry.metrics.kubestate.page import Table, label, owner_labels

#: Reasons for which a Job has failed that have a series of their own.
FAILURES = ("BackoffLimitExceeded", "DeadlineExceeded", "Evicted")

JOB_FIELDS = (
    CREATED,
    Field(
        "spec_parallelism",
        "The maximum desired number of pods the job should run at any given time.",
        "spec.parallelism",
        None,
    ),
    Field(
        "spec_completions",
        "The desired number of successfully finished pods the job should be run with.",
        "spec.completions",
        None,
    ),
    Field(
        "spec_active_deadline_seconds",
        "The duration in seconds relative to the startTime that the job may be active before the system tries "
        "to terminate it.",
        "spec.activeDeadlineSeconds",
        None,
    ),
    Field("status_succeeded", "The number of pods which reached Phase Succeeded.", "status.succeeded"),
    Field("status_active", "The number of actively running pods.", "status.active"),
    Field("status_ready", "The number of ready pods that belong to this Job.", "status.ready"),
    Field(
        "status_start_time",
        "StartTime represents time when the job was acknowledged by the Job Manager.",
        "status.startTime",
        None,
    ),
    Field(
        "status_completion_time",
        "CompletionTime represents time when the job was completed.",
        "status.completionTime",
        None,
    ),
)

CRON_JOB_FIELDS = (
    CREATED,
    Field(
        "status_last_schedule_time",
        "LastScheduleTime keeps information of when was the last time the job was successfully scheduled.",
        "status.lastScheduleTime",
        None,
    ),
    Field(
        "status_last_successful_time",
        "LastSuccessfulTime keeps information of when was the last time the job was completed successfully.",
        "status.lastSuccessfulTime",
        None,
    ),
    Field(
        "spec_suspend", "Suspend flag tells the controller to suspend subsequent executions.", "spec.suspend"
    ),
    Field(
        "spec_starting_deadline_seconds",
        "Deadline in seconds for starting the job if it misses scheduled time for any reason.",
        "spec.startingDeadlineSeconds",
        None,
    ),
    Field(
        "spec_successful_job_history_limit",
        "Successful job history limit tells the controller how many completed jobs should be preserved.",
        "spec.successfulJobsHistoryLimit",
        None,
    ),
    Field(
        "spec_failed_job_history_limit",
        "Failed job history limit tells the controller how many failed jobs should be preserved.",
        "spec.failedJobsHistoryLimit",
        None,
    ),
)


def write_jobs(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("job", "job_name")
    kind.write_labels(t, docs)
    info = kind.gauge(t, "info", "Information about job.")
    for doc in docs:
        t.add(info, kind.head(doc), 1)
    kind.write(t, docs, *JOB_FIELDS)
    _failures(t, kind, docs)
    _ends(t, kind, docs)
    owner = kind.gauge(t, "owner", "Information about the Job's owner.")
    for doc in docs:
        for words in owner_labels(doc["metadata"]):
            t.add(owner, kind.head(doc) + words, 1)


def _failures(t: Table, kind: Kind, docs: Sequence[Json]) -> None:
    """A Job that has failed for a known reason has a series for each of them, with 1 at its own. Otherwise the value is
    the number of failed pods."""
    family = kind.gauge(
        t, "status_failed", "The number of pods which reached Phase Failed and the reason for failure."
    )
    for doc in docs:
        head, count = kind.head(doc), (doc.get("status") or {}).get("failed", 0)
        if not count:
            t.add(family, head, 0)
            continue
        reasons = {found.get("reason") for found in conditions_of(doc) if found["type"] == "Failed"}
        for reason in FAILURES if reasons else ():
            t.add(family, head + label("reason", reason), float(reason in reasons))
        if not reasons.intersection(FAILURES):
            t.add(family, head + label("reason", ""), count)


def _ends(t: Table, kind: Kind, docs: Sequence[Json]) -> None:
    complete = kind.gauge(t, "complete", "The job has completed its execution.")
    failed = kind.gauge(t, "failed", "The job has failed its execution.")
    suspended = kind.gauge(t, "status_suspended", "The number of pods which reached Phase Suspended.")
    for doc in docs:
        for found in conditions_of(doc):
            if found["type"] == "Suspended":
                t.add(suspended, kind.head(doc), float(found["status"] == "True"))
            elif found["type"] in ("Complete", "Failed"):
                family = complete if found["type"] == "Complete" else failed
                add_truth(t, family, kind.head(doc), found["status"], "condition")


def write_cron_jobs(t: Table, docs: Sequence[Json]) -> None:
    kind = Kind("cronjob")
    kind.write_labels(t, docs)
    info = kind.gauge(t, "info", "Info about cronjob.")
    active = kind.gauge(t, "status_active", "Active holds pointers to currently running jobs.")
    version = kind.gauge(
        t, "metadata_resource_version", "Resource version representing a specific version of the cronjob."
    )
    for doc in docs:
        spec, head = doc["spec"], kind.head(doc)
        words = label("schedule", spec["schedule"]) + label(
            "concurrency_policy", spec.get("concurrencyPolicy", "")
        )
        t.add(info, head + words + label("timezone", spec.get("timeZone") or "local"), 1)
        t.add(active, head, len((doc.get("status") or {}).get("active") or ()))
        if str(doc["metadata"].get("resourceVersion", "")).isdigit():
            t.add(version, head, int(doc["metadata"]["resourceVersion"]))
    kind.write(t, docs, *CRON_JOB_FIELDS)
    _next_times(t, kind, docs)


def _next_times(t: Table, kind: Kind, docs: Sequence[Json]) -> None:
    due = kind.gauge(
        t,
        "next_schedule_time",
        "Next time the cronjob should be scheduled. The time after lastScheduleTime, or after the cron job's creation "
        "time if it's never been scheduled. Use this to determine if the job is delayed.",
    )
    invalid = kind.gauge(
        t,
        "schedule_invalid",
        "Emitted with value 1 for cronjobs whose schedule, in its configured timezone, cannot be parsed.",
    )
    for doc in docs:
        spec, head = doc["spec"], kind.head(doc)
        zone = spec.get("timeZone")
        try:
            times = Times(parsed(spec["schedule"]), zone_of(zone) if zone else None)
        except (ValueError, UnknownZone):
            t.add(invalid, head, 1)
            continue
        last = (doc.get("status") or {}).get("lastScheduleTime") or doc["metadata"].get("creationTimestamp")
        since = parse_time(last)
        if since is not None and not spec.get("suspend") and (at := times.next_after(since)) is not None:
            t.add(due, head, at)

"""CronJob: a Job at each time of a schedule.

Source: Kubernetes pkg/controller/cronjob/cronjob_controllerv2.go, utils.go. A Job's name says for which minute it is.
If the daemon was killed after it had created the Job, the name shows that this time has been run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from email.utils import format_datetime
from typing import Any

from kubelite.controllers.decide.schedules import (
    MANY,
    Missed,
    NoSchedule,
    Times,
    UnknownZone,
    missed,
    parsed,
    zone_of,
)
from kubelite.controllers.model import Create, Delete, Effect, Event, Plan, SetStatus, View
from kubelite.controllers.references import controls, is_terminating, owner_reference
from kubelite.kube.jobs import PREFIX, finished_condition
from kubelite.kube.json import Json
from kubelite.kube.objects import reference
from kubelite.kube.times import rfc3339, unix
from manifests.types.workloads.job import Job

SCHEDULED = f"{PREFIX}cronjob-scheduled-timestamp"  # annotation of a Job: the time that it is for
AFTER = 0.1  # seconds after a time at which its Job is created (nextScheduleDelta)


def decide(view: View) -> Plan:
    """Note which Jobs have begun and ended, create the Job whose time has come, and delete old ones (syncCronJob,
    cleanupFinishedJobs)."""
    the = _Round(view)
    the.note_jobs()
    again = None if is_terminating(the.cron) else the.run_due()
    the.clean_up()
    effects: list[Effect] = [*the.replaced, *the.created]
    if the.status != (the.cron.get("status") or {}):
        effects.append(SetStatus(the.cron["metadata"]["uid"], the.status))
    return Plan([*effects, *the.outdated, *the.events], again=again)


def job_name(cron: Json, scheduled: float) -> str:
    """Return the name of the Job for a time: with the minutes since 1970 (getJobName)."""
    return f"{cron['metadata']['name']}-{int(scheduled) // 60}"


def new_job(cron: Json, scheduled: float) -> Json:
    """Return the Job for a time, complete with defaults (getJobFromTemplate2)."""
    metadata, template = cron["metadata"], cron["spec"]["jobTemplate"]
    given = template.get("metadata") or {}
    zone = cron["spec"].get("timeZone")
    stamp = datetime.fromtimestamp(scheduled, zone_of(zone) if zone else UTC).isoformat()
    own: Json = {
        "name": job_name(cron, scheduled),
        "namespace": metadata.get("namespace", "default"),
        "annotations": {**(given.get("annotations") or {}), SCHEDULED: stamp.replace("+00:00", "Z")},
        "ownerReferences": [owner_reference(cron)],
    }
    if given.get("labels"):
        own["labels"] = dict(given["labels"])
    job = Job.parse({"apiVersion": "batch/v1", "kind": "Job", "metadata": own, "spec": template["spec"]})
    job.set_defaults()
    return {"apiVersion": "batch/v1", "kind": "Job", **job.to_json()}


@dataclass(slots=True)
class _Round:
    """One decision in progress. `status`: a copy of the CronJob's, changed step by step."""

    view: View
    cron: Json = field(init=False)
    status: dict[str, Any] = field(init=False)
    jobs: list[Json] = field(init=False)
    replaced: list[Effect] = field(default_factory=list)
    created: list[Effect] = field(default_factory=list)
    outdated: list[Effect] = field(default_factory=list)
    events: list[Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cron = self.view.owner
        self.status = dict(self.cron.get("status") or {})
        self.jobs = [job for job in self.view.of("Job") if controls(self.cron, job)]

    @property
    def spec(self) -> Json:
        found: Json = self.cron["spec"]
        return found

    @property
    def active(self) -> list[Json]:
        return list(self.status.get("active") or ())

    def _say(self, kind: str, reason: str, message: str) -> None:
        self.events.append(Event(self.cron, kind, reason, message))

    def _set_active(self, active: Sequence[Json]) -> None:
        self.status.pop("active", None)
        if active:
            self.status["active"] = list(active)

    def _forget(self, uid: str) -> None:
        self._set_active([ref for ref in self.active if ref["uid"] != uid])

    def note_jobs(self) -> None:
        """Bring `status.active` and `status.lastSuccessfulTime` up to date."""
        known = {ref["uid"] for ref in self.active}
        for job in self.jobs:
            finished = finished_condition(job)
            if finished is None:
                self._note_running(job, known)
                continue
            if job["metadata"]["uid"] in known:
                self._forget(job["metadata"]["uid"])
                name = job["metadata"]["name"]
                message = f"Saw completed job: {name}, condition: {finished['type']}"
                self._say("Normal", "SawCompletedJob", message)
            at = job["status"].get("completionTime") if finished["type"] == "Complete" else None
            if at and unix(at) > unix(self.status.get("lastSuccessfulTime")):
                self.status["lastSuccessfulTime"] = at
        present = {job["metadata"]["uid"] for job in self.jobs}
        for ref in self.active:
            if ref["uid"] not in present:
                self._forget(ref["uid"])
                self._say("Normal", "MissingJob", f"Active job went missing: {ref['name']}")

    def _note_running(self, job: Json, known: set[str]) -> None:
        """A Job that is not in the list yet has just been created: only now its uid is known."""
        metadata = job["metadata"]
        if metadata["uid"] in known:
            return
        if SCHEDULED in (metadata.get("annotations") or {}):
            self._set_active([*self.active, reference(job)])
        else:
            message = f"Saw a job that the controller did not create or forgot: {metadata['name']}"
            self._say("Warning", "UnexpectedJob", message)

    def run_due(self) -> float | None:
        """Create the Job whose time has come. Return the seconds until the next time."""
        times = self._times()
        if times is None:
            return None
        try:
            due = self._missed(times, deadline=True)
        except NoSchedule as error:
            self._say("Warning", "InvalidSchedule", f"invalid schedule: {self.spec['schedule']} : {error}")
            return None
        if due.latest is not None:
            self._run(due.latest, due.count > MANY)
        return self._next(times)

    def _run(self, scheduled: float, too_many: bool) -> None:
        if too_many:
            message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self._say("Warning", "TooManyMissedTimes", message)
        limit = self.spec.get("startingDeadlineSeconds")
        if limit is not None and scheduled + limit < self.view.now:
            at = format_datetime(datetime.fromtimestamp(scheduled, UTC))
            self._say("Warning", "MissSchedule", f"Missed scheduled time to start a job: {at}")
            return
        name, stamp = job_name(self.cron, scheduled), rfc3339(scheduled)
        if self.status.get("lastScheduleTime") == stamp:
            return
        if any(job["metadata"]["name"] == name for job in self.view.of("Job")):
            if any(job["metadata"]["name"] == name for job in self.jobs):  # a killed daemon created it
                self.status["lastScheduleTime"] = stamp
            return
        policy = self.spec.get("concurrencyPolicy")
        if policy == "Forbid" and self.active:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._say("Normal", "JobAlreadyActive", message)
            return
        if policy == "Replace":
            for job in [ref for ref in self.active if ref["name"] != name]:
                self._delete(job["uid"], job["name"], self.replaced)
        self.created.append(Create(new_job(self.cron, scheduled)))
        self._say("Normal", "SuccessfulCreate", f"Created job {name}")
        self.status["lastScheduleTime"] = stamp

    def _delete(self, uid: str, name: str, effects: list[Effect]) -> None:
        effects.append(Delete(uid))
        self._forget(uid)
        self._say("Normal", "SuccessfulDelete", f"Deleted job {name}")

    def _times(self) -> Times | None:
        """Return the schedule; None if nothing is due because it is suspended or cannot be understood."""
        given, name = self.spec["schedule"], self.spec.get("timeZone")
        try:
            zone = zone_of(name) if name else None
        except UnknownZone as error:
            self._say("Warning", "UnknownTimeZone", f"invalid timeZone: {json.dumps(name)}: {error}")
            return None
        if self.spec.get("suspend"):
            return None
        try:
            return Times(parsed(given), self._zone_in(given) or zone)
        except ValueError as error:
            message = f"unparseable schedule: {json.dumps(given)} : {error}"
            self._say("Warning", "UnparseableSchedule", message)
            return None

    def _zone_in(self, schedule: str) -> tzinfo | None:
        """Return the zone that is written in a schedule, which new manifests must not have (formatSchedule)."""
        if "TZ" not in schedule:
            return None
        message = (
            f"CRON_TZ or TZ used in schedule {json.dumps(schedule)} is not officially supported, see "
            "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        )
        self._say("Warning", "UnsupportedSchedule", message)
        return zone_of(schedule.partition("=")[2].partition(" ")[0])

    def _missed(self, times: Times, *, deadline: bool) -> Missed:
        metadata, now = self.cron["metadata"], self.view.now
        earliest = unix(self.status.get("lastScheduleTime") or metadata.get("creationTimestamp"))
        limit = self.spec.get("startingDeadlineSeconds")
        if deadline and limit is not None:
            earliest = max(earliest, now - limit)
        return missed(times, earliest, now)

    def _next(self, times: Times) -> float | None:
        """Return the seconds until the next time (nextScheduleTimeDuration)."""
        now = self.view.now
        try:
            found = self._missed(times, deadline=False)
        except NoSchedule:
            found = Missed(now)
        since = found.latest
        if since is None:
            since = now if found.count else found.earliest
        at = times.next_after(since)
        return None if at is None else max(at + AFTER - now, 0.0)

    def clean_up(self) -> None:
        """Delete the oldest finished Jobs beyond the limits of the history."""
        for kind, limit in (
            ("Complete", self.spec.get("successfulJobsHistoryLimit")),
            ("Failed", self.spec.get("failedJobsHistoryLimit")),
        ):
            found = [
                job
                for job in self.jobs
                if not is_terminating(job)
                and (finished := finished_condition(job)) is not None
                and finished["type"] == kind
            ]
            if limit is None or len(found) <= limit:
                continue
            for job in sorted(found, key=_begun)[: len(found) - limit]:
                self._delete(job["metadata"]["uid"], job["metadata"]["name"], self.outdated)


def _begun(job: Json) -> tuple[bool, float, str]:
    """byJobStartTime: a Job that never began comes last."""
    began = (job.get("status") or {}).get("startTime")
    return not began, unix(began), job["metadata"]["name"]

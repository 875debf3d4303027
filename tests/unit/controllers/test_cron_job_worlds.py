"""From any random world, with the daemon killed between any two effects, a CronJob runs each time once: never two Jobs
for one minute, never two at once if it forbids that, and the newest time that came is run or was too late."""

from __future__ import annotations

from random import Random

import pytest

from kubelite.controllers.decide import cron_job
from kubelite.controllers.decide.schedules import Times, parsed, zone_of
from kubelite.kube.jobs import finished_condition
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339, unix
from tests.unit.controllers.test_cron_job import cron_doc, finish, new_world
from tests.unit.controllers.world import WORLDS

START = 1_790_000_000.0
SCHEDULES = ("* * * * *", "*/7 * * * *", "0 * * * *", "30 2 * * *", "@every 90s", "@every 2h")


def passed_over(times: Times, earliest: float) -> bool:
    """Whether the times after `earliest` may be passed over until the next one. Their number is estimated from the
    distance of the first two, and the search begins two distances before the last; if the next distance is longer, as
    between minutes 56, 0 and 7, none of the times that have come may be left
    (pkg/controller/cronjob/utils.go, mostRecentScheduleTime)."""
    first = times.next_after(earliest)
    second = times.next_after(first) if first is not None else None
    third = times.next_after(second) if second is not None else None
    assert first is not None and second is not None and third is not None
    return second - first < third - second


class Chaos:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        spec: Json = {
            "schedule": self.random.choice(SCHEDULES),
            "concurrencyPolicy": self.random.choice(["Allow", "Forbid", "Replace"]),
            "successfulJobsHistoryLimit": self.random.choice([0, 1, 3]),
            "failedJobsHistoryLimit": self.random.choice([0, 1]),
            "startingDeadlineSeconds": self.random.choice([None, 30, 600]),
        }
        self.world, self.cron = new_world(START, cron_doc(START, **spec))
        self.spec = spec
        self.stamps: dict[str, str] = {}  # time → uid of its Job
        self.world.check = self.check

    def check(self) -> None:
        jobs = self.world.of("Job")
        for job in jobs:
            stamp, uid = job["metadata"]["annotations"][cron_job.SCHEDULED], job["metadata"]["uid"]
            assert self.stamps.setdefault(stamp, uid) == uid, f"{stamp} is run twice"
            assert unix(stamp) <= self.world.now
        running = [job for job in jobs if finished_condition(job) is None]
        if self.spec["concurrencyPolicy"] != "Allow":
            assert len(running) <= 1

    def live(self) -> None:
        for job in self.world.of("Job"):
            if finished_condition(job) is None and self.random.random() < 0.3:
                finish(self.world, job, self.random.choice(["Complete", "Failed"]), self.world.now)
        if self.random.random() < 0.05 and (found := self.world.of("Job")):
            job = self.random.choice(found)
            if self._recorded(job):
                self.world.vanish(job["metadata"]["uid"])

    def _recorded(self, job: Json) -> bool:
        """Whether the CronJob knows that its time was run. A Job that is deleted between its creation and that, while
        the controller is dead, is created again, here as on a cluster (pkg/controller/cronjob/cronjob_controllerv2.go,
        syncCronJob: the status follows the Job)."""
        cron = self.world.get(self.cron["metadata"]["uid"])
        last = ((cron or {}).get("status") or {}).get("lastScheduleTime")
        return last is not None and unix(last) >= unix(job["metadata"]["annotations"][cron_job.SCHEDULED])

    def run(self) -> None:
        for _ in range(60):
            plan = self.world.decide(self.cron)
            killed = self.random.randrange(len(plan.effects) + 1) if self.random.random() < 0.4 else None
            self.world.apply(plan, most=killed)
            self.live()
            away = self.random.random() < 0.1
            self.world.now += self.random.choice([5000, 400_000]) if away else (plan.again or 1)

    def check_end(self) -> None:
        """Once all is quiet, the newest time is on record, or too long ago, or what runs is in its way."""
        self.world.run_controllers()
        for job in self.world.of("Job"):
            if finished_condition(job) is None:
                finish(self.world, job, "Complete", self.world.now)
        self.world.run_controllers()
        found = self.world.get(self.cron["metadata"]["uid"])
        assert found is not None
        running = [job["metadata"]["uid"] for job in self.world.of("Job") if finished_condition(job) is None]
        assert [ref["uid"] for ref in found["status"].get("active") or ()] == running
        times = Times(parsed(self.spec["schedule"]), zone_of("Etc/UTC"))
        last = unix(found["status"].get("lastScheduleTime") or rfc3339(START))
        due = times.next_after(last)
        limit = self.spec["startingDeadlineSeconds"]
        assert due is not None
        now = self.world.now
        fresh = due if limit is None else times.next_after(now - limit)
        assert fresh is not None
        assert fresh > now or fresh <= last or passed_over(times, max(last, now - (limit or now)))


@pytest.mark.parametrize("part", range(10))
def test_each_time_is_run_once(part: int) -> None:
    for seed in range(part, WORLDS, 10):
        chaos = Chaos(seed)
        try:
            chaos.run()
            chaos.check_end()
        except AssertionError as error:
            raise AssertionError(f"world {seed}: {error}") from error

"""From any random world, with the daemon killed between any two effects, a Job comes to a legal end: each success is
counted once, no index runs again after it has succeeded, and never do more pods run than the Job allows."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from kubelite.controllers.decide import pods
from kubelite.controllers.decide.jobs import indexes
from kubelite.controllers.references import is_terminating
from kubelite.kube.jobs import finished_condition, is_tracked
from kubelite.kube.json import Json
from tests.unit.controllers.jobs import add_pod, job_doc, new_world, now
from tests.unit.controllers.world import WORLDS

STEPS = 3000  # a Job that has not ended after so many steps never will
QUIET = 60  # steps during which people interfere


class Chaos:
    """One world with one Job. `succeeded`: uids of pods that succeeded while they could be counted."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.world, self.job = new_world(job_doc(**self._spec()), seed)
        self.succeeded: set[str] = set()
        self.done_indexes: set[int] = set()
        self.known: set[str] = set()
        self.most = self.job["spec"]["parallelism"]
        for _ in range(self.random.randrange(4)):
            self._add()
        self.known = {pod["metadata"]["uid"] for pod in self.world.of("Pod")}
        self.world.check = self.check

    def _spec(self) -> dict[str, Any]:
        chance = self.random
        indexed = chance.random() < 0.5
        completions = chance.randint(1, 6)
        spec: dict[str, Any] = {
            "completionMode": "Indexed" if indexed else "NonIndexed",
            "completions": completions if indexed or chance.random() < 0.8 else None,
            "parallelism": chance.randint(1, 4),
            "backoffLimit": chance.choice([0, 1, 3, 6]),
            "suspend": chance.random() < 0.1,
            "podReplacementPolicy": chance.choice(["TerminatingOrFailed", "Failed"]),
        }
        if chance.random() < 0.3:
            action = chance.choice(["Ignore", "FailJob", "Count"])
            code = {"operator": "In", "values": [7]}
            spec["podFailurePolicy"] = {"rules": [{"action": action, "onExitCodes": code}]}
            spec["podReplacementPolicy"] = "Failed"
        if indexed and chance.random() < 0.5:
            spec |= {"backoffLimitPerIndex": chance.choice([0, 1, 2]), "backoffLimit": 2**31 - 1}
            spec["maxFailedIndexes"] = chance.choice([None, 0, 2])
        if indexed and chance.random() < 0.3:
            spec["successPolicy"] = {"rules": [{"succeededCount": 1}]}
        if chance.random() < 0.2:
            spec["activeDeadlineSeconds"] = chance.choice([5, 300])
        return spec

    def _add(self) -> None:
        phase = self.random.choice(["Pending", "Running", "Succeeded", "Failed"])
        index = self.random.choice([None, 0, 1, 2, 9]) if self.indexed else None
        pod = add_pod(self.world, self.job, phase, index=index, ended_at=self.world.now - 30)
        if phase == "Succeeded":
            self._succeeded(pod)

    @property
    def indexed(self) -> bool:
        return bool(self.job["spec"]["completionMode"] == "Indexed")

    @property
    def current(self) -> Json:
        return now(self.world, self.job)

    def _succeeded(self, pod: Json) -> None:
        uid, status = pod["metadata"]["uid"], self.current["status"]
        if is_tracked(pod):
            self.done_indexes.add(indexes.index_of(pod))
            if uid not in (status.get("uncountedTerminatedPods") or {}).get("failed", ()):
                self.succeeded.add(uid)  # otherwise it counts as failed: it was terminating before

    def check(self) -> None:
        """What holds after every effect."""
        job, found = self.current, self.world.of("Pod")
        new = [pod for pod in found if pod["metadata"]["uid"] not in self.known]
        self.known |= {pod["metadata"]["uid"] for pod in new}
        if not new:
            return
        assert finished_condition(job) is None, "a finished Job creates no pods"
        active = [pod for pod in found if pods.is_active(pod)]
        assert len(active) <= job["spec"]["parallelism"]
        if job["spec"]["podReplacementPolicy"] == "Failed":
            still = [pod for pod in found if pods.still_terminates(pod)]
            assert len(active) + len(still) <= job["spec"]["parallelism"]
        if self.indexed:
            again = {indexes.index_of(pod) for pod in new} & self.done_indexes
            assert not again, f"indexes {again} run again"
            running = [indexes.index_of(pod) for pod in active]
            assert len(set(running)) == len(running), "two pods of one index"
        elif (completions := job["spec"].get("completions")) is not None:
            assert len(active) + len(self.succeeded) <= completions, "a completion too many may come"

    def live(self) -> None:
        """The node does something with one pod, or with all."""
        for pod in self.world.of("Pod"):
            if self.random.random() < 0.5:
                continue
            if is_terminating(pod):
                if self.random.random() < 0.3 and pods.is_active(pod):
                    self._end(pod)
                else:
                    self.world.terminate(pod)
            elif pods.phase(pod) == "Pending":
                self.world.start(pod)
            elif pods.phase(pod) == "Running" and self.random.random() < 0.5:
                self._end(pod)

    def _end(self, pod: Json) -> None:
        if self.random.random() < 0.7:
            self._succeeded(pod)
            self.world.succeed(pod)
        else:
            self.world.fail(pod, exit_code=self.random.choice([1, 7]))

    def interfere(self) -> None:
        """A person edits the Job, or deletes a pod."""
        chance = self.random.random()
        if chance < 0.1:
            self.world.edit(self.current, lambda new: new["spec"].update(suspend=self.random.random() < 0.5))
        elif chance < 0.2:
            new_one = self.random.randint(1, 4)
            self.world.edit(self.current, lambda new: new["spec"].update(parallelism=new_one))
        elif chance < 0.3 and (found := self.world.of("Pod")):
            self.world.delete(self.random.choice(found)["metadata"]["uid"])

    def run(self) -> None:
        for step in range(STEPS):
            if step < QUIET:
                self.interfere()
            elif self.current["spec"].get("suspend"):
                self.world.edit(self.current, lambda new: new["spec"].update(suspend=False))
            plan = self.world.decide(self.job)
            killed = self.random.randrange(len(plan.effects) + 1) if self.random.random() < 0.4 else None
            self.world.apply(plan, most=killed)
            self.live()
            self.world.now += plan.again if plan.again and self.random.random() < 0.3 else 1
            if step > QUIET and killed is None and self.is_over():
                return
        raise AssertionError(f"the Job does not end: {self.current['status']}")

    def is_over(self) -> bool:
        found = self.world.of("Pod")
        if finished_condition(self.current) is None or any(is_terminating(pod) for pod in found):
            return False
        return not self.world.decide(self.job).effects

    def check_end(self) -> None:
        status, spec = self.current["status"], self.job["spec"]
        found = self.world.of("Pod")
        assert not any(pods.is_active(pod) or is_tracked(pod) for pod in found)
        assert status["uncountedTerminatedPods"] == {} and status["terminating"] == status["ready"] == 0
        assert "active" not in status
        if self.indexed:
            valid = {index for index in self.done_indexes if 0 <= index < spec["completions"]}
            done = indexes.with_indexes((), valid)
            assert status.get("completedIndexes", "") == indexes.text_of(done)
            assert status.get("succeeded", 0) == len(valid)
        else:
            assert status.get("succeeded", 0) == len(self.succeeded)
        condition = finished_condition(self.current)
        assert condition is not None
        reason = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[condition["type"]]
        assert reason in [one["type"] for one in status["conditions"]]
        if condition["reason"] == "CompletionsReached":
            assert status["succeeded"] >= (spec.get("completions") or 1)


@pytest.mark.parametrize("part", range(10))
def test_a_job_comes_to_a_legal_end(part: int) -> None:
    for seed in range(part, WORLDS, 10):
        chaos = Chaos(seed)
        try:
            chaos.run()
            chaos.check_end()
        except AssertionError as error:
            raise AssertionError(f"world {seed}: {error}") from error


def test_worlds_end_in_every_way() -> None:
    """The property above says something: its worlds complete and fail, for different reasons."""
    reasons = set()
    for seed in range(150):
        chaos = Chaos(seed)
        chaos.run()
        condition = finished_condition(chaos.current)
        assert condition is not None
        reasons.add(condition["reason"])
    assert reasons >= {"CompletionsReached", "SuccessPolicy", "BackoffLimitExceeded", "PodFailurePolicy"}
    assert reasons >= {"FailedIndexes", "DeadlineExceeded"}

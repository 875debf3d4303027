"""From any random world, evictions never take more healthy pods than the budget allows, and the budget comes to the
counts of the pods that there are, whatever kills came between the two writes of an eviction."""

from __future__ import annotations

from random import Random

import pytest

from kubelite.controllers.decide import disruption, evictions
from kubelite.controllers.decide.pods import is_ready
from kubelite.controllers.model import SetStatus, View
from kubelite.controllers.references import is_terminating
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339
from tests.unit.controllers.test_disruption import READY, pdb, pod, workload
from tests.unit.controllers.world import START, WORLDS


class Trial:
    """A ReplicaSet with pods that become ready, fail, are evicted and are replaced, and its budget."""

    def __init__(self, seed: int) -> None:
        self.random = choose = Random(seed)
        self.now = START
        self.owner = workload("ReplicaSet", choose.randint(1, 6))
        field = choose.choice(["minAvailable", "maxUnavailable"])
        spec: Json = {field: choose.choice([0, 1, 2, "25%", "50%", "100%"])}
        if policy := choose.choice(["", "AlwaysAllow", "IfHealthyBudget"]):
            spec["unhealthyPodEvictionPolicy"] = policy
        self.budget = pdb(**spec)
        self.pods: dict[str, Json] = {}
        self.count = 0

    @property
    def wanted(self) -> int:
        return int(self.owner["spec"]["replicas"])

    def healthy(self) -> int:
        return sum(is_ready(one) and not is_terminating(one) for one in self.pods.values())

    def decide(self) -> None:
        view = View(
            self.budget,
            self.now,
            {"Pod": tuple(self.pods.values()), "ReplicaSet": (self.owner,)},
        )
        for effect in disruption.decide(view).effects:
            if isinstance(effect, SetStatus):
                self.budget = {**self.budget, "status": effect.status}

    def step(self) -> None:
        choose, names = self.random, [*self.pods]
        self.now += choose.choice([0, 1, 30, 130])
        match choose.randrange(6):
            case 0:
                if sum(not is_terminating(one) for one in self.pods.values()) < self.wanted:
                    self.count += 1
                    self.pods[f"p{self.count}"] = pod(
                        f"p{self.count}", self.owner, ready=choose.random() < 0.7
                    )
            case 1 if names:
                self.ready(choose.choice(names), is_ready=choose.random() < 0.7)
            case 2 if names and is_terminating(self.pods[name := choose.choice(names)]):
                del self.pods[name]
            case 3:
                self.owner = {**self.owner, "spec": {"replicas": choose.randint(1, 6)}}
            case _ if names:
                self.evict(choose.choice(names))

    def ready(self, name: str, *, is_ready: bool) -> None:
        found = self.pods[name]
        status = {**found["status"], "conditions": READY if is_ready else []}
        self.pods[name] = {**found, "status": status}

    def evict(self, name: str) -> None:
        self.decide()
        verdict = evictions.judge(self.pods[name], [self.budget], self.now)
        if verdict.code:
            return
        counted = is_ready(self.pods[name]) and not is_terminating(self.pods[name])
        if verdict.budget is not None:
            self.budget = verdict.budget
            if self.random.random() < 0.3:  # the daemon is killed between the two writes
                return
        found = self.pods[name]
        metadata = {**found["metadata"], "deletionTimestamp": rfc3339(self.now)}
        self.pods[name] = {**found, "metadata": metadata}
        desired = self.budget["status"]["desiredHealthy"]
        assert not counted or self.healthy() >= desired, "the budget was not honoured"

    def settle(self) -> None:
        self.pods = {name: one for name, one in self.pods.items() if not is_terminating(one)}
        for name in [*self.pods]:
            self.ready(name, is_ready=True)
        self.now += 2 * disruption.DELETION_TIMEOUT
        self.decide()


@pytest.mark.parametrize("seed", range(WORLDS))
def test_any_world_honours_its_budget(seed: int) -> None:
    trial = Trial(seed)
    for _ in range(60):
        trial.step()
    trial.settle()
    status, found = trial.budget["status"], len(trial.pods)
    assert status["currentHealthy"] == found and "disruptedPods" not in status
    if found:
        assert status["disruptionsAllowed"] == max(0, found - status["desiredHealthy"])
        if "minAvailable" not in trial.budget["spec"] or isinstance(
            trial.budget["spec"]["minAvailable"], str
        ):
            assert status["expectedPods"] == trial.wanted
    before = trial.budget
    trial.decide()
    assert trial.budget == before, "a second look changes nothing"

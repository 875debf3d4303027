"""The number of observations and decisions in a round of a pod: one of each, one more of each after every effect, and
another decision if the written status changes an input of the decision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.model.actions import PodActions
from kubelite.node.model.cri import ObservedPod
from kubelite.node.worker import pod_worker
from tests.unit.node.decide.pod_worlds import UID, container
from tests.unit.node.worker.worker_kit import Node, Run


@dataclass
class Costs:
    observations: int = 0
    decisions: int = 0

    def count(self, node: Node) -> None:
        """Start counting."""
        self.observations = self.decisions = 0
        observe = type(node.fake).observe

        async def observed(uid: str) -> ObservedPod:
            self.observations += 1
            return await observe(node.fake, uid)

        node.fake.observe = observed  # type: ignore[method-assign]

    def __iter__(self) -> Iterator[int]:
        yield from (self.observations, self.decisions)


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Costs:
    found = Costs()

    def decided(*of: Any) -> PodActions:
        found.decisions += 1
        return compute_pod_actions(*of)

    monkeypatch.setattr(pod_worker, "compute_pod_actions", decided)
    return found


async def started(node: Node, **spec: Any) -> None:
    await node.put(container("app"), **spec)
    await node.settle()


async def new(node: Node) -> None:
    await node.put(container("app"))


async def at_rest(node: Node) -> None:
    await started(node)


async def probe_changed(node: Node) -> None:
    await started(node)
    await node.put(container("app", readinessProbe={"tcpSocket": {"port": 80}, "initialDelaySeconds": 60}))


async def crashed(node: Node) -> None:
    await started(node)
    node.fake.exit(UID, "app", 1)


async def crashed_twice(node: Node) -> None:
    await crashed(node)
    await node.settle()
    node.fake.exit(UID, "app", 1)


async def job_over(node: Node) -> None:
    await started(node, restartPolicy="Never")
    node.fake.exit(UID, "app", 0)


async def deleted(node: Node) -> None:
    await started(node)
    await node.delete()


async def edited(node: Node) -> None:
    await started(node)
    await node.put(container("app", args=["other"]))


@pytest.mark.parametrize(
    ("story", "observations", "decisions"),
    [
        (new, 2, 2),  # observed, started, observed
        (at_rest, 1, 0),  # nothing has changed
        (probe_changed, 1, 1),  # nothing is done, and the written status is not an input of the decision
        (crashed, 2, 2),
        (crashed_twice, 2, 2),  # the first attempt is removed; it waits
        (job_over, 2, 3),  # Succeeded is recorded: now the sandbox can be removed
        (deleted, 2, 3),  # stopped, Failed recorded, everything removed: nothing is left to observe
        (edited, 3, 3),  # stopped, started
    ],
)
def test_observations_and_decisions_of_a_round(
    run: Run, costs: Costs, story: Callable[[Node], Awaitable[None]], observations: int, decisions: int
) -> None:
    async def look(node: Node) -> None:
        await story(node)
        costs.count(node)
        await node.worker.reconcile(UID)
        assert tuple(costs) == (observations, decisions)
        costs.count(node)
        if node.store.get_uid(UID) is not None:
            await node.settle()
            assert costs.observations <= 1, "something was left to do"

    run(look)


def test_an_event_during_a_round_is_observed_before_further_effects(run: Run) -> None:
    async def story(node: Node) -> None:
        await job_over(node)
        modify = node.store.modify

        async def written(uid: str, change: Any, **how: Any) -> Any:
            node.woken.add(uid)
            return await modify(uid, change, **how)

        node.store.modify = written  # type: ignore[method-assign]
        assert await node.worker.reconcile(UID) == 0.0
        assert node.status["phase"] == "Succeeded"
        assert UID in node.fake.sandboxes, "the next look sees whether that is still right"
        node.store.modify = modify  # type: ignore[method-assign]
        node.woken.clear()
        assert await node.worker.reconcile(UID) is None
        assert UID not in node.fake.sandboxes

    run(story)


def test_an_edit_during_a_round_is_observed_before_further_effects(run: Run) -> None:
    async def story(node: Node) -> None:
        await job_over(node)
        modify = node.store.modify

        async def overtaken(uid: str, change: Any, **how: Any) -> Any:
            written = await modify(uid, change, **how)
            node.store.modify = modify  # type: ignore[method-assign]
            await node.delete(grace=0)
            return written

        node.store.modify = overtaken  # type: ignore[method-assign]
        assert await node.worker.reconcile(UID) == 0.0
        assert UID in node.fake.sandboxes
        await node.worker.reconcile(UID)
        assert node.store.get_uid(UID) is None

    run(story)

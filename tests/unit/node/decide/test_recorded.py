"""Of a pod's status, a decision reads only what is in `Recorded`: in any random world, a status with the same
`Recorded` gives the same decision."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.node.decide.decision import compute_pod_actions
from kubelite.node.decide.decision_state import recorded
from kubelite.node.decide.pod_status import compute_pod_status
from kubelite.node.model.actions import PodActions
from manifests.types.core import Pod
from tests.unit.node.decide.pod_worlds import CONFIG, UID, World, facts_of, make_pod
from tests.unit.node.decide.test_pod_worlds import Story
from tests.unit.node.fake_cri import FakeCri


class Witness(World):
    """Compares each written status with the previous one."""

    def __init__(self, pod: Pod) -> None:
        super().__init__(pod, FakeCri())
        self.alike = self.different = 0

    def write_status(self, actions: PodActions) -> None:
        before = self.pod
        status = compute_pod_status(before, self.fake.look(UID), actions, self.facts(), CONFIG)
        super().write_status(actions)
        assert type(status).parse(status.to_json()) == status, "it is kept as it was computed"
        if self.pod.status == before.status:
            return
        observed, facts = self.fake.look(UID), self.facts()
        if recorded(before, observed) != recorded(self.pod, observed):
            self.different += 1
            return
        self.alike += 1
        first = compute_pod_actions(before, observed, facts, CONFIG)
        assert compute_pod_actions(self.pod, observed, facts, CONFIG) == first


@pytest.mark.parametrize("seed", range(100))
def test_an_irrelevant_change_of_status_changes_no_decision(seed: int) -> None:
    story = Story(seed)
    if story.rng.random() < 0.3:
        story.spec["activeDeadlineSeconds"] = story.rng.choice([1, 30, 3600])
    witness = story.world = Witness(make_pod(**story.spec))
    story.live(events=15)
    assert witness.alike, "nothing was tried"


@pytest.mark.parametrize(
    ("status", "spec", "differs"),
    [
        ({"phase": "Running"}, {}, False),
        ({"phase": "Succeeded"}, {}, True),
        ({"phase": "Running", "reason": "Evicted", "message": "no room"}, {}, True),
        ({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}, {}, False),
        ({"phase": "Running", "startTime": "2026-01-01T00:00:00Z"}, {"activeDeadlineSeconds": 5}, True),
        ({"phase": "Running", "podIP": "10.0.0.2", "conditions": [{"type": "Ready", "status": "True"}]}, {}, False),
        ({"containerStatuses": [{"name": "app", "ready": False, "restartCount": 2, "image": "app:1", "imageID": "",
          "state": {"terminated": {"exitCode": 1}}}]}, {}, True),
    ],
)  # fmt: skip
def test_the_parts_of_a_status_that_a_decision_reads(
    status: dict[str, Any], spec: dict[str, Any], differs: bool
) -> None:
    pending = make_pod(**spec)
    after = Pod.parse({**pending.to_json(), "status": status})
    observed = FakeCri().look(UID)
    assert (recorded(pending, observed) != recorded(after, observed)) == differs
    facts = facts_of(FakeCri(), pending)
    decisions = [compute_pod_actions(pod, observed, facts, CONFIG) for pod in (pending, after)]
    assert (decisions[0] != decisions[1]) == differs

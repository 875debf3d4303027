"""The progress of a rollout in kubectl's words; kubectl pkg/polymorphichelpers/rollout_status_test.go has the cases."""

from __future__ import annotations

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.workloads.rollout_states import rollout_of
from kubelite.kube.json import Json
from tests.unit.cli.workload_docs import workload

LATE = {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "status": "False"}


def counts(*numbers: int) -> Json:
    names = ("replicas", "updatedReplicas", "availableReplicas", "observedGeneration")
    return dict(zip(names, numbers, strict=False))


@pytest.mark.parametrize(
    ("status", "words", "done", "failed"),
    [
        ({}, "Waiting for deployment spec update to be observed...", False, False),
        ({**counts(1, 0, 1, 1), "conditions": [LATE]}, 'deployment "web" exceeded its progress deadline', False, True),
        (counts(1, 0, 1, 1),
         'Waiting for deployment "web" rollout to finish: 0 out of 2 new replicas have been updated...', False, False),
        (counts(3, 2, 1, 1),
         'Waiting for deployment "web" rollout to finish: 1 old replicas are pending termination...', False, False),
        (counts(2, 2, 1, 1),
         'Waiting for deployment "web" rollout to finish: 1 of 2 updated replicas are available...', False, False),
        (counts(2, 2, 2, 1), 'deployment "web" successfully rolled out', True, False),
    ],
)  # fmt: skip
def test_a_deployment(status: Json, words: str, done: bool, failed: bool) -> None:
    found = rollout_of("Deployment", workload("Deployment", replicas=2, status=status))
    assert (found.words, found.done, found.failed) == (words, done, failed)


def nodes(*numbers: int) -> Json:
    names = ("updatedNumberScheduled", "desiredNumberScheduled", "numberAvailable", "observedGeneration")
    return dict(zip(names, numbers, strict=False))


@pytest.mark.parametrize(
    ("status", "words", "done"),
    [
        ({}, "Waiting for daemon set spec update to be observed...", False),
        (nodes(0, 1, 0, 1), 'Waiting for daemon set "web" rollout to finish: 0 out of 1 new pods have been updated...',
         False),
        (nodes(1, 1, 0, 1), 'Waiting for daemon set "web" rollout to finish: 0 of 1 updated pods are available...',
         False),
        (nodes(1, 1, 1, 1), 'daemon set "web" successfully rolled out', True),
    ],
)  # fmt: skip
def test_a_daemon_set(status: Json, words: str, done: bool) -> None:
    doc = workload("DaemonSet", updateStrategy={"type": "RollingUpdate"}, status=status)
    found = rollout_of("DaemonSet", doc)
    assert (found.words, found.done) == (words, done)


SEEN = {"observedGeneration": 1, "replicas": 3, "readyReplicas": 3, "currentReplicas": 3}


@pytest.mark.parametrize(
    ("partition", "status", "words", "done"),
    [
        (0, {}, "Waiting for statefulset spec update to be observed...", False),
        (0, {**SEEN, "readyReplicas": 1}, "Waiting for 2 pods to be ready...", False),
        (2, {**SEEN, "updatedReplicas": 0},
         "Waiting for partitioned roll out to finish: 0 out of 1 new pods have been updated...", False),
        (2, {**SEEN, "updatedReplicas": 1}, "partitioned roll out complete: 1 new pods have been updated...", True),
        (0, {**SEEN, "updatedReplicas": 1, "updateRevision": "b", "currentRevision": "a"},
         "waiting for statefulset rolling update to complete 1 pods at revision b...", False),
        (0, {**SEEN, "updateRevision": "a", "currentRevision": "a"},
         "statefulset rolling update complete 3 pods at revision a...", True),
    ],
)  # fmt: skip
def test_a_stateful_set(partition: int, status: Json, words: str, done: bool) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}
    doc = workload("StatefulSet", replicas=3, updateStrategy=strategy, status=status)
    found = rollout_of("StatefulSet", doc)
    assert (found.words, found.done) == (words, done)


@pytest.mark.parametrize("kind", ["DaemonSet", "StatefulSet"])
def test_a_strategy_without_a_rollout(kind: str) -> None:
    with pytest.raises(CliError, match="only available for RollingUpdate"):
        rollout_of(kind, workload(kind, updateStrategy={"type": "OnDelete"}))


def test_an_object_that_does_not_exist_yet() -> None:
    assert not rollout_of("Deployment", None).done

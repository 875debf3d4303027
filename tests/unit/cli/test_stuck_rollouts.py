"""What `rollout status` and `why` say of a rollout that does not end by itself: it is paused, it is stuck, or the
manifest's last version does not apply."""

from __future__ import annotations

import pytest

from kubelite.cli.diagnosis import why_workload as why
from kubelite.cli.main import run
from kubelite.cli.workloads import rollout_states
from kubelite.cli.workloads.rollout_states import patience_of, rollout_of
from kubelite.kube.json import Json
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server
from tests.unit.cli.workload_docs import owned, workload

__all__ = ["server"]


def deployment(updated: int, replicas: int, ready: int, *conditions: Json, **spec: object) -> Json:
    status: Json = {"observedGeneration": 1, "updatedReplicas": updated, "replicas": replicas}
    status |= {"readyReplicas": ready, "availableReplicas": ready, "conditions": list(conditions)}
    doc = workload("Deployment", status=status, replicas=3)
    return {**doc, "spec": {**doc["spec"], **spec}}


@pytest.mark.parametrize(
    ("updated", "replicas", "said"),
    [
        (0, 3, True),  # the pods of the earlier template stay
        (1, 4, True),  # paused in the middle
        (0, 0, True),  # created as paused
        (2, 2, False),  # being scaled, which a paused Deployment is
        (3, 3, False),  # nothing to roll out
    ],
)
def test_a_paused_rollout_is_not_waited_for(updated: int, replicas: int, said: bool) -> None:
    found = rollout_of("Deployment", deployment(updated, replicas, replicas, paused=True))
    assert found.failed == said
    assert ("is paused: resume it with kubelite rollout resume deployment/web" in found.words) == said
    assert not rollout_of("Deployment", deployment(updated, replicas, replicas)).failed


def test_status_of_a_paused_rollout_ends_at_once(server: Served) -> None:
    doc = deployment(0, 3, 3, paused=True)
    doc["metadata"]["namespace"] = "prod"
    server.run(server.node.store.create("Deployment", doc))
    done = kubelite(server, "rollout", "status", "deploy/web", "-n", "prod")
    assert (done.returncode, done.stdout) == (1, "")
    resume = "kubelite rollout resume deployment/web -n prod"
    assert done.stderr == f'error: deployment "web" is paused: resume it with {resume}\n'


def test_how_long_a_rollout_may_make_no_progress() -> None:
    assert patience_of(workload("StatefulSet")) == 600
    assert patience_of(workload("DaemonSet", minReadySeconds=900)) == 1500
    for seconds, longest in ((600, 630), (60, 630), (3600, 3630), (2**31 - 1, None)):
        assert patience_of(workload("Deployment", progressDeadlineSeconds=seconds)) == longest


def test_a_set_without_progress_ends_the_wait(
    server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rollout_states, "PROGRESS_SECONDS", 0.5)
    status = {"observedGeneration": 1, "readyReplicas": 1, "replicas": 2}
    doc = workload("StatefulSet", "db", status=status, replicas=2, updateStrategy={"type": "RollingUpdate"})
    server.run(server.node.store.create("StatefulSet", doc))
    assert run(["--socket", server.socket, "rollout", "status", "sts/db"]) == 1
    said = capsys.readouterr()
    assert said.out == "Waiting for 1 pods to be ready...\n"
    assert said.err.startswith("error: statefulset.apps/db exceeded its progress deadline\n")


LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "too slow"}
UNDO = "correct the manifest, or restore the revision before: kubelite rollout undo deployment/web"


def test_why_of_a_stuck_rollout_says_so_first(server: Served) -> None:
    doc = deployment(1, 4, 3, LATE)
    server.run(server.node.store.create("Deployment", doc))
    for number, ready in ((9, 3), (10, 0)):
        annotations = {"deployment.kubernetes.io/revision": str(number)}
        status = {"replicas": ready, "readyReplicas": ready}
        made = workload("ReplicaSet", f"web-{number}", status=status, annotations=annotations)
        server.run(server.node.store.create("ReplicaSet", owned(made, doc)))
    text = ok(server, "why", "deployment/web").splitlines()
    state = "a rollout is in progress: 1 of 3 pods are updated, 3 old pods serve meanwhile"
    assert text[0] == f"Deployment default/web: {state}"
    assert text[-2:] == ["Try:", f"  - {UNDO}"]
    done = kubelite(server, "rollout", "status", "deployment/web")
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == f"  {UNDO}"


@pytest.mark.parametrize(
    ("doc", "states", "advice"),
    [
        (deployment(1, 4, 3), ["ContainerCreating"], []),
        (deployment(1, 4, 3), ["ImagePullBackOff"], [UNDO]),
        (deployment(1, 4, 3), ["CrashLoopBackOff"], [UNDO]),
        (
            deployment(1, 4, 3, paused=True),
            [],
            ["resume the rollout: kubelite rollout resume deployment/web"],
        ),
        (deployment(3, 3, 0, LATE), ["ImagePullBackOff"], []),  # its first revision: there is none before
    ],
)
def test_a_stuck_rollout_can_be_undone(doc: Json, states: list[str], advice: list[str]) -> None:
    assert why.rollout_advice(doc, states) == advice


@pytest.mark.parametrize(
    ("kind", "spec", "status", "rolling"),
    [
        ("StatefulSet", {"replicas": 3}, {"replicas": 3, "updatedReplicas": 1}, True),
        ("StatefulSet", {"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 2}}},
         {"replicas": 3, "updatedReplicas": 1}, False),
        ("DaemonSet", {}, {"currentNumberScheduled": 1}, True),
        ("DaemonSet", {}, {"currentNumberScheduled": 1, "updatedNumberScheduled": 1}, False),
        ("Deployment", {"replicas": 3}, {"replicas": 1, "updatedReplicas": 1}, False),
        ("ReplicaSet", {"replicas": 3}, {"replicas": 3}, False),
    ],
)  # fmt: skip
def test_which_workload_is_rolling(kind: str, spec: Json, status: Json, rolling: bool) -> None:
    doc = workload(kind, status={**status, "observedGeneration": 1}, **spec)
    assert why.is_rolling(doc) == rolling
    assert why.status_words(doc).startswith("a rollout is in progress") == rolling


def job(*conditions: Json, **status: object) -> Json:
    doc = workload("Job", "backup", status={**status, "conditions": list(conditions)}, completions=2)
    doc["metadata"]["generation"] = 1
    return doc


def test_why_says_how_a_job_has_ended() -> None:
    done = {"type": "Complete", "status": "True", "reason": "CompletionsReached", "message": "Reached"}
    complete = job(done, succeeded=2)
    counts = "2 of 2 completions, 0 pods active, 0 failed"
    assert why.status_words(complete) == f"Complete (CompletionsReached); {counts}"
    assert list(why.condition_words(complete)) == []  # a Job has no observedGeneration
    words = "Job has reached the specified backoff limit"
    limit = {"status": "True", "reason": "BackoffLimitExceeded", "message": words}
    failed = job({"type": "FailureTarget", **limit}, {"type": "Failed", **limit}, failed=7)
    assert why.status_words(failed).startswith("Failed (BackoffLimitExceeded); 0 of 2 completions")
    assert list(why.condition_words(failed)) == [f"Failed is True (BackoffLimitExceeded): {words}"]
    assert why.status_words(job(active=1)) == "0 of 2 completions, 1 pods active, 0 failed"


def test_a_manifest_that_is_not_what_runs_is_said(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"{server.node.manifests_dir}/web.yaml"
    status = {"observedGeneration": 1, "updatedReplicas": 1, "replicas": 1, "availableReplicas": 1}
    source = {"kubelite.io/source": file}
    doc = workload("Deployment", status=status, annotations=source, replicas=1)
    server.run(server.node.store.create("Deployment", doc))
    error = {"line": 9, "field": "spec.selector", "message": "field is immutable", "kind": "invalid"}
    error["object"] = "Deployment default/web"
    entry: Json = {"file": file, "status": "Loaded", "objects": ["deployment/default/web"], "loadedAt": ""}

    def served(**more: object) -> None:
        monkeypatch.setattr(server.node, "manifests", lambda: [{**entry, **more}])

    sentence = f"{file}:9: spec.selector: field is immutable"
    for more in ({"errors": [error]}, {"status": "Invalid", "errors": [{**error, "object": ""}]}):
        served(**more)
        done = kubelite(server, "rollout", "status", "deployment/web")
        assert (done.returncode, done.stdout) == (1, "")
        said = "error: deployment.apps/web: an earlier version of its manifest runs"
        assert done.stderr == f"{said}\n  {sentence}\n"
        assert ok(server, "why", "deployment/web").count(sentence) == 1
    for other in ({"kind": "unsupported"}, {"object": "Deployment default/other"}):
        served(errors=[{**error, **other}])
        assert "successfully rolled out" in ok(server, "rollout", "status", "deployment/web")
        assert sentence not in ok(server, "why", "deployment/web")

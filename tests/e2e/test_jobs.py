"""Jobs and CronJobs from files on one node, with a daemon that is killed, as files and the API show them."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelite.kube.times import unix
from tests.e2e.manifests import container
from tests.e2e.node import Node, running_node

JOBS = "/apis/batch/v1/namespaces/default/jobs"
CRON_JOBS = "/apis/batch/v1/namespaces/default/cronjobs"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("jobs"), images) as found:
        yield found


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """The shared node, emptied afterwards."""
    yield shared
    for file in shared.manifests.glob("*.yaml"):
        file.unlink()
    shared.wait(lambda: not items(shared, PODS) and not items(shared, JOBS), "everything to be gone")


def items(node: Node, path: str) -> list[dict[str, Any]]:
    code, body = node.ask(path)
    assert code == 200, body
    found: list[dict[str, Any]] = json.loads(body)["items"]
    return found


def get(node: Node, path: str) -> dict[str, Any]:
    code, body = node.ask(path)
    found: dict[str, Any] = json.loads(body) if code == 200 else {}
    return found


def template(script: str, **spec: Any) -> dict[str, Any]:
    body = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 2,
        "containers": [container(script=script)],
    }
    return {"spec": {**body, **spec}}


def job(name: str, script: str, *, pod: dict[str, Any] | None = None, **spec: Any) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"template": template(script, **(pod or {})), **spec},
        },
        sort_keys=False,
    )


def status(node: Node, name: str) -> dict[str, Any]:
    found: dict[str, Any] = get(node, f"{JOBS}/{name}").get("status") or {}
    return found


def condition(node: Node, name: str, kind: str) -> dict[str, Any]:
    return next((one for one in status(node, name).get("conditions") or () if one["type"] == kind), {})


def has_ended(node: Node, name: str) -> bool:
    return bool(condition(node, name, "Complete") or condition(node, name, "Failed"))


def out_volume(directory: Path, script: str = "true") -> dict[str, Any]:
    """A pod's fields by which its container writes into a directory of the host, at /out."""
    mounted = container(script=script, volumeMounts=[{"name": "out", "mountPath": "/out"}])
    return {
        "volumes": [{"name": "out", "hostPath": {"path": str(directory), "type": "Directory"}}],
        "containers": [mounted],
    }


def test_twenty_jobs_complete(node: Node) -> None:
    node.apply("jobs.yaml", "---\n".join(job(f"true-{number}", "true") for number in range(20)))
    names = [f"true-{number}" for number in range(20)]
    node.wait(lambda: all(condition(node, name, "Complete") for name in names), "20 jobs to complete")
    found = items(node, PODS)
    assert len(found) == 20
    assert all(pod["status"]["phase"] == "Succeeded" for pod in found)
    assert not any(pod["metadata"].get("finalizers") for pod in found)
    for name in names:
        given = status(node, name)
        assert given["succeeded"] == 1 and given["uncountedTerminatedPods"] == {}
        assert unix(given["completionTime"]) >= unix(given["startTime"]) > 0
    shown = node.cli("get", "jobs").out
    assert shown.count("Complete") == 20 and "1/1" in shown


def test_a_failing_job_backs_off_and_fails(node: Node) -> None:
    node.apply("fails.yaml", job("fails", "exit 3", backoffLimit=1))
    node.wait(lambda: has_ended(node, "fails"), "the job to fail", timeout=60.0)
    failed = condition(node, "fails", "Failed")
    assert failed["reason"] == "BackoffLimitExceeded"
    assert failed["message"] == "Job has reached the specified backoff limit"
    assert status(node, "fails")["failed"] == 2
    first, second = sorted(items(node, PODS), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    ended = first["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"]
    assert unix(second["metadata"]["creationTimestamp"]) - unix(ended) >= 9, "10 seconds of back-off"
    reasons = [event["reason"] for event in items(node, "/api/v1/namespaces/default/events")]
    assert "BackoffLimitExceeded" in reasons and reasons.count("SuccessfulCreate") >= 2


def test_a_killed_daemon_runs_each_index_once(node: Node, tmp_path: Path) -> None:
    script = "sleep 0.3; echo $JOB_COMPLETION_INDEX $(hostname) >> /out/ran"
    fields = out_volume(tmp_path)
    fields["containers"][0]["command"][2] = script
    text = job("sum", script, pod=fields, completionMode="Indexed", completions=8, parallelism=2)
    file = node.apply("sum.yaml", text)
    ran = tmp_path / "ran"
    for count in (1, 3, 5):
        node.wait(lambda: ran.exists() and len(ran.read_text().splitlines()) >= count, f"{count} indexes")  # noqa: B023
        node.restart(signal.SIGKILL)
    node.wait(lambda: has_ended(node, "sum"), "the job to complete")
    assert condition(node, "sum", "Complete")["reason"] == "CompletionsReached"
    expected = [f"{index} sum-{index}" for index in range(8)]
    assert sorted(ran.read_text().splitlines()) == expected
    assert status(node, "sum")["completedIndexes"] == "0-7"

    before = get(node, f"{JOBS}/sum")
    node.restart(signal.SIGKILL)
    file.write_text(f"# touched\n{text}")
    node.wait(lambda: node.cli("diff", "-f", str(file)).code == 0, "the file to be read")
    node.wait(lambda: bool(get(node, f"{JOBS}/sum")), "the job")
    assert get(node, f"{JOBS}/sum")["metadata"]["uid"] == before["metadata"]["uid"]
    assert sorted(ran.read_text().splitlines()) == expected
    assert len(items(node, PODS)) == 8


def test_a_deleted_pod_counts_as_failed_and_is_replaced(node: Node) -> None:
    node.apply("long.yaml", job("long", "trap 'exit 7' TERM; while :; do sleep 0.1; done", backoffLimit=3))
    node.wait(lambda: status(node, "long").get("ready") == 1, "the pod to run")
    (pod,) = items(node, PODS)
    assert pod["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    node.cli("delete", "pod", pod["metadata"]["name"])

    def is_replaced() -> bool:
        given = status(node, "long")
        return given.get("failed") == 1 and given.get("ready") == 1 and not given.get("terminating")

    node.wait(is_replaced, "a new pod")
    (new,) = items(node, PODS)
    assert new["metadata"]["uid"] != pod["metadata"]["uid"]


def test_a_suspended_job_ends_its_pods_and_goes_on(node: Node) -> None:
    script = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
    node.apply("paused.yaml", job("paused", script, parallelism=2, completions=2))
    node.wait(lambda: status(node, "paused").get("ready") == 2, "the pods to run")
    node.apply("paused.yaml", job("paused", script, parallelism=2, completions=2, suspend=True))
    node.wait(lambda: not items(node, PODS), "the pods to be gone")
    assert condition(node, "paused", "Suspended")["status"] == "True"
    given = status(node, "paused")
    assert "failed" not in given and "succeeded" not in given and "startTime" not in given
    node.apply("paused.yaml", job("paused", "true", parallelism=2, completions=2))
    node.wait(lambda: has_ended(node, "paused"), "the job to complete")


def test_the_pods_of_a_finished_job_go_after_its_time_and_the_job_stays(node: Node) -> None:
    node.apply("brief.yaml", job("brief", "true", ttlSecondsAfterFinished=1))
    node.wait(lambda: has_ended(node, "brief") and not items(node, PODS), "the pods to be deleted")
    assert condition(node, "brief", "Complete")
    node.restart(signal.SIGKILL)
    node.wait(lambda: has_ended(node, "brief"), "the job on record")
    assert not items(node, PODS), "it is not run again"


def test_a_cron_job_runs_and_takes_what_it_made_with_it(node: Node, tmp_path: Path) -> None:
    fields = out_volume(tmp_path)
    fields["containers"][0]["command"][2] = "date +%s >> /out/ran"
    doc = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "tick"},
        "spec": {"schedule": "@every 1s", "jobTemplate": {"spec": {"template": template("true", **fields)}}},
    }
    file = node.apply("tick.yaml", yaml.safe_dump(doc, sort_keys=False))
    node.wait(lambda: "lastSuccessfulTime" in (get(node, f"{CRON_JOBS}/tick").get("status") or {}), "a run")
    made = items(node, JOBS)
    names = [found["metadata"]["name"] for found in made]
    assert all(name.startswith("tick-") for name in names) and len(set(names)) == len(names)
    assert len((tmp_path / "ran").read_text().splitlines()) == len(items(node, PODS)) == len(made)
    stamp = made[0]["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    assert int(unix(stamp)) // 60 == int(names[0].removeprefix("tick-"))
    assert "tick" in node.cli("get", "cronjobs").out
    file.unlink()
    node.wait(lambda: not items(node, JOBS) and not items(node, PODS), "its jobs and pods to be gone")


def test_generated_names_outlive_an_edit_and_a_killed_daemon(node: Node, tmp_path: Path) -> None:
    """The Jobs of one file run once each; those of `kubelite create` at each call."""
    prefix = json.dumps({"generateName": "sum-"})
    text = job("x", "echo x >> /out/ran", pod=out_volume(tmp_path, "echo x >> /out/ran"))
    text = text.replace("metadata:\n  name: x\n", f"metadata: {prefix}\n")
    node.apply("sums.yaml", f"{text}---\n{text}")

    def names() -> list[str]:
        return [
            one["metadata"]["name"] for one in items(node, JOBS) if has_ended(node, one["metadata"]["name"])
        ]

    node.wait(lambda: len(names()) == 2, "two jobs to complete")
    first = names()
    node.kill(signal.SIGKILL)
    node.apply("sums.yaml", f"# edited\n{text}  backoffLimit: 2\n---\n{text}")
    node.start()
    node.wait(lambda: get(node, f"{JOBS}/{first[0]}")["spec"]["backoffLimit"] == 2 or
              get(node, f"{JOBS}/{first[1]}")["spec"]["backoffLimit"] == 2, "the edit")  # fmt: skip
    assert names() == first and (tmp_path / "ran").read_text() == "x\nx\n"
    given = tmp_path / "given.yaml"
    given.write_text(text)
    made = [node.cli("create", "-f", str(given)).out.split()[0] for _ in range(2)]
    node.wait(lambda: len(names()) == 4, "the created jobs to complete")
    assert {f"job.batch/{name}" for name in names()} - {f"job.batch/{name}" for name in first} == set(made)
    assert (tmp_path / "ran").read_text() == "x\n" * 4
    refused = node.cli("apply", "-f", str(given), check=False)
    assert refused.code == 1 and "from sum-: cannot use generate name with apply" in refused.err


def test_a_reboot_runs_no_index_again_that_has_succeeded(node: Node, tmp_path: Path) -> None:
    wait = "while [ $JOB_COMPLETION_INDEX = 2 ] && [ ! -e /out/go ]; do sleep 0.1; done"
    script = f"echo $JOB_COMPLETION_INDEX >> /out/ran; {wait}"
    fields = out_volume(tmp_path)
    fields["containers"][0]["command"][2] = script
    indexed = {"completionMode": "Indexed", "completions": 3, "parallelism": 1}
    node.apply("done.yaml", job("done", "true"))
    node.apply("sum.yaml", job("sum", script, pod=fields, **indexed))
    node.wait(
        lambda: has_ended(node, "done") and status(node, "sum").get("completedIndexes") == "0,1",
        "two indexes",
    )
    ran = tmp_path / "ran"
    node.wait(lambda: ran.read_text().split() == ["0", "1", "2"], "the third to begin")
    # What begins in the last moment before a power failure is not on the disk yet, and is started again.
    node.wait(lambda: status(node, "sum").get("ready") == 1, "the third to be recorded")
    finished = get(node, f"{JOBS}/done")
    node.reboot()
    node.wait(lambda: status(node, "sum").get("failed") == 1, "the lost pod to count as failed")
    (tmp_path / "go").touch()
    node.wait(lambda: has_ended(node, "sum"), "the job to complete")
    assert condition(node, "sum", "Complete")
    assert ran.read_text().split() == ["0", "1", "2", "2"], "only the lost one again"
    assert get(node, f"{JOBS}/done") == finished

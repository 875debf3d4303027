"""StatefulSets, DaemonSets and edits of Jobs from files on one node (see test_jobs.py)."""

from __future__ import annotations

import json
import time
from typing import Any

import yaml

from tests.e2e.manifests import container
from tests.e2e.node import Node
from tests.e2e.test_workloads import APPS, items, node, pods, processes, shared, workload

__all__ = ["node", "shared"]

BATCH = "/apis/batch/v1/namespaces/default"


def job(script: str, *, name: str = "once", **spec: Any) -> str:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 2,
            "containers": [container(script=script)],
        },
    }
    body = {"template": template, **spec}
    doc = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": body}
    return yaml.safe_dump(doc, sort_keys=False)


def found(node: Node, path: str) -> dict[str, Any]:
    code, body = node.ask(path)
    doc: dict[str, Any] = json.loads(body) if code == 200 else {}
    return doc


def outcome(job: dict[str, Any]) -> str:
    """The condition Complete or Failed of a Job, "" if it has none."""
    held = [one["type"] for one in job.get("status", {}).get("conditions") or () if one["status"] == "True"]
    return next((one for one in held if one in ("Complete", "Failed")), "")


def finished(node: Node, name: str = "once") -> str:
    return outcome(found(node, f"{BATCH}/jobs/{name}"))


def test_a_job_runs_once_however_often_its_file_is_touched(node: Node) -> None:
    text = job("echo ran", completions=3, parallelism=2)
    file = node.apply("job.yaml", text)
    node.wait(lambda: finished(node) == "Complete", "the job to complete")
    status = found(node, f"{BATCH}/jobs/once")["status"]
    assert status["succeeded"] == 3 and status.get("failed", 0) == 0
    first = sorted(pod["metadata"]["uid"] for pod in pods(node, "once"))
    assert len(first) == 3
    assert "Complete   3/3" in node.cli("get", "jobs").out

    file.write_text(f"# touched\n{text}")
    node.cli("get", "manifests")
    node.restart()
    time.sleep(1)  # nothing may happen
    assert sorted(pod["metadata"]["uid"] for pod in pods(node, "once")) == first

    done = node.cli("delete", "job", "once")
    assert "still defines job once, so it is recreated" in done.err
    node.wait(lambda: finished(node) == "Complete", "the second run")
    node.wait(lambda: len(pods(node, "once")) == 3, "the first pods to go")
    second = sorted(pod["metadata"]["uid"] for pod in pods(node, "once"))
    assert not {*first} & {*second}

    edited = job("echo changed", completions=3, parallelism=2)
    said = node.cli("diff", "-f", "-", stdin=edited.encode(), check=False).out
    assert "the job is deleted and created anew: spec.template changes" in said
    uid = found(node, f"{BATCH}/jobs/once")["metadata"]["uid"]
    node.apply("job.yaml", edited)

    def anew() -> bool:
        job = found(node, f"{BATCH}/jobs/once")  # one answer: between two, the first job may go
        return outcome(job) == "Complete" and job["metadata"]["uid"] != uid

    node.wait(anew, "the edited job")


def test_a_stateful_set_keeps_names_and_data(node: Node) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    script = "hostname >> /data/names; : ordered; trap 'exit 0' TERM; while :; do sleep 0.1; done"
    doc = yaml.safe_load(workload("StatefulSet", 2, "ordered", name="db"))
    doc["spec"]["serviceName"] = "db"
    doc["spec"]["volumeClaimTemplates"] = [claim]
    mounts = [{"name": "data", "mountPath": "/data"}]
    doc["spec"]["template"]["spec"]["containers"] = [container(script=script, volumeMounts=mounts)]
    node.apply("db.yaml", yaml.safe_dump(doc))
    node.wait(lambda: processes(node, "ordered") == 2, "two pods")
    # the status follows the process: it is written once a pod's containers have been started
    node.wait(lambda: node.status_of("db-1") == "Running", "the status of db-1")
    assert [pod["metadata"]["name"] for pod in pods(node, "db")] == ["db-0", "db-1"]
    first, second = (pod["status"]["startTime"] for pod in pods(node, "db"))
    assert first <= second

    uid = pods(node, "db")[1]["metadata"]["uid"]
    node.cli("delete", "pod", "db-1")
    node.wait(lambda: node.status_of("db-1") == "Running", "db-1 again")
    assert pods(node, "db")[1]["metadata"]["uid"] != uid
    assert node.cli("exec", "db-1", "--", "cat", "/data/names").out == "db-1\ndb-1\n"

    (node.manifests / "db.yaml").unlink()
    node.wait(lambda: not pods(node, "db"), "the pods to be gone")
    claims = items(node, "/api/v1/namespaces/default/persistentvolumeclaims")
    assert [found["metadata"]["name"] for found in claims] == ["data-db-0", "data-db-1"]
    node.wait(lambda: not items(node, f"{APPS}/controllerrevisions"), "the revisions to be gone")


def test_a_daemon_set_has_one_pod_if_the_node_suits_it(node: Node) -> None:
    text = workload("DaemonSet", None, "daemons", name="agent")
    node.apply("agent.yaml", text)
    node.wait(lambda: processes(node, "daemons") == 1, "its pod")
    assert "agent   1         1         1       1            1" in node.cli("get", "ds").out
    doc = yaml.safe_load(text)
    doc["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "fast"}
    node.apply("agent.yaml", yaml.safe_dump(doc))
    node.wait(lambda: not pods(node, "agent"), "the pod to leave")
    node.cli("node", "label", "disk=fast")
    node.wait(lambda: processes(node, "daemons") == 1, "a pod after the node got the label")

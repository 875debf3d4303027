"""Commands on TYPE/NAME of a workload: which pod kubectl chooses, the wait for one, commands that take only pods."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.containers.chosen_pod import for_logs, to_attach
from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339_micro
from tests.unit.api.fake_node import event_doc, pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server, started
from tests.unit.cli.workload_docs import owned, pod, workload

__all__ = ["server"]
RUNNING = [{"name": "app", "state": {"running": {}}, "restartCount": 0}]


def create(server: Served, *docs: Json) -> None:
    for doc in docs:
        server.run(server.node.store.create(doc["kind"], doc))


def log(server: Served, doc: Json) -> None:
    directory = Path(server.node.container_log_dir(doc, "app"))
    directory.mkdir(parents=True)
    line = f"2026-11-24T14:33:01.000000000Z stdout F of {doc['metadata']['name']}\n"
    (directory / "0.log").write_text(line)


@pytest.fixture
def shop(server: Served) -> Json:
    """Deployment shop with the pods shop-a, which is not ready, and shop-b."""
    deployment = workload("Deployment", "shop", selector={"matchLabels": {"app": "shop"}})
    made = owned(workload("ReplicaSet", "shop-1"), deployment)
    create(server, deployment, made)
    for name, ready in (("shop-a", False), ("shop-b", True)):
        doc = pod(name, made, ready=ready)
        doc["metadata"]["labels"] = {"app": "shop"}
        if ready:
            doc["status"]["containerStatuses"] = RUNNING
        create(server, doc)
        log(server, doc)
    return deployment


def candidate(
    name: str,
    *,
    node: str = "node",
    phase: str = "Running",
    ready: str | None = "",
    restarts: int = 0,
    created: str = "2026-01-01T00:00:00Z",
) -> Json:
    """`ready`: since when; None if it is not ready."""
    condition: dict[str, Any] = {"type": "Ready", "status": "False" if ready is None else "True"}
    return {
        "metadata": {"name": name, "creationTimestamp": created},
        "spec": {"nodeName": node},
        "status": {
            "phase": phase,
            "conditions": [{**condition, "lastTransitionTime": ready}],
            "containerStatuses": [{"restartCount": 0}, {"restartCount": restarts}],
        },
    }


DAY = "2026-01-{:02}T00:00:00Z".format
# kubectl pkg/util/podutils/podutils.go, a row for each rule of Less: the first pod is preferred.
RULES = [
    ({"phase": "Pending"}, {"node": ""}),
    ({"ready": None}, {"phase": "Unknown", "ready": DAY(1)}),
    ({"phase": "Unknown"}, {"phase": "Pending"}),
    ({"ready": DAY(9)}, {"ready": None}),
    ({"ready": DAY(1)}, {"ready": DAY(2)}),
    ({"ready": DAY(1)}, {"ready": ""}),
    ({"created": DAY(1)}, {"created": DAY(2)}),
    ({"created": DAY(1)}, {"created": ""}),
]


@pytest.mark.parametrize(("first", "second"), RULES)
def test_the_order_of_pods(first: Json, second: Json) -> None:
    pods = [candidate("second", **second), candidate("first", **first)]
    assert min(pods, key=to_attach) is pods[1]
    assert min(pods, key=for_logs) is pods[1]


def test_where_the_order_for_logs_differs() -> None:
    calm, restarted = candidate("calm"), candidate("restarted", restarts=3)
    assert min((calm, restarted), key=to_attach) is calm
    assert min((calm, restarted), key=for_logs) is restarted, "its log is the interesting one"
    ended, pending = candidate("ended", phase="Failed", ready=None), candidate("pending", phase="Unknown")
    assert min((ended, pending), key=for_logs) is ended
    assert min((ended, pending), key=to_attach) is pending


def test_logs_of_a_workload(server: Served, shop: Json) -> None:
    for name in ("deployment/shop", "deploy/shop", "deployments.apps/shop"):
        done = kubelite(server, "logs", name)
        assert (done.returncode, done.stdout) == (0, "of shop-b\n")
        assert done.stderr == "Found 2 pods, using pod/shop-b\n"
    assert ok(server, "logs", "deploy/shop", "app", "--prefix") == "[pod/shop-b/app] of shop-b\n"
    missing = kubelite(server, "logs", "deployment/none")
    assert missing.returncode == 1 and 'deployments "none" not found' in missing.stderr


def test_logs_of_the_other_kinds(server: Served) -> None:
    labels = {"batch.kubernetes.io/controller-uid": "uid-Job-import"}
    job = workload("Job", "import", selector={"matchLabels": labels})
    made = owned(pod_doc("import-x", status={"phase": "Succeeded"}), job)
    made["metadata"]["labels"] = labels
    controller = workload("ReplicationController", "rc")
    controller["spec"]["selector"] = {"app": "rc"}
    create(server, job, made, controller)
    log(server, made)
    done = kubelite(server, "logs", "job/import")
    assert (done.stdout, done.stderr) == ("of import-x\n", "")
    done = kubelite(server, "logs", "rc/rc", "--pod-running-timeout=100ms")
    assert done.returncode == 1 and "`kubelite why rc/rc` explains why" in done.stderr


def test_a_cron_job_has_no_pods_of_its_own(server: Served) -> None:
    cron = workload("CronJob", "night", schedule="@daily")
    create(server, cron)
    done = kubelite(server, "logs", "cronjob/night")
    assert (done.returncode, done.stderr) == (
        1,
        "error: cronjob.batch/night selects no pods, and no job of its schedule is left: name a job, job/NAME; "
        "`kubelite get jobs` lists them\n",
    )
    create(server, owned(workload("Job", "night-1"), cron))
    for command in (("logs", "cj/night"), ("exec", "cj/night", "--", "true"), ("trace", "cj/night")):
        done = kubelite(server, *command)
        assert (
            done.stderr == "error: cronjob.batch/night selects no pods: name one of its jobs, job/night-1\n"
        )


def test_exec_and_attach_choose_a_pod(server: Served, shop: Json) -> None:
    assert ok(server, "exec", "deploy/shop", "--", "echo", "hello") == "hello\n", "only in shop-b"
    done = kubelite(server, "exec", "cm/shop", "--", "true")
    assert done.stderr == 'error: "cm/shop" is not a pod, nor a workload that has pods\n'
    attached = kubelite(server, "attach", "deploy/shop")
    assert "not running" not in attached.stderr, "as it would be in shop-a"
    forwarded = kubelite(server, "port-forward", "deploy/shop", "8080:nix")
    assert 'error: invalid ports "8080:nix"' in forwarded.stderr
    forwarded = kubelite(server, "port-forward", "deploy/shop", "0:80")
    assert "default/shop-b" in forwarded.stderr, "which has no sandbox in this test"


def test_a_pod_is_waited_for(server: Served, shop: Json) -> None:
    for name in ("shop-a", "shop-b"):
        server.run(server.node.store.delete(f"uid-default-{name}"))
    begin = time.monotonic()
    done = kubelite(server, "exec", "deployment/shop", "--pod-running-timeout=200ms", "--", "true")
    assert time.monotonic() - begin >= 0.2
    assert (done.returncode, done.stderr) == (
        1,
        "error: timed out waiting for the condition: deployment/shop has no pods; "
        "`kubelite why deployment/shop` explains why\n",
    )
    zero = kubelite(server, "exec", "deployment/shop", "--pod-running-timeout=0", "--", "true")
    assert zero.returncode == 2 and "must be higher than zero" in zero.stderr
    with started(server, "exec", "deployment/shop", "--", "echo", "late") as process:
        time.sleep(0.7)  # it waits now, or has yet to ask: both are right
        late = pod_doc("shop-c")
        late["metadata"]["labels"] = {"app": "shop"}
        create(server, late)
        out, _ = process.communicate(timeout=30)
    assert out == "late\n"


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("kubelite debug", ("debug", "deploy/shop", "--image=busybox")),
        ("kubelite trace", ("trace", "deploy/shop")),
        ("kubelite inspect", ("inspect", "deploy/shop")),
        ("kubelite cp", ("cp", "deploy/shop:/etc/hosts", "hosts")),
        ("kubelite top pods", ("top", "pods", "deploy/shop")),
        ("kubelite stats", ("stats", "--no-stream", "deploy/shop")),
    ],
)
def test_commands_that_take_a_pod_name_those_of_the_workload(
    server: Served, shop: Json, command: str, arguments: tuple[str, ...]
) -> None:
    done = kubelite(server, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f'error: "deploy/shop" is not a pod, and `{command}` takes a pod: its pods are shop-b, shop-a; '
        "`kubelite get pods -l app=shop` lists them\n"
    )


def test_the_history_of_a_workload_has_its_changes_and_events(server: Served, shop: Json) -> None:
    began = rfc3339_micro(time.time())
    _, made = ok(server, "history", "deploy/shop").splitlines()
    assert made.split()[1:] == ["Made", "created"]
    none = kubelite(server, "history", "deploy/shop", "--since", began)
    assert none.returncode == 0 and not none.stdout
    assert none.stderr.startswith("No history of deployment default/shop since ")
    assert none.stderr.endswith(" `kubelite why deploy/shop` explains its present state.\n")
    event = event_doc("e2", "shop", "ScalingReplicaSet", "Scaled up replica set shop-1 from 0 to 2")
    about = {**event["involvedObject"], "kind": "Deployment"}
    create(server, {**event, "involvedObject": about})
    last = ok(server, "history", "deploy/shop", "--limit", "1").splitlines()[1]
    assert "Scaled up replica set shop-1 from 0 to 2" in last
    status = {**shop.get("status", {}), "readyReplicas": 7}
    server.run(server.node.store.update_status(shop["metadata"]["uid"], status))
    then = ok(server, "get", "deployment", "shop", "--at", began, "-o", "jsonpath={.status.readyReplicas}")
    now = ok(server, "get", "deployment", "shop", "-o", "jsonpath={.status.readyReplicas}")
    assert (then, now) == (str(shop.get("status", {}).get("readyReplicas", "")), "7")
    assert "→ 7" in ok(server, "history", "deploy/shop")
    missing = kubelite(server, "history", "statefulset/shop")
    assert missing.stderr == 'Error from server (NotFound): statefulsets "shop" not found\n'
    assert "is not a pod" in kubelite(server, "history", "cm/shop").stderr
    pods_own = kubelite(server, "history", "shop")
    assert 'pods "shop" not found' in pods_own.stderr


def test_what_is_neither_a_pod_nor_a_workload_is_not_found(server: Served) -> None:
    for arguments in (("inspect", "deploy/none"), ("cp", "deploy/none:/etc/hosts", "hosts")):
        done = kubelite(server, *arguments)
        assert done.returncode == 1 and "(NotFound)" in done.stderr and "takes a pod" not in done.stderr

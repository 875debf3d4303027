"""`kubelite scale`, `set image` and `rollout` of a workload change its manifest in place; `why` names pod and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelite.cli.diagnosis.why_workload import condition_words, line_of, path_of_trouble
from kubelite.kube.json import Json
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server
from tests.unit.cli.workload_docs import owned, pod, workload

__all__ = ["server"]

REVISION = "deployment.kubernetes.io/revision"
CAUSE = "kubernetes.io/change-cause"
SHOP = """\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
spec:
  replicas: 2 # for now
  selector:
    matchLabels: {app: shop}
  template:
    metadata:
      labels: {app: shop}
    spec:
      containers:
      - name: app
        # the newest
        image: nginx:2
        readinessProbe:
          tcpSocket: {port: 80}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
"""


@pytest.fixture
def manifest(server: Served) -> Path:
    path = Path(server.node.manifests_dir) / "shop.yaml"
    path.write_text(SHOP)
    server.run(server.node.rescan())
    return path


def shop(server: Served) -> Json:
    record = server.node.store.get("Deployment", "default", "shop")
    assert record is not None
    return record.doc


def test_scale_changes_one_number(server: Served, manifest: Path) -> None:
    assert ok(server, "scale", "--replicas=5", "deployment/shop") == "deployment.apps/shop scaled\n"
    assert manifest.read_text() == SHOP.replace("replicas: 2 # for now", "replicas: 5 # for now")
    done = kubelite(server, "scale", "--replicas=6", "--current-replicas=2", "deploy", "shop")
    assert (done.returncode, done.stderr) == (1, "error: Expected replicas to be 2, was 5\n")
    again = ok(server, "scale", "--replicas=1", "--current-replicas=5", "deploy", "shop", "--dry-run=client")
    assert again == "deployment.apps/shop scaled (dry run)\n"
    assert shop(server)["spec"]["replicas"] == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--replicas=2", "pod/web"), "pods cannot be scaled: Deployment"),
        (("--replicas=2", "deployment/none"), 'deployments "none" not found'),
        (("--replicas=2",), "name an object"),
        (("deployment/shop",), "--replicas"),
        (("--replicas=-1", "deployment/shop"), "--replicas"),
    ],
)
def test_what_cannot_be_scaled(
    server: Served, manifest: Path, arguments: tuple[str, ...], words: str
) -> None:
    done = kubelite(server, "scale", *arguments)
    assert done.returncode != 0 and words in done.stderr
    assert manifest.read_text() == SHOP


def test_a_replica_set_of_a_deployment_is_not_scaled_by_itself(server: Served, manifest: Path) -> None:
    made = owned(workload("ReplicaSet", "shop-1", replicas=2), shop(server))
    server.run(server.node.store.create("ReplicaSet", made))
    done = kubelite(server, "scale", "--replicas=3", "rs/shop-1")
    assert "ReplicaSet default/shop-1 is made by Deployment shop: change that" in done.stderr


def test_set_image_finds_the_template(server: Served, manifest: Path) -> None:
    assert (
        ok(server, "set", "image", "deployment/shop", "app=nginx:3") == "deployment.apps/shop image updated\n"
    )
    assert manifest.read_text() == SHOP.replace("nginx:2", "nginx:3")


def test_pause_and_resume_leave_the_file_as_it_was(server: Served, manifest: Path) -> None:
    assert ok(server, "rollout", "pause", "deployment/shop") == "deployment.apps/shop paused\n"
    assert manifest.read_text() == SHOP.replace("  replicas: 2", "  paused: true\n  replicas: 2")
    again = kubelite(server, "rollout", "pause", "deployment", "shop")
    assert again.stderr == 'error: deployments.apps "shop" is already paused\n'
    for command in ("restart", "undo"):
        done = kubelite(server, "rollout", command, "deployment/shop")
        assert done.returncode == 1 and "paused deployment" in done.stderr
    assert ok(server, "rollout", "resume", "deployment", "shop") == "deployment.apps/shop resumed\n"
    assert manifest.read_text() == SHOP
    again = kubelite(server, "rollout", "resume", "deployment/shop")
    assert again.stderr == 'error: deployments.apps "shop" is not paused\n'
    done = kubelite(server, "rollout", "pause", "pod/web")
    assert 'pods "web" pausing is not supported: an edit takes effect' in done.stderr


def test_restart_stamps_the_template(server: Served, manifest: Path) -> None:
    assert ok(server, "rollout", "restart", "deployment/shop") == "deployment.apps/shop restarted\n"
    (document, _) = yaml.safe_load_all(manifest.read_text())
    stamp = document["spec"]["template"]["metadata"].pop("annotations")
    assert list(stamp) == ["kubectl.kubernetes.io/restartedAt"]
    assert document == next(yaml.safe_load_all(SHOP))
    assert "# the newest\n" in manifest.read_text()


def revisions(server: Served) -> None:
    deployment = shop(server)
    for number, image in ((1, "nginx:1"), (2, "nginx:2")):
        template = json.loads(json.dumps(deployment["spec"]["template"]))
        template["spec"]["containers"][0]["image"] = image
        template["metadata"]["labels"]["pod-template-hash"] = f"hash{number}"
        if number == 1:
            del template["spec"]["containers"][0]["readinessProbe"]
            template["spec"]["containers"][0]["args"] = ["08", "x"]
        annotations = {REVISION: str(number), **({CAUSE: "first"} if number == 1 else {})}
        made = workload("ReplicaSet", f"shop-{number}", annotations=annotations, template=template)
        server.run(server.node.store.create("ReplicaSet", owned(made, deployment)))


def test_history_lists_the_revisions(server: Served, manifest: Path) -> None:
    assert "No rollout history found" in kubelite(server, "rollout", "history", "deployment/shop").stderr
    revisions(server)
    assert ok(server, "rollout", "history", "deployment/shop").splitlines() == [
        "deployment.apps/shop ",
        "REVISION   CHANGE-CAUSE",
        "1          first",
        "2          <none>",
        "",
    ]
    one = ok(server, "rollout", "history", "deployment/shop", "--revision=1")
    assert one.startswith("deployment.apps/shop with revision #1\nPod Template:\n")
    assert "nginx:1" in one and "hash1" not in one
    done = kubelite(server, "rollout", "history", "deployment/shop", "--revision=7")
    assert "unable to find specified revision 7 in history" in done.stderr


def test_undo_writes_what_differs_and_keeps_the_comments(server: Served, manifest: Path) -> None:
    done = kubelite(server, "rollout", "undo", "deployment/shop")
    assert "no rollout history found for deployment.apps/shop" in done.stderr
    revisions(server)
    dry = ok(server, "rollout", "undo", "deployment/shop", "--dry-run")
    assert dry.splitlines()[:2] == [f"--- {manifest} (now)", f"+++ {manifest} (changed)"]
    assert {"-        image: nginx:2", "+        image: nginx:1"} <= {*dry.splitlines()}
    assert dry.endswith("\ndeployment.apps/shop rolled back (server dry run)\n")
    assert manifest.read_text() == SHOP
    assert ok(server, "rollout", "undo", "deployment/shop") == "deployment.apps/shop rolled back\n"
    assert manifest.read_text() == SHOP.replace("nginx:2", "nginx:1").replace(
        "        readinessProbe:\n          tcpSocket: {port: 80}\n", ""
    ).replace("      - name: app\n", '      - args:\n          - "08"\n          - x\n        name: app\n')
    again = ok(server, "rollout", "undo", "deployment/shop", "--to-revision=1")
    assert "skipped rollback (current template already matches revision 1)" in again
    assert ok(server, "rollout", "undo", "deployment/shop", "--to-revision=2").endswith("rolled back\n")
    restored = next(yaml.safe_load_all(manifest.read_text()))["spec"]["template"]["spec"]["containers"][0]
    assert restored["image"] == "nginx:2" and "args" not in restored
    assert restored["readinessProbe"]["tcpSocket"] == {"port": 80}


def test_status_waits_for_the_workloads_of_a_file(server: Served, manifest: Path) -> None:
    status = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 1}
    server.run(server.node.store.update("Deployment", {**shop(server), "status": status}))
    for what in (("shop.yaml",), ("deployment/shop",), ("deployment", "shop")):
        done = ok(server, "rollout", "status", *what, "--timeout=10s")
        assert done == 'deployment "shop" successfully rolled out\n'
    late = {
        "type": "Progressing",
        "status": "False",
        "reason": "ProgressDeadlineExceeded",
        "message": "too slow",
    }
    failed = {**status, "conditions": [late], "updatedReplicas": 1}
    server.run(server.node.store.update("Deployment", {**shop(server), "status": failed}))
    late_one = kubelite(server, "rollout", "status", "deployment/shop")
    assert late_one.returncode == 1
    assert late_one.stderr.splitlines() == [
        'error: deployment "shop" exceeded its progress deadline',
        "  Progressing is False (ProgressDeadlineExceeded): too slow",
        "  correct the manifest, or restore the revision before: kubelite rollout undo deployment/shop",
    ]


JOB = """\
---
apiVersion: batch/v1
kind: Job
metadata: {name: import}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: app, image: nginx}]
"""


def test_the_jobs_of_a_file_are_left_out(server: Served, manifest: Path) -> None:
    status = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, "observedGeneration": 1}
    manifest.write_text(SHOP + JOB)
    alone = manifest.with_name("jobs.yaml")
    alone.write_text(JOB.replace("import", "alone"))
    server.run(server.node.rescan())
    server.run(server.node.store.update("Deployment", {**shop(server), "status": status}))
    said = (
        "job.batch/import has no rollout, it is left out: "
        "`kubelite wait --for=condition=Complete job/import` waits for it\n"
    )
    for verb, out in (
        ("status", 'deployment "shop" successfully rolled out\n'),
        ("restart", "deployment.apps/shop restarted\n"),
    ):
        done = kubelite(server, "rollout", verb, "shop.yaml")
        assert (done.returncode, done.stdout, done.stderr) == (0, out, said)
    done = kubelite(server, "rollout", "status", "jobs.yaml")
    assert done.returncode == 1 and done.stderr.endswith("jobs.yaml has nothing that is rolled out\n")
    done = kubelite(server, "rollout", "status", "job/import")
    assert done.stderr == "error: no status viewer has been implemented for Job\n"


def test_all_workloads_of_a_type(server: Served, manifest: Path) -> None:
    manifest.write_text(SHOP.replace("---\n", "---\n" + SHOP.replace("name: shop", "name: tea") + "---\n"))
    server.run(server.node.rescan())
    both = "deployment.apps/shop restarted\ndeployment.apps/tea restarted\n"
    assert ok(server, "rollout", "restart", "deploy") == both
    assert manifest.read_text().count("kubectl.kubernetes.io/restartedAt") == 2
    ok(server, "rollout", "pause", "deployment/shop")
    done = kubelite(server, "rollout", "restart", "deployments")
    assert (done.returncode, done.stdout) == (1, "deployment.apps/tea restarted\n")
    assert "can't restart paused deployment" in done.stderr
    none = kubelite(server, "rollout", "restart", "daemonsets")
    assert (none.returncode, none.stderr) == (0, "No resources found in default namespace.\n")
    none = kubelite(server, "rollout", "status", "deploy", "-n", "shop")
    assert (none.returncode, none.stderr) == (0, "No resources found in shop namespace.\n")


def test_why_names_condition_pod_and_line(server: Served, manifest: Path) -> None:
    deployment = shop(server)
    deployment["metadata"]["generation"] = 1
    missing = {
        "type": "Available",
        "status": "False",
        "reason": "MinimumReplicasUnavailable",
        "message": "too few",
    }
    status = {"readyReplicas": 1, "observedGeneration": 1, "conditions": [missing]}
    server.run(server.node.store.update("Deployment", {**deployment, "status": status}))
    made = owned(workload("ReplicaSet", "shop-1"), deployment)
    server.run(server.node.store.create("ReplicaSet", made))
    for name, ready in (("shop-1-a", True), ("shop-1-b", False)):
        server.run(server.node.store.create("Pod", pod(name, made, ready=ready)))
    answer = json.loads(ok(server, "why", "deployment/shop", "-o", "json"))
    assert answer["status"] == "1 of 2 pods are ready"
    assert answer["conditions"] == ["Available is False (MinimumReplicasUnavailable): too few"]
    assert [one["pod"] for one in answer["pods"]] == ["shop-1-b"]
    text = ok(server, "why", "deploy/shop")
    assert text.startswith(
        f"Deployment default/shop: 1 of 2 pods are ready\nManifest: {manifest}\nConditions:\n"
    )


@pytest.mark.parametrize(
    ("sentence", "line"),
    [
        ("container app is not ready: its readiness probe (TCP :80) fails: refused", 18),
        ("app: waiting before the next pull: kubelite pull nginx:2", 17),
        ("container app is not ready: it ended with exit code 1", 15),
        ("the pod is not scheduled to this node: Insufficient cpu", 13),
        ("everything is fine", 0),
    ],
)
def test_the_line_of_a_pods_trouble(tmp_path: Path, sentence: str, line: int) -> None:
    path = tmp_path / "shop.yaml"
    path.write_text(SHOP)
    doc: Any = next(yaml.safe_load_all(SHOP))
    assert line_of(str(path), doc, path_of_trouble(doc, [sentence])) == line
    assert line_of(str(tmp_path / "none.yaml"), doc, path_of_trouble(doc, [sentence])) == 0


def test_a_change_that_is_not_observed_yet_is_said() -> None:
    doc = workload("Deployment", status={"observedGeneration": 1})
    doc["metadata"]["generation"] = 2
    assert list(condition_words(doc)) == ["its last change has not been observed yet"]

"""Commands on workloads of a whole node: the manifest changes in place, and the pods follow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import IMAGE, Node, running_node
from tests.e2e.test_workloads import pods, processes

SHOP = f"""\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2 # for now
  selector:
    matchLabels: {{app: web}}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        # as old as the hills
        image: {IMAGE}
        imagePullPolicy: Never
        command: [sh, -c, ": the-first; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("commands"), images) as found:
        yield found


def names(node: Node) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods(node)}


def test_a_deployment_by_commands(node: Node) -> None:
    file = node.apply("web.yaml", SHOP)
    rolled_out = 'deployment "web" successfully rolled out\n'
    node.wait(lambda: node.cli("get", "deployment", "web", check=False).code == 0, "the deployment")
    assert node.cli("rollout", "status", "deployment/web", "--timeout=60s").out.endswith(rolled_out)
    assert processes(node, "the-first") == 2

    assert (
        node.cli("scale", "deployment/web", "--replicas=3", "--timeout=30s").out
        == "deployment.apps/web scaled\n"
    )
    assert node.cli("rollout", "status", "web.yaml", "--timeout=60s").out.endswith(rolled_out)
    assert processes(node, "the-first") == 3
    assert file.read_text() == SHOP.replace("replicas: 2 # for now", "replicas: 3 # for now")
    assert "NewReplicaSet:" in node.cli("describe", "deployment", "web").out

    assert node.cli("exec", "deploy/web", "--", "hostname").out.strip() in names(node)
    told = node.cli("logs", "deployment/web").err
    assert told in {f"Found 3 pods, using pod/{name}\n" for name in names(node)}

    before = {pod["metadata"]["uid"] for pod in pods(node)}
    assert "ScalingReplicaSet" in node.cli("history", "deployment/web").out
    refused = node.cli("cp", "deployment/web:/etc/hosts", str(node.base / "hosts"), check=False)
    assert refused.code == 1 and "`kubelite get pods -l app=web` lists them" in refused.err
    assert node.cli("rollout", "restart", "deploy").out == "deployment.apps/web restarted\n"
    assert node.cli("rollout", "status", "deployment/web", "--timeout=60s").out.endswith(rolled_out)
    node.wait(lambda: before.isdisjoint(pod["metadata"]["uid"] for pod in pods(node)), "new pods")

    node.cli("rollout", "pause", "deployment/web")
    node.cli("set", "image", "deployment/web", "main=localhost/nowhere:1")
    assert {pod["spec"]["containers"][0]["image"] for pod in pods(node)} == {IMAGE}
    paused = node.cli("rollout", "status", "deployment/web", check=False)
    assert (
        paused.code == 1 and "is paused: resume it with kubelite rollout resume deployment/web" in paused.err
    )
    node.cli("rollout", "resume", "deployment/web")
    node.wait(lambda: "ErrImageNeverPull" in node.cli("why", "deployment/web").out, "the reason to be told")
    told = node.cli("why", "deployment/web").out
    line = 1 + file.read_text().splitlines().index("        image: localhost/nowhere:1")
    assert f"{file}:{line}" in told
    state = "a rollout is in progress: 1 of 3 pods are updated, 3 old pods serve meanwhile"
    assert told.startswith(f"Deployment default/web: {state}\n")
    assert "kubelite rollout undo deployment/web" in told.splitlines()[told.splitlines().index("Try:") + 1]
    late = node.cli("rollout", "status", "deployment/web", "--timeout=1s", check=False)
    assert late.code == 1 and "localhost/nowhere:1 is not on the node" in late.err

    dry = node.cli("rollout", "undo", "deployment/web", "--dry-run").out
    assert "-        image: localhost/nowhere:1\n" in dry and f"+        image: {IMAGE}\n" in dry
    assert node.cli("rollout", "undo", "deployment/web").out == "deployment.apps/web rolled back\n"
    assert node.cli("rollout", "status", "deployment/web", "--timeout=60s").out.endswith(rolled_out)
    assert f"        # as old as the hills\n        image: {IMAGE}\n" in file.read_text()
    history = node.cli("rollout", "history", "deployment/web").out.splitlines()
    assert [row.split()[0] for row in history[2:] if row] == ["1", "3", "4"]
    file.unlink()
    node.wait(lambda: not pods(node), "all pods to be gone")


def test_a_refused_edit_is_not_rolled_out(node: Node) -> None:
    file = node.apply("web.yaml", SHOP)
    node.wait(lambda: node.cli("get", "deployment", "web", check=False).code == 0, "the deployment")
    node.cli("rollout", "status", "deployment/web", "--timeout=60s")
    before = names(node)
    edited = SHOP.replace("app: web", "app: other")
    node.apply("web.yaml", edited)
    line = 1 + edited.splitlines().index("  selector:")
    error = f"{file}:{line}: spec.selector: "
    node.wait(lambda: error in node.cli("get", "manifests").out, "the error to be seen")
    refused = node.cli("rollout", "status", "deployment/web", check=False)
    assert refused.code == 1 and error in refused.err and "successfully" not in refused.out
    assert node.cli("why", "deployment/web").out.count(error) == 1
    about = ("events", "--for", "deployment/web", "--types=Warning")
    node.wait(lambda: error in node.cli(*about).out, "the event")
    assert node.cli(*about).out.count("FailedValidation") == 1
    assert names(node) == before
    node.apply("web.yaml", SHOP)
    node.wait(lambda: error not in node.cli("get", "manifests").out, "the error to be gone")
    assert "successfully" in node.cli("rollout", "status", "deployment/web").out
    file.unlink()
    node.wait(lambda: not pods(node), "all pods to be gone")


SETS = """\
apiVersion: apps/v1
kind: {kind}
metadata: {{name: db}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  {more}
  template:
    metadata:
      labels: {{app: web}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: {image}
        imagePullPolicy: Never
        command: [sh, -c, ": the-{word}; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
"""


@pytest.mark.parametrize(
    ("kind", "more", "count", "words"),
    [
        ("StatefulSet", "serviceName: db\n  replicas: 2", 2, "statefulset rolling update complete 2 pods"),
        ("DaemonSet", "minReadySeconds: 0", 1, 'daemon set "db" successfully rolled out'),
    ],
)
def test_a_set_is_restarted_and_rolled_back(node: Node, kind: str, more: str, count: int, words: str) -> None:
    def text(word: str) -> str:
        return SETS.format(kind=kind, more=more, image=IMAGE, word=word)

    name = f"{kind.lower()}/db"
    file = node.apply("db.yaml", text("old"))
    node.wait(lambda: node.cli("get", name, check=False).code == 0, "the set")
    assert words in node.cli("rollout", "status", name, "--timeout=60s").out
    node.apply("db.yaml", text("new"))
    node.wait(lambda: "new" in node.cli("get", name, "-o", "yaml").out, "the edit")
    assert words in node.cli("rollout", "status", "db.yaml", "--timeout=60s").out
    node.wait(lambda: processes(node, "the-new") == count, "the new pods")
    history = node.cli("rollout", "history", name).out.splitlines()
    assert [row.split()[0] for row in history[2:] if row] == ["1", "2"]
    assert node.cli("rollout", "undo", name).out.endswith("/db rolled back\n")
    assert words in node.cli("rollout", "status", name, "--timeout=60s").out
    node.wait(lambda: processes(node, "the-old") == count, "the old pods again")
    assert file.read_text() == text("old")
    file.unlink()
    node.wait(lambda: not pods(node), "all pods to be gone")


def test_a_job_from_a_line(node: Node) -> None:
    said = node.cli(
        "create", "cronjob", "later", f"--image={IMAGE}", "--schedule=0 0 1 1 *", "--", "true"
    ).out
    assert said == "cronjob.batch/later created\n"
    node.wait(lambda: node.cli("get", "cronjob", "later", check=False).code == 0, "the cron job")
    assert node.cli("create", "job", "now", "--from=cronjob/later").out == "job.batch/now created\n"
    assert "condition met" in node.cli("wait", "--for=condition=Complete", "job/now", "--timeout=60s").out
    assert node.cli("logs", "job/now").out == ""
    cron = node.cli("logs", "cronjob/later", check=False)
    assert cron.code == 1 and "selects no pods" in cron.err and "`kubelite get jobs`" in cron.err
    assert "1 Succeeded / 0 Failed" in node.cli("describe", "job", "now").out
    node.cli("delete", "job", "now")
    node.cli("delete", "cronjob", "later")
    assert list(node.manifests.iterdir()) == []

"""`kubelite create deployment|job|cronjob` make what kubectl's generators make."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from manifests.yaml.loader import load_text
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server
from tests.unit.cli.test_create import DRY, kubectl
from tests.unit.cli.workload_docs import workload

__all__ = ["server"]

COMMAND = ("--", "sh", "-c", "echo $A")
CREATED = [
    ("deployment", "web", "--image=nginx"),
    ("deploy", "web", "--image=quay.io/org/nginx:1.27", "--replicas=3", "--port=80", "-n", "prod"),
    ("deployment", "web", "--image=nginx", "--image=redis:8"),
    ("deployment", "web", "--image=nginx", "-r", "0", *COMMAND),
    ("job", "one", "--image=busybox"),
    ("job", "one", "--image=busybox", "-n", "prod", *COMMAND),
    ("cronjob", "nightly", "--image=busybox", "--schedule=0 3 * * *"),
    ("cj", "nightly", "--image=busybox", "--schedule=@daily", "--restart=Never", *COMMAND),
    ("quota", "compute", "--hard=requests.cpu=1,pods=2,services=3"),
    ("resourcequota", "best-effort", "--hard=pods=100", "--scopes=BestEffort,NotTerminating", "-n", "prod"),
    ("poddisruptionbudget", "web", "--selector=app=rails", "--min-available=1"),
    ("pdb", "web", "--selector=app=nginx,tier in (a,b),!old", "--max-unavailable=50%", "-n", "prod"),
]


def dry(arguments: tuple[str, ...]) -> list[str]:
    """Return the arguments with the options of a dry run after the type and the name."""
    found = [*arguments]
    found[2:2] = DRY
    return found


@pytest.mark.parametrize("arguments", CREATED, ids=" ".join)
def test_create_makes_the_object_that_kubectl_makes(server: Served, arguments: tuple[str, ...]) -> None:
    ours = json.loads(ok(server, "create", *dry(arguments)))
    theirs = kubectl(server, "create", *dry(arguments))
    theirs.pop("status", None)  # the counts of a PodDisruptionBudget, which kubectl writes even if they are 0
    assert ours == theirs


@pytest.mark.parametrize("arguments", CREATED, ids=" ".join)
def test_the_node_accepts_what_is_created(server: Served, arguments: tuple[str, ...]) -> None:
    given = [*arguments]
    given[2:2] = ("--dry-run=client", "-o", "yaml")
    text = ok(server, "create", *given)
    assert not load_text(text, file="x.yaml").errors, text


def test_create_writes_a_manifest_into_the_directory(server: Served) -> None:
    assert ok(server, "create", "deployment", "shop", "--image=nginx") == "deployment.apps/shop created\n"
    (written,) = Path(server.node.manifests_dir).iterdir()
    assert written.name == "deployment-shop.yaml"
    assert yaml.safe_load(written.read_text())["spec"]["replicas"] == 1
    again = kubelite(server, "create", "deployment", "shop", "--image=nginx")
    assert again.returncode == 1 and 'deployments "shop" already exists' in again.stderr
    kept = kubelite(server, "delete", "deployment", "shop", "--cascade=orphan", "--no-wait")
    assert written.exists() and f"{written} still defines deployment shop" in kept.stderr
    server.run(server.node.rescan())
    done = ok(server, "delete", "deployment", "shop", "--no-wait")
    assert done == 'deployment.apps "shop" deleted from default namespace\n'
    assert not written.exists()


ONE_OF_EACH = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: a, image: nginx}]}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
"""


def test_objects_of_a_group_are_named_as_kubectl_names_them(server: Served) -> None:
    done = ok(server, "create", "-f", "-", stdin=ONE_OF_EACH)
    assert done.splitlines() == ["deployment.apps/shop created", "configmap/page created"]
    again = ok(server, "apply", "-f", "-", stdin=ONE_OF_EACH.replace("image: nginx", "image: nginx:2"))
    assert again.splitlines() == ["deployment.apps/shop configured", "configmap/page unchanged"]
    gone = ok(server, "delete", "-f", "-", "--no-wait", stdin=ONE_OF_EACH).splitlines()
    assert gone == [
        f"{name} deleted from default namespace" for name in ('deployment.apps "shop"', 'configmap "page"')
    ]


def test_a_job_of_a_cron_job(server: Served) -> None:
    template = {
        "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {
            "backoffLimit": 1,
            "template": {
                "spec": {"containers": [{"name": "x", "image": "y"}], "restartPolicy": "Never"},
            },
        },
    }
    made = workload("CronJob", "nightly", schedule="@daily", jobTemplate=template)
    server.run(server.node.store.create("CronJob", made))
    arguments = ("job", "now", "--from=cronjob/nightly")
    ours = json.loads(ok(server, "create", *dry(arguments)))
    theirs = kubectl(server, "create", *dry(arguments))
    assert theirs["metadata"].pop("ownerReferences")[0]["name"] == "nightly"
    for document in (ours, theirs):
        document["metadata"].pop("namespace", None)
    assert ours == theirs
    assert ok(server, "create", *arguments) == "job.batch/now created\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("deployment", "web"), "missing option '--image'"),
        (("deployment", "web", "--image=a", "--image=b", *COMMAND),
         "cannot specify multiple --image options and command"),
        (("job", "one"), "either --image or --from must be specified"),
        (("job", "one", "--image=a", "--from=cronjob/b"), "either --image or --from must be specified"),
        (("job", "one", "--from=cronjob/b", *COMMAND), "cannot specify --from and command"),
        (("job", "one", "--from=pod/b"), "from must be an existing cronjob"),
        (("job", "one", "--from=cronjob/none"), 'cronjobs "none" not found'),
        (("cronjob", "one", "--image=a"), "missing option '--schedule'"),
        (("job", "one", "--image=a", "--nix"), "put the command and its options after --"),
    ],
)  # fmt: skip
def test_create_says_what_is_wrong(server: Served, arguments: tuple[str, ...], words: str) -> None:
    done = kubelite(server, "create", *arguments)
    assert done.returncode != 0 and words in done.stderr

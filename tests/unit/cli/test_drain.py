"""`kubelite drain`: which pods are evicted (kubectl pkg/drain/filters_test.go), and the command's messages."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cli.node import drain_plan
from kubelite.cli.node.drain_plan import DrainOptions, plan_drain
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from tests.unit.api.server import Served
from tests.unit.api.test_eviction import budget
from tests.unit.cli.kit import kubelite, server

__all__ = ["server"]

MANIFEST: Json = {"annotations": {SOURCE: "/m/web.yaml"}}
WAITING: list[Json] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
EMPTY: list[Json] = [{"name": "tmp", "emptyDir": {}}]


def owned(kind: str) -> Json:
    return {"ownerReferences": [{"kind": kind, "name": "web", "uid": "u", "controller": True}]}


def pod(phase: str = "Running", volumes: Any = (), conditions: Any = (), **metadata: Any) -> Json:
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "uid", **metadata},
        "spec": {"volumes": list(volumes)},
        "status": {"phase": phase, "conditions": list(conditions)},
    }


def test_the_annotation_of_a_manifest_is_spelled_as_elsewhere() -> None:
    assert drain_plan._SOURCE == SOURCE


@pytest.mark.parametrize(
    ("found", "options", "evicted", "warning", "error"),
    [
        (pod(**owned("ReplicaSet")), {}, True, "", ""),
        (pod(**MANIFEST), {}, True, "", ""),
        (pod(), {}, False, "", drain_plan.UNMANAGED),
        (pod(), {"force": True}, True, drain_plan.UNMANAGED_DELETED, ""),
        (pod(**owned("DaemonSet")), {}, False, "", drain_plan.DAEMON_SET),
        (pod(**owned("DaemonSet")), {"ignore_daemonsets": True}, False, drain_plan.DAEMON_SET_IGNORED, ""),
        (pod(volumes=EMPTY, **MANIFEST), {}, False, "", drain_plan.LOCAL_STORAGE),
        (
            pod(volumes=EMPTY, **MANIFEST),
            {"delete_emptydir_data": True},
            True,
            drain_plan.LOCAL_STORAGE_DELETED,
            "",
        ),
        (pod("Succeeded", EMPTY, **owned("Job")), {}, True, "", ""),  # any finished pod can be removed
        (pod("Failed"), {}, True, "", ""),
        (pod("Succeeded", **MANIFEST), {}, False, "", ""),  # but it would run again
        (pod("Pending", conditions=WAITING, **MANIFEST), {}, False, "", ""),  # nothing of it runs
        (pod("Pending", **owned("Job")), {}, True, "", ""),
    ],
)
def test_what_a_drain_evicts(found: Json, options: Json, evicted: bool, warning: str, error: str) -> None:
    plan = plan_drain([found], {("default", "web")}, DrainOptions(**options))
    assert bool(plan.pods) is evicted
    assert plan.warnings == ((f"{warning}: default/web",) if warning else ())
    assert plan.errors == ((f"cannot delete {error}: default/web",) if error else ())


def test_a_pod_whose_daemon_set_is_missing() -> None:
    orphan, words = pod(**owned("DaemonSet")), 'daemonsets.apps "web" not found'
    assert plan_drain([orphan], (), DrainOptions()).errors == (f"cannot delete {words}: default/web",)
    forced = plan_drain([orphan], (), DrainOptions(force=True))
    assert forced.pods and forced.warnings == (f"{words}: default/web",)


def test_a_drain_refuses_what_would_be_lost(server: Served) -> None:
    done = kubelite(server, "drain")
    assert (done.returncode, done.stdout) == (1, "node/here cordoned\n")
    words = "cannot delete Pods that declare no controller (use --force to override): default/db, default/web, prod/api"
    assert f'error: unable to drain node "here" due to error: {words}, continuing command...' in done.stderr
    again = kubelite(server, "drain", "here", "--dry-run", "--force", "--pod-selector=app=web")
    assert again.stdout.splitlines() == [
        "node/here already cordoned (dry run)",
        "evicting pod default/web (dry run)",
        "node/here drained (dry run)",
    ]
    assert again.stderr == f"Warning: {drain_plan.UNMANAGED_DELETED}: default/web\n"


def test_a_budget_holds_a_drain_up(server: Served) -> None:
    server.run(server.node.store.create("PodDisruptionBudget", budget()))
    done = kubelite(server, "drain", "--force", "--pod-selector=app=web", "--timeout=1s")
    assert done.returncode == 1 and done.stdout.endswith("evicting pod default/web\n")
    refused = "Cannot evict pod as it would violate the pod's disruption budget."
    assert f'error when evicting pods/"web" -n "default" (will retry after 5s): {refused}' in done.stderr
    assert done.stderr.count("hint: while the node is cordoned") == 1
    assert 'There are pending pods in node "here" when an error occurred:' in done.stderr
    assert 'error when evicting pods/"web" -n "default": global timeout reached: 1s' in done.stderr
    deleted = kubelite(server, "drain", "--force", "--pod-selector=app=web", "--disable-eviction")
    assert deleted.returncode == 0
    assert deleted.stdout.splitlines()[1:] == ["pod/web deleted", "node/here drained"]
    opened = kubelite(server, "uncordon")
    assert opened.stdout == "node/here uncordoned\n"

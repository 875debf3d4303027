"""The screen of workloads: its rows, and its keys over a served API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.diagnosis.health import Level
from kubelite.kube.json import Json
from kubelite.ui.app import Ui
from kubelite.ui.tables import Containers, Pods
from kubelite.ui.texts import Words
from kubelite.ui.workloads import Workloads, workload_rows
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served
from tests.unit.ui.test_ui import cells
from tests.waiting import until_async as until


def workload(kind: str, name: str, spec: Json, status: Json, **meta: object) -> Json:
    version = "batch/v1" if kind == "Job" else "apps/v1"
    metadata = {"name": name, "namespace": "default", "uid": f"{kind}-{name}", **meta}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec, "status": status}


def owned_by(doc: Json, owner: Json) -> Json:
    reference = {"kind": owner["kind"], "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}
    return {**doc, "metadata": {**doc["metadata"], "ownerReferences": [{**reference, "controller": True}]}}


SELECTOR = {"matchLabels": {"app": "web"}}
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "app", "image": "i"}]}}
SPEC = {"replicas": 1, "selector": SELECTOR, "template": TEMPLATE}
COUNTS = {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1}
WEB = workload("Deployment", "web", SPEC, COUNTS)
NEWEST = owned_by(workload("ReplicaSet", "web-1", SPEC, COUNTS), WEB)
FAILED = {
    "conditions": [{"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "too long"}]
}
LOAD = workload("Job", "load", {"template": TEMPLATE}, FAILED)


def test_pods_stand_below_their_workload_and_what_is_wrong_comes_first() -> None:
    pod, alone = owned_by(pod_doc("web-1-x"), NEWEST), pod_doc("alone")
    rows = workload_rows([WEB, NEWEST, LOAD], [pod, alone], 1_700_000_000.0)
    assert [row.key for row in rows] == ["job/default/load", "deployment/default/web", "pod/default/web-1-x"]
    assert [row.level for row in rows] == [Level.FAILING, Level.RUNNING, Level.RUNNING]
    assert rows[0].cells[1:4] == ("job/load", "0/1", "Failed") and "too long" in rows[0].cells[5]
    assert rows[2].cells[1] == "  web-1-x"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served.at(tmp_path) as served:
        for doc in (WEB, NEWEST, LOAD):
            served.run(served.node.store.create(doc["kind"], doc))
        served.run(served.node.store.create("Pod", owned_by(pod_doc("web-1-x"), NEWEST)))
        yield served


async def test_the_screen_by_its_keys_at_80_by_24(server: Served) -> None:
    app = Ui(server.socket, namespace=None, interval=0.2)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(lambda: isinstance(app.screen, Pods) and len(cells(app)) == 1)
        await pilot.press("d")
        await until(lambda: isinstance(app.screen, Workloads) and len(cells(app)) == 3)
        assert "✕" in cells(app)[0] and "job/load" in cells(app)[0]
        assert app.screen.query_one("DataTable").virtual_size.width <= 80, "nothing is off the screen"
        await pilot.press("enter")
        await until(lambda: isinstance(app.screen, Words))
        log = app.screen.query_one("RichLog")
        await until(lambda: any("Job default/load" in line.text for line in log.lines))  # type: ignore[attr-defined]
        await pilot.press("escape")
        await until(lambda: isinstance(app.screen, Workloads))
        await pilot.press("down", "down", "enter")
        await until(lambda: isinstance(app.screen, Containers))
        await pilot.press("escape", "escape")
        await until(lambda: isinstance(app.screen, Pods))

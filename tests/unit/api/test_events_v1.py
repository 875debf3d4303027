"""Events of events.k8s.io/v1: the same objects as core events, with other names of fields."""

from __future__ import annotations

import pytest

from kubelite.api.kube.events.version_1 import as_core, as_v1
from tests.unit.api.fake_node import event_doc
from tests.unit.api.test_api import TABLE, Http, http, names, node

__all__ = ["http", "node"]

EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"


def test_the_names_of_fields() -> None:
    """Kubernetes pkg/apis/events/v1/conversion.go."""
    core = {
        **event_doc("e", "web", "Started", "said"),
        "reportingComponent": "kubelite",
        "reportingInstance": "here",
    }
    found = as_v1(core)
    assert found == {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": core["metadata"],
        "regarding": core["involvedObject"],
        "type": "Normal",
        "reason": "Started",
        "note": "said",
        "eventTime": core["firstTimestamp"].replace("Z", ".000000Z"),
        "reportingController": "kubelite",
        "reportingInstance": "here",
        "deprecatedFirstTimestamp": core["firstTimestamp"],
        "deprecatedLastTimestamp": core["lastTimestamp"],
        "deprecatedCount": 1,
        "deprecatedSource": core["source"],
    }
    assert as_core(found) == {**core, "eventTime": found["eventTime"]}
    assert as_v1({**core, "eventTime": "2026-01-02T03:04:05.678901Z"})["eventTime"].endswith(".678901Z")
    assert as_v1({"metadata": {}})["eventTime"] is None


def test_lists_and_single_events(http: Http) -> None:
    found = http.get(EVENTS).json()
    assert (found["kind"], found["apiVersion"], names(found)) == ("EventList", "events.k8s.io/v1", ["e1"])
    assert found["items"][0]["regarding"]["name"] == "web"
    assert http.get(f"{EVENTS}/e1").json()["note"] == "Started container app"
    core = http.get("/api/v1/namespaces/default/events/e1").json()
    assert core["message"] == "Started container app" and "note" not in core


@pytest.mark.parametrize(
    ("path", "fields", "found"),
    [
        (EVENTS, "regarding.name=web,reason=Started", ["e1"]),
        (EVENTS, "regarding.name!=web", []),
        (EVENTS, "reportingController=,type=Normal", ["e1"]),
        (EVENTS, "involvedObject.name=web", None),
        ("/api/v1/events", "involvedObject.name=web", ["e1"]),
        ("/api/v1/events", "regarding.name=web", None),
    ],
)
def test_fields_that_select_them(http: Http, path: str, fields: str, found: list[str] | None) -> None:
    answer = http.get(path, params={"fieldSelector": fields})
    assert answer.status_code == (400 if found is None else 200)
    assert found is None or names(answer.json()) == found


def test_a_table_is_that_of_core_events(http: Http) -> None:
    tables = [
        http.get(f"{path}?includeObject=None", headers=TABLE).json()
        for path in (EVENTS, "/api/v1/namespaces/default/events")
    ]
    assert tables[0] == tables[1]


def test_discovery(http: Http) -> None:
    groups = {one["name"]: one for one in http.get("/apis").json()["groups"]}
    assert [one["groupVersion"] for one in groups["events.k8s.io"]["versions"]] == ["events.k8s.io/v1"]
    (entry,) = http.get("/apis/events.k8s.io/v1").json()["resources"]
    assert (entry["name"], entry["shortNames"], entry["verbs"]) == (
        "events",
        ["ev"],
        ["get", "list", "watch"],
    )
    versions = [one["groupVersion"] for one in groups["autoscaling"]["versions"]]
    assert versions == ["autoscaling/v2", "autoscaling/v1"]

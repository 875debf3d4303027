"""`POST …/pods/NAME/eviction` and PodDisruptionBudgets: the answers of the API server, discovery, columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kubelite.api.kube.printers import table
from kubelite.cli.describe.objects import describe_budget
from kubelite.controllers.decide.evictions import REFUSED, SEVERAL
from kubelite.kube.json import Json
from tests.unit.api.fake_node import FakeNode, pod_doc
from tests.unit.api.test_api import Http

NOW = 1_790_000_000.0


def budget(name: str = "web", allowed: int = 0, generation: int = 1) -> Json:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}-pdb", "generation": generation}
    counts = {"currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "disruptionsAllowed": allowed}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {**metadata, "creationTimestamp": "2026-09-21T14:08:20Z"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
        "status": {**counts, "observedGeneration": 1},
    }


@pytest.fixture
def http(tmp_path: Path) -> Iterator[Http]:
    fake = FakeNode(tmp_path)
    client = Http(fake)
    client.runner.run(fake.store.create("Pod", pod_doc("web")))
    yield client
    client.runner.run(fake.store.close())
    client.runner.close()


def add(http: Http, *docs: Json) -> None:
    for doc in docs:
        http.runner.run(http.node.store.create(doc["kind"], doc))


def evict(http: Http, name: str = "web", query: Json | None = None, **options: Any) -> httpx.Response:
    """Ask for the eviction of web at the path of a pod, with these deleteOptions."""
    body: Json = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
    path = f"/api/v1/namespaces/default/pods/{name}/eviction"
    return http.post(path, json=body | ({"deleteOptions": options} if options else {}), params=query or {})


def test_an_eviction_without_version_and_kind(http: Http) -> None:
    """As the Python and JavaScript clients send it."""
    path = "/api/v1/namespaces/default/pods/web/eviction"
    assert http.post(path, json={"metadata": {"name": "web"}}).status_code == 201


def test_an_eviction_succeeds(http: Http) -> None:
    add(http, budget(allowed=1))
    assert evict(http, query={"dryRun": "All"}).status_code == 201
    assert evict(http, dryRun=["All"]).status_code == 201
    record = http.node.store.get("Pod", "default", "web")
    assert record is not None and not record.deleting, "a dry run changes nothing"
    done = evict(http, gracePeriodSeconds=3)
    assert (done.status_code, done.json()["status"]) == (201, "Success")
    pod = http.get("/api/v1/namespaces/default/pods/web").json()
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 3
    status = http.get("/apis/policy/v1/namespaces/default/poddisruptionbudgets/web/status").json()["status"]
    assert status["disruptionsAllowed"] == 0 and list(status["disruptedPods"]) == ["web"]


def test_a_refused_eviction_says_why(http: Http) -> None:
    add(http, budget())
    done = evict(http)
    said = done.json()
    assert (done.status_code, said["reason"], said["message"]) == (429, "TooManyRequests", REFUSED)
    cause = "The disruption budget web needs 1 healthy pods and has 1 currently"
    assert said["details"]["causes"] == [{"reason": "DisruptionBudget", "message": cause}]
    assert "Retry-After" not in done.headers
    add(http, budget("also"))
    assert (evict(http).status_code, evict(http).json()["message"]) == (500, SEVERAL)


def test_a_budget_that_was_not_looked_at_yet(http: Http) -> None:
    add(http, budget(allowed=1, generation=2))
    done = evict(http)
    assert (done.status_code, done.headers["Retry-After"]) == (429, "10")


@pytest.mark.parametrize(
    ("case", "code", "words"),
    [
        (("db", {}, {}), 400, "name in URL does not match name in Eviction object"),
        (("web", {"gracePeriodSeconds": -1}, {}), 400, "gracePeriodSeconds must be a whole number"),
        (("web", {"dryRun": ["All"]}, {"dryRun": "Some"}), 400, "Non-matching dry-run options"),
        (("web", {"preconditions": {"uid": "x"}}, {}), 409, "does not match the UID in record"),
    ],
)
def test_bad_requests(http: Http, case: tuple[str, Json, Json], code: int, words: str) -> None:
    name, options, query = case
    done = evict(http, name, query, **options)
    assert done.status_code == code and words in done.json()["message"]


def test_discovery_and_columns(http: Http) -> None:
    """kubectl drain looks for pods/eviction with a group and a version (kubectl pkg/drain, CheckEvictionSupport)."""
    served = {found["name"]: found for found in http.get("/api/v1").json()["resources"]}
    found = served["pods/eviction"]
    assert (found["kind"], found["group"], found["version"]) == ("Eviction", "policy", "v1")
    assert found["verbs"] == ["create"]
    budgets = {one["name"]: one for one in http.get("/apis/policy/v1").json()["resources"]}
    assert budgets["poddisruptionbudgets"]["shortNames"] == ["pdb"]
    assert "categories" not in budgets["poddisruptionbudgets"] and "poddisruptionbudgets/status" in budgets
    shown = table("PodDisruptionBudget", [budget(allowed=2)], now=NOW, resource_version=1)
    assert shown["rows"][0]["cells"] == ["web", "1", "N/A", 2, "5m"]


def test_describe() -> None:
    """kubectl pkg/describe, describePodDisruptionBudgetV1."""
    assert describe_budget(budget(allowed=2), [], NOW) == (
        "Name:           web\n"
        "Namespace:      default\n"
        "Min available:  1\n"
        "Selector:       app=web\n"
        "Status:\n"
        "    Allowed disruptions:  2\n"
        "    Current:              1\n"
        "    Desired:              1\n"
        "    Total:                1\n"
        "Events:                   <none>\n"
    )

"""metrics.k8s.io: rates from two samples, what is left out, and what a client gets."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from kubelite.api.kube.metrics import routes
from kubelite.api.kube.metrics.documents import measured, node_metrics, pod_metrics
from kubelite.kube.json import Json
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served


def sample(now: float, **cpu: int) -> Json:
    containers = [
        {"uid": "u", "id": name, "container": name, "cpu": used, "memory": 5 << 20}
        for name, used in cpu.items()
    ]
    return {"now": now, "node": {"cpu": int(now * 5e8), "memory": 1 << 30}, "containers": containers}


POD: Json = {"metadata": {"name": "web", "namespace": "shop", "uid": "u", "labels": {"app": "web"}}}


def test_rates_are_those_of_the_window() -> None:
    found = measured(sample(100, a=0, b=10**9), sample(104, a=10**9, b=10**9))
    (pod,) = pod_metrics(found, [POD])
    assert pod["metadata"]["labels"] == {"app": "web"} and pod["window"] == "4.000s"
    assert pod["timestamp"] == "1970-01-01T00:01:44Z"
    assert pod["containers"] == [
        {"name": "a", "usage": {"cpu": "250000000n", "memory": "5120Ki"}},
        {"name": "b", "usage": {"cpu": "0n", "memory": "5120Ki"}},
    ]
    assert node_metrics(found, {"metadata": {"name": "here"}})["usage"] == {
        "cpu": "500000000n",
        "memory": "1048576Ki",
    }


def test_a_pod_with_a_container_that_is_new_is_left_out() -> None:
    found = measured(sample(100, a=0), sample(104, a=1, b=1))
    assert pod_metrics(found, [POD]) == []
    assert pod_metrics(found, [{"metadata": {"name": "other", "uid": "x"}}]) == []


def test_a_counter_that_fell_counts_as_nothing() -> None:
    (pod,) = pod_metrics(measured(sample(100, a=9), sample(104, a=1)), [POD])
    assert pod["containers"][0]["usage"]["cpu"] == "0n"


def test_what_a_client_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "FIRST", 0.01)
    top = "/metrics.k8s.io/v1beta1"
    with Served.at(tmp_path) as served, httpx.Client(base_url=f"http://127.0.0.1:{served.port}/apis") as http:
        served.run(served.node.store.create("Pod", pod_doc("web")))
        assert [one["name"] for one in http.get(top).json()["resources"]] == ["nodes", "pods"]
        found = http.get(f"{top}/namespaces/default/pods").json()
        assert (found["kind"], found["apiVersion"]) == ("PodMetricsList", "metrics.k8s.io/v1beta1")
        usage = {"cpu": "250000000n", "memory": "65536Ki"}
        assert found["items"][0]["containers"] == [{"name": "app", "usage": usage}]
        assert http.get(f"{top}/namespaces/default/pods/web").json()["window"] == "1.000s"
        assert http.get(f"{top}/pods", params={"labelSelector": "app=other"}).json()["items"] == []
        assert http.get(f"{top}/pods", params={"fieldSelector": "a=b"}).status_code == 400
        assert http.get(f"{top}/nodes").json()["items"][0]["usage"]["cpu"] == "500000000n"
        assert http.get(f"{top}/namespaces/default/pods/nix").status_code == 404
        assert http.get(f"{top}/nodes/nix").json()["message"] == 'nodes.metrics.k8s.io "nix" not found'

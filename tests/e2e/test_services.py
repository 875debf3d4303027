"""Services on one node, as programs in pods and on the host reach them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.kubectl import forwarded
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.e2e.test_network import needs_nat
from tests.e2e.test_port_forward import answers, forwarding
from tests.e2e.test_workloads import complete, items

# The server closes its port at SIGTERM, and finishes the requests that it has accepted.
SERVE = (
    "mkdir -p /tmp/w; hostname >/tmp/w/index.html; trap 'kill $!; sleep 1; exit 0' TERM; "
    "httpd -f -p 8080 -h /tmp/w & wait"
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("services"), images, service_counters="true") as found:
        yield found


@pytest.fixture
def node(shared: Node) -> Iterator[Node]:
    """The shared node, emptied afterwards."""
    yield shared
    for file in shared.manifests.glob("*.yaml"):
        file.unlink()
    shared.wait(lambda: not items(shared, "/api/v1/pods"), "all pods to be gone")
    shared.wait(
        lambda: not items(shared, "/apis/discovery.k8s.io/v1/endpointslices"), "all slices to be gone"
    )


def dump(*docs: dict[str, Any]) -> str:
    return yaml.safe_dump_all(docs, sort_keys=False)


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    given = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}], **spec}
    given = {key: value for key, value in given.items() if value is not None}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": given}


def template(version: str = "one") -> dict[str, Any]:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    main = container(script=SERVE, ports=[{"name": "http", "containerPort": 8080}], readinessProbe=probe)
    metadata = {"labels": {"app": "web"}, "annotations": {"version": version}}
    return {"metadata": metadata, "spec": {"terminationGracePeriodSeconds": 5, "containers": [main]}}


def deployment(replicas: int, version: str = "one") -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template(version),
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        },
    }


def found(node: Node, name: str = "web") -> dict[str, Any]:
    code, body = node.ask(f"/api/v1/namespaces/default/services/{name}")
    assert code == 200, body
    doc: dict[str, Any] = json.loads(body)
    return doc


def ready(node: Node, count: int, name: str = "web") -> bool:
    slices = items(node, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
    own = [one for one in slices if one["metadata"]["labels"]["kubernetes.io/service-name"] == name]
    return sum(bool(end["conditions"]["ready"]) for one in own for end in one["endpoints"]) == count


def fetched(node: Node, url: str) -> str:
    """What a program of the host gets from an address; "" if it gets nothing."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        return node.fetch(url, timeout=3.0).body.decode().strip()
    return ""


def from_pod(node: Node, name: str, url: str) -> str:
    return node.cli("exec", name, "--", "wget", "-T", "3", "-qO-", url, check=False).out.strip()


def names(node: Node) -> set[str]:
    return {pod["metadata"]["name"] for pod in items(node, "/api/v1/namespaces/default/pods")}


@needs_nat
def test_a_service_answers_from_pods_the_host_and_its_node_port(node: Node) -> None:
    node.apply("web.yaml", dump(service(type="NodePort"), deployment(2)))
    node.wait(lambda: ready(node, 2), "two ready endpoints")
    spec = found(node)["spec"]
    address, port = spec["clusterIP"], spec["ports"][0]["nodePort"]
    pods = names(node)
    url = f"http://{address}/"
    assert {fetched(node, url) for _ in range(20)} == pods, "from the host, both pods"
    assert fetched(node, f"http://10.77.0.1:{port}/") in pods, "the node port, at the bridge's address"
    one = min(pods)
    answers = {from_pod(node, one, url) for _ in range(12)}
    assert answers == pods, "from a pod, itself among them"
    said = node.cli("get", "svc", "web").out.splitlines()
    assert said[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert said[1].split()[:5] == ["web", "NodePort", address, "<none>", f"80:{port}/TCP"]
    ends = node.cli("get", "endpoints", "web").out.splitlines()[1].split()[1].split(",")
    assert len(ends) == 2 and all(end.endswith(":8080") for end in ends)
    counted(node, address, pods)

    node.apply("web.yaml", dump(service(type="NodePort"), deployment(0)))
    node.wait(lambda: ready(node, 0), "no endpoints")
    node.wait(lambda: not fetched(node, url), "the connection to be refused")
    node.wait(lambda: not names(node), "the pods to be gone")
    assert found(node)["spec"] == spec
    assert "no pod matches" in node.cli("why", "service/web").out


def counted(node: Node, address: str, pods: set[str]) -> None:
    """The metrics of the Service `web`, which has answered more than 20 requests."""
    page = node.fetch("http://127.0.0.1:10255/metrics").body.decode()
    lines = [line for line in page.splitlines() if 'service="web"' in line]
    assert any(line.startswith("kube_service_info") and f'cluster_ip="{address}"' in line for line in lines)
    assert 'kubelite_service_endpoints_ready{namespace="default",service="web"} 2' in lines
    received = [line for line in lines if line.startswith("kubelite_service_endpoint_receive_packets_total")]
    assert {one for one in pods if any(f'pod="{one}"' in line for line in received)} == pods
    assert sum(int(line.rpartition(" ")[2]) for line in received) > 20 * 4, (
        "four packets a connection at least"
    )


@needs_nat
def test_a_service_survives_the_daemon_and_its_helper(node: Node) -> None:
    node.apply("web.yaml", dump(service(), deployment(1)))
    node.wait(lambda: ready(node, 1), "an endpoint")
    spec = found(node)["spec"]
    url = f"http://{spec['clusterIP']}/"
    node.kill()
    assert fetched(node, url), "without a daemon"
    node.start()
    node.wait(lambda: fetched(node, url), "with a new one")
    assert found(node)["spec"] == spec


@needs_nat
def test_a_rolling_update_loses_no_request(node: Node) -> None:
    node.apply("web.yaml", dump(service(), deployment(2)))
    node.wait(lambda: ready(node, 2) and complete(node, 2), "two ready endpoints")
    url = f"http://{found(node)['spec']['clusterIP']}/"
    old, answers, stop = names(node), list[str](), threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers.append(fetched(node, url))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        node.apply("web.yaml", dump(service(), deployment(2, "two")))
        node.wait(lambda: complete(node, 2) and not names(node) & old, "the rollout", timeout=60)
    finally:
        stop.set()
        asking.join()
    assert len(answers) > 50 and "" not in answers, f"{answers.count('')} of {len(answers)} lost"
    assert set(answers) & old and set(answers) - old


def test_headless_and_external_names_have_no_address(node: Node) -> None:
    headless = service("inner", clusterIP="None")
    external = service("outer", type="ExternalName", externalName="db.example.org", selector=None, ports=None)
    node.apply("web.yaml", dump(headless, external, deployment(1)))
    node.wait(lambda: ready(node, 1, "inner"), "an endpoint")
    said = node.cli("get", "svc").out
    assert re.search(r"inner +ClusterIP +None +<none> +80/TCP", said)
    assert re.search(r"outer +ExternalName +<none> +db.example.org +<none>", said)
    described = node.cli("describe", "svc", "inner").out
    assert re.search(r"Endpoints: +10\.77\.0\.\d+:8080", described)


def test_variables_name_services(node: Node) -> None:
    node.apply("svc.yaml", dump(service("my-db", ports=[{"port": 5432}])))
    node.wait(lambda: node.ask("/api/v1/namespaces/default/services/my-db")[0] == 200, "the service")
    node.apply("pod.yaml", pod("client", container(script="env; sleep 60")))
    node.wait_status("client", "Running")
    address = found(node, "my-db")["spec"]["clusterIP"]
    node.wait(lambda: f"MY_DB_SERVICE_HOST={address}" in node.logs("client"), "the variable")
    assert f"MY_DB_PORT_5432_TCP_ADDR={address}" in node.logs("client")


@needs_nat
def test_commands_that_reach_pods_by_a_service(node: Node) -> None:
    node.apply("svc.yaml", dump(service()))
    node.apply("web.yaml", dump(deployment(1)))
    node.wait(lambda: ready(node, 1), "an endpoint")
    (name,) = names(node)
    assert node.cli("exec", "svc/web", "--", "hostname").out.strip() == name
    assert node.cli("logs", "svc/web").out == node.cli("logs", name).out
    with forwarding(node, "service/web", ":80", to=8080) as port:
        node.wait(lambda: answers(port) == f"{name}\n", "the pod's answer")
    address = found(node)["spec"]["clusterIP"]
    drawn = node.cli("net").out
    assert re.search(
        rf"default/web ClusterIP {address}\n  80/TCP → 10\.77\.0\.\d+:8080  default/{name}  ready", drawn
    )
    assert "<text" in node.cli("net", "-n", "default", "-o", "svg").out
    deleted = node.cli("delete", "svc", "web")
    assert deleted.out == 'service "web" deleted from default namespace\n'
    assert "still defines service web" in deleted.err
    node.wait(lambda: fetched(node, f"http://{address}/") == name, "the Service of the file, at its address")
    assert node.cli("delete", "-f", str(node.manifests / "svc.yaml")).out.startswith('service "web" deleted')
    node.wait(lambda: node.ask("/api/v1/namespaces/default/services/web")[0] == 404, "the Service to go")
    node.wait(lambda: not fetched(node, f"http://{address}/"), "its address to be refused")
    assert node.cli("logs", "svc/web", check=False).code == 1


def test_kubectl_shows_services_and_endpoints(node: Node) -> None:
    with forwarded(node) as kubectl:
        node.apply("web.yaml", dump(service(), deployment(1)))
        node.wait(lambda: ready(node, 1), "an endpoint")
        kinds = "services,endpoints,endpointslices"
        listed = kubectl("get", kinds)
        assert listed.code == 0, listed.err
        address, end = (
            found(node)["spec"]["clusterIP"],
            node.cli("get", "endpoints").out.splitlines()[1].split()[1],
        )
        assert re.search(rf"service/web +ClusterIP +{re.escape(address)} +<none> +80/TCP", listed.out)
        assert re.search(rf"endpoints/web +{re.escape(end)}", listed.out)
        assert re.search(r"endpointslice.discovery.k8s.io/web-\S+ +IPv4 +8080 +10\.77\.0\.\d+", listed.out)
        for kind in kinds.split(","):
            theirs, ours = kubectl("describe", kind), node.cli("describe", kind)
            assert theirs.code == 0, theirs.err
            assert theirs.out.split() == ours.out.split()

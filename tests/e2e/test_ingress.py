"""Ingresses on one node, with a real haproxy: what a client on the host gets."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kubelite.ingress.certificates import self_signed
from tests.e2e.node import Node, running_node
from tests.e2e.test_network import needs_nat
from tests.e2e.test_services import dump, template
from tests.e2e.test_workloads import items
from tests.programs import missing

PROXY = "localhost/kubelite/haproxy:latest"
pytestmark = [
    needs_nat,
    pytest.mark.skipif(bool(missing("haproxy")), reason="needs haproxy"),
    pytest.mark.timeout(240),
]
#: Asks for / of a host over and over on one connection, until a file appears; then says how many answers failed.
CLIENT = """
import http.client, os, sys
good = bad = 0
connection = http.client.HTTPConnection("127.0.0.1", 80, timeout=20)
while not os.path.exists(sys.argv[2]):
    try:
        connection.request("GET", "/", headers={"Host": sys.argv[1]})
        answer = connection.getresponse()
        answer.read()
        good, bad = good + (answer.status == 200), bad + (answer.status != 200)
    except (OSError, http.client.HTTPException):
        bad += 1
        connection.close()
print(good, bad)
"""
#: Prints the certificate that a server shows for a host.
SHOWN = """
import socket, ssl, sys
context = ssl._create_unverified_context()
with context.wrap_socket(socket.create_connection(("127.0.0.1", 443), 5), server_hostname=sys.argv[1]) as found:
    print(ssl.DER_cert_to_PEM_cert(found.getpeercert(True)))
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("ingress"), images, ingress_image=PROXY) as found:
        found.cli("image", "pack", "haproxy", "-t", PROXY)
        yield found


def backend(name: str, port: str | int = "http") -> dict[str, Any]:
    own = {"number": port} if isinstance(port, int) else {"name": port}
    return {"service": {"name": name, "port": own}}


def rule(host: str, **paths: dict[str, Any]) -> dict[str, Any]:
    found = [
        {"path": f"/{path}".replace("_", "/"), "pathType": "Prefix", "backend": to}
        for path, to in paths.items()
    ]
    return {"host": host, "http": {"paths": found}} if host else {"http": {"paths": found}}


def ingress(name: str, *rules: dict[str, Any], **spec: Any) -> dict[str, Any]:
    found = {"rules": list(rules), **spec}
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
        "spec": {key: value for key, value in found.items() if value},
    }  # fmt: skip


def application(name: str, replicas: int = 1, version: str = "one") -> list[dict[str, Any]]:
    labels = {"app": name}
    pods = template(version)
    pods["metadata"]["labels"] = labels
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels}, "template": pods,
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        },
    }  # fmt: skip
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": labels, "ports": ports},
    }
    return [deployment, service]


def secret(name: str, pem: bytes) -> dict[str, Any]:
    key = pem.index(b"-----BEGIN PRIVATE")
    data = {"tls.crt": pem[:key], "tls.key": pem[key:]}
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls",
        "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
    }  # fmt: skip


def got(node: Node, host: str, path: str = "/") -> tuple[int, str]:
    with contextlib.suppress(OSError, http.client.HTTPException):
        answer = node.fetch(f"http://127.0.0.1{path}", headers={"Host": host}, timeout=3.0)
        return answer.status, answer.body.decode().strip()
    return 0, ""


def leads_to(node: Node, host: str, name: str, path: str = "/") -> bool:
    status, body = got(node, host, path)
    return status == 200 and body.startswith(f"{name}-")


def proxy(node: Node) -> dict[str, Any] | None:
    found = items(node, "/api/v1/namespaces/kube-system/pods")
    return found[0] if found else None


def shown(node: Node, host: str) -> str:
    command = node.in_netns(sys.executable, "-c", SHOWN, host)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_hosts_paths_and_certificates(node: Node) -> None:
    assert proxy(node) is None, "a node without an Ingress has no proxy"
    pem = self_signed("test", time.time())
    node.apply("apps.yaml", dump(*application("web"), *application("api"), secret("web-tls", pem)))
    node.apply(
        "web.yaml",
        dump(
            ingress(
                "web",
                {"host": "web.example", "http": {"paths": [
                    {"path": "/", "pathType": "Prefix", "backend": backend("web")},
                    {"path": "/index.html", "pathType": "Exact", "backend": backend("api", 80)},
                ]}},
                rule("*.wild.example", index=backend("web"), **{"": backend("api")}),
                rule("gone.example", **{"": backend("nothing")}),
                tls=[
                    {"hosts": ["web.example"], "secretName": "web-tls"},
                    {"hosts": ["gone.example"], "secretName": "missing"},
                ],
            )
        ),
    )  # fmt: skip
    node.wait(lambda: leads_to(node, "web.example", "web"), "the first answer", timeout=60)
    node.wait(lambda: leads_to(node, "web.example:80", "api", "/index.html"), "the other service")
    assert leads_to(node, "one.wild.example", "api")
    assert got(node, "one.wild.example", "/index")[0] == 404, "it is the file that is not there"
    assert got(node, "one.two.wild.example")[0] == 404 and got(node, "other.example")[0] == 404
    assert got(node, "gone.example")[0] == 503
    expected = pem[: pem.index(b"-----BEGIN PRIVATE")].decode().split()
    assert shown(node, "web.example").split() == expected
    default = (node.root / "ingress/default.pem").read_text().partition("-----BEGIN PRIVATE")[0].split()
    assert shown(node, "gone.example").split() == default
    said = node.cli("get", "ingress").out.splitlines()
    assert said[0].split() == ["NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"]
    assert said[1].split()[:3] == ["web", "<none>", "web.example,*.wild.example,gone.example"]
    (address,) = items(node, "/apis/networking.k8s.io/v1/ingresses")[0]["status"]["loadBalancer"]["ingress"]
    assert address["ip"] in said[1]
    why = node.cli("why", "ingress/web").out
    assert 'no service "nothing" exists' in why and 'no secret "missing" exists' in why
    assert "web:http (10.77.0." in node.cli("describe", "ingress", "web").out
    assert {event["reason"] for event in node.events() if event["involvedObject"]["kind"] == "Ingress"} == {
        "Sync", "Translate",
    }  # fmt: skip


def test_a_rollout_edits_and_a_restart_lose_no_request(node: Node, tmp_path: Path) -> None:
    node.apply("apps.yaml", dump(*application("web", 2), *application("api")))
    node.apply("web.yaml", dump(ingress("web", rule("web.example", **{"": backend("web")}))))
    node.wait(lambda: leads_to(node, "web.example", "web"), "the first answer", timeout=60)
    stop = tmp_path / "stop"
    command = node.in_netns(sys.executable, "-c", CLIENT, "web.example", str(stop))
    client = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        before = {pod["metadata"]["name"] for pod in items(node, "/api/v1/namespaces/default/pods")}
        node.apply("apps.yaml", dump(*application("web", 2, "two"), *application("api")))
        node.wait(lambda: _replaced(node, before), "the rollout", timeout=90)
        for number in range(5):
            node.apply("more.yaml", dump(ingress("more", rule(f"m{number}.example", **{"": backend("api")}))))
            node.wait(lambda n=number: leads_to(node, f"m{n}.example", "api"), "another host")  # type: ignore[misc]
        node.restart()
        (node.manifests / "more.yaml").unlink()
        node.wait(lambda: got(node, "m4.example")[0] == 404, "the host to be gone")
    finally:
        stop.touch()
        out, _ = client.communicate(timeout=30)
    good, bad = map(int, out.split())
    assert bad == 0 and good > 100, f"{good} answers, {bad} failures"


def _replaced(node: Node, before: set[str]) -> bool:
    pods = [
        pod
        for pod in items(node, "/api/v1/namespaces/default/pods")
        if pod["metadata"]["name"].startswith("web-")
    ]
    return len(pods) == 2 and not before & {pod["metadata"]["name"] for pod in pods}


def test_the_proxy_comes_back_and_goes_with_the_last_ingress(node: Node) -> None:
    node.apply("apps.yaml", dump(*application("web")))
    node.apply("web.yaml", dump(ingress("web", defaultBackend=backend("web"))))
    node.wait(lambda: leads_to(node, "any.example", "web"), "the first answer", timeout=60)
    found = proxy(node)
    assert found is not None
    node.cli("delete", "pod", "-n", "kube-system", found["metadata"]["name"])
    node.wait(lambda: leads_to(node, "any.example", "web"), "the proxy to be back", timeout=60)
    node.kill()
    assert leads_to(node, "any.example", "web"), "it serves without the daemon"
    node.start()
    node.apply("other.yaml", dump({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "other"},
        "spec": {"controller": "other.example/ingress"},
    }))  # fmt: skip
    node.apply("web.yaml", dump(ingress("web", defaultBackend=backend("web"), ingressClassName="other")))
    node.wait(lambda: proxy(node) is None, "the proxy to be gone", timeout=60)
    (left,) = items(node, "/apis/networking.k8s.io/v1/ingresses")
    assert left["status"] == {"loadBalancer": {}}, json.dumps(left)
    assert "is of controller other.example/ingress" in node.cli("why", "ingress/web").out
    (node.manifests / "web.yaml").unlink()
    node.wait(lambda: not (node.root / "ingress/config").exists(), "its files to be gone")


@pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="needs IPv6 in this kernel")
def test_an_ingress_by_ipv6(tmp_path: Path, images: Path) -> None:
    """The proxy is reached at the node's addresses of both families."""
    settings = {"pod_cidr": "10.77.0.0/24,fd00:77::/64", "ingress_image": PROXY}
    with running_node(tmp_path, images, **settings) as node:
        node.cli("image", "pack", "haproxy", "-t", PROXY)
        for command in (
            ("link", "add", "outside", "type", "veth", "peer", "name", "others"),
            ("link", "set", "others", "up"),
            ("link", "set", "outside", "up"),
            ("addr", "add", "2001:db8::10/64", "dev", "outside", "nodad"),
            ("-6", "route", "add", "default", "dev", "outside"),
        ):
            subprocess.run(node.in_netns("ip", *command), check=True)
        node.apply("web.yaml", dump(*application("web"), ingress("web", rule("", **{"": backend("web")}))))

        def addresses() -> list[str]:
            listed = items(node, "/apis/networking.k8s.io/v1/namespaces/default/ingresses")
            statuses = [one.get("status") or {} for one in listed]
            return [
                one["ip"] for found in statuses for one in found.get("loadBalancer", {}).get("ingress", ())
            ]

        node.wait(lambda: len(addresses()) == 2, "addresses of both families")
        assert addresses()[1] == "2001:db8::10"

        def leads(host: str) -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException):
                return node.fetch(f"http://{host}/", timeout=3.0).body.startswith(b"web-")
            return False

        for host in ("[2001:db8::10]", "127.0.0.1"):
            node.wait(partial(leads, host), f"the application at {host}")

"""kubectl's subresources over TLS: port-forward, exec and attach, in a WebSocket and in SPDY/3.1; and metrics."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.api import fetch
from tests.e2e.manifests import container, pod
from tests.e2e.node import PATIENCE, Finished, Node
from tests.programs import missing

pytestmark = pytest.mark.skipif(bool(missing("kubectl")), reason="needs kubectl")
SERVE = """mkdir /www; head -c 3000000 /dev/zero > /www/big; echo hello > /www/index.html
httpd -p 8080 -h /www
exec httpd -f -p 127.0.0.1:81 -h /www"""
SHOP = """\
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""
#: Environment variables with which kubectl 1.32 speaks SPDY/3.1, as older ones do.
SPDY = {"KUBECTL_PORT_FORWARD_WEBSOCKETS": "false", "KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
WAYS = pytest.mark.parametrize("extra", [{}, SPDY], ids=["websocket", "spdy"])


class Kubectl:
    def __init__(self, node: Node, name: str, *options: str) -> None:
        self.node, self.file = node, node.base / f"{name}.kubeconfig"
        node.cli("kubeconfig", "--file", str(self.file), *options)

    def environ(self, extra: dict[str, str]) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": str(self.file), "HOME": str(self.node.base), **extra}

    def __call__(self, extra: dict[str, str], *arguments: str, stdin: bytes = b"") -> Finished:
        done = subprocess.run(
            self.node.in_netns("kubectl", *arguments), env=self.environ(extra), input=stdin,
            capture_output=True, timeout=30 * PATIENCE, check=False,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextmanager
    def forwarding(
        self, extra: dict[str, str], *arguments: str
    ) -> Iterator[tuple[int, subprocess.Popen[str]]]:
        """The local port, in the node's network namespace, and kubectl."""
        command = self.node.in_netns("kubectl", "port-forward", *arguments)
        with subprocess.Popen(
            command, env=self.environ(extra), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None and process.stderr is not None
                said = process.stdout.readline()
                found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> \d+\n", said)
                assert found, said + process.stderr.read()
                yield int(found[1]), process
            finally:
                process.kill()


@pytest.fixture(scope="module")
def admin(builder: Node) -> Kubectl:
    builder.apply("web.yaml", pod("web", container(script=SERVE), labels={"app": "web"}))
    builder.wait_status("web", "Running")
    return Kubectl(builder, "admin")


def ask(node: Node, port: int, path: str = "/") -> bytes:
    """The body that a forwarded port answers with; b"" if the connection ends before."""
    assert node.holder is not None
    url, netns = f"http://127.0.0.1:{port}{path}", f"/proc/{node.holder.pid}/ns/net"
    with contextlib.suppress(OSError):
        return fetch(netns, url, method="GET", headers={}, timeout=10 * PATIENCE).body
    return b""


@WAYS
def test_a_port_on_the_pods_loopback(admin: Kubectl, extra: dict[str, str]) -> None:
    with admin.forwarding(extra, "pod/web", ":81") as (port, _):
        admin.node.wait(lambda: ask(admin.node, port) == b"hello\n", "the server of the pod")
        assert [len(ask(admin.node, port, "/big")) for _ in range(3)] == [3000000] * 3
    with admin.forwarding(extra, "pod/web", ":9") as (port, process):
        assert ask(admin.node, port) == b""
        process.terminate()
        assert process.stderr is not None
        assert "cannot connect to port 9 of the pod: Connection refused" in process.stderr.read()
    lines = (admin.node.log_dir / "kubelite-audit.log").read_text().splitlines()
    found = [json.loads(line) for line in lines if '"portforward"' in line]
    assert found[-1]["responseStatus"] == {"code": 101} and found[-1]["user"]["username"] == "kubelite-admin"


@WAYS
def test_programs(admin: Kubectl, extra: dict[str, str]) -> None:
    data = bytes(range(256)) * 4000
    assert admin(extra, "exec", "-i", "web", "--", "sh", "-c", "wc -c; exit 3", stdin=data).out == "1024000\n"
    done = admin(extra, "exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out) == (3, "out\n") and done.err.startswith("err\n")
    assert admin(extra, "exec", "-i", "web", "--", "true", stdin=data).code == 0
    big = admin(extra, "exec", "web", "--", "head", "-c", "2000000", "/dev/zero")
    assert (big.code, len(big.out)) == (0, 2000000)
    done = admin(extra, "exec", "web", "--", "no-such-program")
    assert done.code == 127 and "not found" in done.err
    done = admin(extra, "exec", "nix", "--", "true")
    assert (done.code, done.err) == (1, 'Error from server (NotFound): pods "nix" not found\n')


def test_who_may_not_create_portforward_gets_403(admin: Kubectl) -> None:
    reader = Kubectl(admin.node, "reader", "--read-only")
    for extra in ({}, SPDY):
        for words in (("port-forward", "web", ":81"), ("exec", "web", "--", "true")):
            said = reader(extra, *words)
            assert said.code == 1 and "forbidden" in said.err.lower(), said


def test_http_through_the_api(admin: Kubectl) -> None:
    def get(path: str) -> Finished:
        return admin({}, "get", "--raw", f"/api/v1/namespaces/default/{path}")

    admin.node.wait(lambda: get("pods/web:8080/proxy/").out == "hello\n", "the server of the pod")
    assert len(get("pods/web:8080/proxy/big").out) == 3000000
    loopback = get("pods/web:81/proxy/")
    assert loopback.code == 1 and "Connection refused" in loopback.err, (
        "as on a cluster: the pod's address alone"
    )
    admin.node.apply("shop.yaml", SHOP)
    admin.node.wait(lambda: get("services/shop:http/proxy/").out == "hello\n", "an endpoint of the Service")
    assert get("services/shop:80/proxy/index.html").out == "hello\n"
    reader = Kubectl(admin.node, "proxy", "--read-only")
    said = reader({}, "get", "--raw", "/api/v1/namespaces/default/pods/web:8080/proxy/")
    assert said.code == 1 and 'cannot get resource "pods/proxy"' in said.err


def test_top(admin: Kubectl) -> None:
    pods = admin({}, "top", "pods", "--containers", "--no-headers")
    words = pods.out.split()
    assert words[:2] == ["web", "main"] and re.fullmatch(r"\d+m \d+Mi", " ".join(words[2:])), pods
    nodes = admin({}, "top", "nodes", "--no-headers")
    name, cores, share, memory, part = nodes.out.split()
    assert name == admin.node.name and re.fullmatch(r"\d+m", cores) and re.fullmatch(r"\d+Mi", memory), nodes
    assert share.endswith("%") and part.endswith("%")
    reader = Kubectl(admin.node, "top", "--read-only")
    assert reader({}, "top", "pod", "web", "--no-headers").out.startswith("web ")
    assert admin({}, "get", "pods", "-o", "name").out == "pod/web\n", "not those of metrics"

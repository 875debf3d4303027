"""A node whose pods get their network from CNI plugins: readiness, addresses, ports, restarts, what is not served."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node

PLUGINS = ("bridge", "host-local", "portmap")
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
"""
SERVE = """
    trap 'exit 0' TERM
    mkdir -p /www; echo hello from $HOSTNAME > /www/index.html
    httpd -p 80 -h /www
    while :; do sleep 0.1; done
"""


@pytest.fixture(scope="module")
def cni(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    if not all(os.path.exists(f"/usr/lib/cni/{name}") for name in PLUGINS):
        pytest.skip("needs containernetworking-plugins")
    if lacking := programs.missing("iptables"):
        pytest.skip(f"needs {lacking}")
    base = tmp_path_factory.mktemp("cni")
    with running_node(base, images, network="cni", cni_conf_dir=str(base / "net.d")) as found:
        yield found


def install(node: Node) -> None:
    """What a DaemonSet of a network plugin does."""
    ipam: dict[str, Any] = {
        "type": "host-local",
        "ranges": [[{"subnet": "10.66.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": str(node.base / "leases"),
    }
    plugins = [
        {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    directory = node.base / "net.d"
    directory.mkdir(exist_ok=True)
    (directory / "10-pods.conflist").write_text(
        # portmap 1.1 looks for rules of IPv6 in a CHECK, also for pods that have no such address
        json.dumps({"cniVersion": "1.0.0", "name": "pods", "disableCheck": True, "plugins": plugins})
    )


def leases(node: Node) -> set[str]:
    return {path.name for path in (node.base / "leases" / "pods").iterdir() if path.name[0].isdigit()}


def ready(node: Node) -> dict[str, Any]:
    (found,) = node.json("get", "node", "-o", "json")["items"]
    conditions: list[dict[str, Any]] = found["status"]["conditions"]
    return next(one for one in conditions if one["type"] == "Ready")


def test_pods_wait_for_a_conflist_and_outlive_the_daemon(cni: Node) -> None:
    node = cni
    condition = ready(node)
    assert condition["status"] == "False"
    assert "network plugin is not ready: cni config uninitialized" in condition["message"]
    httpd = container("httpd", SERVE, ports=[{"containerPort": 80, "hostPort": 8088}])
    node.apply("web.yaml", pod("web", httpd, labels={"app": "web"}))
    node.wait(lambda: node.events("FailedCreatePodSandBox"), "the event of a pod that waits")
    assert "cni config uninitialized" in node.events("FailedCreatePodSandBox")[0]["message"]

    install(node)
    node.wait_status("web", "Running")
    assert ready(node)["status"] == "True"
    address = node.pod("web")["status"]["podIP"]
    assert leases(node) == {address} and address.startswith("10.66.0.")
    node.wait(
        lambda: "hello from web" in node.fetch(f"http://{address}/").body.decode(), "the pod, from the host"
    )
    node.apply("client.yaml", pod("client"))
    node.wait_status("client", "Running")
    got = node.cli("exec", "client", "--", "wget", "-qO-", f"http://{address}/").out
    assert got == "hello from web\n"
    assert "ADD portmap" in node.cli("trace", "web").out

    node.restart(signal.SIGKILL)
    assert node.pod("web")["status"]["podIP"] == address
    assert "hello from web" in node.fetch(f"http://{address}/").body.decode()
    (node.manifests / "client.yaml").unlink()
    node.wait_gone("client")
    assert leases(node) == {address}


def test_what_is_not_served_is_said(cni: Node) -> None:
    cni.apply("service.yaml", SERVICE)
    cni.wait(lambda: cni.events("NetworkByCni"), "the event of a Service")
    assert "of kind Service, each of which has no cluster IP" in cni.cli("doctor").out
    (cni.manifests / "service.yaml").unlink()


def test_reset_detaches_every_pod(cni: Node) -> None:
    install(cni)
    cni.apply("last.yaml", pod("last"))
    cni.wait_status("last", "Running")
    cni.stop()
    cni.cli("reset", "--yes", "--now")
    assert leases(cni) == set()
    for manifest in cni.manifests.iterdir():
        manifest.unlink()
    cni.start()


def test_reset_goes_on_if_a_plugin_is_no_longer_there(cni: Node) -> None:
    install(cni)
    cni.apply("last.yaml", pod("last"))
    cni.wait_status("last", "Running")
    cni.stop()
    (record,) = (cni.root / "cni").iterdir()
    record.write_text(record.read_text().replace('"type": "bridge"', '"type": "no-longer"'))
    said = cni.cli("reset", "--yes", "--now").out
    assert 'failed to find plugin "no-longer"' in said and "what the plugins keep of them stays" in said
    assert not (cni.root / "cni").exists() and not list((cni.root / "pods").iterdir())
    (cni.manifests / "last.yaml").unlink()
    cni.start()

"""Names of Services on a whole node: what a container resolves, and what stays when a process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.dns.client import recorded
from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.e2e.test_network import needs_nat
from tests.waiting import until

pytestmark = needs_nat
DOMAIN = "cluster.local"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("dns"), images) as found:
        found.apply("before.yaml", pod("before"))
        found.apply("db.yaml", stateful_set("db", 2))
        for name in ("before", "db-0", "db-1"):
            found.wait_status(name, "Running")
        yield found


def service(name: str, **spec: Any) -> str:
    doc = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    return yaml.safe_dump(doc, sort_keys=False)


def stateful_set(name: str, replicas: int) -> str:
    spec = {
        "serviceName": name,
        "replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name}},
            "spec": {"terminationGracePeriodSeconds": 2, "containers": [container()]},
        },
    }
    doc = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name}, "spec": spec}
    return yaml.safe_dump(doc, sort_keys=False)


def resolved(node: Node, name: str, inside: str = "before") -> list[str]:
    """The addresses that busybox' resolver finds in a pod, in order of their text."""
    script = f"nslookup -type=a {name} | tail -n +3 | grep Address | sed 's/.*: //'"
    return sorted(node.cli("exec", inside, "--", "sh", "-c", script, check=False).out.split())


def test_names_of_services(node: Node) -> None:
    host_file = node.cli("exec", "before", "--", "cat", "/etc/resolv.conf").out
    assert "svc.cluster.local" not in host_file
    assert recorded(f"{node.run_dir}/dns") == (0, ())  # a node without Services runs no server
    port = {"name": "http", "port": 80}
    node.apply("web.yaml", service("web", selector={"app": "web"}, ports=[port]))
    node.apply("db-svc.yaml", service("db", clusterIP="None", selector={"app": "db"}, ports=[port]))
    addresses = {name: node.pod(name)["status"]["podIP"] for name in ("db-0", "db-1")}

    def in_place() -> bool:
        return (
            "search default.svc.cluster.local"
            in node.cli("exec", "before", "--", "cat", "/etc/resolv.conf").out
        )

    node.wait(in_place, "resolv.conf of a pod that was there before")
    node.wait(lambda: resolved(node, f"web.default.svc.{DOMAIN}"), "the Service's address")
    code, body = node.ask("/api/v1/namespaces/default/services/web")
    assert code == 200
    assert resolved(node, f"web.default.svc.{DOMAIN}") == [yaml.safe_load(body)["spec"]["clusterIP"]]
    node.wait(
        lambda: resolved(node, f"db.default.svc.{DOMAIN}") == sorted(addresses.values()),
        "all of a headless Service",
    )
    assert resolved(node, f"db-1.db.default.svc.{DOMAIN}") == [addresses["db-1"]]
    # by the search list, as programs do; musl, glibc and busybox' own commands read the same file
    assert (
        f"({addresses['db-0']})"
        in node.cli("exec", "before", "--", "ping", "-c1", "-w5", "db-0.db", check=False).out
    )
    assert resolved(node, f"nobody.default.svc.{DOMAIN}") == []


def test_a_killed_server_is_not_noticed(node: Node) -> None:
    supervisor, _ = recorded(f"{node.run_dir}/dns")
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
    server = int(children.read_text())
    os.kill(server, signal.SIGKILL)
    assert resolved(node, f"web.default.svc.{DOMAIN}")
    os.kill(supervisor, signal.SIGKILL)
    until(lambda: recorded(f"{node.run_dir}/dns")[0] not in (0, supervisor), "another supervisor")
    node.wait(lambda: resolved(node, f"web.default.svc.{DOMAIN}"), "names again")


def test_names_are_answered_while_the_daemon_is_down(node: Node) -> None:
    before = recorded(f"{node.run_dir}/dns")
    address = resolved(node, f"web.default.svc.{DOMAIN}")
    pid = node.pid("before")
    node.kill()
    command = ["nsenter", "-t", str(pid), "-n", "-m", "-r", "/bin/busybox", "nslookup", "-type=a"]
    found = subprocess.run(
        [*command, f"web.default.svc.{DOMAIN}"], capture_output=True, check=True, timeout=30
    )
    assert address[0] in found.stdout.decode()
    node.start()
    node.wait_status("before", "Running")
    assert recorded(f"{node.run_dir}/dns") == before
    text = node.cli("exec", "before", "--", "cat", "/etc/resolv.conf").out
    assert "search default.svc.cluster.local" in text


def test_metrics_have_the_names_of_coredns(node: Node) -> None:
    resolved(node, f"web.default.svc.{DOMAIN}")
    text = node.get("http://127.0.0.1:10255/metrics")
    assert 'coredns_dns_responses_total{server="dns://' in text
    assert "coredns_dns_request_duration_seconds_bucket" in text


def test_the_setting_none_ends_the_server_of_an_earlier_daemon(node: Node) -> None:
    assert recorded(f"{node.run_dir}/dns")[0]
    resolv_conf = ("exec", "before", "--", "cat", "/etc/resolv.conf")
    node.settings["CLUSTER_DNS"] = "none"
    try:
        node.restart()
        node.wait(lambda: recorded(f"{node.run_dir}/dns") == (0, ()), "the server to end")
        node.wait(lambda: "cluster.local" not in node.cli(*resolv_conf).out, "the host's servers")
        assert node.doctor() == []
    finally:
        del node.settings["CLUSTER_DNS"]
        node.restart()
    node.wait(lambda: resolved(node, f"web.default.svc.{DOMAIN}"), "names again")


def test_no_server_is_left_after_a_reset(node: Node) -> None:
    assert recorded(f"{node.run_dir}/dns")[0]
    node.cli("reset", "--yes", "--now", timeout=60)
    assert recorded(f"{node.run_dir}/dns") == (0, ())
    node.start()


def test_endpoints_that_are_names_have_none(node: Node) -> None:
    """EndpointSlices of type FQDN are valid. They give no names, and the names of other Services go on."""
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "mail-1", "labels": {"kubernetes.io/service-name": "mail"}},
        "addressType": "FQDN",
        "endpoints": [{"addresses": ["mail.example.org"]}],
    }
    node.apply("mail.yaml", f"{service('mail', clusterIP='None')}---\n{yaml.safe_dump(piece)}")
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/mail-1"
    node.wait(lambda: node.ask(path)[0] == 200, "the slice")
    node.apply("later.yaml", service("later", ports=[{"port": 80}]))
    node.wait(lambda: resolved(node, f"later.default.svc.{DOMAIN}"), "the name of a later Service")
    assert resolved(node, f"mail.default.svc.{DOMAIN}") == []
    assert node.daemon is not None and node.daemon.poll() is None

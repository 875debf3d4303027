"""NetworkPolicies on one node: from manifests to refused connections, through restarts and kill -9."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.e2e.test_network import needs_nat
from tests.programs import BUSYBOX

SERVE = "mkdir -p /tmp/w; echo hello >/tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"
WEB = {"podSelector": {"matchLabels": {"app": "web"}}}
ONLY_FRIENDS = {**WEB, "ingress": [{"from": [{"podSelector": {"matchLabels": {"friend": "yes"}}}]}]}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("policies"), images) as found:
        yield found


def policy(name: str, spec: dict[str, Any]) -> str:
    doc = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }
    return yaml.safe_dump(doc)


def server(name: str = "web", **labels: str) -> str:
    port = {"name": "http", "containerPort": 8080}
    return pod(name, container(script=SERVE, ports=[port]), labels={"app": "web", **labels})


def reaches(node: Node, client: str, address: str) -> bool:
    """Whether a program in the pod gets an answer from port 8080 of an address."""
    url = f"http://{address}:8080/"
    return node.cli("exec", client, "--", "wget", "-T", "1", "-qO-", url, check=False).out.strip() == "hello"


@needs_nat
def test_a_policy_is_in_force_from_the_start_and_through_restarts(node: Node) -> None:
    node.apply("policy.yaml", policy("friends", ONLY_FRIENDS))
    idle = container(script="exec sleep 1000")
    node.apply("pods.yaml", "---\n".join([
        server(), pod("stranger", idle), pod("friend", idle, labels={"friend": "yes"}),
    ]))  # fmt: skip
    for name in ("web", "stranger", "friend"):
        node.wait_status(name, "Running")
    address = node.pod("web")["status"]["podIP"]
    node.wait(lambda: reaches(node, "friend", address), "the server to answer")
    assert not reaches(node, "stranger", address)
    assert node.fetch(f"http://{address}:8080/").body == b"hello\n"  # the host always may
    traced = node.cli("policy", "trace", "stranger", "web:http", check=False)
    assert traced.code == 3 and "dropped, no rule of default/friends allows it" in traced.out
    assert (
        node.cli("policy", "trace", "friend", "web:8080")
        .out.splitlines()[-1]
        .endswith("allowed by rule 1 of the ingress of NetworkPolicy default/friends")
    )
    assert "NetworkPolicies restrict its ingress: default/friends" in node.cli("why", "web").out
    stranger, friend = node.pid("stranger"), node.pid("friend")
    node.kill()
    assert _reaches_without_daemon(friend, address) and not _reaches_without_daemon(stranger, address)
    node.start()
    assert not reaches(node, "stranger", address) and reaches(node, "friend", address)
    assert not [one for one in node.doctor() if "NetworkPolic" in str(one)]


@needs_nat
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_labels_and_policies_change_in_place(node: Node) -> None:
    address = node.pod("web")["status"]["podIP"]
    node.cli("label", "pod", "stranger", "friend=yes")
    node.wait(lambda: reaches(node, "stranger", address), "the new label to count")
    assert node.cli("get", "netpol").out.splitlines()[0].split() == ["NAME", "POD-SELECTOR", "AGE"]
    assert "PodSelector: friend=yes" in node.cli("describe", "netpol", "friends").out
    node.apply("policy.yaml", policy("friends", {**WEB, "policyTypes": ["Ingress"]}))
    node.wait(lambda: not reaches(node, "friend", address), "the edited policy to be in force")
    (node.manifests / "policy.yaml").unlink()
    node.wait(lambda: reaches(node, "friend", address), "connections to be open again")
    assert "policies" not in _tables(node), "a node without policies has no tables of them"


def _tables(node: Node) -> str:
    return subprocess.run(
        node.in_netns("nft", "list", "tables"), check=True, capture_output=True, text=True
    ).stdout


def _reaches_without_daemon(pid: int, address: str) -> bool:
    command = ["nsenter", "-t", str(pid), "-n", BUSYBOX, "wget", "-T", "1", "-qO-", f"http://{address}:8080/"]
    return subprocess.run(command, check=False, capture_output=True).stdout == b"hello\n"

"""Pods that use the node's API, as `kubernetes.default.svc`, with kubectl inside a pod."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import PATIENCE, Finished, Node, running_node
from tests.programs import missing

pytestmark = pytest.mark.skipif(bool(missing("kubectl")), reason="needs kubectl")

PLACE = "/var/run/secrets/kubernetes.io/serviceaccount"
ACCOUNTS = """\
apiVersion: v1
kind: ServiceAccount
metadata: {name: bot}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: bot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{kind: ServiceAccount, name: bot}]
"""
#: The host's programs: kubectl runs in the pod, and finds the API as client-go does.
HOST = ("/usr", "/lib", "/lib64")


def robot(name: str, *, more: dict[str, Any] | None = None, **spec: Any) -> str:
    mounts = [{"name": place[1:], "mountPath": place, "readOnly": True} for place in HOST]
    volumes = [{"name": place[1:], "hostPath": {"path": place}} for place in HOST]
    main = container(volumeMounts=mounts, **(more or {}))
    return pod(name, main, serviceAccountName="bot", volumes=volumes, **spec)


def kubectl(node: Node, name: str, *arguments: str) -> Finished:
    return node.cli("exec", name, "--", "/usr/bin/kubectl", "--cache-dir=/tmp", *arguments, check=False)


def curl(node: Node, token: str, path: str = "/api") -> int:
    """Ask the API as a pod does, from the host."""
    command = [
        "curl",
        "-sk",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-H",
        f"Authorization: Bearer {token}",
    ]
    done = subprocess.run(
        node.in_netns(*command, f"https://10.96.0.1{path}"), capture_output=True, text=True, check=False
    )
    return int(done.stdout or 0)


def listening(node: Node) -> list[str]:
    done = subprocess.run(node.in_netns("ss", "-Hltn"), capture_output=True, text=True, check=True)
    return sorted(line.split()[3] for line in done.stdout.splitlines() if line.split()[3].endswith(":6443"))


def token_of(node: Node, name: str) -> str:
    return Path(f"/proc/{node.pid(name)}/root{PLACE}/token").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    with running_node(tmp_path_factory.mktemp("pods"), images, pod_cidr="10.77.0.0/22, fd00:77::/64") as node:
        node.apply("plain.yaml", pod("plain"))
        node.wait_status("plain", "Running")
        assert listening(node) == [] and not (node.root / "pki").exists(), "nobody uses the API yet"
        node.apply("accounts.yaml", ACCOUNTS)
        node.apply("robot.yaml", robot("robot"))
        node.wait_status("robot", "Running")
        yield node


def test_kubectl_in_a_pod_may_do_what_roles_allow(site: Node) -> None:
    assert kubectl(site, "robot", "get", "pods", "-o", "name").out == "pod/plain\npod/robot\n"
    said = 'User "system:serviceaccount:default:bot" cannot list resource "secrets" in API group ""'
    assert said in kubectl(site, "robot", "get", "secrets").err
    who = kubectl(site, "robot", "auth", "whoami").out
    assert "system:serviceaccounts:default" in who and site.pod("robot")["metadata"]["uid"] in who
    assert kubectl(site, "robot", "get", "endpointslices,sa,cm").code == 0
    shown = site.cli("get", "svc,endpoints,cm").out
    assert "service/kubernetes" in shown and ":6443" in shown and "configmap/kube-root-ca.crt" in shown


def test_only_pods_that_ask_for_it_have_a_token_and_only_they_reach_a_port(site: Node) -> None:
    place = site.cli("exec", "plain", "--", "ls", PLACE, check=False)
    assert place.code != 0
    gateway = site.cli("get", "endpoints", "kubernetes", "-o", "jsonpath={.subsets[0].addresses[0].ip}").out
    assert listening(site) == [f"{gateway}%{device}:6443" for device in sorted((site.bridge, "lo"))]
    names = site.cli("exec", "robot", "--", "sh", "-c", "nslookup kubernetes.default.svc.cluster.local").out
    assert "10.96.0.1" in names
    assert site.cli("exec", "robot", "--", "cat", f"{PLACE}/namespace").out == "default"


@pytest.mark.parametrize(
    ("name", "more", "spec", "owner"),
    [
        ("host", {}, {"hostNetwork": True}, (0, 0o644)),
        ("user", {"securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": True}}, {}, (1000, 0o600)),
        ("group", {}, {"securityContext": {"runAsUser": 1000, "fsGroup": 2000}}, (1000, 0o640)),
    ],
)
def test_any_kind_of_pod_reaches_the_api(
    site: Node, name: str, more: dict[str, Any], spec: dict[str, Any], owner: tuple[int, int]
) -> None:
    site.apply(f"{name}.yaml", robot(name, more=more, **spec))
    site.wait_status(name, "Running")
    assert "pod/robot" in kubectl(site, name, "get", "pods", "-o", "name").out
    found = Path(f"/proc/{site.pid(name)}/root{PLACE}/token").stat()
    assert (found.st_uid, found.st_mode & 0o777) == owner


def test_a_pod_with_users_of_its_own_reads_its_token(site: Node) -> None:
    main = container(securityContext={"runAsUser": 1000})
    site.apply("apart.yaml", pod("apart", main, serviceAccountName="bot", hostUsers=False))
    site.wait_status("apart", "Running")
    text = site.cli("exec", "apart", "--", "cat", f"{PLACE}/token").out
    assert text.count(".") == 2 and curl(site, text) == 200


def test_a_token_ends_with_its_pod(site: Node) -> None:
    file = site.apply("short.yaml", pod("short", serviceAccountName="bot"))
    site.wait_status("short", "Running")
    token = token_of(site, "short")
    assert curl(site, token) == 200
    file.unlink()
    site.wait_gone("short")
    assert curl(site, token) == 401
    last = json.loads((site.log_dir / "kubelite-audit.log").read_text().splitlines()[-1])
    assert (last["user"]["username"], last["responseStatus"]["code"]) == ("system:anonymous", 401)


def test_tokens_that_a_manifest_asks_for(site: Node) -> None:
    sources = [{"serviceAccountToken": {"path": "vault", "audience": "vault", "expirationSeconds": 600}}]
    volume = {"name": "t", "projected": {"sources": sources, "defaultMode": 0o400}}
    main = container(volumeMounts=[{"name": "t", "mountPath": "/t"}])
    site.apply("vault.yaml", pod("vault", main, volumes=[volume]))
    site.wait_status("vault", "Running")
    token = site.cli("exec", "vault", "--", "cat", "/t/vault").out
    assert curl(site, token) == 401, "it is for another audience"
    assert not site.events("Unsupported")


POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: robots}
spec: {podSelector: {matchLabels: {app: fenced}}, policyTypes: [Egress], egress: []}
"""


def test_a_policy_does_not_keep_a_pod_from_its_node_and_so_not_from_the_api(site: Node) -> None:
    site.apply("fence.yaml", POLICY)
    site.apply("fenced.yaml", robot("fenced", labels={"app": "fenced"}))
    site.wait_status("fenced", "Running")
    assert kubectl(site, "fenced", "get", "pods", "-o", "name").code == 0


def test_a_restart_changes_no_token_and_the_api_answers_again(site: Node) -> None:
    token, started = token_of(site, "robot"), site.container("robot")["containerID"]
    site.restart()
    site.wait(lambda: curl(site, token) == 200, "the API to answer pods", timeout=20 * PATIENCE)
    assert token_of(site, "robot") == token and site.container("robot")["containerID"] == started
    assert not any("127.0.0.1" in one for one in listening(site)), "nobody has asked for a kubeconfig"
    said = site.cli("diff", "-f", str(site.manifests / "robot.yaml"))
    assert (said.code, said.out) == (0, "")


def test_without_such_pods_the_next_start_closes_the_port(site: Node) -> None:
    site.cli("get", "svc", "kubernetes")
    names = [
        path.stem for path in site.manifests.iterdir() if path.stem not in ("plain", "accounts", "fence")
    ]
    for name in names:
        (site.manifests / f"{name}.yaml").unlink()
    for name in names:
        site.wait_gone(name)
    site.restart()
    site.wait(lambda: site.cli("get", "svc", "kubernetes", check=False).code != 0, "the Service to go")
    assert listening(site) == []

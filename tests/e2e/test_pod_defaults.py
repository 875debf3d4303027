"""What the node's settings give pods that ask for nothing: no_new_privs, users of their own, a limit of processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node


@pytest.fixture
def node(tmp_path: Path, images: Path) -> Iterator[Node]:
    with running_node(tmp_path, images, no_new_privileges="true", user_namespaces="true") as found:
        yield found


def status(node: Node, name: str, field: str) -> str:
    text = Path(f"/proc/{node.pid(name)}/status").read_text()
    return next(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{field}:"))


def limits(node: Node, name: str) -> set[str]:
    uid = node.pod(name)["metadata"]["uid"]
    return {at.read_text().strip() for top in node.cgroup_tops() for at in top.glob(f"**/pod{uid}/pids.max")}


def workload(kind: str, version: str, name: str, **spec: Any) -> str:
    labels = {"app": name}
    restart = {"restartPolicy": "Never"} if kind == "Job" else {}
    pod_spec = {"containers": [container()], "terminationGracePeriodSeconds": 2, **restart}
    template = {"metadata": {"labels": labels}, "spec": pod_spec}
    return json.dumps(
        {
            "apiVersion": version,
            "kind": kind,
            "metadata": {"name": name},
            "spec": {**spec, "template": template},
        }
    )


def names(node: Node) -> list[str]:
    return node.cli("get", "pods", "-o", "name").out.replace("pod/", "").split()


def test_defaults(node: Node) -> None:
    selector = {"matchLabels": {"app": "web"}}
    node.apply("web.yaml", workload("Deployment", "apps/v1", "web", selector=selector))
    node.apply("once.yaml", workload("Job", "batch/v1", "once"))
    node.apply("plain.yaml", pod("plain", container()))
    node.apply("host.yaml", pod("host", container(securityContext={"privileged": True})))
    for name in ("plain", "host"):
        node.wait_status(name, "Running")
    node.wait(lambda: len(names(node)) == 4, "the pods of the Deployment and the Job")
    for name in set(names(node)) - {"host"}:
        node.wait_status(name, "Running")
        assert status(node, name, "NoNewPrivs") == "1", name
        mapped = Path(f"/proc/{node.pid(name)}/uid_map").read_text().split()
        assert mapped[0] == "0" and int(mapped[1]) > 0 and mapped[2] == "65536", name
        assert int(status(node, name, "Uid").split()[0]) == int(mapped[1]), "its root is nobody on the host"
    assert status(node, "host", "NoNewPrivs") == "0"
    assert Path(f"/proc/{node.pid('host')}/uid_map").read_text().split()[:2] == ["0", "0"]
    for name in names(node):
        assert limits(node, name) == {"4096"}, name


def test_a_fork_bomb_stays_in_its_pod(tmp_path: Path, images: Path) -> None:
    with running_node(tmp_path, images, pod_pids_limit="64") as node:
        bomb = "trap 'exit 0' TERM; bomb() { bomb | bomb & }; bomb; while :; do sleep 0.2 || :; done"
        node.apply("bomb.yaml", pod("bomb", container(script=bomb)))
        node.apply("web.yaml", pod("web", container()))
        node.wait_status("web", "Running")
        uid = node.pod("bomb")["metadata"]["uid"]
        groups = [at for top in node.cgroup_tops() for at in top.glob(f"**/pod{uid}/pids.current")]
        assert groups and all(int(at.read_text()) <= 64 for at in groups)
        assert node.cli("exec", "web", "--", "echo", "here").out == "here\n"

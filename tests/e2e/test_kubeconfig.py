"""The real kubectl over TLS, with the kubeconfig that `kubelite kubeconfig` prints."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import PATIENCE, Finished, Node
from tests.programs import missing

pytestmark = pytest.mark.skipif(bool(missing("kubectl")), reason="needs kubectl")


class Kubectl:
    """kubectl with a kubeconfig of the node."""

    def __init__(self, node: Node, name: str, *options: str) -> None:
        self.node, self.file = node, node.base / f"{name}.kubeconfig"
        node.cli("kubeconfig", "--file", str(self.file), *options)

    def __call__(self, *arguments: str, stdin: str = "") -> Finished:
        done = subprocess.run(
            self.node.in_netns("kubectl", *arguments),
            env={**os.environ, "KUBECONFIG": str(self.file), "HOME": str(self.node.base)},
            input=stdin, capture_output=True, text=True, timeout=30 * PATIENCE, check=False,
        )  # fmt: skip
        return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def admin(builder: Node) -> Iterator[Kubectl]:
    builder.apply("web.yaml", pod("web", container()))
    builder.wait_status("web", "Running")
    yield Kubectl(builder, "admin")


def test_a_node_listens_on_no_tcp_port_of_the_api_until_it_is_asked(node: Node) -> None:
    shown = ["grep", "-c", ":192B ", "/proc/net/tcp"]  # 6443
    assert subprocess.run(node.in_netns(*shown), capture_output=True, text=True, check=False).stdout == "0\n"
    assert not (node.root / "pki").exists()
    kubectl = Kubectl(node, "first")
    assert kubectl("get", "pods").code == 0
    node.restart()
    node.wait(lambda: kubectl("get", "pods").code == 0, "the port to be open after a restart")


def test_kubectl_reads_and_runs_programs(admin: Kubectl) -> None:
    assert "web    1/1     Running" in admin("get", "pods").out
    assert admin("exec", "-i", "web", "--", "cat", stdin="through\n").out == "through\n"
    assert admin("get", "--raw", "/readyz").out == "ok"
    last = json.loads((admin.node.log_dir / "kubelite-audit.log").read_text().splitlines()[-1])
    assert (last["user"]["username"], last["objectRef"]["subresource"]) == ("kubelite-admin", "exec")


def test_a_reader_may_not_change_run_or_read_secrets(admin: Kubectl) -> None:
    reader = Kubectl(admin.node, "reader", "--read-only")
    assert reader("get", "pods").out == admin("get", "pods").out
    for words in (("get", "secrets"), ("delete", "pod", "web"), ("exec", "web", "--", "true")):
        said = reader(*words)
        assert (said.code, "Error from server (Forbidden)" in said.err) == (1, True), said

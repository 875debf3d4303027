"""`kubelite port-forward` to a server that listens only on its pod's loopback, and to the replacement of the pod."""

from __future__ import annotations

import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.manifests import container, pod
from tests.e2e.node import KUBELITE, REPO, TIMEOUT, Node
from tests.waiting import PATIENCE

SERVE = "mkdir /www; echo hello from $HOSTNAME > /www/index.html; exec httpd -f -p 127.0.0.1:81 -h /www"


@contextmanager
def forwarding(node: Node, *arguments: str, to: int = 81) -> Iterator[int]:
    """The local port that is forwarded to the pod's port `to`."""
    command = [*KUBELITE, "port-forward", *arguments]
    with subprocess.Popen(
        command, cwd=REPO, env=node.environ(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.fullmatch(rf"Forwarding from 127\.0\.0\.1:(\d+) -> {to}\n", said)
            assert found, said
            yield int(found[1])
        finally:
            process.kill()


def ask(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=TIMEOUT * PATIENCE) as answer:
        return str(answer.read().decode())


def answers(port: int) -> str:
    """ "" until the server listens."""
    try:
        return ask(port)
    except OSError:
        return ""


def test_a_port_on_the_pods_loopback_and_of_its_replacement(node: Node) -> None:
    node.apply("a.yaml", pod("a", container(script=SERVE, ports=[{"name": "web", "containerPort": 81}])))
    node.wait_status("a", "Running")  # the node has read the manifest
    node.cli("wait", "--for=condition=Ready", "pod/a", "--timeout=10m", timeout=600)
    uid = node.pod("a")["metadata"]["uid"]
    with forwarding(node, "a", ":web") as port:
        node.wait(lambda: answers(port), "the server of the pod")
        assert ask(port) == "hello from a\n"
        assert node.cli("rollout", "restart", "a").out == "pod/a restarted\n"
        assert node.cli("rollout", "status", "a", timeout=600).out.endswith(
            'pod "a" successfully rolled out\n'
        )
        assert node.pod("a")["metadata"]["uid"] != uid
        node.wait(lambda: answers(port) == "hello from a\n", "the server of the pod after it")


def test_a_pod_without_a_sandbox_is_reported(node: Node) -> None:
    node.apply("done.yaml", pod("done", container(script="true"), restartPolicy="Never"))
    node.wait_status("done", "Completed")
    refused = node.cli("port-forward", "done", ":81", check=False)
    assert refused.code == 1 and "kubelite why done" in refused.err

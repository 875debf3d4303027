"""`kubelite debug`, `kubelite attach` and kubectl's debug: an ephemeral container in a running pod."""

from __future__ import annotations

from typing import Any

from tests.e2e.kubectl import Kubectl
from tests.e2e.manifests import container, pod
from tests.e2e.node import IMAGE, KUBELITE, Node
from tests.e2e.terminal import on_terminal
from tests.e2e.test_kubectl import kubectl

__all__ = ["kubectl"]


def test_debug_at_a_terminal_sees_its_target(node: Node) -> None:
    node.apply("web.yaml", pod("web", container("app"), container("other")))
    node.wait_status("web", "Running")
    pid = node.pid("web", "app")
    options = ("-c", "look", "--image", IMAGE, "--target", "app", "--image-pull-policy", "Never")
    command = [*KUBELITE, "debug", "-it", "web", *options, "--", "sh"]
    with on_terminal(command, node.environ()) as terminal:
        terminal.expect('Targeting container "app"')
        terminal.expect("try pressing enter")
        terminal.type("\n")
        terminal.expect(r"# ")
        terminal.type("tty; ps; echo s-$((40+2))\n")
        terminal.expect(r"/dev/(pts/\d+|console)")
        terminal.expect(r"1 .*(sh|sleep)")
        terminal.expect("s-42")
        terminal.type("stty size; exit 7\n")
        terminal.expect(r"\d+ \d+")
        assert terminal.wait() == 7
    node.wait(lambda: "terminated" in look(node, "web").get("state", {}), "its end to be recorded")
    assert look(node, "web")["state"]["terminated"]["exitCode"] == 7
    assert node.pid("web", "app") == pid, "its target runs on"
    assert "s-42" in node.cli("logs", "web", "-c", "look").out
    node.restart(9)
    node.wait(lambda: node.container("web", "app").get("ready"), "the daemon to have looked")
    assert look(node, "web")["state"]["terminated"]["exitCode"] == 7, "it ran once"
    # an edit of the manifest does not affect it
    node.apply("web.yaml", pod("web", container("app"), container("other"), labels={"a": "b"}))
    node.wait(lambda: node.pod("web")["metadata"].get("labels") == {"a": "b"}, "the edit")
    assert look(node, "web")["state"]["terminated"]["exitCode"] == 7
    refused = node.cli("debug", "web", "-c", "app", "--image", IMAGE, check=False)
    assert refused.code == 1
    assert 'spec.ephemeralContainers[1].name: Duplicate value: "app"' in refused.err
    lost = ("--image", "localhost/no:such", "--image-pull-policy=Never", "--attach")
    gone = node.cli("debug", "web", *lost, check=False)
    assert gone.code == 1
    assert "ErrImageNeverPull" in gone.err


def look(node: Node, name: str, container_name: str = "look") -> dict[str, Any]:
    found = node.pod(name).get("status", {}).get("ephemeralContainerStatuses", ())
    return next((c for c in found if c["name"] == container_name), {})


def test_debug_prints_the_output_of_a_short_program(node: Node) -> None:
    node.apply("web.yaml", pod("web", container("app")))
    node.wait_status("web", "Running")
    for code in (0, 1, 2):  # it may have ended before the attach
        name = f"look-{code}"
        options = ("-i", "-c", name, "--image", IMAGE, "--image-pull-policy", "Never")
        done = node.cli(
            "debug", "web", *options, "--", "sh", "-c", f"sleep 0.{code}; echo so; exit {code}", check=False
        )
        assert (done.code, done.out) == (code, "so\n"), done.err


def test_attach_forwards_input_once_and_output_from_now_on(node: Node) -> None:
    script = "while read line; do echo got $line; echo err $line >&2; done; echo end; exit 4"
    node.apply(
        "cat.yaml", pod("cat", container(script=script, stdin=True, stdinOnce=True), restartPolicy="Never")
    )
    node.wait_status("cat", "Running")
    done = node.cli("attach", "-i", "cat", stdin=b"one\ntwo\n", check=False)
    assert done.code == 4, done
    assert done.out == "got one\ngot two\nend\n"
    assert "err one\nerr two\n" in done.err
    node.wait_status("cat", "Error")
    said = node.cli("attach", "cat", check=False)
    assert said.code == 1
    node.apply("deaf.yaml", pod("deaf", container()))
    node.wait_status("deaf", "Running")
    refused = node.cli("attach", "-i", "deaf", stdin=b"x", check=False)
    assert "has no stdin" in refused.err


def test_kubectl_debug_and_attach(node: Node, kubectl: Kubectl) -> None:
    node.apply("web.yaml", pod("web", container("app"), shareProcessNamespace=True))
    node.wait_status("web", "Running")
    added = kubectl(
        "debug",
        "web",
        f"--image={IMAGE}",
        "--image-pull-policy=Never",
        "-c",
        "one",
        "--",
        "sh",
        "-c",
        "ps; sleep 0.2",
    )
    assert added.code == 0, added
    node.wait(lambda: "terminated" in look(node, "web", "one").get("state", {}), "it to have run")
    assert "pause" in kubectl("logs", "web", "-c", "one").out
    command = kubectl.command(
        "debug", "-it", "web", f"--image={IMAGE}", "--image-pull-policy=Never", "-c", "two", "--", "sh"
    )
    with on_terminal(command, kubectl.environ()) as terminal:
        terminal.expect("pressing enter")
        terminal.type("\n")
        terminal.expect(r"# ")
        terminal.type("echo k-$((6*7)); exit\n")
        terminal.expect("k-42")
        terminal.wait()
    assert "Ephemeral Containers:" in kubectl("describe", "pod", "web").out


def test_a_readiness_gate_is_opened_through_the_status(node: Node, kubectl: Kubectl) -> None:
    node.apply("gate.yaml", pod("gate", readinessGates=[{"conditionType": "example.com/lb"}]))
    node.wait_status("gate", "Running")

    def ready() -> str:
        return str(
            next(c["status"] for c in node.pod("gate")["status"]["conditions"] if c["type"] == "Ready")
        )

    assert ready() == "False"

    def patch(text: str) -> int:
        return kubectl("patch", "pod", "gate", "--subresource=status", "-p", text).code

    opened = '{"status": {"conditions": [{"type": "example.com/lb", "status": "%s"}]}}'
    assert patch(opened % "True") == 0
    node.wait(lambda: ready() == "True", "the gate to count")
    node.restart(9)
    node.wait(lambda: node.container("gate").get("ready"), "the daemon to have looked")
    assert ready() == "True"
    assert patch(opened % "False") == 0
    node.wait(lambda: ready() == "False", "the gate to close")
    assert patch('{"status": {"conditions": [{"type": "Ready", "status": "True"}]}}') == 1
    assert patch('{"status": {"phase": "Failed"}}') == 1

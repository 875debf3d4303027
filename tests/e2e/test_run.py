"""`kubelite run` on a whole node: attached on a terminal, through pipes, and detached; what --rm removes and when."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from tests.e2e.node import IMAGE, KUBELITE, Node
from tests.e2e.terminal import on_terminal

OURS = ("--image-pull-policy", "Never")


def manifests(node: Node) -> list[str]:
    return sorted(path.name for path in Path(node.manifests).rglob("*") if path.is_file())


def test_run_at_a_terminal_and_remove(node: Node) -> None:
    command = [
        *KUBELITE,
        "run",
        "--rm",
        "-it",
        IMAGE,
        "--name",
        "look",
        "--env",
        "A=forty-two",
        *OURS,
        "--",
        "sh",
    ]
    with on_terminal(command, node.environ()) as terminal:
        terminal.expect("try pressing enter")
        terminal.type("\n")
        terminal.expect(r"# ")
        assert manifests(node) == ["pod-look.yaml"]
        terminal.type("tty; echo $A-$HOSTNAME\n")
        terminal.expect(r"/dev/(pts/\d+|console)")
        terminal.expect("forty-two-look")
        terminal.type("exit 7\n")
        terminal.expect('pod "look" deleted from default namespace')
        assert terminal.wait() == 7
    node.wait_gone("look")
    assert manifests(node) == []


def test_run_in_a_pipeline_has_output_and_exit_code_of_the_container(node: Node) -> None:
    run = ("run", "--rm", "-i", IMAGE, "--name", "pipe", "-q", *OURS, "--")
    done = node.cli(*run, "sh", "-c", "cat; echo oops >&2; exit 3", stdin=b"one\ntwo\n", check=False)
    assert (done.code, done.out) == (3, "one\ntwo\n"), done
    assert "oops" in done.err
    node.wait_gone("pipe")
    for code in (0, 4):  # it may end before the attach
        done = node.cli(*run, "sh", "-c", f"echo so; exit {code}", check=False)
        assert (done.code, done.out) == (code, "so\n"), done
        node.wait_gone("pipe")
    assert manifests(node) == []


def test_run_that_is_ended_removes_its_pod(node: Node) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        command = [
            *KUBELITE,
            "run",
            "--rm",
            "--attach",
            IMAGE,
            "--name",
            "long",
            *OURS,
            "--",
            "sleep",
            "1000",
        ]
        process = subprocess.Popen(
            command, env=node.environ(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            node.wait_status("long", "Running")
            process.send_signal(number)
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == (143 if number == signal.SIGTERM else 130), err
        assert manifests(node) == []
        node.cli("delete", "pod", "long", "--force", "--ignore-not-found", check=False)
        node.wait_gone("long")


def test_run_says_why_its_container_does_not_start(node: Node) -> None:
    done = node.cli("run", "--rm", "-i", "localhost/no:such", "--name", "lost", *OURS, check=False)
    assert done.code == 1
    assert "ErrImageNeverPull" in done.err
    node.wait_gone("lost")
    assert manifests(node) == []


def test_run_detached_stays_and_runs_once_with_its_policy(node: Node) -> None:
    said = node.cli(
        "run", IMAGE, "--name", "job", "--restart", "Never", *OURS, "--", "sh", "-c", "echo done"
    ).out
    assert said == "pod/job created\n"
    node.wait_status("job", "Completed")
    assert node.cli("logs", "job").out == "done\n"
    assert manifests(node) == ["pod-job.yaml"]
    again = node.cli("run", IMAGE, "--name", "job", check=False)
    assert again.code == 1
    assert 'pods "job" already exists' in again.err
    node.restart(9)
    node.wait(lambda: "restartCount" in node.container("job", "job"), "the daemon to have looked")
    assert node.container("job", "job")["restartCount"] == 0
    assert "recreated" not in node.cli("delete", "pod", "job").err
    node.wait_gone("job")
    assert manifests(node) == []

"""The command line against a whole node: arguments, output and exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import KUBELITE, REPO, Finished, Node, running_node
from tests.e2e.terminal import on_terminal


def environ(node: Node) -> dict[str, str]:
    return {**node.environ(), "TERM": "xterm"}


@contextmanager
def running(node: Node, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A `kubelite …` that keeps running (-f, -w); it is ended at the end."""
    process = subprocess.Popen(
        [*KUBELITE, *arguments],
        cwd=REPO, env=environ(node), stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str], pattern: str) -> str:
    """Read on until a line matches."""
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(pattern, line):
            return line
    raise AssertionError(
        f"ended before a line matched {pattern!r}: {process.stderr.read() if process.stderr else ''}"
    )


def sentence(done: Finished, code: int, *words: str) -> None:
    """Check that it failed with this code and one sentence with these words."""
    lines = done.err.splitlines()
    assert done.code == code, done
    assert done.out == "", done
    assert len(lines) == 1 or (code == 2 and len(lines) == 2 and lines[1].startswith("See `kubelite")), done
    assert all(word in lines[0] for word in words), (words, done)
    assert "Traceback" not in done.err


def some_of_each(node: Node) -> None:
    """Three running pods in two namespaces, a ConfigMap and Secret, and an invalid manifest."""
    node.apply("web.yaml", pod("web", container("a"), container("b"), labels={"app": "web"}))
    node.apply("db.yaml", pod("db", labels={"app": "db"}))
    node.apply("far.yaml", pod("far", namespace="prod"))
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "cm"},
        "data": {"a": "1", "b": "2"},
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys"},
        "stringData": {"k": "geheim"},
    }
    node.apply("settings.yaml", yaml.safe_dump_all([config, secret]))
    node.apply("bad.yaml", pod("bad").replace("containers:", "containerz:"))
    for name in ("web", "db"):
        node.wait_status(name, "Running")
    node.wait(lambda: "Running" in node.cli("get", "po", "-n", "prod").out, "the one in prod")


def test_get_in_every_form(node: Node) -> None:
    some_of_each(node)
    rows = [line.split() for line in node.cli("get", "pods").out.splitlines()]
    assert rows[0] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [row[:4] for row in rows[1:]] == [["db", "1/1", "Running", "0"], ["web", "2/2", "Running", "0"]]
    assert node.cli("get", "pods", "--no-headers", "web").out.split()[0] == "web"
    everywhere = [line.split()[:2] for line in node.cli("get", "pods", "-A").out.splitlines()]
    assert everywhere == [["NAMESPACE", "NAME"], ["default", "db"], ["default", "web"], ["prod", "far"]]
    wide = node.cli("get", "pods", "-o", "wide", "web").out.splitlines()
    assert wide[0].split()[5:7] == ["IP", "NODE"] and wide[1].split()[6] == node.name
    assert node.cli("get", "pods", "-l", "app in (db)", "-o", "name").out == "pod/db\n"
    assert node.cli("get", "pods", "-l", "app!=db", "-o", "name").out == "pod/web\n"
    one = node.json("get", "pod", "web")
    assert (one["kind"], one["metadata"]["name"]) == ("Pod", "web")
    assert yaml.safe_load(node.cli("get", "pod/web", "-o", "yaml").out) == one
    listed = node.json("get", "pods")
    assert listed["kind"] == "List" and [i["metadata"]["name"] for i in listed["items"]] == ["db", "web"]

    manifests = node.json("get", "manifests")  # exactly one document: json.loads takes no more
    assert {Path(f["file"]).name: f["status"] for f in manifests["files"]}["bad.yaml"] != "Loaded"
    table = node.cli("get", "manifests").out
    assert 'containerz: unknown field, did you mean "containers"?' in table and "bad.yaml:" in table
    assert json.loads(node.cli("get", "manifests", "web.yaml", "-o", "json").out)["files"][0]["errors"] == []
    assert node.cli("get", "nodes").out.splitlines()[1].split()[:2] == [node.name, "Ready"]
    assert {"default", "prod"} <= {line.split()[0] for line in node.cli("get", "ns").out.splitlines()}
    assert node.cli("get", "cm", "--no-headers").out.split()[:2] == ["cm", "2"]
    assert node.cli("get", "secrets", "--no-headers").out.split()[:3] == ["keys", "Opaque", "1"]
    assert "geheim" not in node.cli("get", "secrets", "-o", "wide").out
    assert "Started container" not in node.cli("get", "events", "-n", "prod").out
    reasons = [
        line.split()[2] for line in node.cli("events", "--for", "pod/db", "--no-headers").out.splitlines()
    ]
    assert reasons == ["Pulled", "Created", "Started"]
    inspected = json.loads(node.cli("inspect", "web").out)
    identity = inspected["containers"][0]["id"]
    assert json.loads(node.cli("inspect", identity[:12]).out)["id"] == identity
    steps = node.cli("trace", "db").out.splitlines()
    assert steps[0].split()[0] == "AT" and "manifest" in steps[1]
    assert node.cli("why", "web").out.startswith("Pod default/web is Running, last looked at ")
    complaint, hint = node.cli("doctor").out.splitlines()
    assert complaint.startswith("warning: manifests: 1 of ") and complaint.endswith(
        " because of errors: bad.yaml"
    )
    assert hint.strip() == "fix: kubelite get manifests shows the lines and fields"
    versions = node.cli("version").out.splitlines()
    assert versions[0].split()[-1] == versions[1].split()[-1]


def test_watch_shows_every_change(node: Node) -> None:
    node.apply("first.yaml", pod("first"))
    node.wait_status("first", "Running")
    with running(node, "get", "pods", "-w") as watching:
        assert line_of(watching, "NAME").split()[0] == "NAME"
        line_of(
            watching, r"^first +1/1 +Running"
        )  # wait until it watches: a pod starts faster than the command line
        path = node.apply("w.yaml", pod("w"))
        line_of(watching, r"^w +0/1 +(Pending|ContainerCreating)")
        line_of(watching, r"^w +1/1 +Running")
        path.unlink()
        line_of(watching, r"^w +1/1 +Terminating")
    with running(node, "events", "-w") as watching:
        node.apply("v.yaml", pod("v"))
        line_of(watching, r"Started +pod/v")


def test_logs_in_every_form(tmp_path: Path, images: Path) -> None:
    with running_node(tmp_path, images, log_max_size="4000", crash_backoff_initial="1") as node:
        script = """
            n=0; test -f /data/n && n=$(cat /data/n); echo $((n+1)) > /data/n
            i=0; while [ $i -lt 300 ]; do echo run $n line $i; i=$((i+1)); done
            trap 'exit 0' TERM
            while ! test -f /data/end$n; do sleep 0.05; done; echo end $n >&2; exit 1
        """
        mounts = [{"name": "data", "mountPath": "/data"}]
        main = container("main", script, volumeMounts=mounts)
        side = container("side", "echo from the side; " + SLEEP, volumeMounts=mounts)
        node.apply("l.yaml", pod("l", main, side, volumes=[{"name": "data", "emptyDir": {}}]))
        node.wait_status("l", "Running")
        with running(node, "logs", "-f", "l", "-c", "main", "--tail", "1") as following:
            wanted = [f"run 0 line {i}" for i in range(300)]
            first = line_of(following, "^run 0 line").strip()
            got = [first, line_of(following, "line 299")] if first != wanted[-1] else [first]
            node.cli("exec", "l", "-c", "side", "--", "touch", "/data/end0")
            assert following.stdout is not None
            after = [following.stdout.readline().strip() for _ in range(301)]
            assert got and after == ["end 0", *(f"run 1 line {i}" for i in range(300))], "across a restart"
            node.cli("exec", "l", "-c", "side", "--", "touch", "/data/end1")
            after = [following.stdout.readline().strip() for _ in range(301)]
            assert after == ["end 1", *(f"run 2 line {i}" for i in range(300))]
        previous = node.cli("logs", "-p", "l", "-c", "main").out.splitlines()
        assert previous[-2:] == ["run 1 line 299", "end 1"]
        directory = next(node.log_dir.glob("pods/default_l_*/main"))
        assert any(".log." in path.name for path in directory.iterdir()), "it was rotated meanwhile"
        assert node.cli("logs", "l", "-c", "main", "--tail", "2").out == "run 2 line 298\nrun 2 line 299\n"
        whole = node.cli("logs", "l", "main").out.splitlines()
        assert whole == [f"run 2 line {i}" for i in range(int(whole[0].split()[-1]), 300)]
        stamped = node.cli("logs", "l", "main", "--tail=1", "--timestamps").out
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z run 2 line 299\n", stamped)
        assert node.cli("logs", "l", "main", "--since", "1h").out.splitlines() == whole
        assert node.cli("logs", "l", "main", "--since-time", "2100-01-01T00:00:00Z").out == ""
        defaulted = node.cli("logs", "l", "--tail", "1")
        assert defaulted.err == 'Defaulted container "main" out of: main, side\n'
        both = node.cli("logs", "l", "--all-containers", "--prefix", "--tail", "1").out
        assert both == "[pod/l/main] run 2 line 299\n[pod/l/side] started\n"
        sentence(node.cli("logs", "l", "-c", "nix", check=False), 1, "container nix is not valid for pod l")
        sentence(node.cli("logs", "-p", "l", "-c", "side", check=False), 1, "previous", "side")
        with running(node, "logs", "-f", "l", "-c", "side") as following:
            line_of(following, "from the side")
            (node.manifests / "l.yaml").unlink()
            assert following.wait(10) == 0, "a log that is followed ends with its pod"


def test_exec_with_pipes(node: Node) -> None:
    node.apply("e.yaml", pod("e"))
    node.wait_status("e", "Running")
    data = os.urandom(300_000) + bytes(range(256))
    echoed = subprocess.run(
        [*KUBELITE, "exec", "-i", "e", "--", "cat"],
        cwd=REPO, env=environ(node), input=data, capture_output=True, timeout=20, check=False,
    )  # fmt: skip
    assert (echoed.returncode, echoed.stdout, echoed.stderr) == (0, data, b"")
    done = node.cli("exec", "e", "--", "sh", "-c", "echo out; echo err >&2; exit 42", check=False)
    assert done == Finished(42, "out\n", "err\ncommand terminated with exit code 42\n")
    quiet = node.cli("exec", "-q", "e", "--", "sh", "-c", "kill -9 $$", check=False)
    assert quiet == Finished(137, "", "")
    missing = node.cli("exec", "e", "--", "no-such-program", check=False)
    assert missing.code != 0 and "executable file not found in $PATH" in missing.err
    assert node.cli("exec", "e", "--", "env").out.count("HOSTNAME=e\n") == 1
    reader = subprocess.Popen(
        [*KUBELITE, "exec", "e", "--", "yes"], cwd=REPO, env=environ(node), stdout=subprocess.PIPE
    )
    assert reader.stdout is not None and reader.stdout.read(4) == b"y\ny\n"
    reader.stdout.close()
    assert reader.wait(10) == 141
    node.wait(lambda: "yes" not in node.cli("exec", "e", "--", "ps").out, "yes to end with its reader")


def test_exec_on_a_terminal(node: Node) -> None:
    node.apply("t.yaml", pod("t"))
    node.wait_status("t", "Running")
    command = [*KUBELITE, "exec", "-it", "t", "--", "sh"]
    with on_terminal(command, environ(node), columns=93, lines=31) as terminal:
        terminal.expect("# ")
        terminal.type("stty size; tty\r")
        terminal.expect(r"31 93\r\n/dev/pts/\d")
        terminal.expect("# ")
        terminal.resize(121, 44)
        terminal.type("until stty size | grep '44 121'; do sleep 0.05; done\r")
        terminal.expect("\n44 121")
        terminal.expect("# ")
        terminal.type("cat\r")
        node.wait(lambda: " cat\n" in node.cli("exec", "t", "--", "ps").out, "cat")
        terminal.type("typed\r")
        terminal.expect("typed\r\ntyped\r\n")
        terminal.type("\x03")
        terminal.expect("# ")
        terminal.type("echo $?\r")
        terminal.expect("\n130\r\n")
        terminal.type("exit 9\r")
        assert terminal.wait() == 9
    with on_terminal([*KUBELITE, "exec", "-it", "t", "--", "cat"], environ(node)) as terminal:
        terminal.type("x\r")
        terminal.expect("x\r\nx\r\n")
        terminal.type("\x04")
        assert terminal.wait() == 0, "Ctrl-D ends its input"
    # the terminal is closed: nothing of the command is left in the pod
    with on_terminal([*KUBELITE, "exec", "-it", "t", "--", "sleep", "1000"], environ(node)) as terminal:
        node.wait(lambda: "sleep 1000" in node.cli("exec", "t", "--", "ps").out, "the sleep")
    node.wait(lambda: "sleep 1000" not in node.cli("exec", "t", "--", "ps").out, "the sleep to end")


def test_apply_diff_delete(node: Node, tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    directory.mkdir()
    (directory / "a.yaml").write_text(pod("a"))
    (directory / "b.yaml").write_text(pod("b") + "---\n" + pod("c"))
    assert node.cli("apply", "-f", str(directory), "--dry-run").out.count("created (dry run)") == 3
    done = node.cli("apply", "-f", str(directory))
    assert done.out == "pod/a created\npod/b created\npod/c created\n"
    for name in "abc":
        node.wait_status(name, "Running")
    assert node.cli("diff", "-f", str(directory)).out == ""
    (directory / "a.yaml").write_text(pod("a", labels={"x": "1y"}))
    changed = node.cli("diff", "-f", str(directory / "a.yaml"), check=False)
    assert changed.code == 1 and "pod/a" in changed.out
    assert node.cli("apply", "-f", str(directory / "a.yaml")).out == "pod/a configured\n"
    (directory / "a.yaml").write_text(pod("a").replace("image:", "imagee:"))
    for verb, code in (("apply", 1), ("diff", 2)):
        wrong = node.cli(verb, "-f", str(directory / "a.yaml"), check=False)
        assert wrong.code == code and 'unknown field, did you mean "image"?' in wrong.err, wrong
        assert f"{directory}/a.yaml:" in wrong.err and "spec.containers[0].imagee" in wrong.err
    assert node.cli("get", "pod", "a", "--no-headers", "--show-labels").out.split()[-1] == "x=1y"
    assert "b.yaml" in (again := node.cli("delete", "pod", "b")).err + again.out
    node.wait_status("b", "Running")
    gone = node.cli("delete", "-f", str(directory / "b.yaml"))
    assert gone.out == 'pod "b" deleted from default namespace\npod "c" deleted from default namespace\n'
    assert node.cli("get", "pods", "-o", "name").out == "pod/a\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*KUBELITE, "completion", shell], cwd=REPO, capture_output=True, text=True, check=True, timeout=20
    )
    script = tmp_path / "script"
    script.write_text(done.stdout)
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n", str(script)], check=True, timeout=20)
    assert "_KUBELITE_COMPLETE" in done.stdout


def test_every_error_is_a_sentence(node: Node) -> None:
    node.apply("p.yaml", pod("p"))
    node.wait_status("p", "Running")
    for arguments, code, words in (
        (("get", "pod", "nix"), 1, ['pods "nix" not found']),
        (("logs", "nix"), 1, ['pods "nix" not found']),
        (("exec", "nix", "--", "true"), 1, ['pods "nix" not found']),
        (("describe", "pod", "nix"), 1, ['pods "nix" not found']),
        (("delete", "pod", "nix"), 1, ['pods "nix" not found']),
        (("why", "nix"), 1, ["nix"]),
        (("trace", "nix"), 1, ["nix"]),
        (("inspect", "nix"), 1, ["nix"]),
        (("get", "podz"), 1, ["podz", 'did you mean "pods"?']),
        (("get",), 2, ["type of resource"]),
        (("gett", "pods"), 2, ['unknown command "gett"', 'did you mean "get"?']),
        (("get", "pods", "--watchh"), 2, ["--watchh", "--watch"]),
        (("get", "pods", "-o", "xml"), 2, ["xml"]),
        (("get", "pods", "-l", "a in (b"), 1, ["a in (b"]),
        (("logs", "p", "--since", "soon"), 2, ["soon"]),
        (("logs", "p", "--tail", "x"), 2, ["x"]),
        (("exec", "p"), 2, ["COMMAND"]),
        (("exec", "p", "-c", "nix", "--", "true"), 1, ["nix"]),
        (("apply",), 2, ["-f"]),
        (("apply", "-f", "/no/such.yaml"), 1, ["/no/such.yaml"]),
        (("delete",), 2, ["-f FILE"]),
        (("image", "rm", "no/image"), 1, ["no/image"]),
        (("completion", "tcsh"), 2, ["tcsh"]),
    ):
        sentence(node.cli(*arguments, check=False), code, *words)
    second = subprocess.run(
        node.in_netns(*KUBELITE, "serve"),
        cwd=REPO, env=environ(node), capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert second.returncode == 1 and "another kubelite" in second.stderr and "Traceback" not in second.stderr
    node.stop()
    for command in (
        ("get", "pods"),
        ("logs", "p"),
        ("exec", "-it", "p", "--", "sh"),
        ("apply", "-f", "-"),
        ("images",),
    ):
        refused = node.cli(*command, check=False, stdin=pod("p").encode())
        sentence(refused, 1, "kubelite is not running", "--socket")
    stopped = node.cli("version", check=False)
    assert stopped.code == 1 and stopped.out.startswith("Client Version: ") and "not running" in stopped.err
    wrong = subprocess.run(
        [sys.executable, "-m", "kubelite", "serve", "--pod-cidr", "nonsense"],
        cwd=REPO, env=environ(node), capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert wrong.returncode in (1, 2) and "pod-cidr" in wrong.stderr and "Traceback" not in wrong.stderr
    node.start()
    node.pid("p")

"""The command line as users call it: a separate process against a served API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import KUBELITE, WEB, environment, kubelite, line_of, ok, server, started

__all__ = ["server"]


# -- get -----------------------------------------------------------------------------------------------------


def test_get_pods(server: Served) -> None:
    lines = ok(server, "get", "pods").splitlines()
    assert lines[0] == "NAME   READY   STATUS    RESTARTS   AGE"
    assert [line.split()[:4] for line in lines[1:]] == [
        ["db", "1/1", "Running", "0"],
        ["web", "1/1", "Running", "0"],
    ]
    assert ok(server, "get", "po", "-A").splitlines()[0].startswith("NAMESPACE   NAME")
    assert ok(server, "get", "pod", "-n", "prod", "--no-headers").split()[0] == "api"
    assert "10.88.0.7" in ok(server, "get", "pods", "-o", "wide")
    assert ok(server, "get", "pods", "-l", "app=db", "-o", "name") == "pod/db\n"


def test_get_by_name_in_all_forms(server: Served) -> None:
    assert ok(server, "get", "pod/web", "-o", "name") == "pod/web\n"
    assert json.loads(ok(server, "get", "pods", "web", "-o", "json"))["kind"] == "Pod"
    both = json.loads(ok(server, "get", "pods", "web", "db", "-o", "json"))
    assert both["kind"] == "List" and len(both["items"]) == 2
    text = ok(server, "get", "pod", "web", "-o", "yaml")
    assert yaml.safe_load(text)["metadata"]["name"] == "web" and text.startswith(
        "apiVersion: v1\nkind: Pod\n"
    )
    some = kubelite(server, "get", "pods", "web", "nix")
    assert some.returncode == 1 and "web" in some.stdout
    assert some.stderr == 'Error from server (NotFound): pods "nix" not found\n'


def test_get_shows_managers_of_fields_only_if_it_is_asked(server: Served) -> None:
    entry = {"manager": "kr8s", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    metadata = {"name": "shop", "namespace": "default", "uid": "u-shop", "managedFields": [entry]}
    doc = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}}
    server.run(server.node.store.create("ConfigMap", doc))
    for what in (["cm", "shop"], ["cm"]):
        for form in ("json", "yaml"):
            assert "managedFields" not in ok(server, "get", *what, "-o", form)
            assert "manager" in ok(server, "get", *what, "-o", form, "--show-managed-fields")
    assert ok(server, "get", "cm", "shop", "-o", "jsonpath={.metadata.managedFields[*].manager}") == "kr8s"


def test_get_without_objects(server: Served) -> None:
    done = kubelite(server, "get", "configmaps")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "",
        "No resources found in default namespace.\n",
    )
    assert kubelite(server, "get", "secrets", "-A").stderr == "No resources found\n"
    assert json.loads(ok(server, "get", "cm", "-o", "json"))["items"] == []


def test_watch_keeps_its_columns(server: Served) -> None:
    with started(server, "get", "pods", "-w") as process:
        head = line_of(process)
        assert [line_of(process).split()[0] for _ in "ab"] == ["db", "web"]
        doc = pod_doc("web")
        doc["status"]["containerStatuses"][0]["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
        doc["status"]["containerStatuses"][0]["ready"] = False
        server.run(server.node.store.update("Pod", doc))
        row = line_of(process)
        assert row.split()[:3] == ["web", "0/1", "CrashLoopBackOff"]
        assert row.index("0/1") == head.index("READY")


def test_get_manifests_shows_errors(server: Served) -> None:
    Path(server.node.manifests_dir, "good.yaml").write_text(WEB)
    Path(server.node.manifests_dir, "bad.yaml").write_text(WEB.replace("image:", "imagee:"))
    out = ok(server, "get", "manifests")
    assert [line.split()[:4] for line in out.splitlines()[1:3]] == [
        ["bad.yaml", "Invalid", "0", "1"],
        ["good.yaml", "Loaded", "1", "0"],
    ]
    assert 'bad.yaml:8: spec.containers[0].imagee: unknown field, did you mean "image"?' in out


def test_a_manifest_of_unsupported_kinds_is_shown_as_ignored(server: Served) -> None:
    request = "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {name: shop}\n"
    Path(server.node.manifests_dir, "shop.yaml").write_text(request)
    Path(server.node.manifests_dir, "web.yaml").write_text(f"{WEB}---\n{request}")
    out = ok(server, "get", "manifests")
    assert [line.split(maxsplit=4) for line in out.splitlines()[1:3]] == [
        ["shop.yaml", "Ignored", "0", "0", "<none> (not supported: CertificateSigningRequest)"],
        ["web.yaml", "Loaded", "1", "0", "pod/nginx (not supported: CertificateSigningRequest)"],
    ]
    assert (
        "shop.yaml:2: kind: kubelite does not run CertificateSigningRequest objects yet: this document is ignored"
        in out
    )


# -- errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["gett"], 2, 'unknown command "gett"; did you mean "get"?'),
        (["get", "podz"], 1, 'did you mean "pods"?'),
        (["get"], 2, "the type of resource"),
        (["get", "pods", "--namespce", "x"], 2, "--namespace"),
        (["get", "pods", "-o", "yml"], 2, "yaml"),
        (["logs"], 2, "specify a POD"),
        (["logs", "nix"], 1, 'Error from server (NotFound): pods "nix" not found'),
        (["exec", "web"], 2, "COMMAND"),
        (["delete"], 2, "specify what to delete"),
        (["logs", "web", "--since", "soon"], 2, "invalid duration"),
        (["get", "pods", "-l", "a in ("], 1, "invalid label selector"),
        (["delete", "cm", "x"], 1, "kubelite delete -f FILE"),
        (["describe", "manifests"], 1, "kubelite get manifests"),
        (["serve", "--pod-cidr", "nonsense"], 2, "pod-cidr"),
        (["serve", "--pod-cird", "10.0.0.0/16"], 2, "--pod-cidr"),
        (["serve", "--config", "/nowhere.yaml"], 2, "/nowhere.yaml"),
    ],
)
def test_an_error_is_one_clear_sentence(server: Served, arguments: list[str], code: int, words: str) -> None:
    done = kubelite(server, *arguments)
    assert done.returncode == code and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""


def test_a_daemon_that_is_not_running(server: Served) -> None:
    done = kubelite(server, "--socket", "/nowhere/k.sock", "get", "pods")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: kubelite is not running (no daemon at /nowhere/k.sock): start it with"
    )
    assert f"`sudo make run` in {Path(__file__).parents[3]} or with `kubelite serve`" in done.stderr
    assert kubelite(server, "get", "pods", "--socket", "/nowhere/k.sock").returncode == 1
    assert kubelite(server, "--socket", "/nowhere/k.sock", "version").stdout.startswith("Client Version: ")


def test_a_reader_that_closes_the_pipe(server: Served) -> None:
    done = subprocess.run(
        f'{sys.executable} -c "from kubelite.cli.main import main; main()" get pods -o yaml | head -1',
        shell=True, env=environment(server), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == "apiVersion: v1\n" and done.stderr == ""


@pytest.mark.uninstrumented
def test_help_imports_nothing_heavy(server: Served) -> None:
    heavy = [
        "pydantic",
        "starlette",
        "uvicorn",
        "rich",
        "websockets",
        "yaml",
        "asyncio",
        "sqlalchemy",
        "sqlite3",
        "watchfiles",
    ]
    code = (
        "import sys\nfrom kubelite.cli.main import run\nrun(['get', 'pods'])\n"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(server), capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


# -- manifests in and out ------------------------------------------------------------------------------------


def test_apply_and_delete_by_file(server: Served, tmp_path: Path) -> None:
    file = tmp_path / "nginx.yaml"
    file.write_text(WEB)
    target = Path(server.node.manifests_dir, "nginx.yaml")
    assert ok(server, "apply", "-f", str(file), "--dry-run") == "pod/nginx created (dry run)\n"
    assert not target.exists()
    assert ok(server, "apply", "-f", str(file)) == "pod/nginx created\n"
    assert target.read_text() == WEB
    assert ok(server, "apply", "-f", str(file)) == "pod/nginx unchanged\n"
    assert ok(server, "apply", "-f", "-", stdin=WEB.replace("nginx:1", "nginx:2")) == "pod/nginx configured\n"
    assert "nginx:2" in target.read_text()
    assert ok(server, "delete", "-f", str(file)) == 'pod "nginx" deleted from default namespace\n'
    assert not target.exists()
    again = kubelite(server, "delete", "-f", str(file))
    assert again.returncode == 1 and again.stderr == 'Error from server (NotFound): pods "nginx" not found\n'
    assert ok(server, "delete", "-f", str(file), "--ignore-not-found") == ""


def test_apply_a_directory_and_a_namespace(server: Served, tmp_path: Path) -> None:
    directory = tmp_path / "mine"
    (directory / "deep").mkdir(parents=True)
    (directory / "a.yaml").write_text(WEB)
    (directory / ".b.yaml").write_text("{")
    (directory / "deep" / "c.yaml").write_text(WEB.replace("nginx", "deep"))
    assert ok(server, "apply", "-f", str(directory), "-n", "prod") == "pod/nginx created\n"
    assert "namespace: prod" in Path(server.node.manifests_dir, "a.yaml").read_text()
    assert ok(server, "apply", "-R", "-f", str(directory)).count("created") == 2


def test_apply_of_a_bad_manifest_changes_nothing(server: Served, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(WEB.replace("image:", "imagee:"))
    done = kubelite(server, "apply", "-f", str(file))
    assert done.returncode == 1
    assert (
        f'error: {file}:8: spec.containers[0].imagee: unknown field, did you mean "image"?\n' in done.stderr
    )
    assert not list(Path(server.node.manifests_dir).iterdir())
    assert (
        kubelite(server, "apply", "-f", "/nowhere.yaml").stderr
        == "error: cannot read /nowhere.yaml: No such file or directory\n"
    )


def test_delete_by_name_names_the_file_that_recreates_the_pod(server: Served) -> None:
    ok(server, "apply", "-f", "-", stdin=WEB)
    done = kubelite(server, "delete", "pod/nginx", "--grace-period", "5")
    assert done.stdout == 'pod "nginx" deleted from default namespace\n'
    assert "still defines pod nginx, so it is recreated; delete it with `kubelite delete -f" in done.stderr
    assert server.node.deleted == [("default", "nginx", 5)]
    assert kubelite(server, "delete", "pod", "nix").returncode == 1
    assert ok(server, "delete", "pods", "-l", "app=db", "--now").startswith('pod "db" deleted')
    assert server.node.deleted[-1] == ("default", "db", 1)
    refused = kubelite(server, "delete", "pod", "web", "-A")
    assert refused.returncode == 2 and "by name across all namespaces" in refused.stderr
    everywhere = ok(server, "delete", "pods", "--all", "-A", "--force")
    assert 'pod "web" force deleted from default namespace\n' in everywhere
    assert 'pod "api" force deleted from prod namespace\n' in everywhere
    assert ("prod", "api", 0) in server.node.deleted


def test_diff_exit_codes(server: Served, tmp_path: Path) -> None:
    assert kubelite(server, "diff", "-f", "-", stdin=WEB).returncode == 0
    done = kubelite(server, "diff", "-f", "-", stdin=WEB.replace("nginx:1", "changed:1"))
    assert done.returncode == 1
    assert done.stdout == "pod/web: update\n  - container app is restarted: its image changes\n"
    assert kubelite(server, "diff", "-f", "-", stdin="kind: Nix\n").returncode == 2


# -- logs ----------------------------------------------------------------------------------------------------


def log_line(text: str) -> str:
    return f"2026-11-24T14:33:01.000000000Z stdout F {text}\n"


def test_logs(server: Served) -> None:
    directory = Path(server.node.container_log_dir(pod_doc("web"), "app"))
    directory.mkdir(parents=True)
    (directory / "0.log").write_text(log_line("one") + log_line("two"))
    assert ok(server, "logs", "web") == "one\ntwo\n"
    assert ok(server, "logs", "pod/web", "--tail", "1", "--prefix") == "[pod/web/app] two\n"
    assert kubelite(server, "logs", "web", "-p").stderr == (
        'Error from server (BadRequest): previous terminated container "app" in pod "web" not found\n'
    )
    with started(server, "logs", "-f", "web") as process:
        assert [line_of(process) for _ in "ab"] == ["one\n", "two\n"]
        (directory / "1.log").write_text(log_line("again"))
        assert line_of(process) == "again\n"
        server.run(server.node.store.delete("uid-default-web"))
        assert process.wait(5) == 0


def test_the_default_container_is_named(server: Served) -> None:
    two = pod_doc("two", containers=[{"name": n, "image": "i"} for n in ("app", "side")])
    server.run(server.node.store.create("Pod", two))
    for name in ("app", "side"):
        directory = Path(server.node.container_log_dir(two, name))
        directory.mkdir(parents=True)
        (directory / "0.log").write_text(log_line(f"of {name}"))
    done = kubelite(server, "logs", "two")
    assert (done.stdout, done.stderr) == ("of app\n", 'Defaulted container "app" out of: app, side\n')
    assert ok(server, "logs", "two", "side") == "of side\n"
    assert ok(server, "logs", "two", "--all-containers") == "of app\nof side\n"


# -- the rest ------------------------------------------------------------------------------------------------


def test_diagnosis_commands(server: Served) -> None:
    assert "Decided:\n  - nothing to do\n" in ok(server, "why", "web")
    assert "execve" in ok(server, "trace", "pod/web")
    assert "Started container app" in ok(server, "events", "--for", "pod/web")
    assert (
        kubelite(server, "events", "--types", "Warning").stderr == "No events found in default namespace.\n"
    )
    assert json.loads(ok(server, "inspect", "abc"))["state"] == "running"
    assert ok(server, "doctor") == "All is well.\n"
    server.node.findings = [
        {"level": "error", "check": "cgroups", "message": "one is left over", "fix": "rmdir it"}
    ]
    done = kubelite(server, "doctor")
    assert (done.returncode, done.stdout) == (1, "error: cgroups: one is left over\n  fix: rmdir it\n")


def test_images(server: Served, tmp_path: Path) -> None:
    lines = ok(server, "images").splitlines()
    assert lines[0].split() == ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]
    assert lines[1].split()[:3] == ["busybox", "latest", "1" * 12]
    assert ok(server, "pull", "busybox") == "Pulled docker.io/library/busybox:latest\n"
    assert kubelite(server, "pull", "missing").stderr.endswith("the registry has no such image\n")
    archive = tmp_path / "x.tar"
    archive.write_bytes(b"123")
    assert ok(server, "load", str(archive)) == "Loaded docker.io/library/loaded:1\n"
    assert ok(server, "image", "load", "-", stdin="4444") == "Loaded docker.io/library/loaded:1\n"
    ok(
        server,
        "image",
        "pack",
        "-t",
        "tool:1",
        "busybox",
        "--file",
        "etc:/etc",
        "--entrypoint",
        "sh -c 'a b'",
    )
    (packed,) = server.node.packed
    assert packed["entrypoint"] == ["sh", "-c", "a b"] and packed["files"] == [f"{os.getcwd()}/etc:/etc"]
    assert ok(server, "image", "rm", "busybox") == "Untagged: busybox\n"


def test_version_help_and_completion(server: Served) -> None:
    assert ok(server, "version").splitlines()[0].startswith("Client Version: 0.")
    assert ok(server, "--version").startswith("Client Version: 0.")
    assert "image" in ok(server, "--help") and "--tail" in ok(server, "logs", "--help")
    for shell in ("bash", "zsh", "fish"):
        assert "_KUBELITE_COMPLETE" in ok(server, "completion", shell)
    words = {"COMP_WORDS": "kubelite logs ", "COMP_CWORD": "2", "_KUBELITE_COMPLETE": "bash_complete"}
    done = subprocess.run(
        KUBELITE, env={**environment(server), **words}, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["plain,db", "plain,web"]


def test_command_names_are_completed_without_their_modules() -> None:
    code = "import sys; from kubelite.cli.main import cli; cli(prog_name='kubelite')"
    words = {"COMP_WORDS": "kubelite lo", "COMP_CWORD": "1", "_KUBELITE_COMPLETE": "zsh_complete"}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env={**os.environ, **words},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == [
        *("plain", "logs", "Print the logs of containers"),
        *("plain", "login", "Log in to a registry"),
        *("plain", "logout", "Log out of a registry"),
        *("plain", "load", "Load images from an archive or an OCI layout"),
    ]
    assert "kubelite.cli.groups" in done.stderr
    assert "kubelite.cli.images" not in done.stderr


# -- history --------------------------------------------------------------------------------------------------


def test_history_and_pods_of_a_past_moment(server: Served) -> None:
    time.sleep(0.01)
    moment = datetime.now(UTC).isoformat()
    changed = pod_doc("web")
    changed["status"]["phase"] = "Failed"
    server.run(server.node.store.update("Pod", changed))
    server.run(server.node.store.delete("uid-default-db"))
    lines = ok(server, "history", "web").splitlines()
    assert lines[0].split() == ["TIME", "WHAT", "REASON", "MESSAGE"]
    assert [line.split()[1] for line in lines[1:]] == ["Made", "Normal", "Status"]
    assert "Started container app" in lines[2] and "phase Running → Failed" in lines[3]
    gone = json.loads(ok(server, "history", "db", "-o", "json"))
    assert [entry["what"] for entry in gone["entries"]] == ["ADDED", "DELETED"]
    assert "No history of default/web" in kubelite(server, "history", "web", "--since", "0s").stderr
    assert len(ok(server, "history", "web", "--limit", "1").splitlines()) == 2
    missing = kubelite(server, "history", "nix")
    assert missing.returncode == 1 and 'pods "nix" not found' in missing.stderr

    then = [line.split()[:3] for line in ok(server, "get", "pods", "--at", moment).splitlines()[1:]]
    assert then == [["db", "1/1", "Running"], ["web", "1/1", "Running"]]
    assert "Failed" in ok(server, "get", "pods", "--at", "0s ago")
    one = json.loads(ok(server, "get", "pod", "db", "--at", moment, "-o", "json"))
    assert one["metadata"]["name"] == "db"
    for words, sentence in (
        (("get", "pods", "--at", "1d ago"), "history goes back to"),
        (("get", "pods", "--at", "soon"), 'invalid time "soon"'),
        (("get", "pods", "--at", "2999-01-01T00:00:00Z"), "is in the future"),
        (("get", "events", "--at", "0s"), "--at works only for pods"),
        (("get", "pods", "-w", "--at", "0s"), "--at works only for pods"),
    ):
        done = kubelite(server, *words)
        assert done.returncode != 0 and sentence in done.stderr, (words, done)


def test_rollout_undo_twice(server: Served) -> None:
    path = Path(server.node.manifests_dir) / "nginx.yaml"
    second = WEB.replace("nginx:1", "nginx:2")
    for text in (WEB, second):
        ok(server, "apply", "-f", "-", stdin=text.replace("apiVersion", "# mine\napiVersion"))
        target = next(Path(server.node.manifests_dir).glob("*.yaml"))
    path = target
    for wanted in ("nginx:1", "nginx:2", "nginx:1"):
        assert "rolled back" in ok(server, "rollout", "undo", "pod/nginx")
        assert wanted in path.read_text() and "# mine" in path.read_text()
        server.run(server.node.rescan())
    listed = ok(server, "rollout", "history", "nginx").splitlines()
    assert listed[0] == str(path) and [line.split()[0] for line in listed[2:]] == ["1", "2", "3", "4", "5"]
    assert "nginx:2" in ok(server, "rollout", "history", path.name, "--revision", "2")
    shown = ok(server, "rollout", "undo", path.name, "--to-revision", "4", "--dry-run")
    assert "+    image: nginx:2" in shown and "nginx:1" in path.read_text()
    # an invalid edit, and a removed file
    path.write_text("broken: [")
    assert "rolled back to revision 5" in ok(server, "rollout", "undo", path.name)
    path.unlink()
    server.run(server.node.rescan())
    assert "rolled back" in ok(server, "rollout", "undo", "pod/nginx")
    assert "nginx:1" in path.read_text()
    for words, sentence in (
        (("undo", "pod/nginx", "--to-revision", "99"), "there is no revision 99"),
        (("undo", "pod/never"), 'no manifest in history has pod "never"'),
        (("undo", "../../etc/passwd.yaml"), "not in the manifests directory"),
        (("history", "nodes/here"), "are not defined in manifests"),
        (("undo", "pod/web"), "has no manifest file"),
    ):
        done = kubelite(server, "rollout", *words)
        assert done.returncode != 0 and sentence in done.stderr, (words, done)

"""Habits of kubectl and docker users, and commands without a usable terminal."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from kubelite.cli.main import COMMANDS
from kubelite.cli.unknown_commands import ELSEWHERE
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import KUBELITE, WEB, environment, kubelite, ok, server

__all__ = ["server"]


def test_commands_of_kubectl_and_docker_that_do_not_exist() -> None:
    assert not set(ELSEWHERE) & set(COMMANDS)


def test_commands_of_kubectl_and_docker_name_the_equivalent(server: Served) -> None:
    done = kubelite(server, "restart", "web")
    assert (
        done.returncode == 2
        and "`kubelite rollout restart POD`" in done.stderr
        and "unknown" not in done.stderr
    )
    done = kubelite(server, "exec", "web", "ls", "-l")
    assert done.returncode == 2 and "kubelite exec POD -- COMMAND" in done.stderr
    assert kubelite(server, "replace", "pod", "web").stderr.startswith(
        'error: kubelite has no command "replace": '
    )
    assert kubelite(server, "dscribe").stderr.startswith(
        'error: unknown command "dscribe"; did you mean "describe"?'
    )


def test_unknown_types_name_the_known_ones(server: Served) -> None:
    done = kubelite(server, "get", "gateways")
    assert done.returncode == 1 and "controllerrevisions, events, configmaps" in done.stderr
    assert ok(server, "get", "all", "-o", "name") == ok(server, "get", "pods", "-o", "name")


def test_flags_as_kubectl_writes_them(server: Served) -> None:
    for value in ("", "=client", "=server"):
        assert ok(server, "apply", f"--dry-run{value}", "-f", "-", stdin=WEB).endswith(" (dry run)\n")
    assert kubelite(server, "apply", "--dry-run=yes", "-f", "-", stdin=WEB).returncode == 2
    assert ok(server, "get", "pods", "--no-headers=true", "--watch=false").startswith("db ")
    assert ok(server, "get", "pods", "--no-headers=false").startswith("NAME ")
    assert kubelite(server, "delete", "pod", "nix", "--wait=false", "--ignore-not-found=true").returncode == 0
    done = kubelite(server, "get", "pods", "--watch=perhaps")
    assert done.returncode == 2 and "--watch" in done.stderr


def test_without_a_command_help_is_shown(server: Served) -> None:
    for arguments in ((), ("top",), ("image",), ("rollout",)):
        done = kubelite(server, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Usage: kubelite") and "error" not in done.stderr
    assert "  pod " not in kubelite(server, "top", "--help").stdout


def test_argument_forms_of_kubectl(server: Served) -> None:
    assert ok(server, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}") == "db web"
    assert ok(server, "get", "pod", "web", "-o", 'jsonpath={.metadata.name}{"\\n"}') == "web\n"
    table = ok(server, "get", "pods", "-o", "custom-columns=POD:.metadata.name,NODE:.spec.nix")
    assert [line.split() for line in table.splitlines()] == [
        ["POD", "NODE"],
        ["db", "<none>"],
        ["web", "<none>"],
    ]
    assert ok(server, "get", "pods", "--no-headers", "-o", "custom-columns=POD:.metadata.name") == "db\nweb\n"
    for name, order in (("web", "1"), ("db", "2")):
        doc = pod_doc(name)
        doc["metadata"]["labels"] = {"order": order}
        server.run(server.node.store.update("Pod", doc))
    for form in (("-o", "name"), ("-o", "wide"), ()):
        lines = ok(server, "get", "pods", "--sort-by=.metadata.labels.order", *form).splitlines()
        assert [word in line for word, line in zip(("web", "db"), lines[-2:], strict=True)] == [True, True]
    for wrong, word in (
        (("-o", "jsonpath={.items["), "unclosed"),
        (("-o", "jsonpath"), "no template given"),
        (("-o", "custom-columns=A"), "custom-columns spec"),
        (("--sort-by=.a[x]",), "not understood"),
        (("--sort-by=.a", "-w"), "--watch"),
        (("-o", "go-template"), "no template given"),
    ):
        done = kubelite(server, "get", "pods", *wrong)
        assert (done.returncode, word in done.stderr, "Traceback" in done.stderr) == (2, True, False), done


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_standard_stream_that_is_closed(server: Served, number: int) -> None:
    script = f'exec "$@" {number}>&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *KUBELITE, "get", "pods"],
        env=environment(server),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert ("web" in done.stdout) == (number != 1)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_under_the_output(server: Served) -> None:
    for command in (("get", "pods"), ("get", "pods", "-o", "yaml"), ("--help",), ("describe", "pod", "web")):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                [*KUBELITE, *command],
                env=environment(server),
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                check=False,
            )
        assert (done.returncode, done.stderr) == (
            1,
            b"error: cannot write the output: No space left on device\n",
        )


def test_a_locale_without_unicode(server: Served) -> None:
    plain = environment(server) | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    plain.pop("PYTHONIOENCODING", None)
    doc = pod_doc("web")
    doc["metadata"]["annotations"] = {"says": "»so…«"}
    server.run(server.node.store.update("Pod", doc))
    command = [*KUBELITE, "describe", "pod", "web"]
    done = subprocess.run(command, env=plain, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b"says: ?so??" in done.stdout, done.stderr) == (0, True, b"")


def test_a_bundle_reports_a_missing_daemon_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [*KUBELITE, "--socket", str(tmp_path / "none.sock"), "support-bundle"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and done.stderr.count("kubelite is not running") == 1
    assert not os.listdir(tmp_path)


def test_further_options_of_get(server: Served, tmp_path: Path) -> None:
    assert ok(server, "get", "pods", "-L", "app,none", "--no-headers").split()[5] == "db"
    assert ok(server, "get", "pods", "-L", "x.test/app").splitlines()[0].split()[-2:] == ["AGE", "APP"]
    assert ok(server, "get", "pods", "--show-kind", "--no-headers").startswith("pod/")
    assert ok(server, "get", "all", "--no-headers").startswith("pod/db ")
    assert ok(server, "get", "pod", "nix", "--ignore-not-found") == ""
    both = kubelite(server, "get", "pod", "nix", "web", "-o", "name", "--ignore-not-found")
    assert (both.stdout, both.stderr, both.returncode) == ("pod/web\n", "", 0)
    assert ok(server, "get", "pods", "--chunk-size=500", "--show-managed-fields", "-o", "name")
    raw = json.loads(ok(server, "get", "--raw", "/api/v1/pods?labelSelector=app%3Dapi"))
    assert [item["metadata"]["name"] for item in raw["items"]] == ["api"]
    file = tmp_path / "pods.yaml"
    file.write_text(
        "\n---\n".join(
            (WEB, WEB.replace("nginx", "api").replace("name: api\n", "name: api\n  namespace: prod\n", 1))
        )
    )
    found = kubelite(server, "get", "-f", str(file), "-o", "name")
    assert (found.returncode, found.stdout) == (1, "pod/api\n") and 'pods "nginx" not found' in found.stderr


def test_templates_from_files_and_as_json(server: Served, tmp_path: Path) -> None:
    template, columns = tmp_path / "template", tmp_path / "columns"
    template.write_text("{.items[*].metadata.name}")
    columns.write_text("NAME   APP\n.metadata.name  .metadata.labels.app\n")
    assert ok(server, "get", "pods", "-o", f"jsonpath-file={template}").split() == ["db", "web"]
    assert ok(server, "get", "pods", "-o", f"custom-columns-file={columns}").split() == [
        "NAME",
        "APP",
        "db",
        "db",
        "web",
        "web",
    ]
    assert json.loads(ok(server, "get", "pods", "-o", "jsonpath-as-json={.items[*].metadata.name}")) == [
        "db",
        "web",
    ]
    columns.write_text("NAME APP\n.metadata.name\n")
    for form, words in (
        (f"custom-columns-file={columns}", "a path for each"),
        ("jsonpath-file=/nix", "/nix"),
        ("jsonpath-as-json", "no template given"),
        ("go-template={{.x", "template: unclosed action"),
    ):
        done = kubelite(server, "get", "pods", "-o", form)
        assert done.returncode == 2 and words in done.stderr, done


def test_help_is_a_command_and_flags_without_effect_are_accepted(server: Served) -> None:
    assert ok(server, "help", "get") == ok(server, "get", "--help")
    assert "port-forward" in ok(server, "help") and ok(server, "help", "rollout", "status").startswith(
        "Usage: kubelite rollout status"
    )
    done = kubelite(
        server, "logs", "web", "--pod-running-timeout=20s", "--insecure-skip-tls-verify-backend=true"
    )
    assert "no such option" not in done.stderr

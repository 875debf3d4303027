"""Words that people know from docker and kubectl: formats, filters, manifests' addresses, ports' names, completion."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from kubelite.cli.containers.port_forward import pair_of, ports_of
from kubelite.cli.errors import CliError
from kubelite.cli.images.images import selected
from kubelite.cli.main import COMMANDS
from kubelite.cli.unknown_commands import ELSEWHERE, OPTIONS_ELSEWHERE
from tests.command_lines import invocations
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import KUBELITE, WEB, environment, kubelite, ok, server
from tests.unit.cli.test_help import EVERY, parse

__all__ = ["server"]


# -- inspect -----------------------------------------------------------------------------------------------------


def test_inspect_prints_in_the_wanted_format(server: Served) -> None:
    found = {"id": "abcd", "state": "running"}
    assert json.loads(ok(server, "inspect", "abcd")) == found
    assert json.loads(ok(server, "inspect", "abcd", "-o", "json")) == found
    assert yaml.safe_load(ok(server, "inspect", "abcd", "-o", "yaml")) == found
    assert ok(server, "inspect", "abcd", "-o", "jsonpath={.state}") == "running"
    assert ok(server, "inspect", "abcd", "-o", "go-template={{.state}}") == "running"
    assert ok(server, "inspect", "abcd", "--format", "{{.id}} is {{.state}}") == "abcd is running\n"
    assert json.loads(ok(server, "inspect", "abcd", "--format", "json")) == found
    for arguments, words in (
        (("-o", "json", "--format", "{{.id}}"), "use either -o or --format"),
        (("-o", "wide"), "-o wide does not apply"),
        (("--format", '{{define "x"}}{{end}}'), "{{define}} is not supported"),
    ):
        done = kubelite(server, "inspect", "abcd", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr


def test_get_prints_go_templates(server: Served) -> None:
    template = "go-template={{range .items}}{{.metadata.name}},{{end}}"
    assert ok(server, "get", "pods", "-o", template) == "db,web,"


# -- images ------------------------------------------------------------------------------------------------------


def image(number: int, reference: str) -> dict[str, Any]:
    return {
        "id": f"sha256:{number}" + "0" * 63,
        "reference": reference,
        "created": f"2026-01-0{number}T00:00:00Z",
    }


IMAGES = [
    image(1, "docker.io/library/nginx:1"),
    image(2, "docker.io/library/nginx:2"),
    image(3, "quay.io/org/app:1"),
    image(4, "localhost:5000/app:dev"),
    image(5, ""),
]


@pytest.mark.parametrize(
    ("name", "filters", "numbers"),
    [
        ("", (), [1, 2, 3, 4, 5]),
        ("nginx", (), [1, 2]),
        ("docker.io/library/nginx", (), [1, 2]),
        ("nginx:2", (), [2]),
        ("quay.io/*/app", (), [3]),
        ("localhost:5000/app", (), [4]),
        ("app", (), []),
        ("", ("dangling=true",), [5]),
        ("", ("dangling=false", "reference=*:1"), [1, 3]),
        ("", ("before=nginx:2",), [1]),
        ("", ("since=quay.io/org/app:1",), [4, 5]),
        ("", ("since=4000",), [5]),
    ],
)
def test_images_are_selected_by_name_and_filters(
    name: str, filters: tuple[str, ...], numbers: list[int]
) -> None:
    assert [int(found["id"][7]) for found in selected(IMAGES, name, filters)] == numbers


def test_unknown_filters_and_images_are_said(server: Served) -> None:
    for given, words in (
        ("label=a", "the filters are reference=PATTERN"),
        ("before=nix", "no such image: nix"),
    ):
        done = kubelite(server, "images", "--filter", given)
        assert done.returncode != 0
        assert words in done.stderr
    assert ok(server, "images", "busybox", "-q") == ok(server, "images", "-q")
    assert ok(server, "images", "other", "--no-headers") == ""


# -- manifests behind a URL --------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The address of a web server with web.yaml and a file that is too large."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/web.yaml").write_text(WEB)
    with (tmp_path / "site/large.yaml").open("wb") as file:
        file.truncate((10 << 20) + 1)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(tmp_path / "site"))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as serving:
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


def test_apply_reads_a_url(server: Served, site: str) -> None:
    assert ok(server, "apply", "-f", f"{site}/web.yaml?raw=1") == "pod/nginx created\n"
    assert (Path(server.node.manifests_dir) / "web.yaml").read_text() == WEB
    for url, words in (
        (f"{site}/nope.yaml", "the server answered 404"),
        (f"{site}/large.yaml", "larger than 10 MiB"),
        ("http://127.0.0.1:1/x.yaml", "Connection refused"),
    ):
        done = kubelite(server, "apply", "-f", url)
        assert done.returncode == 1
        assert words in done.stderr
    assert ok(server, "delete", "-f", f"{site}/web.yaml", "--no-wait").startswith('pod "nginx" deleted')


# -- ports by name -----------------------------------------------------------------------------------------------


def test_ports_have_names() -> None:
    spec = {
        "containers": [
            {"ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]},
            {
                "ports": [
                    {"name": "web", "containerPort": 82},
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                ]
            },
        ],
        "initContainers": [
            {"restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 90}]},
            {"ports": [{"name": "setup", "containerPort": 91}]},
        ],
    }
    named = ports_of(spec)
    assert named == {"web": 80, "side": 90}
    assert pair_of("8080:web", named) == (8080, 80)
    assert pair_of("web", named) == (80, 80)
    assert pair_of(":side", named) == (0, 90)
    with pytest.raises(CliError, match=r"the pod has no port of this name, only side, web"):
        pair_of("53:dns", named)


# -- words of docker ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    ["network", "container", "compose", "ps", "stop", "rm", "volume", "secret", "commit", "start", "kill"],
)
def test_a_word_of_docker_names_the_command_that_does_it(server: Served, word: str) -> None:
    done = kubelite(server, word)
    assert done.returncode == 2
    assert f'kubelite has no command "{word}"' in done.stderr
    assert "`kubelite " in done.stderr


def test_every_command_in_those_answers_can_be_parsed() -> None:
    for word, answer in ELSEWHERE.items():
        for command in answer.split("`")[1::2]:
            if not command.startswith("kubelite ") or "|" in command:
                continue
            for arguments in invocations(command, "kubelite"):
                try:
                    assert arguments[0] in COMMANDS, (word, command)
                    if len(arguments) > 1 or isinstance(EVERY.get((arguments[0],)), click.Group):
                        parse(arguments)
                except click.MissingParameter:
                    pass  # the answer names the command alone


# -- options of docker and kubectl ------------------------------------------------------------------------------


def test_options_of_others_are_not_here_and_say_what_does_it() -> None:
    for name, options in OPTIONS_ELSEWHERE.items():
        ours = {word for option in EVERY[name,].params for word in (*option.opts, *option.secondary_opts)}
        assert not ours & set(options), name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("apply", "--prune", "-f", "x"), 'kubelite apply has no option "--prune": remove a file'),
        (("build", "--squash", "."), 'kubelite build has no option "--squash": layers are kept'),
        (("run", "nginx", "-p", "80:80"), "ports[].hostPort publishes a port"),
        (("get", "pods", "--namespce", "x"), "no such option '--namespce'; did you mean --namespace?"),
        (("get", "pods", "--nix"), "no such option '--nix'\n"),
        (
            ("exec", "web", "ls", "-l"),
            "put the command and its options after --: kubelite exec POD -- COMMAND",
        ),
    ],
)
def test_an_unknown_option_is_answered(server: Served, arguments: tuple[str, ...], words: str) -> None:
    done = kubelite(server, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "--dry-run" not in done.stderr.partition("ports[]")[0]
    assert "--ssh" not in done.stderr


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("node", "the node is this machine"),
        ("event", "events expire by themselves"),
        ("cm", "configmaps are deleted with their manifest"),
    ],
)
def test_what_is_not_deleted_by_name_says_how_it_ends(server: Served, kind: str, words: str) -> None:
    done = kubelite(server, "delete", kind, "x")
    assert done.returncode == 1
    assert words in done.stderr


# -- completion --------------------------------------------------------------------------------------------------


def completed(server: Served, line: str) -> list[str]:
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_KUBELITE_COMPLETE": "bash_complete"}
    done = subprocess.run(
        KUBELITE,
        env={**environment(server), **asked},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return [found.partition(",")[2] or found.partition(",")[0] for found in done.stdout.split()]


def test_names_of_the_node_are_completed(server: Served) -> None:
    containers = [{"name": "app", "image": "a", "ports": [{"name": "http", "containerPort": 80}]}]
    server.run(server.node.store.update("Pod", pod_doc("web", containers=containers)))
    ok(server, "apply", "-f", "-", stdin=WEB)
    for line, found in (
        ("kubelite logs w", ["web"]),
        ("kubelite exec web -c a", ["app"]),
        ("kubelite logs web -n default -c a", ["app"]),
        ("kubelite logs -n pro", ["prod"]),
        ("kubelite get pods d", ["db"]),
        ("kubelite rmi busy", ["busybox:latest"]),
        ("kubelite save docker.io/l", ["docker.io/library/busybox:latest"]),
        ("kubelite run busy", ["busybox:latest"]),
        ("kubelite inspect busy", ["busybox:latest"]),
        ("kubelite inspect aaaa", ["a" * 12]),
        ("kubelite port-forward web h", ["http"]),
        ("kubelite rollout status pod-n", ["pod-nginx.yaml"]),
        ("kubelite get pods -o go", ["go-template=", "go-template-file="]),
    ):
        assert completed(server, line) == found, line
    assert {"db:", "web:"} <= set(completed(server, "kubelite cp "))


def test_objects_are_completed_as_type_and_name(server: Served) -> None:
    ok(server, "create", "deployment", "shop", "--image=nginx")
    for line, found in (
        ("kubelite logs depl", ["deployment/shop"]),
        ("kubelite exec deploy/", ["deploy/shop"]),
        ("kubelite attach deployments/s", ["deployments/shop"]),
        ("kubelite port-forward pod/w", ["pod/web"]),
        ("kubelite port-forward cm/", []),
        ("kubelite rollout restart deployment/s", ["deployment/shop"]),
        ("kubelite rollout undo depl", ["deployment/shop", "deployment-shop.yaml"]),
        ("kubelite scale deployment/", ["deployment/shop"]),
        ("kubelite describe deploy/s", ["deploy/shop"]),
        ("kubelite set env pod/d", ["pod/db"]),
        ("kubelite label deployment s", ["shop"]),
        ("kubelite why deployment/", ["deployment/shop"]),
        ("kubelite why -n prod pod/", ["pod/api"]),
        ("kubelite delete pod/w", ["pod/web"]),
        ("kubelite top pod deploy/", []),
        ("kubelite get nothing/", []),
    ):
        assert completed(server, line) == found, line


def test_files_and_images_are_completed_everywhere() -> None:
    for words, command in EVERY.items():
        for parameter in command.params:
            shown = (parameter.metavar or parameter.name or "").upper()
            if parameter._custom_shell_complete is not None or isinstance(parameter.type, click.Path):
                continue
            assert not re.search(r"(?<!=)\b(FILE|IMAGE|POD|CONTAINER-ID)\b", shown), (words, shown)
    assert os.environ.get("_KUBELITE_COMPLETE") is None

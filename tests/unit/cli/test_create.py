"""`kubelite run`, `create` and `init`: the objects they write, beside those of the real kubectl."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifests.yaml.loader import load_text
from tests.programs import missing
from tests.unit.api.server import Served
from tests.unit.cli.kit import WEB, Terminal, kubelite, ok, server

__all__ = ["server"]

DRY = ("--dry-run=client", "-o", "json")


def kubectl(server: Served, *arguments: str) -> Any:
    """The object that kubectl prints, without its empty fields."""
    if missing("kubectl"):
        pytest.skip("needs kubectl (kubernetes-client)")
    address = f"http://127.0.0.1:{server.port}"
    environ = {**os.environ, "KUBECONFIG": "/dev/null", "HOME": str(server.root), "FROM_OUTSIDE": "here"}
    command = ["kubectl", "-s", address, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return without_empty(json.loads(done.stdout))


def without_empty(document: Any) -> Any:
    if isinstance(document, dict):
        found = {key: without_empty(value) for key, value in document.items()}
        return {key: value for key, value in found.items() if value not in (None, {}, [])}
    return [without_empty(one) for one in document] if isinstance(document, list) else document


RUNS = [
    ("web", "--image=nginx"),
    ("web", "--image=nginx", "--port=80", "--labels=app=web,tier=front", "--restart=Never"),
    ("web", "--image=nginx", "--env=A=1", "--env=B=two=2", "--image-pull-policy=Never"),
    ("web", "--image=nginx", "--annotations=a=b", "--annotations=c=d", "-n", "prod", "--privileged"),
    ("web", "--image=nginx", "--", "sh", "-c", "echo $A"),
    ("web", "--image=nginx", "--command", "--", "sh", "-c", "echo $A"),
]


@pytest.mark.parametrize("arguments", RUNS, ids=" ".join)
def test_run_makes_the_pod_that_kubectl_makes(server: Served, arguments: tuple[str, ...]) -> None:
    given = [*arguments]
    given[2:2] = DRY
    assert json.loads(ok(server, "run", *given)) == kubectl(server, "run", *given)


def test_run_takes_the_image_alone(server: Served) -> None:
    for image, name in (
        ("nginx", "nginx"),
        ("quay.io/Org/my_app:1.2", "my-app"),
        ("localhost:5000/a/b@sha256:" + "0" * 64, "b"),
    ):
        pod = json.loads(ok(server, "run", image, *DRY))
        assert (pod["metadata"]["name"], pod["spec"]["containers"][0]["image"]) == (name, image)
    assert json.loads(ok(server, "run", "nginx", "--name=web", *DRY))["metadata"]["name"] == "web"


def test_run_writes_a_manifest_into_the_directory(server: Served) -> None:
    assert ok(server, "run", "nginx:1", "--name=front", "--port=80", "-n", "prod") == "pod/front created\n"
    (written,) = Path(server.node.manifests_dir).glob("*front*")
    assert written.name == "prod-pod-front.yaml"
    pod = yaml.safe_load(written.read_text())
    assert pod["spec"]["containers"][0]["ports"] == [{"containerPort": 80}]
    before = written.read_bytes()
    again = kubelite(server, "run", "other:2", "--name=front", "-n", "prod")
    assert again.returncode == 1
    assert again.stderr == (
        f'Error from server (AlreadyExists): pods "front" already exists: it is in {written}\n'
    )
    assert written.read_bytes() == before
    assert ok(server, "run", "other:2", "--name=b", "--dry-run=server") == "pod/b created (server dry run)\n"
    assert not list(Path(server.node.manifests_dir).glob("*pod-b*"))


def test_delete_deletes_the_manifest_that_run_wrote_and_no_other(server: Served) -> None:
    assert ok(server, "run", "nginx:1", "--name=front", "-n", "prod") == "pod/front created\n"
    ok(server, "apply", "-f", "-", stdin=WEB)
    manifests = Path(server.node.manifests_dir)
    assert sorted(path.name for path in manifests.iterdir()) == ["pod-nginx.yaml", "prod-pod-front.yaml"]
    done = ok(server, "delete", "pod", "front", "-n", "prod", "--grace-period=3")
    assert done == 'pod "front" deleted from prod namespace\n'
    done = ok(server, "delete", "pod", "nginx", "--no-wait")
    assert [path.name for path in manifests.iterdir()] == ["pod-nginx.yaml"]
    assert "created-by" not in ok(server, "run", "nginx:1", "--dry-run=client", "-o", "yaml")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nginx", "-t"), "-i/--stdin is required"),
        (("nginx", "--rm"), "--rm should only be used for attached containers"),
        (("nginx", "-i", "--dry-run=client"), "--dry-run can't be used"),
        (("nginx", "--env=A"), 'invalid env "A", expected NAME=VALUE'),
        (("nginx", "--env=..A=1"), 'invalid env "..A=1"'),
        (("nginx", "--labels=a"), 'invalid label "a"'),
        (("web", "--image=a", "--name=b"), "name the pod once"),
        (("///", "--dry-run=client"), "has no name for a pod"),
        (("nginx", "--restart=Sometimes"), "is not one of 'Always', 'OnFailure', 'Never'"),
    ],
)
def test_run_refuses_what_kubectl_refuses(server: Served, arguments: tuple[str, ...], words: str) -> None:
    done = kubelite(server, "run", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_run_says_what_it_waits_for_and_removes_a_pod_that_does_not_start(server: Served) -> None:
    arguments = ("run", "--rm", "--attach", "nginx", "--name=slow", "--pod-running-timeout=2s")
    terminal = Terminal(server, *arguments)
    terminal.expect(b"waiting for container slow to start  1s")
    terminal.expect(b'\r\x1b[Kpod "slow" deleted from default namespace')
    terminal.expect(b"error: timed out waiting for container slow to start: no state yet")
    assert terminal.process.wait(30) == 1
    assert not list(Path(server.node.manifests_dir).glob("*slow*"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "conf.d"
    directory.mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad/no key").touch()
    (directory / "app.conf").write_text("level = info\ncolor = red\n")
    (directory / "raw").write_bytes(b"\xff\x00")
    (directory / "link").symlink_to("app.conf")
    (tmp_path / "app.env").write_text(
        "\ufeff# comment\n\n  A=1\nB= two words \nFROM_OUTSIDE\nNOT_SET\nE=a=b\n"
    )
    return tmp_path


CREATED = [
    ("configmap", "app", "--from-file=conf.d"),
    ("cm", "app", "--from-file=conf.d/app.conf", "--from-file=k=conf.d/raw", "--from-literal=x=a=b"),
    ("configmap", "app", "--from-env-file=app.env", "-n", "prod"),
    ("configmap", "empty"),
    ("secret", "generic", "db", "--from-literal=password=s3cret", "--from-file=conf.d/raw"),
    ("secret", "generic", "db", "--type=example.com/x", "--from-env-file=app.env"),
    ("priorityclass", "high", "--value=1000", "--description=high priority"),
    ("pc", "low", "--value=-5", "--global-default=true", "--preemption-policy=Never"),
    ("namespace", "prod"),
]


@pytest.mark.parametrize("arguments", CREATED, ids=" ".join)
def test_create_makes_the_object_that_kubectl_makes(
    server: Served, files: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setenv("FROM_OUTSIDE", "here")
    ours = json.loads(ok(server, "create", *arguments, *DRY))
    assert ours == kubectl(server, "create", *arguments, *DRY)


def test_create_makes_the_login_that_kubectl_makes(server: Served) -> None:
    arguments = (
        *("secret", "docker-registry", "pull", "--docker-server=quay.io"),
        *("--docker-username=me", "--docker-password=pw", "--docker-email=me@example.com"),
    )

    def login(secret: Any) -> Any:
        return json.loads(base64.b64decode(secret["data"].pop(".dockerconfigjson"))), secret

    ours = json.loads(ok(server, "create", *arguments, *DRY))
    assert login(ours) == login(kubectl(server, "create", *arguments, *DRY))


def test_create_writes_manifests_that_the_node_accepts(
    server: Served, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    for arguments in CREATED[:-1]:
        text = ok(server, "create", *arguments, "--dry-run=client", "-o", "yaml")
        assert not load_text(text, file="x.yaml").errors, text
    assert ok(server, "create", "secret", "generic", "key", "--from-literal=a=b") == "secret/key created\n"
    (written,) = Path(server.node.manifests_dir).glob("secret-key.yaml")
    assert written.stat().st_mode & 0o777 == 0o600
    assert kubelite(server, "create", "secret", "generic", "key").returncode == 1
    assert ok(server, "create", "pc", "high", "--value=7") == "priorityclass.scheduling.k8s.io/high created\n"


def test_create_from_a_file_adds_and_never_changes(server: Served, tmp_path: Path) -> None:
    manifest = tmp_path / "app.yaml"
    manifest.write_text(
        "kind: ConfigMap\napiVersion: v1\nmetadata: {name: one}\n---\nkind: ConfigMap\napiVersion: v1\n"
        "metadata: {name: two}\n"
    )
    assert ok(server, "create", "-f", str(manifest)) == "configmap/one created\nconfigmap/two created\n"
    manifest.write_text(manifest.read_text() + "data: {a: b}\n")
    done = kubelite(server, "create", "-f", str(manifest))
    assert done.returncode == 1
    assert 'configmaps "one" already exists' in done.stderr
    assert "a: b" not in (Path(server.node.manifests_dir) / "app.yaml").read_text()


def test_delete_names_the_pods_that_need_a_deleted_object(server: Served, tmp_path: Path) -> None:
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\n"
    user = WEB + "    envFrom: [{configMapRef: {name: app}}]\n"
    ok(server, "apply", "-f", "-", stdin=user)
    ok(server, "apply", "-f", "-", stdin=config)
    done = kubelite(server, "delete", "-f", "-", stdin=config)
    assert (done.returncode, done.stdout) == (0, 'configmap "app" deleted from default namespace\n')
    assert done.stderr == (
        "Warning: pod nginx in namespace default cannot start containers without ConfigMap app; containers that run "
        "go on\n"
    )
    ok(server, "apply", "-f", "-", stdin=config)
    done = kubelite(server, "delete", "--no-wait", "-f", "-", stdin=f"{config}---\n{user}")
    assert (done.returncode, done.stderr) == (0, ""), "its pod is deleted, too"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("cm", "a", "--from-literal=x"), 'invalid literal source "x", expected key=value'),
        (("cm", "a", "--from-literal=a b=1"), '"a b" is not a valid key name'),
        (("cm", "a", "--from-file=bad"), '"no key" is not a valid key name'),
        (("cm", "a", "--from-literal=x=1", "--from-literal=x=2"), 'cannot add key "x"'),
        (("cm", "a", "--from-file=nope"), "error reading nope: No such file"),
        (("cm", "a", "--from-file=k=conf.d"), "cannot give a key name for a directory"),
        (("cm", "a", "--from-env-file=app.env", "--from-literal=x=1"), "cannot be combined"),
        (("secret", "tls", "a", "--cert=app.env", "--key=app.env"), "are not a certificate and its key"),
        (("secret", "docker-registry", "a"), "--docker-username and --docker-password are required"),
        (("secret", "docker-registry", "a", "--from-file=empty"), "must name one file with logins, not 0"),
        (("secret", "docker-registry", "a", "--from-file=conf.d"), "must name one file with logins, not 2"),
        (("pod", "web"), "use `kubelite run IMAGE`"),
    ],
)
def test_create_says_what_is_wrong(
    server: Served, files: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(files)
    done = kubelite(server, "create", *arguments)
    assert done.returncode in (1, 2)
    assert words in done.stderr


def test_create_tls_takes_a_certificate_and_its_own_key(server: Served, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    for name in ("a", "b"):
        make = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -days 2"
        paths = ["-keyout", str(tmp_path / f"{name}.key"), "-out", str(tmp_path / f"{name}.crt")]
        subprocess.run([*make.split(), *paths], check=True, capture_output=True, timeout=60)

    def pair(certificate: str, key: str) -> tuple[str, ...]:
        return (f"--cert={tmp_path / certificate}.crt", f"--key={tmp_path / key}.key")

    made = json.loads(ok(server, "create", "secret", "tls", "web", *pair("a", "a"), *DRY))
    assert made == kubectl(server, "create", "secret", "tls", "web", *pair("a", "a"), *DRY)
    other = kubelite(server, "create", "secret", "tls", "web", *pair("a", "b"), *DRY)
    assert other.returncode == 1
    assert "are not a certificate and its key" in other.stderr


def test_init_writes_a_manifest_whose_comments_are_fields(server: Served, tmp_path: Path) -> None:
    file = tmp_path / "web.yaml"
    said = ok(server, "init", str(file))
    assert f"kubelite apply -f {file}" in said
    text = file.read_text()
    loaded = load_text(text, file="web.yaml")
    assert not loaded.errors
    assert [document.name for document in loaded.documents] == ["web"]
    every = re.sub(r"^( *)#(?=[^ #])", r"\1", text, flags=re.MULTILINE)
    every = re.sub(r"^( *)#(?=  )", r"\1", every.partition("apiVersion")[2], flags=re.MULTILINE)
    whole = load_text("apiVersion" + every, file="web.yaml")
    assert not whole.errors, whole.errors
    spec = yaml.safe_load("apiVersion" + every)["spec"]
    assert spec["volumes"] == [{"name": "scratch", "emptyDir": {}}]
    assert {"command", "env", "envFrom", "livenessProbe", "volumeMounts"} <= set(spec["containers"][0])


def test_init_overwrites_only_when_told(server: Served, tmp_path: Path) -> None:
    file = tmp_path / "hello.yaml"
    file.write_text("mine")
    done = kubelite(server, "init", str(file))
    assert (done.returncode, file.read_text()) == (1, "mine")
    assert "--force" in done.stderr
    ok(server, "init", str(file), "--force", "--image=localhost/api:1", "--port=9000", "--name=api")
    pod = yaml.safe_load(file.read_text())
    assert pod["metadata"]["name"] == "api"
    assert pod["spec"]["containers"][0]["image"] == "localhost/api:1"
    assert yaml.safe_load(ok(server, "init", "-"))["kind"] == "Pod"

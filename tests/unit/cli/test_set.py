"""`kubelite set image`: the manifest is changed in place, or the command says why not."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.names import resource_type
from kubelite.cli.workloads.changing import Target
from kubelite.cli.workloads.set import image_changes
from kubelite.sources import edits
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server

__all__ = ["server"]

SHOP = """\
# The shop's page.
apiVersion: v1
kind: ConfigMap
metadata: {name: page}
---
apiVersion: v1
kind: Pod
metadata:
  name: shop
spec:
  initContainers:
  - {name: prepare, image: busybox:1}
  containers:
  - name: app # the shop
    image: "nginx:1" # pinned
  - name: side
    image: busybox:1
"""


@pytest.fixture
def manifest(server: Served) -> Path:
    ok(server, "apply", "-f", "-", stdin=SHOP)
    (path,) = Path(server.node.manifests_dir).iterdir()
    return path


def test_the_image_changes_in_its_line_of_the_manifest(server: Served, manifest: Path) -> None:
    before = manifest.read_text()
    assert ok(server, "set", "image", "pod/shop", "app=nginx:2") == "pod/shop image updated\n"
    assert manifest.read_text() == before.replace('"nginx:1" # pinned', '"nginx:2" # pinned')
    pod = json.loads(ok(server, "get", "pod", "shop", "-o", "json"))
    assert pod["spec"]["containers"][0]["image"] == "nginx:2"
    assert ok(server, "set", "image", "pod", "shop", "app=nginx:2") == "", "it has that image"
    assert ok(server, "set", "image", "pods", "shop", "*=busybox:9") == "pod/shop image updated\n"
    assert manifest.read_text().count("busybox:9") == 3


def test_a_dry_run_changes_nothing(server: Served, manifest: Path) -> None:
    before = manifest.read_bytes()
    done = ok(server, "set", "image", "pod/shop", "app=nginx:2", "--dry-run=client")
    assert done == "pod/shop image updated (dry run)\n"
    assert manifest.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pod/shop",), "at least one image update is required"),
        (("pod/shop", "app="), "at least one image update is required"),
        (("pod/shop", "x=nginx:2"), 'unable to find container named "x"'),
        (("cm/page", "x=nginx:2"), "configmap/page has no pod template"),
        (("pod/none", "app=nginx:2"), 'pods "none" not found'),
        (("app=nginx:2",), "name an object"),
        (("pods", "app=nginx:2"), "no name was specified"),
        (("pod/shop", "app= nginx"), "spec.containers[0].image"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_changes(
    server: Served, manifest: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = manifest.read_bytes()
    done = kubelite(server, "set", "image", *arguments)
    assert done.returncode != 0 and words in done.stderr
    assert manifest.read_bytes() == before


def test_a_file_that_cannot_be_written_is_named(
    server: Served, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    before = manifest.read_bytes()
    monkeypatch.setattr(edits, "_replace", fail)
    done = kubelite(server, "set", "image", "pod/shop", "app=nginx:2")
    assert done.returncode == 1
    assert f"cannot write {manifest}: Read-only file system" in done.stderr
    assert manifest.read_bytes() == before


def test_a_pod_without_a_manifest_names_its_owner(server: Served) -> None:
    done = kubelite(server, "set", "image", "pod/web", "app=nginx:2")
    assert "Pod default/web is in no manifest" in done.stderr
    pod = server.node.store.get("Pod", "default", "web")
    assert pod is not None
    owner = {"kind": "ReplicaSet", "name": "web-1", "uid": "1", "apiVersion": "apps/v1", "controller": True}
    owned = {**pod.doc, "metadata": {**pod.doc["metadata"], "ownerReferences": [owner]}}
    server.run(server.node.store.update("Pod", owned))
    done = kubelite(server, "set", "image", "pod/web", "app=nginx:2")
    assert "Pod default/web is made by ReplicaSet web-1: change that" in done.stderr


def test_a_list_and_an_alias_are_refused_in_words(server: Served) -> None:
    items = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"l{n}"},
              "spec": {"containers": [{"name": "a", "image": "b:1"}]}} for n in range(2)]  # fmt: skip
    path = Path(server.node.manifests_dir) / "list.yaml"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    server.run(server.node.rescan())
    done = kubelite(server, "set", "image", "pod/l1", "a=b:2")
    assert done.returncode == 1
    assert f"{path} has pod/l1 inside a List; edit that file by hand" in done.stderr


def test_the_template_of_a_workload_is_changed() -> None:
    pod = {"containers": [{"name": "a", "image": "x:1"}], "initContainers": [{"name": "i", "image": "x:1"}]}
    target = Target(resource_type("pod"), {"metadata": {"name": "web"}, "spec": pod})
    assert image_changes(target, {"*": "x:2"}) == [
        (["spec", "initContainers", 0, "image"], "x:2"),
        (["spec", "containers", 0, "image"], "x:2"),
    ]
    assert image_changes(target, {"a": "x:1"}) == []
    with pytest.raises(CliError, match='unable to find container named "b"'):
        image_changes(target, {"b": "x:1"})

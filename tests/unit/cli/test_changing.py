"""`kubelite label`, `annotate`, `patch`, `set env` and `set resources`: manifests change in place."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.workloads.set_env import env_patch, parsed
from kubelite.cli.workloads.set_resources import quantities
from kubelite.kube.json import Json
from kubelite.sources.patches import patched
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server

__all__ = ["server"]

SHOP = """\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: shop
  labels: {app: shop} # its own
spec:
  replicas: 2 # two
  selector: {matchLabels: {app: shop}}
  template:
    metadata:
      labels: {app: shop}
    spec:
      containers:
      # The web server.
      - name: app
        image: nginx:1 # pinned
        env:
        - name: LEVEL # of the log
          value: info
        - {name: OLD, value: "1"} # to go
        resources:
          limits: {memory: 64Mi} # enough
      - name: side
        image: busybox:1
"""


@pytest.fixture
def manifest(server: Served) -> Path:
    ok(server, "apply", "-f", "-", stdin=SHOP)
    (path,) = Path(server.node.manifests_dir).iterdir()
    return path


def test_labels_are_set_and_removed_in_the_manifest(server: Served, manifest: Path) -> None:
    before = manifest.read_text()
    assert ok(server, "label", "deployment/shop", "tier=front") == "deployment.apps/shop labeled\n"
    assert manifest.read_text() == before.replace("{app: shop} # its", '{tier: "front", app: shop} # its')
    done = kubelite(server, "label", "deploy", "shop", "tier=back")
    assert done.returncode == 1
    assert done.stderr == "error: 'tier' already has a value (front), and --overwrite is false\n"
    assert (
        ok(server, "label", "deploy", "shop", "tier=back", "--overwrite") == "deployment.apps/shop labeled\n"
    )
    assert ok(server, "label", "deploy", "shop", "tier=back") == "deployment.apps/shop not labeled\n"
    assert ok(server, "label", "deploy/shop", "--list") == "app=shop\ntier=back\n"
    assert ok(server, "label", "deploy/shop", "tier-") == "deployment.apps/shop unlabeled\n"
    assert ok(server, "label", "deploy/shop", "tier-") == (
        'label "tier" not found.\ndeployment.apps/shop not labeled\n'
    )
    assert manifest.read_text() == before


def test_annotations_are_set_and_removed_in_the_manifest(server: Served, manifest: Path) -> None:
    before = manifest.read_text()
    text = "the shop: open 24/7"
    assert ok(server, "annotate", "deploy/shop", f"note={text}") == "deployment.apps/shop annotated\n"
    found = json.loads(ok(server, "get", "deploy", "shop", "-o", "json"))
    assert found["metadata"]["annotations"]["note"] == text
    assert all(line in manifest.read_text().splitlines() for line in before.splitlines())
    assert ok(server, "annotate", "deploy/shop", "note-", "--dry-run") == (
        "deployment.apps/shop annotated (server dry run)\n"
    )
    assert text in manifest.read_text()


def test_variables_are_set_and_removed_in_the_manifest(server: Served, manifest: Path) -> None:
    before = manifest.read_text()
    done = ok(server, "set", "env", "deployment/shop", "-c", "app", "LEVEL=debug", "NEW=a b", "OLD-")
    assert done == "deployment.apps/shop env updated\n"
    assert manifest.read_text() == before.replace("value: info\n", "value: debug\n").replace(
        '        - {name: OLD, value: "1"} # to go\n', "        - name: NEW\n          value: a b\n"
    )
    assert ok(server, "set", "env", "deployment/shop", "-c", "app", "LEVEL=debug") == "", "it has that value"
    assert ok(server, "set", "env", "deploy", "shop", "--list") == (
        "# deployments shop, container app\nLEVEL=debug\nNEW=a b\n# deployments shop, container side\n"
    )


def test_variables_come_from_a_config_map(server: Served, manifest: Path) -> None:
    ok(server, "create", "configmap", "settings", "--from-literal=log.level=x", "--from-literal=b=y")
    done = ok(
        server,
        "set",
        "env",
        "deploy/shop",
        "-c",
        "side",
        "--from=cm/settings",
        "--prefix=APP_",
        "--keys=log.level",
    )
    assert done == "deployment.apps/shop env updated\n"
    listed = ok(server, "set", "env", "deploy/shop", "-c", "s*", "--list")
    assert listed.endswith("# APP_LOG_LEVEL from configmap settings, key log.level\n")
    done = ok(server, "set", "env", "deploy/shop", "-c", "side", "APP_LOG_LEVEL=z")
    assert "configMapKeyRef" not in manifest.read_text()


def test_resources_are_set_in_the_manifest(server: Served, manifest: Path) -> None:
    before = manifest.read_text()
    done = ok(server, "set", "resources", "deploy/shop", "-c", "app", "--limits=cpu=500m,memory=128Mi")
    assert done == "deployment.apps/shop resource requirements updated\n"
    assert manifest.read_text() == before.replace(
        "{memory: 64Mi} # enough", '{cpu: "500m", memory: "128Mi"} # enough'
    )
    ok(server, "set", "resources", "deploy/shop", "--limits=cpu-,memory=64Mi", "--requests=cpu=50m")
    (app, side) = json.loads(ok(server, "get", "deploy", "shop", "-o", "json"))["spec"]["template"]["spec"][
        "containers"
    ]
    assert app["resources"] == {"limits": {"memory": "64Mi"}, "requests": {"cpu": "50m"}} == side["resources"]


def test_patches_change_the_manifest(server: Served, manifest: Path, tmp_path: Path) -> None:
    before = manifest.read_text()
    change = {
        "spec": {
            "replicas": 3,
            "template": {"spec": {"containers": [{"name": "side", "image": "busybox:2"}]}},
        }
    }
    assert (
        ok(server, "patch", "deployment/shop", "-p", json.dumps(change)) == "deployment.apps/shop patched\n"
    )
    after = before.replace("replicas: 2 # two", "replicas: 3 # two").replace("busybox:1", "busybox:2")
    assert manifest.read_text() == after
    assert ok(server, "patch", "deploy", "shop", "-p", json.dumps(change)) == (
        "deployment.apps/shop patched (no change)\n"
    )
    steps = [{"op": "remove", "path": "/spec/template/spec/containers/1"}]
    ok(server, "patch", "deploy", "shop", "--type=json", "-p", json.dumps(steps))
    assert manifest.read_text() == after[: after.index("      - name: side")]
    file = tmp_path / "patch.yaml"
    file.write_text("spec:\n  replicas: 2\n")
    ok(server, "patch", "deploy/shop", "--type=merge", "--patch-file", str(file))
    assert manifest.read_text() == before[: before.index("      - name: side")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("label", "deploy/shop"), "at least one label update is required"),
        (("label", "deploy/shop", "a=b", "c"), '"c" is neither KEY=VALUE nor KEY-'),
        (("label", "deploy/shop", "a=b", "a-"), "can not both modify and remove"),
        (("label", "deploy/shop", "a=b c"), "metadata.labels"),
        (("label", "node", "node", "a=b"), "`kubelite node label KEY=VALUE` changes them"),
        (("label", "pod/web", "a=b"), "is in no manifest"),
        (("annotate", "deploy/none", "a=b"), "not found"),
        (("set", "env", "deploy/shop"), "at least one environment variable must be provided"),
        (("set", "env", "deploy/shop", "1x=y"), "valid name of an environment variable"),
        (("set", "env", "deploy/shop", "A=y", "A-"), "at the same time"),
        (("set", "env", "deploy/shop", "-c", "none", "A=y"), 'has no container named "none"'),
        (("set", "env", "deploy/shop", "--no-overwrite", "LEVEL=y"), "--overwrite is false"),
        (("set", "env", "deploy/shop", "--from=pod/web"), "configmap/NAME or secret/NAME"),
        (("set", "resources", "deploy/shop"), "--requests or --limits"),
        (("set", "resources", "deploy/shop", "--limits=cpu"), '"cpu" is neither'),
        (("set", "resources", "deploy/shop", "--limits=cpu=lots"), "resources.limits"),
        (("patch", "deploy/shop"), "specify the patch"),
        (("patch", "deploy/shop", "-p", "{"), "unable to parse the patch"),
        (("patch", "deploy/shop", "-p", "{spec: {replica: 3}}"), "spec.replica: unknown field"),
        (("patch", "deploy/shop", "-p", "{metadata: {name: x}}"), "another kind, name or namespace"),
        (
            ("patch", "deploy/shop", "--type=json", "-p", '[{"op":"remove","path":"/x"}]'),
            "the manifest has no /x",
        ),
        (("patch", "deploy/shop", "--patch-file", "/none"), "cannot read /none"),
    ],
)
def test_what_is_not_possible_is_said(
    server: Served, manifest: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = manifest.read_bytes()
    done = kubelite(server, *arguments)
    assert done.returncode != 0
    assert words in done.stderr
    assert manifest.read_bytes() == before


@pytest.mark.skipif(not shutil.which("kubectl"), reason="needs kubectl")
@pytest.mark.parametrize(
    "words", [("LEVEL=debug", "NEW=1"), ("OLD-",), ("A=1", "LEVEL-"), ("NONE-", "A=x=y")], ids=" ".join
)
def test_variables_are_those_that_kubectl_sets(tmp_path: Path, words: tuple[str, ...]) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(SHOP)
    theirs, before = (_local("set", "env", file, *words), _local("label", file, "app=shop"))
    wanted, gone = parsed(words)
    change = env_patch(before, "*", wanted, gone, overwrite=True)
    ours = patched(before, change, "strategic")
    assert _variables(ours) == _variables(theirs)


def _local(*words: Any) -> Json:
    """Run a command of kubectl on a file, without a server."""
    *command, file = (
        word for word in words if not isinstance(word, str) or ("=" not in word and word[-1] != "-")
    )
    changes = [word for word in words if isinstance(word, str) and ("=" in word or word[-1] == "-")]
    done = subprocess.run(
        ["kubectl", *command, "--local", "-f", str(file), "-o", "json", *changes],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    found: Json = json.loads(done.stdout)
    return found


def _variables(doc: Json) -> list[list[tuple[str, str]]]:
    containers = doc["spec"]["template"]["spec"]["containers"]
    return [[(one["name"], one.get("value", "")) for one in each.get("env") or ()] for each in containers]


def test_quantities_are_read() -> None:
    assert quantities("cpu=1,memory-") == {"cpu": "1", "memory": None}
    for text in ("", "cpu", "=1", "-", "cpu="):
        with pytest.raises(CliError):
            quantities(text)

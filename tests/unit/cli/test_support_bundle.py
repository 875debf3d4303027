"""The support bundle: its content, and what must not be in it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from kubelite.cli.diagnosis.support_bundle import HIDDEN, redact
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, ok, server

__all__ = ["server"]


def test_possible_passwords_are_left_out() -> None:
    pod = {
        "metadata": {"annotations": {"kubelite.io/source": "/m/a.yaml", "note": "hunter2"}},
        "spec": {
            "containers": [
                {
                    "name": "app",
                    "args": ["--password=hunter2"],
                    "command": ["sh", "-c", "hunter2"],
                    "env": [
                        {"name": "A", "value": "hunter2"},
                        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                    ],
                    "livenessProbe": {
                        "exec": {"command": ["hunter2"]},
                        "httpGet": {
                            "path": "/healthz?token=hunter2",
                            "httpHeaders": [{"name": "Authorization", "value": "hunter2"}],
                        },
                    },
                }
            ]
        },
        "status": {
            "conditions": [{"type": "Ready", "message": "containers with unready status: [app]"}],
            "containerStatuses": [
                {"state": {"terminated": {"message": "hunter2", "reason": "Error"}}, "name": "app"}
            ],
        },
    }
    found = redact(pod)
    assert "hunter2" not in json.dumps(found)
    assert found["metadata"]["annotations"]["kubelite.io/source"] == "/m/a.yaml"
    event = {"kind": "Event", "reason": "Unhealthy", "message": "Liveness probe failed: hunter2"}
    assert "hunter2" not in json.dumps(redact({"items": [event]}))
    assert redact({"items": [{"reason": "Started", "message": "Container started"}]})["items"][0]["message"]
    env = found["spec"]["containers"][0]["env"]
    assert env[0] == {"name": "A", "value": HIDDEN}
    assert env[1]["valueFrom"]["secretKeyRef"]["name"] == "s"
    assert found["status"]["conditions"][0]["message"].startswith("containers with")
    assert found["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] == "Error"


def test_the_content_of_a_bundle(server: Served, tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    assert "no secrets" in ok(server, "support-bundle", "-f", str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    with tarfile.open(path) as archive:
        names = set(archive.getnames())
        pods = archive.extractfile("kubelite/pods.json")
        assert pods is not None
        assert json.loads(pods.read())["items"]
        entries = archive.extractfile("kubelite/history/default_web.json")
        assert entries is not None
        found = json.loads(entries.read())
        assert found["pod"] == "default/web"
        assert {entry["what"] for entry in found["entries"]} >= {"ADDED"}
    for name in ("doctor.json", "events.json", "machine.txt", "traces/default_web.json"):
        assert f"kubelite/{name}" in names
    assert not any("secret" in name or "configmap" in name for name in names)


def test_workloads_are_in_a_bundle(server: Served, tmp_path: Path) -> None:
    container = {"name": "app", "image": "x", "args": ["hunter2"], "env": [{"name": "A", "value": "hunter2"}]}
    spec = {"template": {"metadata": {}, "spec": {"containers": [container]}}}
    doc = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "namespace": "default", "uid": "uid-shop"},
        "spec": spec,
        "status": {"conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]},
    }
    server.run(server.node.store.create("Deployment", doc))
    path = tmp_path / "b.tar.gz"
    assert "missing" not in ok(server, "support-bundle", "-f", str(path))
    with tarfile.open(path) as archive:
        assert "kubelite/cronjobs.json" not in archive.getnames()
        file = archive.extractfile("kubelite/deployments.json")
        assert file is not None
        text = file.read().decode()
    assert "ProgressDeadlineExceeded" in text and "hunter2" not in text


def test_an_unwritable_destination(server: Served, tmp_path: Path) -> None:
    done = kubelite(server, "support-bundle", "-f", f"{tmp_path}/missing/b.tar.gz")
    assert done.returncode == 1
    assert done.stderr == f"error: cannot write {tmp_path}/missing/b.tar.gz: No such file or directory\n"

"""The audit log of a whole node: the entries of commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node


def test_what_commands_leave(node: Node, tmp_path: Path) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text(pod("web", container()))
    node.cli("apply", "-f", str(manifest))
    node.wait_status("web", "Running")
    node.cli("get", "pods")
    node.cli("exec", "web", "--", "true")
    (tmp_path / "file").write_text("x")
    node.cli("cp", str(tmp_path / "file"), "web:/tmp/file")
    node.cli("node", "cordon")
    file = node.log_dir / "kubelite-audit.log"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert all(line["user"]["uid"] == str(os.getuid()) for line in lines)
    ended = [line for line in lines if line["stage"] == "ResponseComplete"]
    agents = list(dict.fromkeys(line["userAgent"] for line in ended))
    assert agents == ["kubelite apply", "kubelite exec", "kubelite cp", "kubelite node cordon"]
    applied = next(line for line in ended if line["userAgent"] == "kubelite apply")
    assert applied["annotations"] == {"kubelite.io/objects": "pod/default/web created"}
    copied = next(line for line in ended if line["userAgent"] == "kubelite cp")
    assert copied["objectRef"]["name"] == "web" and copied["objectRef"]["subresource"] == "exec"

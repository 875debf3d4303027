"""kubectl's own commands, of the distribution's version and of the newest, one after the other."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.clients import results
from tests.clients.commands import COMMANDS, FILES, Command
from tests.clients.conftest import Served
from tests.clients.test_operations import kubectl, kubectl_version
from tests.e2e.node import IMAGE, PATIENCE


def run(served: Served, editor: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        served.node.in_netns(*words), env=served.environ("commands", KUBE_EDITOR=str(editor)),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90 * PATIENCE, check=False,
    )  # fmt: skip


def _wrong(done: subprocess.CompletedProcess[str], command: Command, says: str) -> str:
    """What a command has answered, if it is not what it should answer, else ""."""
    said = done.stdout + done.stderr
    right = done.returncode == command.code and says in said
    return "" if right else f"exit code {done.returncode}: {said[-1000:]}"


@pytest.mark.timeout(400)
@pytest.mark.parametrize("which", ["kubectl", "kubectl (newest)"])
def test_commands(served: Served, which: str, tmp_path: Path) -> None:
    program = kubectl(which)
    namespace = re.sub("[^a-z0-9]+", "-", which).strip("-")
    node = json.loads(served.node.ask("/api/v1/nodes")[1])["items"][0]["metadata"]["name"]
    own = {"image": IMAGE, "node": node, "file": tmp_path, "namespace": namespace, "prefix": f"{namespace}-"}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.replace("NAMESPACE", namespace))
    editor = tmp_path / "editor"
    editor.chmod(0o755)
    assert run(served, editor, program, "create", "namespace", namespace).returncode == 0
    failed = []
    for command in COMMANDS:
        words = ["--namespace", namespace, *(word.format(**own) for word in command.words.split())]
        until = time.monotonic() + (20 * PATIENCE if command.again else 0)
        while said := _wrong(run(served, editor, program, *words), command, command.says.format(**own)):
            if time.monotonic() > until:
                failed.append(f"kubectl {' '.join(words)}: {said}")
                break
            time.sleep(1)
    assert run(served, editor, program, "delete", "namespace", namespace).returncode == 0
    assert not failed, "\n".join(failed)
    names = [*dict.fromkeys(command.name for command in COMMANDS)]
    results.check(f"{which}: commands", kubectl_version(program), names)

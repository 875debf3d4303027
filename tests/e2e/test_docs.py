"""The tutorials and the transcript of README.md, command by command, on a node of their own.

After an intended change, `TEST_RECORD=1 pytest tests/e2e/test_docs.py` writes the new output into the text, to be
checked, shortened with `…` and committed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.cgroups import layout
from runtime.cgroups.layout import Mode
from tests.e2e.node import REPO, Node
from tests.e2e.transcript import Matcher, Shell, Step, steps
from tests.programs import missing

PROGRAM = Path(sys.executable).with_name("kubelite")
READING = re.compile(r"kubelite (get|logs|why|trace|doctor|describe)|curl|ls ")  # may be repeated
PATIENCE = 8.0
DOCUMENTS = ["docs/tutorials/getting-started.md", "README.md"]


def as_here(node: Node) -> list[tuple[str, str]]:
    """What the documents say → what it is on this node."""
    return [
        ("/var/lib/kubelite", str(node.root)),
        ("/run/kubelite", str(node.run_dir)),
        ("/var/log/pods", f"{node.log_dir}/pods"),
        ("sudo make run", f"deploy/run {PROGRAM} {node.manifests}"),
        ("sudo make stop", f"deploy/stop {PROGRAM}"),
        ("manifests/examples", str(node.manifests)),
    ]


def as_written(node: Node, said: str) -> str:
    """The output as it would be if this were the machine's only node."""
    for written, here in as_here(node):
        said = said.replace(here, written)
    said = said.replace(str(PROGRAM), ".venv/bin/kubelite").replace(str(REPO), "/home/me/kubelite")
    return said.replace(f"/{node.cgroup_parent}/", "/kubelite/").replace(node.name, "mynode")


def follow(node: Node, shell: Shell, step: Step, matcher: Matcher) -> tuple[str, str]:
    """Run a command. Return its output, and the mismatch or ""."""
    command = step.command
    for written, here in as_here(node):
        command = command.replace(written, here)
    until = time.monotonic() + (
        PATIENCE if step.expected else 2.0
    )  # without expected text, the output is recorded
    while True:
        said = as_written(node, shell.run(command))
        wrong = matcher.mismatch(step.expected, said)
        if not wrong or not READING.match(step.command) or time.monotonic() > until:
            return said, wrong
        time.sleep(0.2)


def present(node: Node) -> frozenset[str]:
    """The requirements of blocks that this machine meets."""
    version = "v2" if layout().mode is Mode.V2 else "v1"
    if shutil.which("nft") is None:
        return frozenset({version})
    table = "table ip probe { chain c { type nat hook output priority -100; }; }"
    nat = subprocess.run(node.in_netns("nft", "-c", table), capture_output=True, check=False).returncode == 0
    return frozenset({version, "nat"} if nat else {version})


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_transcripts_of_a_document_are_true(document: str, tmp_path: Path) -> None:
    if lacking := missing("ps", "pgrep", "curl", "ip", *(["nft"] if document == "README.md" else [])):
        pytest.skip(f"needs {lacking}")
    path = REPO / document
    text = path.read_text()
    node = Node(tmp_path, settings={"BRIDGE": "kubelite0", "POD_CIDR": "10.88.0.0/16"})
    node.prepare()
    for example in (REPO / "manifests" / "examples").glob("*.yaml"):
        shutil.copy(example, node.manifests)
    environment = {**node.environ(), "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}", "LC_ALL": "C"}
    wrong: list[tuple[Step, str, str]] = []
    try:
        here = present(node)
        if document == "README.md" and "nat" not in here:
            pytest.skip("needs IPv4 nftables NAT in this kernel")
        todo = [step for step in steps(text) if step.needs <= here]
        assert todo, "there is nothing to try in it"
        matcher = Matcher.of(text)
        with contextlib.closing(Shell(node.in_netns(), cwd=REPO, env=environment)) as shell:
            for step in todo:
                said, problem = follow(node, shell, step, matcher)
                if problem:
                    wrong.append((step, said, problem))
    finally:
        node.destroy()
    if os.environ.get("TEST_RECORD"):
        for step, said, _ in reversed(wrong):
            text = text[: step.span[0]] + said + text[step.span[1] :]
        path.write_text(text)
    assert not wrong, "\n\n".join(
        f"{document}:{step.line}: $ {step.command}\n{problem}; it says:\n{said}the text says:\n{step.expected}"
        for step, said, problem in wrong
    )
    assert node.leftovers() == []

"""`make sbom`: the bill names what is installed, no more and no less, and is the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.node import REPO

LOCKED = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def made(file: Path) -> bytes:
    done = subprocess.run(
        [REPO / "deploy/sbom", sys.executable, file], capture_output=True, text=True, timeout=300, check=False
    )
    if "pip" in done.stderr and "No matching distribution" in done.stderr:
        pytest.skip("needs a Python package index")
    assert done.returncode == 0, done.stderr
    return file.read_bytes()


@pytest.mark.timeout(600)
def test_it_is_what_the_lock_file_installs(tmp_path: Path) -> None:
    text = made(tmp_path / "one.json")
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX"
    component = bill["metadata"]["component"]
    assert component["name"] == "kubelite" and component["type"] == "application"
    locked = (REPO / "requirements.lock").read_text(encoding="utf-8")
    assert {(one["name"], one["version"]) for one in bill["components"]} == set(LOCKED.findall(locked))
    hashes = {
        f"{found['alg'].replace('SHA-', 'sha').lower()}:{found['content']}"
        for one in bill["components"]
        for reference in one["externalReferences"]
        for found in reference["hashes"]
    }
    assert hashes == set(re.findall(r"--hash=(\S+?)(?:\s|$)", locked))
    assert str(tmp_path) not in text.decode() and str(REPO) not in text.decode()
    assert made(tmp_path / "two.json") == text

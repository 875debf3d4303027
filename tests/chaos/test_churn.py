"""A few rounds of `make churn`: whether a node grows takes longer to see."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import pytest

from tests.chaos.churn import run


@pytest.mark.timeout(300)
def test_rounds_of_churn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for program in ("docker-registry", "skopeo", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    found = run(tmp_path, argparse.Namespace(seconds=0.0, pods=4, pause=0.0, seed=3))
    assert "6 rounds" in capsys.readouterr().out
    judged = {line.split(":")[0].partition(" ")[2] for line in found}
    assert {"daemon kB", "daemon fds", "kubelite-net kB", "node database", "node files"} <= judged

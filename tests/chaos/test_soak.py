"""A small soak: the long one is `make soak`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import BUSYBOX

REPO = Path(__file__).parents[2]


@pytest.mark.kernel
def test_nothing_is_left_of_containers_whose_callers_are_killed() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not BUSYBOX:
        pytest.skip("needs busybox")
    command = [sys.executable, "-m", "tests.chaos.soak", "--containers", "24", "--seed", "7"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert "24 lives" in done.stdout
    assert " killed" in done.stdout

"""deploy/commit-subject, a git hook, checks commit messages."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HOOK = Path(__file__).resolve().parents[2] / "deploy/commit-subject"


@pytest.mark.parametrize(
    "message, complaint",
    [
        ("Add a thing\n", ""),
        (
            "Add a thing\n\nBecause it was missing, which took more than seventy-two characters to say in full.\n",
            "",
        ),
        ("# a comment of git's\nAdd a thing\n# another\n\nWhy\n", ""),
        ("é" * 72 + "\n", ""),
        ("é" * 73 + "\n", "73 characters"),
        ("x" * 73 + "\n\nbody\n", "73 characters"),
        ("fixup! " + "x" * 72 + "\n", ""),
        ('Revert "' + "x" * 72 + '"\n', ""),
        ("", "no subject"),
        ("# nothing but comments\n", "no subject"),
        ("Add a thing\nand another\n", "must be empty: and another"),
        ("Add a thing\n# ------------------------ >8 ------------------------\ndiff --git a/x b/x\n", ""),
    ],
)
def test_a_message(tmp_path: Path, message: str, complaint: str) -> None:
    file = tmp_path / "COMMIT_EDITMSG"
    file.write_text(message)
    done = subprocess.run([HOOK, file], capture_output=True, text=True, check=False)
    assert (done.returncode, complaint in done.stderr) == (1 if complaint else 0, True), done
    assert bool(done.stderr) == bool(complaint)

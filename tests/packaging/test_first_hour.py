"""docs/tutorials/first-hour.md, command by command, on a small Debian system, from the package's installation to its
removal. `TEST_RECORD=1` writes the new output into the text, to be read, shortened with `…` and committed."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path

import pytest

from tests import programs
from tests.e2e.transcript import Matcher, Shell, Step, steps
from tests.packaging.conftest import REPO
from tests.packaging.machine import machine, missing
from tests.packaging.test_deb import control
from tests.waiting import PATIENCE

DOCUMENT = REPO / "docs/tutorials/first-hour.md"
READING = re.compile(r"kubelite (get|logs|why|top|rollout history|events|doctor)")  # may be asked again
SECONDS = 20.0 * PATIENCE

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(1800)]


def _follow(shell: Shell, step: Step, matcher: Matcher) -> tuple[str, str]:
    """Run a command: what it printed, and what is wrong with that."""
    until = time.monotonic() + (SECONDS if step.expected else 3.0)
    while True:
        said = shell.run(step.command)
        wrong = matcher.mismatch(step.expected, said)
        if not wrong or not READING.match(step.command) or time.monotonic() > until:
            return said, wrong
        time.sleep(0.3)


def test_the_first_hour(deb: Path, tmp_path: Path) -> None:
    if lacking := missing("debootstrap", "unshare", "nsenter") or programs.missing("busybox"):
        pytest.skip(f"needs {lacking}")
    text = DOCUMENT.read_text()
    matcher, wrong = Matcher.of(text), []
    needs = [word.split()[0] for word in control(deb, "Depends").split(", ")]
    with machine(tmp_path, needs) as system:
        system.give(deb, "/root/kubelite.deb")
        system.give(Path(programs.BUSYBOX), "/usr/bin/busybox")
        before = system.files()
        inside = system.command()
        with contextlib.closing(Shell(inside, cwd=tmp_path, env=dict(os.environ))) as shell:
            shell.run("cd /root")
            for step in steps(text):
                said, problem = _follow(shell, step, matcher)
                if problem:
                    wrong.append((step, said, problem))
        left = sorted(system.files() - before)
    if os.environ.get("TEST_RECORD"):
        for step, said, _ in reversed(wrong):
            text = text[: step.span[0]] + said + text[step.span[1] :]
        DOCUMENT.write_text(text)
    assert not wrong, "\n\n".join(
        f"line {step.line}: $ {step.command}\n{problem}; it says:\n{said}the text says:\n{step.expected}"
        for step, said, problem in wrong
    )
    assert left == []

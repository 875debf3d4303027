"""What counts for every test: a skip names what is missing, and where nothing may be missing a skip is a failure.

`KUBELITE_ALLOWED_SKIPS` holds the reasons that are expected on this machine, as regular expressions separated by `;`
(empty: none). CI sets it; without it every skip is fine.
"""

from __future__ import annotations

import os
import re

import pytest

# taken out of the environment: kubelite itself refuses settings that it does not know
ALLOWED = os.environ.pop("KUBELITE_ALLOWED_SKIPS", None)
_unexpected: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not report.skipped or ALLOWED is None or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    allowed = [pattern for pattern in ALLOWED.split(";") if pattern]
    if not any(re.search(pattern, reason) for pattern in allowed):
        _unexpected.append(f"{report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unexpected:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _unexpected:
        terminalreporter.write_line(f"skip that is not expected here: {line}", red=True)

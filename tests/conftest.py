"""What counts for every test: a skip names what is missing, and where nothing may be missing a skip is a failure.

`TEST_ALLOWED_SKIPS` holds the reasons that are expected on this machine, as regular expressions separated by `;`
(empty: none). CI sets it; without it every skip is fine.

`TEST_ALONE`: nobody else makes containers on this machine meanwhile, so whatever is new on it when all is over
was left by a test, and fails the run (leftovers.py).
"""

from __future__ import annotations

import getpass
import os
import re
import signal

import pytest
from hypothesis import HealthCheck, settings

from tests import leftovers

# how fast a loaded machine makes examples says nothing of them
settings.register_profile("loaded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loaded")

# A shell without job control starts background jobs with SIGINT and SIGQUIT ignored. Children would inherit that, and a
# shell cannot trap a signal that was ignored when it started.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# taken out of the environment: kubelite itself refuses settings that it does not know
ALLOWED = os.environ.pop("TEST_ALLOWED_SKIPS", None)
ALONE = bool(os.environ.pop("TEST_ALONE", ""))
_unexpected: list[str] = []
_left: list[str] = []
_before: list[frozenset[str]] = []  # one, where it is looked at


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


def _base() -> str:
    return f"/pytest-of-{getpass.getuser()}/"


def pytest_sessionstart(session: pytest.Session) -> None:
    if ALONE and not hasattr(
        session.config, "workerinput"
    ):  # the workers' remains are looked for when they have ended
        _before.append(leftovers.look(_base()))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _before and session.testscollected:
        _left.extend(leftovers.left(_before[0], _base()))
    if _unexpected or _left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _unexpected:
        terminalreporter.write_line(f"skip that is not expected here: {line}", red=True)
    for line in _left:
        terminalreporter.write_line(f"left by the tests: {line}", red=True)

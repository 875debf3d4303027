"""The tests that the security pages name exist, and each row of protections has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
SECURITY = REPO / "docs/explanation/security.md"
ESCAPES = REPO / "docs/development/escape-tests.md"


@pytest.mark.parametrize("page", [SECURITY, ESCAPES], ids=lambda page: page.stem)
def test_named_tests_exist(page: Path) -> None:
    named = set(re.findall(r"`(tests/[^`]+\.py)`", page.read_text(encoding="utf-8")))
    assert len(named) > 10
    assert [name for name in sorted(named) if not list(REPO.glob(name))] == []


def test_everybody_of_the_threat_model_has_a_test() -> None:
    text = SECURITY.read_text(encoding="utf-8").partition("## Threat model")[2].partition("\n## ")[0]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "promised" not in line]
    assert len(rows) >= 9
    assert [row for row in rows if "`tests/" not in row.rpartition(" | ")[2]] == []

"""docs/development/workload-tests.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

REPO = Path(__file__).parents[3]
PAGE = REPO / "docs" / "development" / "workload-tests.md"


def test_every_test_of_the_page_exists() -> None:
    found = re.findall(r"`(tests/\S+\.py)::(\w+)`", PAGE.read_text())
    assert len(found) > 50
    texts = {file: (REPO / file).read_text() for file, _ in found}
    assert [f"{file}::{name}" for file, name in found if f"def {name}(" not in texts[file]] == []

"""Texts name settings that exist: those of the program, and those of its documents, which have each of them."""

from __future__ import annotations

import re
from pathlib import Path

from kubelite.settings import Settings

REPO = Path(__file__).resolve().parents[3]
NAMED = re.compile(r"\bsettings? `?([a-z]+(?:_[a-z]+)+)`?")
#: Settings of other things: fields of docker's and podman's files, and modules.
OTHERS = frozenset({"setting_types"})


def test_every_setting_that_a_text_names_exists() -> None:
    sources = [path for room in ("kubelite", "manifests", "runtime") for path in (REPO / room).rglob("*.py")]
    documents = [*(REPO / "docs").rglob("*.md"), REPO / "README.md"]
    found = {
        (str(path.relative_to(REPO)), name)
        for path in [*sources, *documents]
        for name in NAMED.findall(path.read_text())
        if name not in Settings.model_fields and name not in OTHERS
    }
    assert not found
    named = {name for path in sources for name in NAMED.findall(path.read_text())}
    assert "runtime_classes" in named, "the pattern finds what it should"


def test_every_setting_is_in_the_reference() -> None:
    page = (REPO / "docs/reference/settings.md").read_text()
    assert not [name for name in Settings.model_fields if f"| `{name}`" not in page]

"""The environment variables that scripts of this repository set are valid for a node that they start."""

from __future__ import annotations

import re
from pathlib import Path

from kubelite.settings import OTHER_VARIABLES, PREFIX, Settings

ROOT = Path(__file__).parents[3]
SCRIPTS = [
    ROOT / "Makefile",
    *(ROOT / ".ci").iterdir(),
    *(p for p in (ROOT / "deploy").rglob("*") if p.is_file()),
]


def test_every_kubelite_variable_of_a_script_is_a_setting() -> None:
    known = OTHER_VARIABLES | {name.upper() for name in Settings.model_fields}
    for script in SCRIPTS:
        if script.suffix == ".pyc":
            continue
        names = set(re.findall(rf"\b{PREFIX}([A-Z_]+)", script.read_text(encoding="utf-8", errors="replace")))
        assert names <= known, f"{script.relative_to(ROOT)}: a node refuses {sorted(names - known)}"

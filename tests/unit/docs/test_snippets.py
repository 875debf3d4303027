"""Snippets of the documents are valid: manifests load without an error, and settings exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deploy.docs.links import REPO, documents
from kubelite.settings import Settings
from manifests.yaml.loader import load_text

BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SNIPPETS = [
    pytest.param(found[1], id=f"{path.relative_to(REPO)}:{text.count(chr(10), 0, found.start()) + 1}")
    for path in documents()
    for text in [path.read_text(encoding="utf-8")]
    for found in BLOCK.finditer(text)
]


def test_snippets_are_found() -> None:
    assert len(SNIPPETS) > 12


@pytest.mark.parametrize("text", SNIPPETS)
def test_a_snippet_is_valid(text: str, tmp_path: Path) -> None:
    if "apiVersion:" in text:
        loaded = load_text(text, file="snippet.yaml")
        assert loaded.documents and not loaded.errors, [str(error) for error in loaded.errors]
    else:
        assert isinstance(yaml.safe_load(text), dict)
        config = tmp_path / "config.yaml"
        config.write_text(text)
        Settings.load({"config": str(config)}, {})


def test_the_tutorials_pod_is_the_file_next_to_it() -> None:
    page = (REPO / "docs" / "tutorials" / "getting-started.md").read_text(encoding="utf-8")
    assert (REPO / "docs" / "tutorials" / "hello.yaml").read_text(encoding="utf-8") in BLOCK.findall(page)

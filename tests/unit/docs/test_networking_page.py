"""What the page about the network says does not exist is refused, with the words that it quotes."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.yaml.loader import ErrorKind, load_text

PAGE = Path(__file__).resolve().parents[3] / "docs/explanation/networking.md"


@pytest.mark.parametrize(
    ("kind", "version"),
    [
        ("Gateway", "gateway.networking.k8s.io/v1"),
    ],
)
def test_a_kind_of_the_network_is_reported_and_not_run(kind: str, version: str) -> None:
    missing = PAGE.read_text().partition("## What does not exist yet")[2].partition("\n## ")[0]
    assert f"| {kind}" in missing or f", {kind} |" in missing
    loaded = load_text(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n", file="a.yaml")
    assert not loaded.documents
    assert [error.kind for error in loaded.errors] == [ErrorKind.UNSUPPORTED]

"""The configuration file that packages install: all settings, at their defaults, as comments."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from deploy.docs.config_file import text, written
from kubelite.settings import Settings


def test_the_file_sets_nothing() -> None:
    assert yaml.safe_load(text()) is None


def test_uncommented_the_file_sets_every_default(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(re.sub(r"^#(?=\w)", "", text(), flags=re.MULTILINE))
    assert yaml.safe_load(config.read_text()).keys() == Settings.model_fields.keys()
    assert Settings.load({"config": str(config)}, {}) == Settings.load({}, {"KUBELITE_CONFIG": "/dev/null"})


@pytest.mark.parametrize(
    ("value", "of", "as_yaml"),
    [
        (300.0, "duration", "5m"),
        (0.9, "number", "0.9"),
        (True, "boolean", "true"),
        ("", "text", '""'),
        ({}, "map", "{}"),
        ("a<1,b<2", "list", '"a<1,b<2"'),
        ("/etc/x", "text", "/etc/x"),
    ],
)
def test_defaults_are_written_as_yaml(value: object, of: str, as_yaml: str) -> None:
    assert written(value, of) == as_yaml

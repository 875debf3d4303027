"""The reference pages are current; `make reference` writes them."""

from __future__ import annotations

import ast

import pytest

from deploy.docs import annotations_page, exit_codes_page, fields_page, settings_page
from deploy.docs.reference import FOLDER, PAGES
from deploy.docs.tables import table
from kubelite.settings import Settings


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_page_is_current(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == PAGES[name](), "run make reference"


def test_every_setting_has_a_description() -> None:
    assert settings_page.descriptions().keys() == Settings.model_fields.keys()


def test_every_setting_is_in_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings_page, "GROUPS", {"Only": ("root",)})
    with pytest.raises(ValueError, match="pod_cidr"):
        settings_page.page()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0"), (7200.0, "2h"), (90.0, "90s"), (300.0, "5m"), (0.5, "0.5")]
)
def test_durations_are_written_readably(seconds: float, text: str) -> None:
    assert settings_page.duration(seconds) == text


def test_an_unlisted_annotation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert annotations_page.unlisted() == []
    monkeypatch.setattr(annotations_page, "READ", {})
    assert "kubelite.io/restart-on-change" in annotations_page.unlisted()


def test_an_unlisted_exit_code_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "raise Exit(3)\nraise CliError('x', code=4)\nraise Exit(128 + n)\nraise Other(5)\n"
    assert set(exit_codes_page._codes(ast.parse(code))) == {3, 4}
    monkeypatch.setattr(exit_codes_page, "named_codes", lambda: {"one": {3}})
    with pytest.raises(ValueError, match="one"):
        exit_codes_page.page()


def test_each_example_has_an_unsupported_field() -> None:
    assert len(list(fields_page._unsupported())) == len(fields_page.EXAMPLES)


def test_table_cells_are_escaped() -> None:
    assert table(("a", "b"), [("x|y", "z")]).splitlines()[2] == "| x&#124;y | z |"

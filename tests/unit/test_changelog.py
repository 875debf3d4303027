"""The changelog has the required format, and its newest release is the version that every part of the program
reports."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.version import Version

from runtime.oci.cli.store import VERSION

REPO = Path(__file__).resolve().parents[2]
SECTIONS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
CHANGELOG = (REPO / "CHANGELOG.md").read_text()


def releases() -> list[tuple[str, str]]:
    """(version, date) of each release in the changelog, in order."""
    return re.findall(r"^## \[?(\d+\.\d+\.\d+)\]? - (\d{4}-\d{2}-\d{2})$", CHANGELOG, re.MULTILINE)


def test_the_version_is_one() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION == releases()[0][0]


def test_the_changelog_keeps_its_form() -> None:
    """keepachangelog.com: unreleased changes first, then releases starting with the newest, changes grouped by type."""
    headings = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert headings[0].strip("[]") == "Unreleased"
    assert len(headings) == 1 + len(releases())
    versions = [Version(version) for version, _ in releases()]
    assert versions == sorted(versions, reverse=True) and len(set(versions)) == len(versions)
    dates = [date for _, date in releases()]
    assert dates == sorted(dates, reverse=True)
    for part in re.split(r"^## .*$", CHANGELOG, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert kinds == sorted(set(kinds), key=SECTIONS.index), "each kind once, in the order of SECTIONS"

"""Lock files agree with pyproject.toml: no package is missing, out of bounds, superfluous or without hashes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPO = Path(__file__).resolve().parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text())
RUN, DEV, DOCS = "requirements.lock", "requirements-dev.lock", "requirements-docs.lock"
CLIENTS = "requirements-clients.lock"


class Pin(NamedTuple):
    """One version of a package in a lock file; `asked`: pyproject.toml itself requires it."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    asked: bool


def pins(text: str) -> list[Pin]:
    """The pins of a lock file as `make lock` writes it. Raises ValueError for any other line."""
    found = []
    for block in re.split(r"\n(?=[^\s#])", text.partition("#    make lock\n")[2]):
        first, *rest = block.rstrip("\n").splitlines()
        match = re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s;]+)(?: ; (.+?))? \\", first)
        if match is None:
            raise ValueError(f"not a pin: {first!r}")
        hashes = [line.strip(" \\") for line in rest if line.startswith("    --hash=")]
        comments = [line.strip(" #") for line in rest if line.startswith("    #")]
        if len(hashes) + len(comments) != len(rest):
            raise ValueError(f"not a pin: {block!r}")
        asked = any(
            re.search(r"kubelite \(pyproject\.toml\)|-r (build-system|docs|clients)$", line)
            for line in comments
        )
        found.append(Pin(canonicalize_name(match[1]), match[2], match[3] or "", tuple(hashes), asked))
    return found


def required(pyproject: dict[str, Any], file: str) -> list[Requirement]:
    """The requirements of pyproject.toml that belong in the lock file."""
    project, extras = pyproject["project"], pyproject["project"]["optional-dependencies"]
    if file in (CLIENTS, DOCS):
        return [Requirement(line) for line in extras["clients" if file == CLIENTS else "docs"]]
    lines = [
        *project["dependencies"],
        *pyproject["build-system"]["requires"],
        *extras["ui"],
        *extras.get("signatures", []),
        *extras.get("plugins", []),
    ]
    lines += extras["dev"] if file == DEV else []
    return [found for line in lines if (found := Requirement(line)).name != project["name"]]


def disagreements(pyproject: dict[str, Any], file: str, locked: list[Pin]) -> Iterator[str]:
    """A sentence for each difference between the lock file and what `make lock` would write."""
    asked_of: dict[str, list[Requirement]] = {}
    for requirement in required(pyproject, file):
        asked_of.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    names = {pin.name for pin in locked}
    for name, requirements in asked_of.items():
        if name not in names:
            yield f"{name} is required, and not locked"
        for pin in locked:
            for requirement in requirements:
                if pin.name == name and not requirement.specifier.contains(pin.version, prereleases=True):
                    yield f"{name} is locked at {pin.version}; pyproject.toml says {requirement}"
    for pin in locked:
        if pin.asked and pin.name not in asked_of:
            yield f"{pin.name} is locked, and no longer required"
        if not pin.hashes or not all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in pin.hashes):
            yield f"{pin.name} has no hashes"


@pytest.mark.parametrize("file", [RUN, DEV, DOCS, CLIENTS])
class TestLockFiles:
    def test_lock_files_agree_with_pyproject(self, file: str) -> None:
        found = list(disagreements(PYPROJECT, file, pins((REPO / file).read_text())))
        assert not found, "run `make lock`: " + "; ".join(found)

    def test_lock_files_name_no_index(self, file: str) -> None:
        assert not re.search(r"://|--(extra-)?index-url|--find-links", (REPO / file).read_text())

    def test_pins_cover_all_python_versions(self, file: str) -> None:
        """If a package has two versions, their markers must cover all supported Python versions."""
        by_name: dict[str, list[Pin]] = {}
        for pin in pins((REPO / file).read_text()):
            by_name.setdefault(pin.name, []).append(pin)
        for minor in range(11, 15):
            there = {
                "python_version": f"3.{minor}",
                "python_full_version": f"3.{minor}.0",
                "sys_platform": "linux",
                "platform_python_implementation": "CPython",
            }
            for name, several in by_name.items():
                fits = [one for one in several if not one.marker or Marker(one.marker).evaluate(there)]
                windows = all("sys_platform == 'win32'" in one.marker for one in several)
                some = file == CLIENTS and all(one.marker for one in several)  # some versions need it
                least, most = 0 if windows or some else 1, 0 if windows else 1
                assert least <= len(fits) <= most, (name, there["python_version"])


@pytest.mark.parametrize("larger, smaller", [(DEV, RUN)])
def test_larger_lock_files_have_the_same_versions(larger: str, smaller: str) -> None:
    both = [
        {(pin.name, pin.version) for pin in pins((REPO / file).read_text())} for file in (larger, smaller)
    ]
    assert both[1] <= both[0], sorted(both[1] - both[0])


def test_documentation_requirements_do_not_change_those_of_tests() -> None:
    dev = {pin.name: pin.version for pin in pins((REPO / DEV).read_text())}
    docs = pins((REPO / DOCS).read_text())
    assert [pin for pin in docs if dev.get(pin.name, pin.version) != pin.version] == []


LOCKED = """\
# This file was autogenerated by uv via the following command:
#    make lock
click==8.5.1 \\
    --hash=sha256:{0}
    # via kubelite (pyproject.toml)
h11==0.16.0 ; sys_platform == 'linux' \\
    --hash=sha256:{0} \\
    --hash=sha256:{0}
    # via
    #   httpcore
    #   uvicorn
setuptools==84.2.1 \\
    --hash=sha256:{0}
    # via -r build-system
textual==8.0.0 \\
    --hash=sha256:{0}
    # via
    #   kubelite (pyproject.toml)
    #   something
""".format("a" * 64)
ASKED: dict[str, Any] = {
    "build-system": {"requires": ["setuptools>=77"]},
    "project": {
        "name": "kubelite",
        "dependencies": ["Click>=8.2,<9"],
        "optional-dependencies": {"ui": ["textual>=1,<9"], "dev": ["kubelite[ui]", "textual>2"], "docs": []},
    },
}


@pytest.mark.parametrize(
    "dependencies, text, says",
    [
        (["click>=8.2,<9"], LOCKED, []),
        (["click>=9"], LOCKED, ["click is locked at 8.5.1; pyproject.toml says click>=9"]),
        (["click", "rich"], LOCKED, ["rich is required, and not locked"]),
        ([], LOCKED, ["click is locked, and no longer required"]),
        (["click"], LOCKED.replace("a" * 64, "a" * 63, 1), ["click has no hashes"]),
    ],
)
def test_a_disagreement_is_reported(dependencies: list[str], text: str, says: list[str]) -> None:
    project = ASKED["project"] | {"dependencies": dependencies}
    for file in (RUN, DEV):
        assert list(disagreements(ASKED | {"project": project}, file, pins(text))) == says


def test_an_unknown_line_is_an_error() -> None:
    for line in ("click>=8 \\", "-e .", "click==8.5.1", "click @ file:///x"):
        with pytest.raises(ValueError, match="not a pin"):
            pins(LOCKED + line + "\n")

"""The checker of the documentation's links, and the documentation itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.docs.links import anchors, documents, links, loaded_from_elsewhere, problems


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text(
        "# A `b`: c & d\n\n## Twice\n\n## Twice\n\n```\n# no heading\n```\n"
    )
    return tmp_path


def wrong(repo: Path, text: str) -> list[str]:
    document = repo / "docs" / "one.md"
    document.write_text(text)
    return list(problems(document, repo))


@pytest.mark.parametrize(
    "target",
    [
        "a.md",
        "a.md#a-b-c--d",
        "a.md#twice",
        "a.md#twice-1",
        "#here",
        "https://example.org/x#y",
        "../docs/a.md",
    ],
)
def test_valid_links(repo: Path, target: str) -> None:
    assert wrong(repo, f"# Here\n\nSee [`it`]({target}) there.\n") == []


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("b.md", "there is no such file"),
        ("a.md#thrice", "that page has no such heading"),
        ("a.md#no-heading", "that page has no such heading"),
        ("#there", "that page has no such heading"),
        ("/docs/a.md", "leads out of the repository"),
        ("../../a.md", "leads out of the repository"),
    ],
)
def test_broken_links(repo: Path, target: str, sentence: str) -> None:
    [problem] = wrong(repo, f"# Here\n\nSee [it]({target}).\n")
    assert problem.startswith("docs/one.md:3: ") and problem.endswith(sentence)


def test_pictures_are_links_and_code_is_not() -> None:
    text = '![x](p.svg)\n<img src="q.svg">\n`[a](b)`\n```\n[c](d)\n```\n[![e](f.svg)](g.md)\n'
    assert {target for _, target in links(text)} >= {"p.svg", "q.svg", "g.md"}
    assert not {target for _, target in links(text)} & {"b", "d"}


def test_an_anchor_set_by_hand() -> None:
    assert "old" in anchors('<a id="old"></a>\n# New\n')


def test_external_resources_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<a href="https://x.example">x</a><script src="b.js"></script>')
    assert list(loaded_from_elsewhere(tmp_path)) == []
    (tmp_path / "b.html").write_text('<link href="https://x.example/f.css" rel="stylesheet">')
    assert len(list(loaded_from_elsewhere(tmp_path))) == 1


def test_every_link_of_the_documentation_is_valid() -> None:
    assert len(documents()) > 10
    assert [problem for document in documents() for problem in problems(document)] == []

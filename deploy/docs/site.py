"""Hooks of mkdocs: the documents next to README.md become pages of the site, below `project/`.

ARCHITECTURE.md and others are at the top of the repository, where readers of the code look for them. Links from docs/
to them, and their own links, are rewritten to the pages of the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPO = Path(__file__).resolve().parents[2]
#: Files at the top of the repository that are also pages of the site, if they exist.
BESIDE = {
    "ARCHITECTURE.md": "project/architecture.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/code-of-conduct.md",
}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]*)(#[^)\s]*)?(?=\))")
FENCE = re.compile(r"^```(\w+) [^\n]*$", re.MULTILINE)
WITHOUT_PAGE = {"README.md": "index.md"}


def on_config(config: Any) -> Any:
    """Add those pages to the navigation, below Development."""
    there = [page for source, page in BESIDE.items() if (REPO / source).exists()]
    for section in config.nav:
        section.get("Development", []).extend(there)
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the documents next to README.md."""
    for source, page in BESIDE.items():
        if (REPO / source).exists():
            text = relinked((REPO / source).read_text(encoding="utf-8"), source, page)
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links that leave docs/, and remove the requirements of code blocks (`console nat`)."""
    source = page.file.src_uri
    text = markdown if source in BESIDE.values() else relinked(markdown, f"docs/{source}", source)
    return FENCE.sub(r"```\1", text)


def relinked(text: str, source: str, page: str) -> str:
    """Rewrite the links of a file of the repository for the site.

    A link to a file that is not a page of the site (a program, a manifest) becomes plain text, because the site has no
    copy of it.
    """
    above = posixpath.dirname(source)

    def one(found: re.Match[str]) -> str:
        path, anchor = found[1], found[2] or ""
        if not path:
            return anchor
        target = posixpath.normpath(posixpath.join(above, path))
        if target.startswith("docs/"):
            target = target.removeprefix("docs/")
        else:
            target = BESIDE.get(target) or WITHOUT_PAGE.get(target) or ""
        return posixpath.relpath(target, posixpath.dirname(page) or ".") + anchor if target else path

    return LINK.sub(one, text)

"""What mkdocs does beside its own work: the pages beside README.md become pages of the site, under `project/`.

ARCHITECTURE.md and the like stand at the top of the repository, where a reader of the code looks for them. A link from
docs/ to one of them, and their own links, lead to the right page on the site as well.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

REPO = Path(__file__).resolve().parents[2]
#: Files at the top of the repository that are pages of the site too, as far as they are there.
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
    """Add the pages beside README.md."""
    for source, page in BESIDE.items():
        if (REPO / source).exists():
            text = relinked((REPO / source).read_text(encoding="utf-8"), source, page)
            files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/; and a code block has a language alone (`console nat` says what the block needs)."""
    source = page.file.src_uri
    text = markdown if source in BESIDE.values() else relinked(markdown, f"docs/{source}", source)
    return FENCE.sub(r"```\1", text)


def relinked(text: str, source: str, page: str) -> str:
    """The links of a file of the repository, as a page of the site has them.

    A link to a file that is no page of the site (a program, a manifest) becomes its name: the site has no copy of it.
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

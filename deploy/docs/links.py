"""Check the links of the documentation: `python -m deploy.docs.links [SITE]` prints broken links and fails if there are
any.

In every document, each relative link must lead to a file of the repository, and its anchor to a heading of that file,
by a code host's rules for anchors. Links to other sites are not followed. Pages of a built SITE must not load anything
from other sites.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
CODE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
SOURCE = re.compile(r"<(?:img|a|source)\b[^>]*?\b(?:src|href|srcset)=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*[ \t]*$", re.MULTILINE)
LOADED = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=\"?([^\"\s>]+)|<link\b(?![^>]*rel=\"?canonical)[^>]*?\bhref=\"?([^\"\s>]+)"
)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def documents(repo: Path = REPO) -> list[Path]:
    """The documents: the Markdown files next to README.md and below docs/."""
    return sorted([*repo.glob("*.md"), *(repo / "docs").rglob("*.md")])


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, by GitHub's rules, and explicit anchors."""
    text = CODE.sub("", text)
    seen: Counter[str] = Counter()
    found = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in HEADING.findall(text):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def links(text: str) -> Iterator[tuple[int, str]]:
    """The line and target of each link, except in code."""

    def blank(found: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", found[0])

    text = SPAN.sub(lambda found: found[0] if "\n\n" in found[0] else blank(found), CODE.sub(blank, text))
    for pattern in (LINK, SOURCE):
        for found in pattern.finditer(text):
            yield text.count("\n", 0, found.start()) + 1, found[1]


def problems(document: Path, repo: Path = REPO) -> Iterator[str]:
    """A sentence for each broken link of the document."""
    text = document.read_text(encoding="utf-8")
    for line, target in links(text):
        if ELSEWHERE.match(target):
            continue
        path, _, anchor = target.partition("#")
        place = f"{document.relative_to(repo)}:{line}"
        found = (document.parent / path).resolve() if path else document
        if path.startswith("/") or not found.is_relative_to(repo):
            yield f"{place}: {target} leads out of the repository"
        elif not found.exists():
            yield f"{place}: {target}: there is no such file"
        elif anchor and found.suffix == ".md" and anchor not in anchors(found.read_text(encoding="utf-8")):
            yield f"{place}: {target}: that page has no such heading"


def loaded_from_elsewhere(site: Path) -> Iterator[str]:
    """A sentence for each script, style sheet or picture that a page loads from another site."""
    for page in sorted(site.rglob("*.html")):
        for found in LOADED.finditer(page.read_text(encoding="utf-8")):
            target = found[1] or found[2]
            if ELSEWHERE.match(target) and not target.startswith("data:"):
                yield f"{page}: loads {target}"


def main(arguments: list[str]) -> int:
    found = [problem for document in documents() for problem in problems(document)]
    for site in arguments:
        found += loaded_from_elsewhere(Path(site))
    print("\n".join(found) or f"links: {len(documents())} documents checked")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

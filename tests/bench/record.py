"""Write the output of a measurement to docs/development/measurements.md, between its markers."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "development" / "measurements.md"


def record(name: str, text: str, page: Path = PAGE) -> None:
    """Replace the text between `<!-- NAME -->` and `<!-- end -->`. Raises ValueError if there are no such markers."""
    whole = page.read_text()
    begin = f"<!-- {name} -->\n"
    before, found, rest = whole.partition(begin)
    _, ended, after = rest.partition("<!-- end -->")
    if not found or not ended:
        raise ValueError(f"{page} has no place for {name}")
    page.write_text(f"{before}{begin}```text\n{text.strip()}\n```\n{ended}{after}")

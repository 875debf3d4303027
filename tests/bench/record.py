"""Put what was measured into docs/development/measurements.md between its markers: the program's own output."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "development" / "measurements.md"


def record(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- end -->`. Raises ValueError when there is no such place."""
    whole = page.read_text()
    begin = f"<!-- {name} -->\n"
    before, found, rest = whole.partition(begin)
    _, ended, after = rest.partition("<!-- end -->")
    if not found or not ended:
        raise ValueError(f"{page} has no place for {name}")
    page.write_text(f"{before}{begin}```text\n{text.strip()}\n```\n{ended}{after}")

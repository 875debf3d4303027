"""The title of the screen of pods and the panel below its table, as styled text. Pure.

Colours are the terminal's own, so light and dark themes both work. Marks and words carry the same information.
"""

from __future__ import annotations

from rich.text import Text

from kubelite.diagnosis.health import LOOKS
from kubelite.kube.json import Json
from kubelite.ui.model import Headline, Row, why_panel

BRAND = "◆ kubelite"


def title(head: Headline, width: int, view: str) -> Text:
    """Return two lines: the node's name and the number of pods in each level; its CPU and memory, and `view`, which
    describes the rows shown."""
    names = Text.assemble((BRAND, "bold"), ("  " + head.name if head.name else "", "bold"))
    words = [
        (f"{LOOKS[level].mark} {count} {level}", LOOKS[level].colour)
        for level, count in head.levels.items()
        if count
    ]
    long = Text("   ").join(Text(text, style=style) for text, style in words)
    if names.cell_len + long.cell_len + 3 > width:
        long = Text("  ").join(
            Text(f"{LOOKS[one].mark} {count}", style=LOOKS[one].colour)
            for one, count in head.levels.items()
            if count
        )
    first = Text.assemble(names, " " * max(2, width - names.cell_len - long.cell_len), long)
    parts = [f"{label} {text}" for label, text in (("CPU", head.cpu), ("Memory", head.memory)) if text]
    use = Text("   ".join(parts) or "measuring …", style="dim" if not parts else "")
    second = Text.assemble(use, " " * max(2, width - use.cell_len - len(view)), (view, "italic"))
    for line in (first, second):
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join([first, second])


def why(row: Row | None, answer: Json, pods: int, width: int) -> Text:
    """Return the panel's text about the selected pod. Every line but the last is cut to `width`. `pods`: the number of
    pods."""
    if row is None:
        return Text("no pod matches" if pods else "no pods yet: kubelite apply -f FILE", style="dim")
    look = LOOKS[row.level] if row.level else None
    mark, name, ready, status, restarts, age = row.cells[:6]
    head = Text.assemble(
        (f"{mark} ", look.colour if look else ""), (name, "bold"), "  ", (status, look.colour if look else "")
    )
    head.append(
        f"  {ready} ready, {age} old" + (f", {restarts} restarts" if restarts not in ("", "0") else ""),
        style="dim",
    )
    lines = [head]
    for label, text in why_panel(answer, row):
        lines.append(Text.assemble((f"{label}: ", "bold"), text))
    for line in lines[:-1]:
        line.truncate(width, overflow="ellipsis")
    if not answer and row.trouble:
        lines.append(Text("asking why …", style="dim"))
    return Text("\n").join(lines)

"""Formats numbers as text, and draws lines, charts and bars as SVG. Lines in one column of a table share a scale, which
the page shows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 200, 40  # size of a line's SVG view box; the style sheet sets the displayed size
SHOWN = 30  # number of measurements in the line of a table's row


def cores_text(cores: float) -> str:
    """Format CPUs: 3m, 387m, 1.24."""
    return f"{cores * 1000:.0f}m" if cores < 0.9995 else f"{cores:.2f}".rstrip("0").rstrip(".")


def image_size(value: float) -> str:
    """Format the size of an image as `kubelite images` and docker do: with decimal units and three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}TB"


def bytes_text(value: float) -> str:
    """Format an amount of memory: 0 B, 1.5 MiB, 312 MiB, 2.3 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def top_of(values: Sequence[float], least: float) -> float:
    """Return the end of a scale: 1, 2 or 5 times a power of ten, the lowest that is at least `least` and every
    value."""
    highest = max(*values, least) if values else least
    step = 1e-3
    while True:
        for factor in (1, 2, 5):
            if step * factor >= highest:
                return step * factor
        step *= 10


def line(values: Sequence[float], top: float) -> str:
    """Draw a line with the area below it, from 0 to `top`."""
    if len(values) < 2:
        return ""
    step = WIDTH / (len(values) - 1)
    points = " ".join(
        f"{round(place * step)},{HEIGHT - round(min(1.0, value / top) * (HEIGHT - 2))}"
        for place, value in enumerate(values)
    )
    return (
        f'<svg class="line" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">'
        f'<polyline points="0,{HEIGHT} {points} {WIDTH},{HEIGHT}"/></svg>'
    )


def bar(share: float, name: str) -> str:
    """Draw a share, 0 to 1, as a bar. `name`: its label for screen readers."""
    share = min(1.0, max(0.0, share))
    full = " full" if share >= 0.9 else ""
    return (
        f'<svg class="bar{full}" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(name)}: {share * 100:.0f} %"><rect width="100" height="6"/>'
        f'<rect class="v" width="{share * 100:.1f}" height="6"/></svg>'
    )


def chart(
    title: str, points: Sequence[tuple[float, float]], top: float, limit: float, words: Sequence[str]
) -> str:
    """Draw a chart of (Unix seconds, value). `top`: the end of the scale; `limit`: the value of a dashed line, 0 for
    none; `words`: the present value, the end of the scale and the limit as text."""
    now, highest, limited = words
    head = f"<h3>{escape(title)} <b>{escape(now)}</b>{f' <small>limit {escape(limited)}</small>' if limit else ''}</h3>"
    if len(points) < 2:
        return f'<figure class="chart">{head}<p class="none">Measured while this page is open.</p></figure>'
    begin, whole = points[0][0], max(points[-1][0] - points[0][0], 1e-6)
    drawn = " ".join(
        f"{(at - begin) / whole * 600:.0f},{100 - min(1.0, value / top) * 98:.1f}" for at, value in points
    )
    y = 100 - limit / top * 98
    dashed = f'<path class="limit" d="M0 {y:.1f}H600"/>' if 0 < limit <= top else ""
    said = f"{title}: {now} now, on a scale from 0 to {highest}"
    return (
        f'<figure class="chart">{head}<div class="plot"><span>{escape(highest)}</span><span>0</span>'
        f'<svg viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label="{escape(said)}">'
        f'<path class="grid" d="M0 2H600M0 51H600M0 100H600"/><polyline points="0,100 {drawn} 600,100"/>{dashed}</svg>'
        f"</div><figcaption><span>{whole:.0f} s ago</span><span>now</span></figcaption></figure>"
    )

"""The levels of pods: a row for each kind of status, and that the looks are legible without and with colours."""

from __future__ import annotations

import re

import pytest

from kubelite.diagnosis.health import LOOKS, ORDER, Level, counts, level, sentence


@pytest.mark.parametrize(
    ("status", "ready", "expected"),
    [
        ("Running", "1/1", Level.RUNNING),
        ("Running", "0/1", Level.WAITING),
        ("Running", "1/2", Level.WAITING),
        ("Completed", "0/1", Level.COMPLETED),
        ("Succeeded", "0/1", Level.COMPLETED),
        ("Pending", "0/1", Level.WAITING),
        ("Init:0/2", "0/1", Level.WAITING),
        ("Init:CrashLoopBackOff", "0/1", Level.FAILING),
        ("ContainerCreating", "0/1", Level.WAITING),
        ("Terminating", "1/1", Level.WAITING),
        ("SchedulingGated", "0/1", Level.WAITING),
        ("CrashLoopBackOff", "0/1", Level.FAILING),
        ("Error", "0/1", Level.FAILING),
        ("OutOfcpu", "0/1", Level.FAILING),
        ("<script>", "0/1", Level.FAILING),
    ],
)
def test_a_level(status: str, ready: str, expected: Level) -> None:
    assert level(status, ready) is expected


def test_what_is_wrong_comes_first() -> None:
    assert sorted(Level, key=ORDER.__getitem__)[0] is Level.FAILING
    found = counts([Level.RUNNING, Level.FAILING, Level.RUNNING])
    assert list(found) == list(Level)
    assert sentence(found) == "1 failing, 2 running"
    assert sentence(counts([])) == "no pods"


def test_no_two_levels_have_the_same_mark() -> None:
    assert len({look.mark for look in LOOKS.values()}) == len(Level)


def _luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_of_every_colour_of_text_is_aa() -> None:
    from kubelite.telemetry.web.frame import asset

    css = asset("kubelite.css").decode()
    light, dark = (dict(re.findall(r"--(\w+):(#[0-9a-f]{6}|#[0-9a-f]{3})\b", part)) for part in _themes(css))
    assert {"bg", "panel", "text", "soft", "accent"} <= set(light) & set(dark)
    for theme, colours in (("light", light), ("dark", dark)):
        whole = {
            name: "#" + "".join(c * 2 for c in v[1:]) if len(v) == 4 else v for name, v in colours.items()
        }
        marks = {str(one): getattr(look, theme) for one, look in LOOKS.items()}
        for name in ("text", "soft", "accent"):
            marks[name] = whole[name]
        for name, colour in marks.items():
            for ground in ("bg", "panel"):
                assert contrast(colour, whole[ground]) >= 4.5, (theme, name, ground)
        assert contrast(whole["text"], whole["track"]) >= 4.5, "code"


def _themes(css: str) -> tuple[str, str]:
    """The declarations of the light theme, and those that the dark one replaces."""
    body = css[css.index("color-scheme") :]
    light, dark = body.split("@media(prefers-color-scheme:dark)", 1)
    return light, dark[: dark.index("}}")]

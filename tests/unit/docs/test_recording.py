"""The recording of the main job: a valid cast of the script's commands, and the picture that is drawn from it."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from deploy.docs import cast_picture, record
from deploy.docs.cast_picture import CAST, SVG, Shown, drawn, length, read, shown


def cast(*events: tuple[float, str], version: int = 2) -> str:
    head = {"version": version, "width": 20, "height": 3}
    return "\n".join(json.dumps(line) for line in [head, *([at, "o", data] for at, data in events)])


def test_the_picture_is_drawn_from_the_cast() -> None:
    assert SVG.read_text(encoding="utf-8") == drawn(CAST.read_text(encoding="utf-8")), (
        "python -m deploy.docs.cast_picture"
    )


def test_the_cast_has_the_commands_of_the_script() -> None:
    recording = read(CAST.read_text(encoding="utf-8"))
    assert (recording.columns, recording.lines) == (record.COLUMNS, record.LINES)
    last = [one.text for one in shown(recording) if one.end == length(recording)]
    typed = [text.removeprefix(record.PROMPT) for text in last if text.startswith(record.PROMPT)]
    assert tuple(typed) == (*record.COMMANDS, cast_picture.CURSOR)


def test_frames_and_their_durations() -> None:
    recording = read(cast((0.0, "$ "), (1.0, "l"), (1.2, "s\r\n"), (1.21, "a"), (2.0, "b")))
    block = cast_picture.CURSOR
    assert shown(recording) == [
        Shown(0, f"$ {block}", 0.0, 1.0),
        Shown(0, f"$ l{block}", 1.0, 1.2),
        Shown(1, f"a{block}", 1.2, 2.0),  # output within 30 ms is one frame
        Shown(0, "$ ls", 1.2, 2.0 + cast_picture.REST),
        Shown(1, f"ab{block}", 2.0, 2.0 + cast_picture.REST),
    ]


def test_the_picture_escapes_what_it_shows_and_runs_no_script() -> None:
    picture = drawn(cast((0.0, "<a & b>"), (1.0, "x")))
    texts = [found.text for found in ET.fromstring(picture).iter() if found.tag.endswith("text")]
    assert texts == [f"<a & b>{cast_picture.CURSOR}", f"<a & b>x{cast_picture.CURSOR}"]
    assert "<script" not in picture and "prefers-reduced-motion" in picture


@pytest.mark.parametrize(
    ("text", "wrong"),
    [(cast((0.0, "a"), version=1), "version 1"), (cast((1.0, "a"), (0.5, "b")), "go back")],
)
def test_another_format_is_rejected(text: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        read(text)


def test_a_cast_begins_with_its_first_event_and_has_no_marks() -> None:
    head, *events = record.cast([(5.0, f"{record.MARK}# "), (5.25, "a"), (5.5, record.MARK)]).splitlines()
    assert json.loads(head)["version"] == 2
    assert [json.loads(line) for line in events] == [[0.0, "o", "# "], [0.25, "o", "a"]]

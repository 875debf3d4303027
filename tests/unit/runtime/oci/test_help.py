"""The help of kubelite-oci: every flag is explained, and the examples are command lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.oci.cli import help as help_
from runtime.oci.cli import options
from runtime.oci.cli.options import COMMANDS, GLOBAL, UsageError
from tests.command_lines import invocations

REPO = Path(options.__file__).parents[3]


def test_every_flag_is_explained_and_no_other() -> None:
    assert help_.GLOBAL_FLAGS.keys() == GLOBAL.keys()
    assert help_.FLAGS.keys() == {name for command in COMMANDS.values() for name in command.flags}


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_the_examples_of_a_command_can_be_parsed(command: str) -> None:
    assert help_.EXAMPLES.keys() == {"", *COMMANDS}
    for comment, line in help_.EXAMPLES[command]:
        assert comment[0].isupper() and not comment.endswith(".")
        parsed = [options.parse(words).command for words in invocations(line, "kubelite-oci")]
        assert command in parsed if command else parsed, line


@pytest.mark.parametrize("command", COMMANDS)
def test_the_text_has_flags_and_examples(command: str) -> None:
    text = help_.usage(command)
    assert text.startswith(f"usage: kubelite-oci {command} [flags]")
    assert f"\n\n  {COMMANDS[command].help}\n\nexamples:\n  # " in text
    for name in COMMANDS[command].flags:
        assert f"--{name}" in text


def test_a_short_flag_precedes_the_long_one() -> None:
    assert "\n  -f, --force " in help_.usage("delete")
    assert "\n  -f, --format FORMAT " in help_.usage("list")
    assert "\n  -v, --version " in help_.usage()


def test_an_undocumented_flag_is_found() -> None:
    with pytest.raises(UsageError):
        options.parse(["run", "--nope", "x"])


def test_help_is_loaded_only_on_request() -> None:
    code = "import sys; from runtime.oci.cli import main; main.run(['list', '--root', '/x']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert "runtime.oci.cli.options" in done.stdout.split()
    assert "runtime.oci.cli.help" not in done.stdout.split()

"""Commands in the documents exist: each `kubelite …` is a command and has the flags that the document uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kubelite.cli.main import COMMANDS, cli

REPO = Path(__file__).resolve().parents[3]
DOCUMENTS = sorted([REPO / "README.md", REPO / "ARCHITECTURE.md", *(REPO / "docs").rglob("*.md")])
SPAN = re.compile(r"`kubelite ([a-z][^`]*)`")
BLOCK = re.compile(r"^```(?:sh|console)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"^(?:\$ )?(?:sudo )?kubelite (?=[a-z])((?:.*\\\n)*.*)", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


def commands_of(text: str) -> Iterator[str]:
    """Each command without `kubelite`, up to a comment, a pipe, or the container's command."""
    found = [span[1] for span in SPAN.finditer(text)]
    found += [line[1] for block in BLOCK.finditer(text) for line in LINE.finditer(block[1])]
    for command in found:
        yield re.split(r"\s+#| -- | \| ", " ".join(command.replace("\\\n", " ").split()))[0]


def flags_of(command: click.Command, words: list[str]) -> set[str]:
    """The flags of the command, or of all subcommands that the words may mean (`rollout history|undo`)."""
    alone = not words or words[0].startswith("-")  # `create -f FILE`
    if not isinstance(command, click.Group) or (alone and command.invoke_without_command):
        return {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    at = click.Context(command)
    named = [command.get_command(at, word) for word in words[0].split("|")] if words else []  # or an alias
    assert any(named) or not words or words[0].startswith("…"), f"{command.name} has no {words[0]}"
    return {flag for found in named if found is not None for flag in flags_of(found, words[1:])}


def test_the_readme_lists_every_command() -> None:
    found = re.search(r"## Commands\n\n```text\n(.*?)```", (REPO / "README.md").read_text(), re.DOTALL)
    assert found is not None
    listed = {word for line in found[1].splitlines() for word in line[13:].split() if "|" not in word}
    assert listed == set(COMMANDS)


def test_commands_are_found() -> None:
    text = "`kubelite get pods`\n```sh\nkubelite logs a  # b\nsudo kubelite serve --root /r \\\n --node-name b\n```\n"
    assert list(commands_of(text)) == ["get pods", "logs a", "serve --root /r --node-name b"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPO)))
def test_the_commands_of_a_document_exist(document: Path) -> None:
    for line in commands_of(document.read_text()):
        name, *words = line.split()
        for one in name.split("|"):
            assert one.strip(",:") in COMMANDS, f"kubelite {line}"
        found = cli.get_command(click.Context(cli), name.split("|")[0].strip(",:"))
        assert found is not None
        known = flags_of(found, words)
        for flag in FLAG.findall(" ".join(words)):
            joined = not flag.startswith("--") and {f"-{letter}" for letter in flag[1:]} <= known  # -it
            assert flag in known or joined, f"kubelite {line}: {flag}"

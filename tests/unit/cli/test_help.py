"""The help of every command: a summary, examples that can be parsed, and a sentence for each option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from textwrap import dedent

import click
import pytest

from kubelite.cli.groups import Command, Group
from kubelite.cli.main import COMMANDS, GROUPS, cli
from tests.command_lines import invocations

WIDTH = 100


def every(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Each command below the group, with its name in full."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*above, name), command
        if isinstance(command, click.Group):
            yield from every(command, (*above, name))


EVERY = dict(every(cli))
each = pytest.mark.parametrize("words", EVERY, ids=" ".join)


def parse(arguments: list[str]) -> tuple[str, ...]:
    """The words of the command that the arguments name. Raises click.ClickException if one cannot be parsed."""
    context, command = cli.make_context("kubelite", list(arguments)), cli
    words: tuple[str, ...] = ()
    while isinstance(command, click.Group):
        if command.invoke_without_command and not context._protected_args and not context.args:
            break  # `create -f FILE`
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert name is not None
        assert found is not None
        context, command, words = found.make_context(name, list(rest), parent=context), found, (*words, name)
    return words


def examples_of(command: click.Command) -> list[list[str]]:
    """The lines of each example."""
    assert isinstance(command, Command | Group)
    return [example.splitlines() for example in dedent(command.examples).strip().split("\n\n")]


@each
def test_help_begins_with_a_summary(words: tuple[str, ...]) -> None:
    summary, *rest = (EVERY[words].help or "").splitlines()
    assert re.fullmatch(r"[A-Z].{8,78}\.", summary), summary
    assert rest[:1] in ([], [""]), "the summary is a paragraph of its own"


def test_the_list_of_commands_has_the_same_summaries() -> None:
    assert {name: f"{text}." for name, (_, _, text) in COMMANDS.items()} == {
        words[0]: (command.help or "").splitlines()[0] for words, command in EVERY.items() if len(words) == 1
    }


def test_every_command_is_in_one_group() -> None:
    assert sum(map(len, GROUPS.values())) == len(COMMANDS)


@each
def test_every_option_has_a_sentence(words: tuple[str, ...]) -> None:
    context = click.Context(EVERY[words], info_name="x")
    for option in EVERY[words].get_params(context):
        if isinstance(option, click.Option) and not option.hidden:
            assert re.match(r"[A-Z].*[.\]]$|\[pod", option.help or ""), option.opts


@each
def test_the_examples_of_a_command_can_be_parsed(words: tuple[str, ...]) -> None:
    command = EVERY[words]
    called = []
    for comment, *lines in examples_of(command):
        assert re.fullmatch(r"# [A-Z].*[^.]", comment), comment
        assert lines, comment
        for line in lines:
            assert len(line) <= WIDTH
            found = [parse(arguments) for arguments in invocations(line, "kubelite")]
            assert found, line
            called += found
    names = {other for other, same in EVERY.items() if same is command}
    assert any(found[: len(name)] == name for found in called for name in names), "none is of this command"


def test_examples_precede_the_options() -> None:
    for words in (("get",), ("node", "label"), ("image",)):
        context = click.Context(EVERY[words], info_name=words[-1])
        text = EVERY[words].get_help(context)
        assert text.index("\nExamples:\n  # ") < text.index("\nOptions:\n"), text
        assert dedent("\n".join(examples_of(EVERY[words])[0])) in dedent(text).replace("\n  ", "\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "--nope"],
        ["nope"],
        ["node", "nope"],
        ["exec"],
        ["build", "--network", "nope", "."],
        ["rollout", "undo"],
    ],
)
def test_invalid_examples_are_recognized(arguments: list[str]) -> None:
    with pytest.raises(click.ClickException):
        parse(arguments)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("kubelite get pods", [["get", "pods"]]),
        ("sudo kubelite reset", [["reset"]]),
        ("A=b kubelite edit x", [["edit", "x"]]),
        (
            "tar c . | kubelite exec -i web -- tar x -C /data",
            [["exec", "-i", "web", "--", "tar", "x", "-C", "/data"]],
        ),
        (
            "kubelite apply -f a && kubelite rollout status a",
            [["apply", "-f", "a"], ["rollout", "status", "a"]],
        ),
        ("kubelite save a >b", [["save", "a"]]),
        ("kubelite build - <Containerfile", [["build", "-"]]),
        ("source <(kubelite completion bash)", [["completion", "bash"]]),
        ("kubelite get p -o jsonpath='{.a b}'", [["get", "p", "-o", "jsonpath={.a b}"]]),
        ("docker save a", []),
    ],
)
def test_a_line_is_read_as_a_shell_reads_it(line: str, found: list[list[str]]) -> None:
    assert invocations(line, "kubelite") == found

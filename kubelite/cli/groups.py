"""Command groups: they parse arguments as kubectl does and report unknown subcommands."""

from __future__ import annotations

from typing import Any

import click


class Command(click.Command):
    """A command whose help shows examples between description and options, as in kubectl's help. `examples`: each one
    is a comment line and command lines; a blank line separates two examples."""

    def __init__(self, *arguments: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        format_examples(self.examples, formatter)
        super().format_options(ctx, formatter)


class Group(click.Group):
    """A group whose subcommands accept kubectl's flag syntax. The error for an unknown subcommand lists the known ones
    or names the equivalent (`instead`: a subcommand of another tool → the equivalent here)."""

    command_class = Command

    def __init__(
        self, *arguments: Any, examples: str = "", instead: dict[str, str] | None = None, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.examples = examples
        self.instead = instead or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        format_examples(self.examples, formatter)
        super().format_options(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0] if args and not ctx.resilient_parsing else "-"
        if not word.startswith("-") and self.get_command(ctx, word) is None:
            raise click.UsageError(self._unknown(word, self.list_commands(ctx), ctx.command_path), ctx)
        name, command, rest = super().resolve_command(ctx, args)
        return name, command, plain_flags(command, rest) if command is not None else rest

    def _unknown(self, word: str, known: list[str], path: str) -> str:
        from kubelite.cli.names import nearest

        if word in self.instead:
            return f'there is no "{path} {word}": {self.instead[word]}'
        return f'unknown command "{word}", {path} has {", ".join(known)}{nearest(word, known)}'


def format_examples(examples: str, formatter: click.HelpFormatter) -> None:
    """Write the section Examples without rewrapping its lines."""
    from textwrap import dedent

    if examples:
        with formatter.section("Examples"):
            for line in dedent(examples).strip().splitlines():
                formatter.write(f"{'':{formatter.current_indent}}{line}".rstrip() + "\n")


def plain_flags(command: click.Command, arguments: list[str]) -> list[str]:
    """Translate kubectl's form of boolean flags (`--watch=true`, `--wait=false`) to click's."""
    flags = {
        word: option
        for option in command.params
        if isinstance(option, click.Option) and option.is_flag
        for word in option.opts
    }
    read: list[str] = []
    for at, argument in enumerate(arguments):
        if argument == "--":
            return read + arguments[at:]
        word, _, value = argument.partition("=")
        if word not in flags or value not in ("true", "false"):
            read.append(argument)
        elif value == "true":
            read.append(word)
        else:
            read += flags[word].secondary_opts[:1]  # a flag without an opposite is off when omitted
    return read

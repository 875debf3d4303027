"""`kubelite completion`: the completion script of a shell."""

from __future__ import annotations

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command


@click.command(
    cls=Command,
    examples="""
    # Load completion into the current bash
    source <(kubelite completion bash)

    # Install completion for fish
    kubelite completion fish >~/.config/fish/completions/kubelite.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    `make install` and the Debian package install the scripts of all three shells.
    """
    from click.shell_completion import get_completion_class

    from kubelite.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise CliError(f"error: no completion for {shell}")
    complete = found(cli, {}, "kubelite", "_KUBELITE_COMPLETE")
    print(complete.source_template % complete.source_vars())

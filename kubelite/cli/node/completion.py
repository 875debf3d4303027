"""`kubelite completion`: print the completion script of a shell."""

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
    found = script(shell)
    if not found:
        raise CliError(f"error: no completion for {shell}")
    print(found)


def script(shell: str) -> str:
    """Return the script; "" for an unsupported shell."""
    from click.shell_completion import get_completion_class

    from kubelite.cli.main import cli

    complete = get_completion_class(shell)
    if complete is None:
        return ""
    made = complete(cli, {}, "kubelite", "_KUBELITE_COMPLETE")
    return made.source_template % made.source_vars()

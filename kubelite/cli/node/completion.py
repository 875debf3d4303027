"""`kubelite completion`: the completion script of a shell."""

from __future__ import annotations

import click

from kubelite.cli.errors import CliError


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: source <(kubelite completion bash)"""
    from click.shell_completion import get_completion_class

    from kubelite.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise CliError(f"error: no completion for {shell}")
    complete = found(cli, {}, "kubelite", "_KUBELITE_COMPLETE")
    print(complete.source_template % complete.source_vars())

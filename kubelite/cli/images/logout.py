"""`kubelite logout`: remove the login of a registry."""

from __future__ import annotations

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, socket_option

_HUB = "docker.io"


@click.command(
    cls=Command,
    examples="""
    # Forget the login of a registry
    kubelite logout quay.io

    # Forget all logins
    kubelite logout --all
    """,
)
@click.argument("registry", required=False)
@click.option("-a", "--all", "every", is_flag=True, help="Forget all logins.")
@socket_option
@click.pass_context
def logout(ctx: click.Context, registry: str | None, every: bool) -> None:
    """Log out of a registry.

    The default is docker.io. Logins of docker and podman are not changed.
    """
    if every and registry:
        raise click.UsageError("--all takes no registry")
    name = "" if every else registry or _HUB
    if client(ctx).post("/kubelite/v1/logout", {"registry": name})["removed"]:
        print("Removed all login credentials" if every else f"Removed login credentials for {name}")
    elif not every:
        raise CliError(f"error: not logged in to {name}")

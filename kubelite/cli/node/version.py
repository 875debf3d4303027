"""`kubelite version`: print the versions of the command and the daemon."""

from __future__ import annotations

import sys

import click

from kubelite.cli.errors import CliError, Exit
from kubelite.cli.groups import Command
from kubelite.cli.options import socket_option
from kubelite.cli.output.tables import print_json
from kubelite.cli.transport.client import Client


@click.command(
    cls=Command,
    examples="""
    # Print both versions
    kubelite version

    # Print the version of the client, without asking the daemon
    kubelite version --client
    """,
)
@click.option("--client", "client_only", is_flag=True, help="Only print the version of the client.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format.")
@socket_option
@click.pass_context
def version(ctx: click.Context, client_only: bool, output: str | None) -> None:
    """Print the versions of the client and the daemon."""
    from importlib.metadata import version as installed

    answer = {"client": installed("kubelite")}
    if not client_only:
        try:
            server = Client(ctx.obj["socket"], timeout=5.0).get("/version")
            answer["server"] = str(server["gitVersion"]).rpartition("kubelite-")[2]
        except CliError as error:
            answer["serverError"] = str(error)
    if output == "json":
        print_json(answer)
        return
    print(f"Client Version: {answer['client']}")
    if "server" in answer:
        print(f"Server Version: {answer['server']}")
    if "serverError" in answer:
        print(answer["serverError"], file=sys.stderr)
        raise Exit(1)

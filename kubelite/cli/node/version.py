"""`kubelite version`: the version of the command and of the daemon."""

from __future__ import annotations

import sys

import click

from kubelite.cli.errors import CliError, Exit
from kubelite.cli.options import socket_option
from kubelite.cli.output.tables import print_json
from kubelite.cli.transport.client import Client


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Only our own version; asks no daemon.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")
@socket_option
@click.pass_context
def version(ctx: click.Context, client_only: bool, output: str | None) -> None:
    """Print the version of this program and of the daemon."""
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

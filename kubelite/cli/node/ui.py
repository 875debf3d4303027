"""`kubelite ui`: the full-screen terminal interface. Textual is imported only when the command runs."""

from __future__ import annotations

import sys

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import namespace_option, socket_option
from kubelite.cli.transport.client import connect


@click.command(
    cls=Command,
    examples="""
    # Show the pods of all namespaces
    kubelite ui

    # Show one namespace, updated every five seconds
    kubelite ui -n prod --interval 5
    """,
)
@namespace_option
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between updates.",
)
@socket_option
@click.pass_context
def ui(ctx: click.Context, namespace: str | None, interval: float) -> None:
    """Show the node live in the terminal.

    Pods, containers and processes with CPU and memory sparklines, logs, events, the reasons of decisions, and a
    shell in a container. Press ? for the keys.
    """
    socket = ctx.obj["socket"]
    connect(socket).close()  # report a missing daemon before the screen opens
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CliError("error: kubelite ui needs a terminal; in pipes, use kubelite top and kubelite get")
    try:
        from kubelite.ui.app import Ui
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "textual":
            raise
        raise CliError(
            f"error: kubelite ui needs Textual, which is not installed: {sys.executable} -m pip install textual"
        ) from None
    Ui(socket, namespace=namespace, interval=interval).run()

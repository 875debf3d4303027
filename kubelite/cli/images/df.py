"""`kubelite df`: show disk usage."""

from __future__ import annotations

import click

from kubelite.cli.groups import Command
from kubelite.cli.images.images import size
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json
from kubelite.cli.output.waiting import waiting

_json_option = click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format."
)


@click.command(
    cls=Command,
    examples="""
    # Show the disk usage of images, containers, volumes and the build cache
    kubelite df
    """,
)
@_json_option
@socket_option
@click.pass_context
def df(ctx: click.Context, output: str | None) -> None:
    """Show disk usage.

    The output is like that of `docker system df`.
    """
    with waiting("measuring"):
        found = client(ctx).get("/kubelite/v1/df")["usage"]
    if output == "json":
        print_json(found)
        return
    rows = []
    for kind in found:
        share = 100 * kind["reclaimable"] // kind["size"] if kind["size"] else 0
        rows.append(
            [
                kind["type"],
                kind["total"],
                kind["active"],
                size(kind["size"]),
                f"{size(kind['reclaimable'])} ({share}%)",
            ]
        )
    TablePrinter().print(("Type", "Total", "Active", "Size", "Reclaimable"), rows)

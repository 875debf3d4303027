"""`kubelite df`: show disk usage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from kubelite.cli.groups import Command
from kubelite.cli.images.images import created_ago, repository_and_tag, size
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json
from kubelite.cli.output.waiting import waiting

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_json_option = click.option(
    "-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format."
)


@click.command(
    cls=Command,
    examples="""
    # Show the disk usage of images, containers, volumes, claims and the build cache
    kubelite df

    # List the images, containers, volumes and claims with their sizes
    kubelite df -v
    """,
)
@click.option("-v", "--verbose", is_flag=True, help="List each image, container, volume and claim.")
@_json_option
@socket_option
@click.pass_context
def df(ctx: click.Context, verbose: bool, output: str | None) -> None:
    """Show disk usage.

    The output is like that of `docker system df`. RECLAIMABLE is what `kubelite image prune --all` frees, and for the
    build cache what --build-cache frees in addition. Claims are never pruned. With -v, DISK USAGE of an image is more
    than its SIZE in `kubelite images`, which leaves the unpacked layers out.
    """
    with waiting("measuring"):
        query = {"verbose": "true"} if verbose else None
        found = client(ctx).get("/kubelite/v1/df", query=query)["usage"]
    if output == "json":
        print_json(found)
        return
    if verbose:
        _print_items({kind["type"]: kind for kind in found})
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


def _print_items(kinds: Json) -> None:
    """Print a table for each kind, as `docker system df -v` does. Layers that images share count for each of them.
    DISK USAGE, docker's name, includes unpacked layers, which SIZE in `kubelite images` does not."""
    now = time.time()
    print("Images space usage:\n")
    columns = ("Repository", "Tag", "Image ID", "Created", "Disk Usage", "Shared", "Unique", "In Use")
    rows = [
        (
            *repository_and_tag(item.get("shortName", item["reference"])),
            item["id"].partition(":")[2][:12],
            created_ago(item["created"], now),
            *(size(item[key]) for key in ("size", "shared", "unique")),
            "yes" if item["active"] else "no",
        )
        for item in kinds["Images"]["items"]
    ]
    TablePrinter().print(columns, rows)
    for title, kind, column in (
        ("Containers", "Containers", "Container"),
        ("Local Volumes (emptyDir)", "Local Volumes", "Volume"),
    ):
        print(f"\n{title} space usage:\n")
        items = kinds[kind]["items"]
        rows = [(i["pod"], i["name"], size(i["size"]), "yes" if i["active"] else "no") for i in items]
        TablePrinter().print(("Pod", column, "Size", "In Use"), rows)
    if claims := kinds.get("Claims"):
        print("\nClaims space usage:\n")
        rows = [
            (i["namespace"], i["name"], size(i["size"]), "yes" if i["active"] else "no")
            for i in claims["items"]
        ]
        TablePrinter().print(("Namespace", "Claim", "Size", "In Use"), rows)
    print(f"\nBuild cache usage: {size(kinds['Build Cache']['size'])}")

"""`kubelite api-resources`: list the types that `get` supports."""

from __future__ import annotations

import click

from kubelite.cli.groups import Command
from kubelite.cli.options import client, socket_option
from kubelite.cli.output.tables import TablePrinter


@click.command(
    "api-resources",
    cls=Command,
    examples="""
    # List the object types
    kubelite api-resources

    # List the types without a namespace
    kubelite api-resources --namespaced=false
    """,
)
@click.option(
    "-o", "--output", type=click.Choice(["name", "wide"]), metavar="name|wide", help="Output format."
)
@click.option(
    "--namespaced",
    type=bool,
    metavar="true|false",
    help="Only list types with a namespace, or only those without.",
)
@click.option("--no-headers", is_flag=True, help="Do not print the header row.")
@socket_option
@click.pass_context
def api_resources(ctx: click.Context, output: str | None, namespaced: bool | None, no_headers: bool) -> None:
    """List the object types of the API.

    The node also serves this API to kubectl.
    """
    server = client(ctx)
    groups = [g["preferredVersion"]["groupVersion"] for g in server.get("/apis")["groups"]]
    found = [
        (version, entry)
        for version, path in (("v1", "/api/v1"), *((group, f"/apis/{group}") for group in groups))
        for entry in server.get(path)["resources"]
        if "/" not in entry["name"] and namespaced in (None, entry["namespaced"])
    ]
    if output == "name":
        for version, entry in found:
            group = version.rpartition("/")[0]
            print(f"{entry['name']}.{group}" if group else entry["name"])
        return
    rows = [
        [
            *(
                entry["name"],
                ",".join(entry["shortNames"]),
                version,
                str(entry["namespaced"]).lower(),
                entry["kind"],
            ),
            *([",".join(entry["verbs"]), ""] if output == "wide" else ()),
        ]
        for version, entry in found
    ]
    wide = ("Verbs", "Categories") if output == "wide" else ()
    columns = ("Name", "ShortNames", "APIVersion", "Namespaced", "Kind", *wide)
    TablePrinter(headers=not no_headers).print(columns, rows)

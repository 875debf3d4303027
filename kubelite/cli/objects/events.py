"""`kubelite events`: list events in order, with kubectl's columns."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import wanted
from kubelite.cli.options import all_namespaces_option, client, namespace_option, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    cls=Command,
    examples="""
    # List the events of the default namespace
    kubelite events

    # Watch the warnings of all namespaces
    kubelite events -A --types Warning -w

    # List the events of a pod
    kubelite events --for pod/web
    """,
)
@namespace_option
@all_namespaces_option
@click.option("--for", "about", metavar="TYPE/NAME", help="Only show events about this object, like pod/web.")
@click.option("--types", default="", metavar="Normal,Warning", help="Only show events of these types.")
@click.option("-w", "--watch", is_flag=True, help="After the list, show events as they happen.")
@click.option("--no-headers", is_flag=True, help="Do not print the header row.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format.")
@socket_option
@click.pass_context
def events(ctx: click.Context, /, namespace: str | None, all_namespaces: bool, **options: Any) -> None:
    """List events, the oldest first."""
    from kubelite.cli.describe.parts import event_time

    server = client(ctx)
    where = "" if all_namespaces else f"/namespaces/{namespace or 'default'}"
    path, query = f"/api/v1{where}/events", _about(options["about"])
    answer = server.get(path, query=query)
    chosen = [e for e in sorted(answer["items"], key=event_time) if _of_types(e, options["types"])]
    if options["output"] == "json":
        print_json({"apiVersion": "v1", "kind": "List", "items": chosen})
        return
    printer = TablePrinter(headers=not options["no_headers"])
    if chosen:
        _print_events(printer, chosen, all_namespaces)
    elif not options["watch"]:
        print(
            "No events found."
            if all_namespaces
            else f"No events found in {namespace or 'default'} namespace.",
            file=sys.stderr,
        )
    if not options["watch"]:
        return
    query |= {"watch": "true", "resourceVersion": answer["metadata"]["resourceVersion"]}
    for change in server.lines(server.open("GET", path, query=query)):
        if change["type"] != "DELETED" and _of_types(change["object"], options["types"]):
            _print_events(printer, [change["object"]], all_namespaces)
    raise CliError("error: kubelite ended the watch: it is stopping, or has just been restarted")


def _about(text: str | None) -> Json:
    if not text:
        return {}
    query = wanted([text])[0]
    if not query.names:
        raise CliError("error: --for needs TYPE/NAME, as in --for pod/web", code=2)
    return {"fieldSelector": f"involvedObject.kind={query.type.kind},involvedObject.name={query.names[0]}"}


def _of_types(event: Json, types: str) -> bool:
    wanted_types = [t.strip().lower() for t in types.split(",") if t.strip()]
    return not wanted_types or str(event.get("type", "")).lower() in wanted_types


def _print_events(printer: TablePrinter, found: list[Json], all_namespaces: bool) -> None:
    from kubelite.api.kube.printers import event_object
    from kubelite.cli.describe.parts import event_age

    now = time.time()
    rows = [
        [
            *([e["metadata"].get("namespace", "")] if all_namespaces else []),
            event_age(e, now),
            e.get("type", ""),
            e.get("reason", ""),
            event_object(e),
            str(e.get("message", "")).strip(),
        ]
        for e in found
    ]
    columns = ("Last Seen", "Type", "Reason", "Object", "Message")
    printer.print(("Namespace", *columns) if all_namespaces else columns, rows)

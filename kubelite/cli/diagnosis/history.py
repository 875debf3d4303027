"""`kubelite history`: show a pod's past changes, events and decisions, or a workload's past changes and events."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, WORKLOADS, Type, moment, pod_name, resource_type
from kubelite.cli.options import client, complete_pods_and_workloads, namespace_option, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    cls=Command,
    examples="""
    # Show the past of a pod
    kubelite history web

    # Show the last hour, also of a deleted pod
    kubelite history web --since "1h ago"

    # Show the past of a deployment: its events, edits and counts
    kubelite history deployment/web
    """,
)
@click.argument("pod", metavar="POD | TYPE/NAME", shell_complete=complete_pods_and_workloads)
@namespace_option
@click.option(
    "--since", default="", metavar="WHEN", help='Only show later entries: "1h ago", or an RFC 3339 time.'
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only show the newest N entries.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format.")
@socket_option
@click.pass_context
def history(ctx: click.Context, /, pod: str, namespace: str | None, **options: Any) -> None:
    """Show past status changes, events and decisions of a pod.

    The oldest entry comes first. Deleted pods have a history, too. Of a deployment or another workload, TYPE/NAME, it
    shows edits, counts of pods, conditions and events; its pods have a history of their own. `kubelite rollout history`
    lists the revisions of a workload, and `kubelite get deployments --at "1h ago"` shows them as they were.
    """
    query: Json = {"since": moment(options["since"], time.time())} if options["since"] else {}
    if options["limit"]:
        query["limit"] = options["limit"]
    kind, name = _object_of(pod)
    query |= {"kind": kind.kind} if kind is not PODS else {}
    answer = client(ctx).get(f"/kubelite/v1/history/{namespace or 'default'}/{name}", query=query)
    if options["output"] == "json":
        print_json(answer)
        return
    if not answer["entries"]:
        shown, instead = f"{namespace or 'default'}/{name}", ""
        if kind is not PODS:
            shown, instead = f"{kind.singular} {shown}", f" `kubelite why {pod}` explains its present state."
        print(f"No history of {shown} since {answer['since']}.{instead}", file=sys.stderr)
        return
    rows = [
        (entry["time"], _WORDS.get(entry["what"], entry["what"]), entry["reason"], entry["message"])
        for entry in answer["entries"]
        if entry["message"]
        or entry["what"] != "MODIFIED"  # hide changes of bookkeeping fields: a time, an observed generation
    ]
    TablePrinter().print(("Time", "What", "Reason", "Message"), rows)


def _object_of(argument: str) -> tuple[Type, str]:
    """Return the type and the name of POD or TYPE/NAME. Raises CliError for a type that has no history."""
    word, slash, name = argument.partition("/")
    kind = resource_type(word) if slash else PODS
    if kind not in WORKLOADS:
        return PODS, pod_name(argument)
    return kind, name


_WORDS = {"ADDED": "Made", "MODIFIED": "Status", "DELETED": "Removed"}

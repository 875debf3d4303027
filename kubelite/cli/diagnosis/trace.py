"""`kubelite trace`: show the steps of a pod's start with their times."""

from __future__ import annotations

import sys

import click

from kubelite.cli.containers.chosen_pod import only_pod_name
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_pods, namespace_option, socket_option
from kubelite.cli.output import trace_formats
from kubelite.cli.output.tables import TablePrinter, print_json
from kubelite.telemetry.tracing.trace import spans


@click.command(
    cls=Command,
    examples="""
    # Show the steps of a pod's start
    kubelite trace web

    # Draw them as a waterfall, with the steps inside the container
    kubelite trace web -o wide

    # Write a trace for ui.perfetto.dev
    kubelite trace web -o chrome >web.json
    """,
)
@click.argument("pod", shell_complete=complete_pods)
@namespace_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["wide", "json", "chrome"]),
    metavar="wide|json|chrome",
    help="Output format: wide draws a waterfall, chrome is for ui.perfetto.dev and chrome://tracing.",
)
@socket_option
@click.pass_context
def trace(ctx: click.Context, pod: str, namespace: str | None, output: str | None) -> None:
    """Show the steps of a pod's start with their times.

    The first step is the change of the manifest, the last is the start of the container's program.
    """
    server, where = client(ctx), namespace or "default"
    name = only_pod_name(server, where, pod, "kubelite trace")
    answer = server.get(f"/kubelite/v1/trace/{where}/{name}")
    if output == "json":
        print_json(answer)
        return
    if output == "chrome":
        print_json(trace_formats.chrome(answer))
        return
    steps = answer["steps"]
    if not steps:
        print(
            f"No trace of the start of {answer['pod']}: an earlier daemon started it.",
            file=sys.stderr,
        )
        return
    first, places = steps[0]["at"], spans(steps)
    wide = output == "wide"
    if not wide:  # the container init's steps appear only in the wide form
        places = [place for step, place in zip(steps, places, strict=True) if not step.get("call")]
        steps = [step for step in steps if not step.get("call")]
    rows = [
        [
            f"+{(step['at'] - first) * 1000:.2f} ms",
            f"{step['took'] * 1000:.2f} ms" if step.get("took") is not None else "",
            step.get("container", ""),
            f"  {trace_formats.short(step['step'])}" if step.get("call") else step["step"],
            *([trace_formats.bar(step, *place), step.get("call", "")] if wide else []),
            step.get("error") or step.get("detail", ""),
        ]
        for step, place in zip(steps, places, strict=True)
    ]
    columns = ("At", "Took", "Container", "Step", *(["Waterfall", "Kernel"] if wide else []), "Detail")
    TablePrinter().print(columns, rows)

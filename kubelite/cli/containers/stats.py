"""`kubelite stats`: live resource usage of containers."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.containers.chosen_pod import only_pod_name
from kubelite.cli.containers.top import INTERVAL
from kubelite.cli.errors import Exit
from kubelite.cli.groups import Command
from kubelite.cli.options import (
    all_namespaces_option,
    client,
    complete_pods,
    namespace_option,
    socket_option,
)
from kubelite.cli.output.rates import percent, rates, size_text
from kubelite.cli.output.tables import TablePrinter

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    cls=Command,
    examples="""
    # Show the usage of the containers of all namespaces until Ctrl-C
    kubelite stats -A

    # Show the usage of the containers of a pod once
    kubelite stats --no-stream web
    """,
)
@click.argument("pods", nargs=-1, shell_complete=complete_pods)
@namespace_option
@all_namespaces_option
@click.option("--no-stream", is_flag=True, help="Print the usage once.")
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=INTERVAL,
    show_default=True,
    metavar="SECONDS",
    help="Seconds between updates.",
)
@socket_option
@click.pass_context
def stats(ctx: click.Context, /, pods: tuple[str, ...], **options: Any) -> None:
    """Show live resource usage of containers.

    The output is like that of `docker stats`.
    """
    server = client(ctx)
    where = options["namespace"] or "default"
    wanted = {only_pod_name(server, where, pod, "kubelite stats") for pod in pods}
    screen = sys.stdout.isatty() and not options["no_stream"]
    before = server.get("/kubelite/v1/usage")
    while True:
        try:
            time.sleep(options["interval"])
        except KeyboardInterrupt:
            raise Exit(130) from None
        now = server.get("/kubelite/v1/usage")
        lines = _stats_lines(before, now, wanted, options)
        sys.stdout.write(_screenful(lines) if screen else "".join(f"{line}\n" for line in lines))
        sys.stdout.flush()
        if options["no_stream"]:
            return
        before = now


def _screenful(lines: list[str]) -> str:
    """Redraw the table in place, cut to the size of the terminal."""
    size = shutil.get_terminal_size()
    if len(lines) >= size.lines > 1:
        lines = [*lines[: size.lines - 2], f"… and {len(lines) - size.lines + 2} more"]
    return "\x1b[H" + "".join(f"{line[: size.columns]}\x1b[K\n" for line in lines) + "\x1b[J"


def _stats_lines(before: Json, now: Json, wanted: set[str], options: Json) -> list[str]:
    known = {one["id"]: one for one in before["containers"]}
    networks = {one["uid"]: one for one in now["pods"]}
    rows = []
    every = options["all_namespaces"]
    for one in sorted(now["containers"], key=lambda one: (one["namespace"], one["pod"], one["container"])):
        if one["id"] not in known or (wanted and one["pod"] not in wanted):
            continue
        if not every and one["namespace"] != (options["namespace"] or "default"):
            continue
        rate = rates(known[one["id"]], one, now["now"] - before["now"])
        limit, network = one["memoryLimit"], networks.get(one["uid"], {})
        rows.append(
            [
                *([one["namespace"]] if every else []),
                one["pod"],
                one["container"],
                f"{rate['cpu'] / 10:.1f}%",
                f"{size_text(one['memory'])} / {size_text(limit) if limit else 'none'}",
                percent(one["memory"], limit) if limit else "",
                " / ".join(size_text(network[n]) for n in ("received", "sent") if n in network),
                f"{size_text(one['read'])} / {size_text(one['written'])}",
                str(one["threads"]),
            ]
        )
    columns = ("Pod", "Container", "CPU %", "Mem usage / limit", "Mem %", "Net I/O", "Block I/O", "PIDs")
    return TablePrinter(padding=2).lines(("Namespace", *columns) if every else columns, rows)

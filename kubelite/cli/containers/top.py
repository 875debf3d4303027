"""`kubelite top pods|containers|node`, with kubectl top's columns."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.containers.chosen_pod import only_pod_name
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Group
from kubelite.cli.options import (
    all_namespaces_option,
    client,
    complete_pods,
    namespace_option,
    selector_option,
    socket_option,
)
from kubelite.cli.output.rates import bytes_text, cores_text, percent, rates, size_text
from kubelite.cli.output.tables import TablePrinter, print_json
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

INTERVAL = 1.0  # seconds between the two samples of a rate
_WIDE = (
    "Throttled",
    "CPU wait",
    "Mem wait",
    "IO wait",
    "Net RX/s",
    "Net TX/s",
    "Read/s",
    "Written/s",
    "Threads",
)


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--no-headers", is_flag=True, help="Do not print the header row."),
        click.option(
            "-o",
            "--output",
            type=click.Choice(["wide", "json"]),
            metavar="wide|json",
            help="Output format: wide has more columns.",
        ),
        click.option(
            "--interval",
            type=click.FloatRange(0.05, 60),
            default=INTERVAL,
            show_default=True,
            help="Seconds over which the CPU usage is measured.",
        ),
        socket_option,
    ):
        command = option(command)
    return command


def _sorted(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        namespace_option,
        all_namespaces_option,
        selector_option,
        click.option(
            "--sort-by",
            type=click.Choice(["cpu", "memory"]),
            metavar="cpu|memory",
            help="Sort by this column.",
        ),
        click.option("--sum", "summed", is_flag=True, help="Print the sum in the last line."),
    ):
        command = option(command)
    return command


#: kubectl's aliases
_ALIASES = {"pod": "pods", "po": "pods", "container": "containers", "nodes": "node", "no": "node"}


class _Top(Group):
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, _ALIASES.get(cmd_name, cmd_name))


@click.group(
    cls=_Top,
    context_settings={"help_option_names": ["-h", "--help"]},
    examples="""
    # Show the usage of the pods in all namespaces
    kubelite top pods -A

    # Show the usage of the node
    kubelite top node
    """,
)
def top() -> None:
    """Show CPU and memory usage of pods, containers or the node.

    CPU is the usage of the last second, memory is the working set, as eviction counts it.
    """


@top.command(
    "pods",
    examples="""
    # Show the usage of pods, the highest CPU usage first
    kubelite top pods --sort-by cpu

    # Show the usage of each container of a pod
    kubelite top pods web --containers
    """,
)
@click.argument("pod", required=False, shell_complete=complete_pods)
@click.option("--containers", is_flag=True, help="Show each container.")
@_sorted
@_options
@click.pass_context
def top_pods(ctx: click.Context, /, pod: str | None, containers: bool, **options: Any) -> None:
    """Show CPU and memory usage of pods."""
    _show(ctx, "containers" if containers else "pods", pod, options)


@top.command(
    "containers",
    examples="""
    # Show the usage of all containers, with network and disk
    kubelite top containers -A -o wide
    """,
)
@click.argument("pod", required=False, shell_complete=complete_pods)
@_sorted
@_options
@click.pass_context
def top_containers(ctx: click.Context, /, pod: str | None, **options: Any) -> None:
    """Show CPU and memory usage of containers."""
    _show(ctx, "containers", pod, options)


@top.command(
    "node",
    examples="""
    # Show the usage of the node
    kubelite top node
    """,
)
@_options
@click.pass_context
def top_node(ctx: click.Context, /, **options: Any) -> None:
    """Show CPU and memory usage of the node."""
    before, now = _two_looks(client(ctx), options["interval"])
    found = rates(before["node"], now["node"], now["now"] - before["now"])
    if options["output"] == "json":
        print_json(found)
        return
    columns = ["Name", "CPU(cores)", "CPU(%)", "Memory(bytes)", "Memory(%)"]
    row = [
        found["name"],
        cores_text(found["cpu"]),
        percent(found["cpu"], found["cpuLimit"]),
        bytes_text(found["memory"]),
        percent(found["memory"], found["memoryLimit"]),
    ]
    if options["output"] == "wide":
        columns += _WIDE[1:]
        row += _wide(found)[1:]
    TablePrinter(headers=not options["no_headers"]).print(columns, [row])


def _two_looks(server: Client, interval: float) -> tuple[Json, Json]:
    before = server.get("/kubelite/v1/usage")
    time.sleep(interval)
    return before, server.get("/kubelite/v1/usage")


def _show(ctx: click.Context, what: str, pod: str | None, options: Json) -> None:
    server = client(ctx)
    every = options["all_namespaces"]
    namespace = options["namespace"] or "default"
    if pod:
        pod = only_pod_name(server, namespace, pod, f"kubelite top {what}")
    found = _chosen(server, what, pod, options)
    if options["output"] == "json":
        print_json({"items": found})
        return
    if not found:
        if pod:
            raise CliError(f'Error from server (NotFound): nothing of pod "{pod}" runs in {namespace}')
        print("No resources found" + ("" if every else f" in {namespace} namespace."), file=sys.stderr)
        return
    if options["sort_by"]:
        found.sort(key=lambda one: -one[options["sort_by"]])
    columns = ["Namespace"] if every else []
    columns += ["Pod", "Name"] if what == "containers" else ["Name"]
    columns += ["CPU(cores)", "Memory(bytes)"]
    wide = options["output"] == "wide"
    columns += [*_WIDE, "Memory(%)"] if wide else []
    rows = []
    for one in found:
        row = [one["namespace"]] if every else []
        row += [one["pod"]] + ([one["container"]] if what == "containers" else [])
        row += [cores_text(one["cpu"]), bytes_text(one["memory"])]
        row += [*_wide(one), percent(one["memory"], one["memoryLimit"])] if wide else []
        rows.append(row)
    if options["summed"]:
        total = [
            cores_text(sum(one["cpu"] for one in found)),
            bytes_text(sum(one["memory"] for one in found)),
        ]
        first = columns.index("CPU(cores)")
        rows += [
            [""] * first + cells + [""] * (len(columns) - first - 2) for cells in (["________"] * 2, total)
        ]
    TablePrinter(headers=not options["no_headers"]).print(columns, rows)


def _chosen(server: Client, what: str, pod: str | None, options: Json) -> list[Json]:
    """Return the selected entries with rates in place of counters. Omit entries missing from the first sample: they
    have no rate yet."""
    before, now = _two_looks(server, options["interval"])
    known = {one["id"]: one for one in before[what]}
    found = [
        rates(known[one["id"]], one, now["now"] - before["now"]) for one in now[what] if one["id"] in known
    ]
    if not options["all_namespaces"]:
        found = [one for one in found if one["namespace"] == (options["namespace"] or "default")]
    if pod:
        found = [one for one in found if one["pod"] == pod]
    if options["selector"]:
        items = server.get("/api/v1/pods", query={"labelSelector": options["selector"]})["items"]
        uids = {item["metadata"]["uid"] for item in items}
        found = [one for one in found if one["uid"] in uids]
    return sorted(found, key=lambda one: (one["namespace"], one["pod"], one.get("container", "")))


def _wide(one: Json) -> list[str]:
    stalled = one.get("stalled", {})
    return [
        percent(one["throttled"], one["periods"]) if one.get("periods") else "",
        *(f"{stalled[name] * 100:.1f}%" if name in stalled else "" for name in ("cpu", "memory", "io")),
        *(size_text(one[name]) if name in one else "" for name in ("received", "sent", "read", "written")),
        str(one["threads"]),
    ]

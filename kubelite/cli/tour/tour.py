"""`kubelite tour`: show how containers work inside, station by station."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

import click

from kubelite.cli.errors import CliError, Exit, Unreachable
from kubelite.cli.groups import Command
from kubelite.cli.options import client, socket_option
from kubelite.cli.signals import exit_on_signals

if TYPE_CHECKING:
    from kubelite.cli.tour.guide import Guide


class Station(NamedTuple):
    """A part of the tour: the module of the same name in this package, whose `visit(guide)` runs it."""

    name: str
    title: str


STATIONS = (
    Station("processes", "Who starts whom"),
    Station("disk", "What is on the disk"),
    Station("overlay", "The root file system: overlay and copy-on-write"),
    Station("inspect", "All that is known of a container"),
    Station("network", "Bridge, veth pair, routes and ports"),
    Station("images", "Images: stages, caches, registries and digests"),
    Station("bundle", "The OCI bundle by hand"),
    Station("limits", "Limits, and signals to process 1"),
    Station("start", "One start, from the manifest to execve"),
)
NAMES = tuple(station.name for station in STATIONS)


def _complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in NAMES if name.startswith(incomplete)]


@click.command(
    cls=Command,
    examples="""
    # Walk through all stations
    kubelite tour

    # Visit one of them
    kubelite tour overlay

    # List the stations
    kubelite tour --list

    # Run everything without waiting, and fail if a check fails
    kubelite tour --check

    # Write a station as a page
    kubelite tour network -o markdown >network.md
    """,
)
@click.argument("stations", nargs=-1, metavar="[STATION...]", shell_complete=_complete)
@click.option("--check", is_flag=True, help="Do not wait for Enter; exit with 1 if a check fails.")
@click.option("--list", "listed", is_flag=True, help="List the stations and exit.")
@click.option(
    "--kill-daemon",
    is_flag=True,
    help="Also kill the daemon with SIGKILL, and start it again, where the tour shows it.",
)
@click.option(
    "-o", "--output", type=click.Choice(["markdown"]), metavar="markdown", help="Write the tour as a page."
)
@socket_option
@click.pass_context
def tour(
    ctx: click.Context,
    stations: tuple[str, ...],
    *,
    check: bool,
    listed: bool,
    kill_daemon: bool,
    output: str | None,
) -> None:
    """Show how containers work inside, on this node.

    Each station runs real commands on containers of its own, shows the kernel's side beside kubelite's, and checks
    what it says. It needs root and a running node. All that it makes is in the namespace kubelite-tour or has that
    name, and is removed at the end, also after Ctrl-C.
    """
    if listed:
        for place, station in enumerate(STATIONS, 1):
            print(f"{place}  {station.name:<10}  {station.title}")
        return
    chosen = [_station(name) for name in stations] or list(STATIONS)
    _check_ready(ctx)
    from kubelite.cli.tour.guide import Guide

    waits = not check and output is None and os.isatty(0) and os.isatty(1)
    guide = Guide(ctx.obj["socket"], waits=waits, markdown=output == "markdown", kills_daemon=kill_daemon)
    with exit_on_signals(), guide:
        _say_where(guide)
        for station in chosen:
            _visit(station, guide)
    _sum_up(guide)


def _station(name: str) -> Station:
    """Find a station by its name or number."""
    for place, station in enumerate(STATIONS, 1):
        if name in (station.name, str(place)):
            return station
    raise CliError(f"there is no station {name!r}; the stations are {', '.join(NAMES)}", code=2)


def _check_ready(ctx: click.Context) -> None:
    if os.geteuid() != 0:
        raise CliError(
            "the tour looks into the kernel's side of containers: run it as root (sudo kubelite tour)"
        )
    try:
        client(ctx).get("/version")
    except Unreachable as error:
        start = "`sudo make run` in a checkout, or `systemctl start kubelite` if it is installed"
        raise CliError(f"the tour needs a running node; start one with {start}\n({error})") from error
    for finding in client(ctx).get("/kubelite/v1/doctor")["findings"]:
        if finding["check"] == "disk":
            raise CliError(f"the tour cannot run here: {finding['message']}; {finding['fix']}")


def _say_where(guide: Guide) -> None:
    """Say what differs if the tour runs in a container itself."""
    from kubelite.cli.tour.kernel import container_manager

    if manager := container_manager():
        guide.say(
            f"This tour runs in a container ({manager}), and so does its node. What it shows is this container's: pids "
            "are those of its pid namespace, cgroup paths begin at its cgroup, and bridge, rules and ports of the host "
            "are those of its network namespace. The node's containers are real ones all the same: the kernel nests "
            "namespaces and cgroups, and runs each system call once."
        )


def _visit(station: Station, guide: Guide) -> None:
    module = importlib.import_module(f"kubelite.cli.tour.{station.name}")
    guide.title(f"{STATIONS.index(station) + 1}. {station.title}")
    guide.say(module.INTRODUCTION)
    module.visit(guide)


def _sum_up(guide: Guide) -> None:
    """Print how many checks passed. With Markdown this goes to standard error, because the numbers depend on the
    machine's programs and the page must not."""
    with contextlib.redirect_stdout(sys.stderr if guide.markdown else sys.stdout):
        _count(guide)
    if guide.failed:
        raise Exit(1)


def _count(guide: Guide) -> None:
    if guide.left_out:
        print("Left out on this machine:")
        for what in guide.left_out:
            print(f"  {what}")
    print(f"{guide.passed} checks passed, {len(guide.failed)} failed.")
    for claim in guide.failed:
        print(f"  failed: {claim}")

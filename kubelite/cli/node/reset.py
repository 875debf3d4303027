"""`kubelite reset`: stop the node and remove its pods and network. It works without a daemon."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.output.waiting import waiting

if TYPE_CHECKING:
    from kubelite.settings import Settings


@click.command(
    context_settings={"max_content_width": 110},
    cls=Command,
    examples="""
    # End everything that runs on the node, and ask first
    sudo kubelite reset

    # In a script: no question, and pods have at most a minute to end
    sudo kubelite reset --yes --timeout 1m
    """,
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--now", is_flag=True, help="Kill the containers immediately, without stop signal.")
@click.option(
    "--timeout",
    metavar="DURATION",
    help="Maximum time that pods have to end. [default: the grace period of each pod]",
)
@click.option(
    "--root",
    type=click.Path(file_okay=False),
    help="Directory of state, images and pods. [default: /var/lib/kubelite]",
)
@click.option(
    "--run-dir",
    type=click.Path(file_okay=False),
    help="Directory of sockets and temporary state. [default: /run/kubelite]",
)
@click.option(
    "--log-dir", type=click.Path(file_okay=False), help="Directory of container logs. [default: /var/log]"
)
@click.option("--bridge", metavar="NAME", help="Bridge of the pod network. [default: kubelite0]")
@click.option(
    "--pod-cidr", metavar="CIDR", help="IPv4 range of pod addresses, and IPv6 range. [default: 10.88.0.0/16]"
)
@click.option("--cgroup-parent", metavar="NAME", help="Cgroup of the node. [default: kubelite]")
@click.option("--node-name", metavar="NAME", help="Name of the node. [default: the host name]")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration file. [default: /etc/kubelite/config.yaml]",
)
@click.pass_context
def reset(ctx: click.Context, /, yes: bool, now: bool, timeout: str | None, **flags: Any) -> int:
    """Stop the node, and remove its pods and network.

    Pods end as if they were deleted: preStop hooks, stop signals and grace periods. What is removed for good is listed
    first, such as logs, history and labels of the node. Images, manifests and the data of claims are retained. The
    flags from --root on are those of `kubelite serve`, and --socket does not select the node.
    """
    import asyncio
    import os

    from kubelite.daemon.lifecycle import StartupError
    from kubelite.daemon.reset import reset as run
    from kubelite.settings import Settings, SettingsError
    from runtime.errors import RuntimeFault

    if os.geteuid() != 0:
        raise CliError("error: reset needs root (try sudo)")
    steps = 0

    def say(step: str) -> None:
        nonlocal steps
        steps += 1
        line.print(step)

    seconds = _seconds(timeout)
    if now and seconds is not None:
        raise click.UsageError("--now and --timeout exclude each other")
    try:
        settings = Settings.load(flags)
        if not flags["run_dir"]:
            _refuse_another_node(ctx.obj["socket"], settings)
        _confirm(settings, yes=yes, now=now, timeout=seconds)
        with waiting("stopping the node") as line:
            asyncio.run(run(settings, say, now=now, timeout=seconds))
        if not steps:
            click.echo(f"nothing runs: {settings.run_dir} has no daemon, pod or network to remove")
    except SettingsError as error:
        raise CliError(f"error: {error}", code=2) from error
    except (RuntimeFault, StartupError) as error:
        raise CliError(f"error: {error}") from error
    except KeyboardInterrupt:
        raise CliError(
            "interrupted: some pods may still run or end; kubelite reset continues, "
            "kubelite reset --now kills them, and kubelite serve looks after them again",
            code=130,
        ) from None
    return 0


def _refuse_another_node(socket: str, settings: Settings) -> None:
    """Raise CliError if --socket or KUBELITE_SOCKET names another node than the one that the settings are of."""
    from kubelite.cli.main import DEFAULT_SOCKET

    if socket not in (DEFAULT_SOCKET, settings.socket):
        raise CliError(
            f"error: {socket} is the socket of another node than the one that this would end, which runs in "
            f"{settings.run_dir}: add the flags of that node's `kubelite serve`, such as --run-dir; or unset "
            "KUBELITE_SOCKET to end this one",
            code=2,
        )


def _seconds(timeout: str | None) -> float | None:
    from kubelite.kube.durations import parse_duration

    try:
        return parse_duration(timeout) if timeout is not None else None
    except ValueError as error:
        raise click.UsageError(f"--timeout: {error}") from error


def _confirm(settings: Settings, *, yes: bool, now: bool, timeout: float | None) -> None:
    """List what will be lost, and ask for confirmation. If nothing will be lost, do not ask."""
    from kubelite.daemon.losses import described, find_losses

    lines = described(find_losses(settings), now=now, timeout=timeout)
    if not lines:
        return
    click.echo("\n".join(lines))
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(
            "error: reset asks before it removes this, and there is no terminal to ask on: use --yes"
        )
    if not click.confirm("Continue?"):
        raise CliError("nothing was changed")

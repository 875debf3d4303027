"""`kubelite reset`: stop the node and remove its pods and network. It works without a daemon."""

from __future__ import annotations

from typing import Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command


@click.command(
    context_settings={"max_content_width": 110},
    cls=Command,
    examples="""
    # Remove everything that runs on the node
    sudo kubelite reset
    """,
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
@click.option("--pod-cidr", metavar="CIDR", help="IPv4 range of pod addresses. [default: 10.88.0.0/16]")
@click.option("--cgroup-parent", metavar="NAME", help="Cgroup of the node. [default: kubelite]")
@click.option("--node-name", metavar="NAME", help="Name of the node. [default: the host name]")
@click.option(
    "--config",
    type=click.Path(dir_okay=False),
    help="Configuration file. [default: /etc/kubelite/config.yaml]",
)
def reset(**flags: Any) -> int:
    """Stop the node, and remove its pods and network.

    Images and manifests are retained. The flags are those of `kubelite serve`.
    """
    import asyncio
    import os

    from kubelite.daemon.reset import reset as run
    from kubelite.settings import Settings, SettingsError
    from runtime.errors import RuntimeFault

    if os.geteuid() != 0:
        raise CliError("error: reset needs root (try sudo)")
    try:
        settings = Settings.load(flags)
        asyncio.run(run(settings, click.echo))
    except SettingsError as error:
        raise CliError(f"error: {error}", code=2) from error
    except RuntimeFault as error:
        raise CliError(f"error: {error}") from error
    return 0

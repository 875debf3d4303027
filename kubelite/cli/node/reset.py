"""`kubelite reset`: end the node, its pods and its network; loaded only here because it works without a daemon."""

from __future__ import annotations

from typing import Any

import click

from kubelite.cli.errors import CliError


@click.command(context_settings={"max_content_width": 110})
@click.option(
    "--root", type=click.Path(file_okay=False), help="State, images, pods [default: /var/lib/kubelite]"
)
@click.option("--run-dir", type=click.Path(file_okay=False), help="Socket and shims [default: /run/kubelite]")
@click.option("--log-dir", type=click.Path(file_okay=False), help="Logs [default: /var/log]")
@click.option("--bridge", metavar="NAME", help="Bridge of the pod network.")
@click.option("--pod-cidr", metavar="CIDR", help="Addresses of the pods.")
@click.option("--cgroup-parent", metavar="NAME", help="Cgroup under which everything of this node is.")
@click.option("--node-name", metavar="NAME", help="Name of this node [default: the host's]")
@click.option("--config", type=click.Path(dir_okay=False), help="Settings file.")
def reset(**flags: Any) -> int:
    """End the daemon, every pod and the network of this node. Images and manifests stay."""
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

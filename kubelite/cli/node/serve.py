"""`kubelite serve`: the flags of the daemon, which is imported only when the command runs."""

from __future__ import annotations

from typing import Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command

# Settings.load resolves the rest: flag, then KUBELITE_… in the environment, then the configuration file, then defaults.
_DIRECTORY = click.Path(file_okay=False)


@click.command(
    context_settings={"max_content_width": 110},
    cls=Command,
    examples="""
    # Run the node with the settings in /etc/kubelite/config.yaml
    kubelite serve

    # Watch another directory of manifests
    kubelite serve --manifests /srv/manifests

    # Run a second node beside the first
    kubelite serve --config /etc/kubelite/second.yaml
    """,
)
@click.option(
    "--manifests", type=_DIRECTORY, help="Directory of manifests to watch. [default: /etc/kubelite/manifests]"
)
@click.option(
    "--root", type=_DIRECTORY, help="Directory of state, images and pods. [default: /var/lib/kubelite]"
)
@click.option(
    "--run-dir",
    type=_DIRECTORY,
    help="Directory of sockets and temporary state. [default: /run/kubelite]",
)
@click.option("--log-dir", type=_DIRECTORY, help="Directory of container logs. [default: /var/log]")
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help="Address for metrics and health checks. [default: 127.0.0.1:10255]",
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
def serve(**flags: Any) -> int:
    """Run the node.

    Watches the manifest directory and runs its pods. Pods keep running when this command ends. Settings come from
    these flags, environment variables and the configuration file, in this order; not all settings have a flag. SIGHUP
    (`systemctl reload kubelite`) reads them again, and logs which of the changed ones need a restart.
    """
    from kubelite.daemon.lifecycle import serve as run
    from kubelite.settings import Settings, SettingsError

    try:
        settings = Settings.load(flags)
    except SettingsError as error:
        raise CliError(f"error: {error}", code=2) from error
    return run(settings, lambda: Settings.load(flags))

"""`kubelite serve`: flags for the daemon, which is loaded only here."""

from __future__ import annotations

from typing import Any

import click

from kubelite.cli.errors import CliError

# Settings.load reads the rest: flag, then KUBELITE_… in the environment, then the configuration file, then defaults.
_DIRECTORY = click.Path(file_okay=False)


@click.command(context_settings={"max_content_width": 110})
@click.option("--manifests", type=_DIRECTORY, help="Watched directory [default: /etc/kubelite/manifests]")
@click.option("--root", type=_DIRECTORY, help="State, images, pods [default: /var/lib/kubelite]")
@click.option(
    "--run-dir", type=_DIRECTORY, help="Socket and shims; gone after a reboot [default: /run/kubelite]"
)
@click.option("--log-dir", type=_DIRECTORY, help="Logs [default: /var/log]")
@click.option("--listen", metavar="HOST:PORT", help="/metrics, /healthz, /readyz [default: 127.0.0.1:10255]")
@click.option("--bridge", metavar="NAME", help="Bridge of the pod network.")
@click.option("--pod-cidr", metavar="CIDR", help="Addresses of the pods.")
@click.option("--cgroup-parent", metavar="NAME", help="Cgroup under which everything of this node is.")
@click.option("--node-name", metavar="NAME", help="Name of this node [default: the host's]")
@click.option(
    "--config", type=click.Path(dir_okay=False), help="Settings file [default: /etc/kubelite/config.yaml]"
)
def serve(**flags: Any) -> int:
    """Run the node: watch the manifests directory and keep what it says running."""
    from kubelite.daemon.lifecycle import serve as run
    from kubelite.settings import Settings, SettingsError

    try:
        settings = Settings.load(flags)
    except SettingsError as error:
        raise CliError(f"error: {error}", code=2) from error
    return run(settings)

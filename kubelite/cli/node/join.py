"""`kubelite join` and `kubelite leave`: membership in a Kubernetes cluster."""

from __future__ import annotations

import base64
import os
import sys
from typing import Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import duration
from kubelite.cli.options import client, socket_option


@click.command(
    cls=Command,
    context_settings={"ignore_unknown_options": True},
    examples="""
    # Join the cluster of a control plane by what `kubeadm token create --print-join-command` prints
    kubelite join 10.0.0.1:6443 --token a.b --discovery-token-ca-cert-hash sha256:1234...

    # The line from standard input
    ssh control-plane kubeadm token create --print-join-command | kubelite join -

    # Join by a kubeconfig whose user may create certificate requests
    kubelite join --kubeconfig bootstrap-kubelet.conf
    """,
)
@click.option(
    "--kubeconfig",
    default="",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Join the cluster of this kubeconfig.",
)
@click.argument("line", nargs=-1, type=click.UNPROCESSED)
@socket_option
@click.pass_context
def join(ctx: click.Context, /, line: tuple[str, ...], kubeconfig: str) -> None:
    """Make the running node a node of a Kubernetes cluster.

    The pods of the manifest directory keep running, and remain the node's own. Pods that the cluster's scheduler binds
    to the node run beside them.
    """
    words = sys.stdin.read() if line == ("-",) else " ".join(line)
    if bool(words.strip()) == bool(kubeconfig):
        raise CliError(
            "error: give the join command of the cluster, or --kubeconfig FILE: see kubelite join --help"
        )
    wanted = {"kubeconfig": _inline(kubeconfig)} if kubeconfig else {"line": words}
    said = client(ctx).post("/kubelite/v1/cluster", wanted)
    for sentence in said["steps"]:
        click.echo(sentence)


def _inline(file: str) -> str:
    """Return the text of a kubeconfig with the files that it names in it. Raises CliError."""
    import yaml

    try:
        with open(file, encoding="utf-8") as opened:
            document = yaml.safe_load(opened)
        entries = [one.get("cluster") for one in document.get("clusters") or ()]
        entries += [one.get("user") for one in document.get("users") or ()]
        for entry in filter(None, entries):
            _replace_files(entry, os.path.dirname(os.path.abspath(file)))
    except (OSError, yaml.YAMLError, AttributeError, UnicodeDecodeError) as error:
        raise CliError(f"error: cannot read the kubeconfig {file}: {error}") from error
    return yaml.safe_dump(document)


def _replace_files(entry: dict[str, Any], directory: str) -> None:
    for key in ("certificate-authority", "client-certificate", "client-key"):
        if path := entry.pop(key, None):
            with open(os.path.join(directory, path), "rb") as opened:
                entry[f"{key}-data"] = base64.b64encode(opened.read()).decode()
    if path := entry.pop("tokenFile", None):
        with open(os.path.join(directory, path), encoding="utf-8") as opened:
            entry["token"] = opened.read().strip()


@click.command(
    cls=Command,
    examples="""
    # Leave the cluster: its pods are evicted, and the Node is deleted
    kubelite leave

    # Leave a cluster that does not answer any more
    kubelite leave --force --timeout=10s
    """,
)
@click.option("--force", is_flag=True, help="Leave also if pods stay, or if the cluster does not answer.")
@click.option(
    "--timeout", default="5m", show_default=True, metavar="DURATION", help="Time for the pods to end."
)
@socket_option
@click.pass_context
def leave(ctx: click.Context, /, *, force: bool, timeout: str) -> None:
    """Take the node out of its cluster.

    The cluster's pods are evicted, as disruption budgets allow. The pods of the manifest directory keep running.
    """
    seconds = max(1, round(duration(timeout)))
    query = {"seconds": str(seconds), **({"force": "true"} if force else {})}
    said = client(ctx).json("DELETE", "/kubelite/v1/cluster", query=query)
    for sentence in said["steps"]:
        click.echo(sentence)

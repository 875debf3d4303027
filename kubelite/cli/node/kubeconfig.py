"""`kubelite kubeconfig`: open the node's API to kubectl and other Kubernetes clients, and print their configuration."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
import time
from typing import Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import socket_option
from kubelite.cli.transport.client import Client
from kubelite.kube.times import rfc3339

ADMIN = ("kubelite-admin", ("system:masters",))
_LOGIN, _HOUR = "client.authentication.k8s.io/v1", 3600
READER = ("kubelite-reader", ("kubelite:readers",))


@click.command(
    cls=Command,
    examples="""
    # Let kubectl reach this node as an administrator
    kubelite kubeconfig --file ~/.kube/kubelite

    # For somebody who may read everything except Secrets, for a day
    kubelite kubeconfig --read-only --valid-for 24h > reader.kubeconfig

    # For a user with the rights that RoleBindings give to jane and to the group dev
    kubelite kubeconfig --user jane --group dev --file jane.kubeconfig
    """,
)
@click.option(
    "--read-only", is_flag=True, help="The user may read everything except Secrets, and change nothing."
)
@click.option("--user", default="", metavar="NAME", help="Name of a user, whose rights roles define.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Group of the user; repeatable.")
@click.option(
    "--valid-for",
    default="365d",
    show_default=True,
    metavar="TIME",
    help="How long the client certificate is valid, for example 8h or 30d.",
)
@click.option(
    "--server",
    default="",
    metavar="URL",
    help="URL at which the client reaches the API. [default: the node's api_address]",
)
@click.option(
    "--file",
    default="",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write the kubeconfig to this file, which only its owner can read, instead of printing it.",
)
@click.option(
    "--on-demand",
    is_flag=True,
    help="Print a kubeconfig without a secret, for root on this machine. The client runs `kubelite kubeconfig "
    "--credential` when it connects; that opens the port and prints a certificate.",
)
@click.option(
    "--credential",
    is_flag=True,
    help="Print a client certificate that is valid for an hour. Clients with an --on-demand kubeconfig run this.",
)
@socket_option
@click.pass_context
def kubeconfig(ctx: click.Context, /, file: str, server: str, valid_for: str, **options: Any) -> None:
    """Print a kubeconfig for kubectl and other clients.

    The first use opens the port that the setting api_address names (127.0.0.1:6443); it stays open from then on. The
    kubeconfig has a client certificate. Whoever has it is that user until it expires, so keep it secret.
    """
    import yaml

    from kubelite.kube.durations import parse_duration

    try:
        seconds = parse_duration(valid_for, days=True)
    except ValueError as error:
        raise CliError(f"error: --valid-for: {error}") from error
    on_demand, credential = options.pop("on_demand"), options.pop("credential")
    user, groups = _identity(**options)
    if on_demand and (credential or (user, groups) != ADMIN):
        raise CliError("error: --on-demand is for the administrator: leave the other options out")
    client = Client(ctx.obj["socket"])
    wanted = {"user": user, "groups": list(groups), "seconds": _HOUR if credential else seconds}
    made = client.post("/kubelite/v1/kubeconfig", {} if on_demand else wanted)
    if credential:
        click.echo(json.dumps(exec_credential(made, time.time() + _HOUR)))
        return
    login = _by_command(ctx.obj["socket"]) if on_demand else _by_certificate(made)
    text = yaml.safe_dump(document(made, user, login, server), sort_keys=False)
    if file:
        _write(file, text)
        click.echo(f"kubectl --kubeconfig {file} get pods")
    else:
        click.echo(text, nl=False)


def _identity(read_only: bool, user: str, groups: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    if read_only and (user or groups):
        raise CliError("error: --read-only excludes --user and --group: leave one of them out")
    if groups and not user:
        raise CliError("error: --group needs --user: add --user NAME")
    return (user, groups) if user else READER if read_only else ADMIN


def document(made: dict[str, Any], user: str, login: dict[str, Any], server: str = "") -> dict[str, Any]:
    """Return the kubeconfig for what the daemon has answered. Source: client-go tools/clientcmd/api/v1/types.go."""
    cluster = {"certificate-authority-data": _data(made["authority"]), "server": server or made["server"]}
    context = {"cluster": "kubelite", "user": user}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "kubelite", "cluster": cluster}],
        "contexts": [{"name": "kubelite", "context": context}],
        "current-context": "kubelite",
        "users": [{"name": user, "user": login}],
    }


def exec_credential(made: dict[str, Any], expires: float) -> dict[str, Any]:
    """Return what a client expects of a command that logs it in (client-go pkg/apis/clientauthentication/v1)."""
    status = {
        "clientCertificateData": made["certificate"],
        "clientKeyData": made["key"],
        "expirationTimestamp": rfc3339(expires),
    }
    return {"apiVersion": _LOGIN, "kind": "ExecCredential", "status": status}


def _by_certificate(made: dict[str, Any]) -> dict[str, Any]:
    return {"client-certificate-data": _data(made["certificate"]), "client-key-data": _data(made["key"])}


def _by_command(socket: str) -> dict[str, Any]:
    """Return the login of a client that runs `kubelite kubeconfig --credential` for its certificate. Root alone can
    run that."""
    program = shutil.which("kubelite")
    arguments = ["kubeconfig", "--credential", "--socket", socket]
    if program is None:  # in a checkout
        program, arguments = sys.executable, ["-P", "-m", "kubelite", *arguments]
    command = {"apiVersion": _LOGIN, "command": program, "args": arguments}
    return {"exec": {**command, "interactiveMode": "Never", "provideClusterInfo": False}}


def _data(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _write(file: str, text: str) -> None:
    """Replace the file by a new one that only its owner can read. Raises CliError."""
    temporary = f"{file}.tmp"
    try:
        os.makedirs(os.path.dirname(os.path.abspath(file)), mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as written:
            os.fchmod(written.fileno(), 0o600)
            written.write(text)
        os.replace(temporary, file)
    except OSError as error:
        raise CliError(f"error: cannot write {file}: {error.strerror}") from error

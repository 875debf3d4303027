"""`kubelite login`: log in to a registry. The node saves its logins in <root>/auth.json."""

from __future__ import annotations

import sys

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, socket_option

_HUB = "docker.io"


@click.command(
    cls=Command,
    examples="""
    # Log in to Docker Hub; user name and password are asked for
    kubelite login

    # Log in to another registry, with the password from a file
    kubelite login quay.io -u robot --password-stdin <password.txt
    """,
)
@click.argument("registry", default=_HUB)
@click.option("-u", "--username", metavar="NAME", help="User name.")
@click.option(
    "-p",
    "--password",
    metavar="PASSWORD",
    help="Password. Other users may see it: prefer --password-stdin.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@socket_option
@click.pass_context
def login(
    ctx: click.Context, registry: str, username: str | None, password: str | None, password_stdin: bool
) -> None:
    """Log in to a registry.

    The default is docker.io. The pods of this node use the login, too. Logins of docker and podman (config.json,
    auth.json and their credential helpers) are also used; imagePullSecrets of a pod have precedence over all of
    them.
    """
    if password_stdin and password is not None:
        raise click.UsageError("--password and --password-stdin are mutually exclusive")
    if password_stdin:
        if not username:
            raise click.UsageError("must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif not sys.stdin.isatty() and (not username or password is None):
        raise CliError("error: not a terminal: use --username and --password-stdin")
    username = username or click.prompt("Username", type=str, err=True)
    if password is None:
        password = click.prompt("Password", type=str, hide_input=True, err=True)
    if not password:
        raise CliError("error: password is empty")
    client(ctx).post("/kubelite/v1/login", {"registry": registry, "username": username, "password": password})
    print("Login Succeeded!")

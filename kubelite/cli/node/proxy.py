"""`kubelite proxy`: let kubectl and other clients of the Kubernetes API reach the node over TCP."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import socket_option
from kubelite.cli.transport.client import connect


@click.command(
    cls=Command,
    examples="""
    # Serve the API on port 8001 of the loopback address
    kubelite proxy

    # On a free port, with the kubeconfig in a file of your choice
    kubelite proxy --port 0 --kubeconfig /root/kubelite.kubeconfig
    """,
)
@click.option(
    "-p",
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    metavar="PORT",
    help="Port to listen on; 0: any free port.",
)
@click.option(
    "--kubeconfig",
    "file",
    default="",
    metavar="FILE",
    type=click.Path(),
    help="File to create for the kubeconfig. [default: a new file in XDG_RUNTIME_DIR or the temporary directory]",
)
@socket_option
@click.pass_context
def proxy(ctx: click.Context, port: int, file: str) -> None:
    """Serve the Kubernetes API on a loopback port, for kubectl.

    The command writes a kubeconfig that only its owner can read, and prints its path. Only clients that use it have
    access: it contains a random secret. Requests of web pages are refused. The file is removed when the command ends.
    """
    path: str = ctx.obj["socket"]
    connect(path).close()  # report a missing daemon before anything is written
    secret = secrets.token_urlsafe(32)
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", port)))
        except OSError as error:
            raise CliError(f"error: unable to listen on 127.0.0.1:{port}: {error.strerror}") from error
        port = listener.getsockname()[1]
        file = stack.enter_context(_written(file, kubeconfig(port, secret)))
        print(f"Starting to serve on 127.0.0.1:{port}")
        print(f"kubectl --kubeconfig={file} get pods", flush=True)
        asyncio.run(_serve(listener, path, secret))


def kubeconfig(port: int, secret: str) -> str:
    """Return the kubeconfig of a client (JSON is YAML). Pure."""
    name = "kubelite"
    server = f"http://127.0.0.1:{port}/{secret}"
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server}}],
            "users": [],
            "contexts": [{"name": name, "context": {"cluster": name, "user": ""}}],
            "current-context": name,
        },
        indent=2,
    )


@contextlib.contextmanager
def _written(file: str, text: str) -> Iterator[str]:
    """Write the text into a new file that only its owner can open, and remove it at the end. Raises CliError."""
    try:
        if file:
            file = os.path.abspath(file)
            number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        else:
            directory = os.environ.get("XDG_RUNTIME_DIR") or None
            number, file = tempfile.mkstemp(".kubeconfig", "kubelite-proxy-", directory)
    except OSError as error:
        raise CliError(f"error: cannot create {file or 'a kubeconfig'}: {error.strerror}") from error
    try:
        with os.fdopen(number, "w", encoding="utf-8") as written:
            written.write(text + "\n")
        yield file
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(file)


async def _serve(listener: socket.socket, path: str, secret: str) -> None:
    """Serve until a signal ends the command."""
    from kubelite.cli.transport.proxy import Proxy

    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    server = await asyncio.start_server(Proxy(path, secret).serve, sock=listener)
    await ended.wait()
    server.close()  # connections end with the command

"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from kubelite.cli.transport.client import Client

F = TypeVar("F", bound=Callable[..., Any])


def _set_socket(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        ctx.ensure_object(dict)
        ctx.obj["socket"] = value


# Global flags may also follow the command, as in kubectl.
socket_option = click.option(
    "--socket",
    metavar="PATH",
    expose_value=False,
    is_eager=True,
    callback=_set_socket,
    help="Path of the daemon's socket.",
)
namespace_option = click.option(
    "-n", "--namespace", metavar="NS", help="Namespace of the objects. [default: default]"
)
all_namespaces_option = click.option("-A", "--all-namespaces", is_flag=True, help="Include all namespaces.")
selector_option = click.option(
    "-l",
    "--selector",
    default="",
    metavar="SELECTOR",
    help="Label selector, like app=web,tier!=db,env in (a,b).",
)
files_option = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    metavar="FILE|DIR|-",
    help="Manifest file or directory; - reads standard input.",
    type=click.Path(),
)
recursive_option = click.option("-R", "--recursive", is_flag=True, help="Include subdirectories of DIR.")


def client(ctx: click.Context) -> Client:
    return Client(ctx.obj["socket"])


def complete_pods(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of pod names: empty if the daemon does not answer."""
    return [doc["metadata"]["name"] for doc in _pods(ctx) if doc["metadata"]["name"].startswith(incomplete)]


def complete_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of TYPE NAME...: types, then pod names."""
    from kubelite.cli.names import PODS, TYPES

    given = ctx.params.get("what") or ()
    if not given:
        return [t.plural for t in TYPES if t.plural.startswith(incomplete)]
    return (
        complete_pods(ctx, param, incomplete) if given[0] in (PODS.plural, PODS.singular, *PODS.short) else []
    )


def complete_containers(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    pod = ctx.params.get("pod") or ""
    return [
        container["name"]
        for doc in _pods(ctx)
        if doc["metadata"]["name"] == pod.rpartition("/")[2]
        for container in (
            doc["spec"].get("containers", [])
            + doc["spec"].get("initContainers", [])
            + doc["spec"].get("ephemeralContainers", [])
        )
        if container["name"].startswith(incomplete)
    ]


def complete_images(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of the names of the node's images, in docker's short form too."""
    found = _ask(ctx, "/kubelite/v1/images").get("images") or ()
    names = [image["reference"] for image in found if image.get("reference")]
    short = [name.removeprefix("docker.io/library/").removeprefix("docker.io/") for name in names]
    return [name for name in (short if incomplete else names) if name.startswith(incomplete)] or [
        name for name in names if name.startswith(incomplete)
    ]


def _pods(ctx: click.Context) -> list[dict[str, Any]]:
    namespace = ctx.params.get("namespace") or "default"
    found: list[dict[str, Any]] = _ask(ctx, f"/api/v1/namespaces/{namespace}/pods").get("items") or []
    return found


def _ask(ctx: click.Context, path: str) -> dict[str, Any]:
    """Return the daemon's answer during completion; {} if it does not answer within a second."""
    from kubelite.cli.errors import CliError
    from kubelite.cli.main import DEFAULT_SOCKET

    # During completion, the group's callback has not run.
    given = (ctx.obj or {}).get("socket") or ctx.find_root().params.get("socket")
    socket = given or os.environ.get("KUBELITE_SOCKET") or DEFAULT_SOCKET
    try:
        found: dict[str, Any] = Client(socket, timeout=1.0).get(path)
    except CliError:
        return {}
    return found


container_option = click.option(
    "-c",
    "--container",
    default="",
    metavar="NAME",
    shell_complete=complete_containers,
    help="Name of the container. [default: the pod's default container, or its first]",
)

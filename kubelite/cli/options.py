"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubelite.cli.names import PODS, TYPES, WORKLOADS, Type, path_of
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

F = TypeVar("F", bound=Callable[..., Any])


def _set_socket(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value:
        ctx.ensure_object(dict)
        ctx.obj["socket"] = value


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


def complete_namespaces(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of the namespaces that have objects."""
    items = _ask(ctx, "/api/v1/namespaces").get("items") or ()
    return [name for item in items if (name := item["metadata"]["name"]).startswith(incomplete)]


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
    "-n",
    "--namespace",
    metavar="NS",
    shell_complete=complete_namespaces,
    help="Namespace of the objects. [default: default]",
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
    metavar="FILE|DIR|URL|-",
    help="Manifest file, directory or http(s) address; - reads standard input.",
    type=click.Path(),
)
recursive_option = click.option("-R", "--recursive", is_flag=True, help="Include subdirectories of DIR.")


def client(ctx: click.Context) -> Client:
    return Client(ctx.obj["socket"])


def complete_pods(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of pod names, and of `pod/NAME`: empty if the daemon does not answer."""
    word, slash, prefix = incomplete.partition("/")
    names = [doc["metadata"]["name"] for doc in _pods(ctx)]
    if slash:
        return [f"{word}/{name}" for name in names if name.startswith(prefix) and _type(word) is PODS]
    return [name for name in names if name.startswith(incomplete)]


def complete_pods_and_workloads(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of POD or TYPE/NAME: pods, and workloads once the beginning of their type is written."""
    word, slash, prefix = incomplete.partition("/")
    if slash:
        return _named(ctx, word, prefix, (PODS, *WORKLOADS))
    kinds = [kind for kind in WORKLOADS if word and kind.singular.startswith(word)]
    found = [name for kind in kinds for name in _named(ctx, kind.singular, "", WORKLOADS)]
    return complete_pods(ctx, param, incomplete) + found


def complete_types(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of TYPE NAME... and TYPE/NAME...: types, then the names of that type."""
    word, slash, prefix = incomplete.partition("/")
    if slash:
        return _named(ctx, word, prefix, TYPES)
    given = ctx.params.get("what") or ()
    if not given:
        return [t.plural for t in TYPES if t.plural.startswith(incomplete)]
    kind = _type(given[0])
    return _names(ctx, kind, incomplete) if kind is not None else []


def _type(word: str) -> Type | None:
    return next((kind for kind in TYPES if word in kind.words), None)


def _named(ctx: click.Context, word: str, prefix: str, kinds: Sequence[Type]) -> list[str]:
    """Return `word/NAME` for the objects of a type, which a word names."""
    kind = _type(word)
    return [f"{word}/{name}" for name in _names(ctx, kind, prefix)] if kind in kinds and kind else []


def _names(ctx: click.Context, kind: Type, prefix: str) -> list[str]:
    if kind.plural == "manifests":
        return []
    items = _ask(ctx, path_of(kind, ctx.params.get("namespace") or "default")).get("items") or ()
    return [name for item in items if (name := item["metadata"]["name"]).startswith(prefix)]


def complete_containers(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of the containers of the pod before the option. An option without its value ends click's parse:
    the pod is then among the arguments that are left."""
    pod = ctx.params.get("pod") or next(iter(ctx.args), "")
    return [
        container["name"]
        for doc in _pods(ctx)
        if doc["metadata"]["name"] == str(pod).rpartition("/")[2]
        for container in (
            doc["spec"].get("containers", [])
            + doc["spec"].get("initContainers", [])
            + doc["spec"].get("ephemeralContainers", [])
        )
        if container["name"].startswith(incomplete)
    ]


def complete_images(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of the names of the node's images, in docker's short form too."""
    found = [i for i in _ask(ctx, "/kubelite/v1/images").get("images") or () if i.get("reference")]
    names = [image["reference"] for image in found]
    short = [image.get("shortName", image["reference"]) for image in found]
    return [name for name in (short if incomplete else names) if name.startswith(incomplete)] or [
        name for name in names if name.startswith(incomplete)
    ]


def complete_inspectable(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of pods, ids of containers, and images."""
    statuses = (
        found
        for pod in _pods(ctx)
        for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
        for found in (pod.get("status") or {}).get(key) or ()
    )
    ids = {str(found.get("containerID", "")).rpartition("/")[2][:12] for found in statuses} - {""}
    named = [*complete_pods(ctx, param, incomplete), *complete_images(ctx, param, incomplete)]
    return named + sorted(found for found in ids if incomplete and found.startswith(incomplete))


def complete_cp(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Shell completion of pods, as `POD:`, and of local files. Paths in a container are not completed."""
    from click.shell_completion import CompletionItem

    if ":" in incomplete:
        return []
    pods = [CompletionItem(f"{name}:") for name in complete_pods(ctx, param, incomplete)]
    return [*pods, CompletionItem(incomplete, type="file")]


def complete_manifests(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of pods and of the files in the manifest directory."""
    files = _ask(ctx, "/kubelite/v1/manifests").get("files") or ()
    names = [os.path.basename(entry["file"]) for entry in files]
    found = complete_pods_and_workloads(ctx, param, incomplete)
    return found + [name for name in names if name.startswith(incomplete)]


def complete_ports(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion of the numbers and names of the ports of the pod's containers."""
    name = str(ctx.params.get("pod") or "").rpartition("/")[2]
    specs = [pod["spec"] for pod in _pods(ctx) if pod["metadata"]["name"] == name]
    ports = [
        port for spec in specs for container in spec["containers"] for port in container.get("ports") or ()
    ]
    words = [str(word) for port in ports for word in (port["containerPort"], port.get("name")) if word]
    return [word for word in words if word.startswith(incomplete)]


def _pods(ctx: click.Context) -> list[dict[str, Any]]:
    namespace = ctx.params.get("namespace") or "default"
    found: list[dict[str, Any]] = _ask(ctx, f"/api/v1/namespaces/{namespace}/pods").get("items") or []
    return found


container_option = click.option(
    "-c",
    "--container",
    default="",
    metavar="NAME",
    shell_complete=complete_containers,
    help="Name of the container. [default: the pod's default container, or its first]",
)

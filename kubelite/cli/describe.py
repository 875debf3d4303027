"""`kubelite describe pod`."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from kubelite.cli.client import Client
from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.names import PODS, path_of, wanted
from kubelite.cli.options import (
    all_namespaces_option,
    client,
    complete_pods,
    namespace_option,
    selector_option,
    socket_option,
)

Json = dict[str, Any]


@click.command()
@click.argument("what", nargs=-1, metavar="pod [NAME...] | pod/NAME...", shell_complete=complete_pods)
@namespace_option
@all_namespaces_option
@selector_option
@socket_option
@click.pass_context
def describe(
    ctx: click.Context, what: tuple[str, ...], namespace: str | None, all_namespaces: bool, selector: str
) -> None:
    """Show everything about a pod: containers, states, volumes, and its events at the end."""
    from kubelite.cli.describe_pod import describe_pod

    queries = wanted(what)
    other = next((q.type.plural for q in queries if q.type is not PODS), None)
    if other:
        raise CliError(f"error: describe shows pods; for {other} use `kubelite get {other} -o yaml`")
    server, failed, shown = client(ctx), False, False
    where = None if all_namespaces else namespace or "default"
    for query in queries:
        for pod in _pods(server, where, query.names, selector):
            if isinstance(pod, ServerError):
                print(pod, file=sys.stderr)
                failed = True
                continue
            sys.stdout.write(("\n\n" if shown else "") + describe_pod(pod, _events(server, pod), time.time()))
            shown = True
    if not shown and not failed:
        print(f"No resources found in {where} namespace." if where else "No resources found", file=sys.stderr)
    if failed:
        raise Exit(1)


def _pods(server: Client, namespace: str | None, names: tuple[str, ...], selector: str) -> list[Any]:
    """The pods, a ServerError in the place of one that is not there."""
    if not names:
        query = {"labelSelector": selector} if selector else None
        return list(server.get(path_of(PODS, namespace), query=query)["items"])
    if namespace is None:
        raise CliError("error: a resource cannot be retrieved by name across all namespaces", code=2)
    found: list[Any] = []
    for name in names:
        try:
            found.append(server.get(path_of(PODS, namespace, name)))
        except ServerError as error:
            if error.reason != "NotFound":
                raise
            found.append(error)
    return found


def _events(server: Client, pod: Json) -> list[Json]:
    metadata = pod["metadata"]
    selector = f"involvedObject.name={metadata['name']},involvedObject.uid={metadata.get('uid', '')}"
    path = f"/api/v1/namespaces/{metadata['namespace']}/events"
    events: list[Json] = server.get(path, query={"fieldSelector": selector})["items"]
    return events

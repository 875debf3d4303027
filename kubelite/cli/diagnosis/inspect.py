"""`kubelite inspect`: print all information about a container, a pod or an image."""

from __future__ import annotations

import contextlib

import click

from kubelite.cli.errors import ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import WORKLOADS
from kubelite.cli.options import client, complete_inspectable, namespace_option, socket_option
from kubelite.cli.output.formats import document_options, print_documents
from kubelite.cli.transport.client import Client


@click.command(
    cls=Command,
    examples="""
    # Print all information about a pod
    kubelite inspect web

    # Print all information about an image
    kubelite inspect docker.io/library/nginx:latest

    # Print the process id of a pod's sandbox, and the addresses of the pod
    kubelite inspect web --format '{{.sandbox.pid}}'
    kubelite inspect web -o jsonpath='{.pod.status.podIPs[*].ip}'
    """,
)
@click.argument("ref", metavar="CONTAINER-ID|POD|IMAGE", shell_complete=complete_inspectable)
@namespace_option
@document_options
@socket_option
@click.pass_context
def inspect(ctx: click.Context, ref: str, namespace: str | None, output: str, form: str) -> None:
    """Print all information about a container, pod or image.

    The fields are those of the JSON output. Of Go templates, fields, variables, pipelines, if, range and with work, and
    the functions that docker and kubectl have in common; define, template and break do not.
    """
    name = ref.partition("/")[2] if ref.startswith(("pod/", "po/", "pods/")) else ref
    server = client(ctx)
    try:
        found = server.get(f"/kubelite/v1/inspect/{f'{namespace}/{name}' if namespace else name}")
    except ServerError:
        _name_pods(server, namespace or "default", ref)
        raise
    print_documents([found], output, form, many=False)


def _name_pods(server: Client, namespace: str, ref: str) -> None:
    """Raise CliError with the pods of a workload, if `ref` names one. An image may be named like TYPE/NAME, too."""
    from kubelite.cli.containers.chosen_pod import only_pod_name

    word = ref.partition("/")[0]
    if "/" in ref and any(word in kind.words for kind in WORKLOADS):
        with contextlib.suppress(ServerError):  # there is no such workload either
            only_pod_name(server, namespace, ref, "kubelite inspect")

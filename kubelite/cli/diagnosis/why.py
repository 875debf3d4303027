"""`kubelite why`: explain a pod's observed state and the last decision about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import SERVICES, WORKLOADS, path_of, pod_name, resource_type
from kubelite.cli.options import client, complete_pods_and_workloads, namespace_option, socket_option
from kubelite.cli.output.foreign import harmless, indented
from kubelite.cli.output.tables import print_json
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_WHY = (
    ("Seen", "observed"),
    ("Decided", "decided"),
    ("Because", "reasons"),
    ("Last words", "lastWords"),
    ("Try", "advice"),
)


@click.command(
    cls=Command,
    examples="""
    # Explain why a pod is not running
    kubelite why web

    # Print the reasons as JSON
    kubelite why web -o json

    # Explain why a deployment is not available
    kubelite why deployment/web

    # Explain why a service has no endpoints, and why an ingress does not answer
    kubelite why service/web
    kubelite why ingress/web

    # Explain why a disruption budget allows no eviction
    kubelite why pdb/web
    """,
)
@click.argument("pod", metavar="POD | TYPE/NAME", shell_complete=complete_pods_and_workloads)
@namespace_option
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format.")
@socket_option
@click.pass_context
def why(ctx: click.Context, pod: str, namespace: str | None, output: str | None) -> None:
    """Explain the state of a pod, a workload, a service or an ingress.

    Of a pod, it shows what the node observed, what it decided, and why. Of a deployment or another workload, it shows
    the conditions that are not as they should be, and the pods that cause it, with the line of the manifest. Of a
    service, it shows which pods get its traffic, and why others do not. Of an ingress, it shows where requests go, and
    what is missing.
    """
    server = client(ctx)
    if _explained_workload(server, pod, namespace or "default", output):
        return
    try:
        answer = server.get(f"/kubelite/v1/why/{namespace or 'default'}/{pod_name(pod)}")
    except ServerError as error:
        if error.reason != "NotFound" or not (broken := _broken(server)):
            raise
        more = ["It may be in a manifest that has errors:", *(f"  - {sentence}" for sentence in broken)]
        raise CliError("\n".join([str(error), *more])) from error
    if output == "json":
        print_json(answer)
        return
    print("\n".join(why_lines(answer)))


def _explained_workload(server: Client, argument: str, namespace: str, output: str | None) -> bool:
    """Print the explanation of a workload, an autoscaler, a disruption budget or a Service, TYPE/NAME. Return False if
    the argument names a pod."""
    word, slash, name = argument.partition("/")
    if not slash:
        return False
    kind = resource_type(word)
    if kind.kind == "HorizontalPodAutoscaler":
        from kubelite.cli.diagnosis import why_autoscaler

        answer = why_autoscaler.why_autoscaler(server, server.get(path_of(kind, namespace, name)))
        print_json(answer) if output == "json" else print("\n".join(why_autoscaler.lines(answer)))
        return True
    if kind.kind == "PodDisruptionBudget":
        from kubelite.cli.diagnosis import why_budget

        answer = why_budget.why_budget(server, namespace, name)
        print_json(answer) if output == "json" else print("\n".join(why_budget.lines(answer)))
        return True
    if kind is SERVICES:
        _explain_service(server, namespace, name, output)
        return True
    if kind.kind == "Ingress":
        _explain_ingress(server, namespace, name, output)
        return True
    if kind not in WORKLOADS:
        return False
    from kubelite.cli.diagnosis.why_workload import lines, why_workload
    from kubelite.cli.workloads.changing import Target

    answer = why_workload(server, Target(kind, server.get(path_of(kind, namespace, name))))
    if output == "json":
        print_json(answer)
    else:
        print("\n".join(lines(answer)))
    return True


def _explain_service(server: Client, namespace: str, name: str, output: str | None) -> None:
    from kubelite.cli.diagnosis.why_service import lines, why_service

    answer = why_service(server, namespace, name)
    if output == "json":
        print_json(answer)
    else:
        print("\n".join(lines(answer)))


def _explain_ingress(server: Client, namespace: str, name: str, output: str | None) -> None:
    from kubelite.cli.diagnosis.why_ingress import why_ingress
    from kubelite.cli.diagnosis.why_service import lines

    answer = why_ingress(server, namespace, name)
    if output == "json":
        print_json(answer)
    else:
        print("\n".join(lines(answer)))


def _broken(server: Client) -> list[str]:
    """Return the manifests' errors, one message each."""
    from kubelite.cli.objects.get import problem_line

    files = server.get("/kubelite/v1/manifests")["files"]
    return [problem_line(file["file"], problem) for file in files for problem in file["errors"]]


def why_lines(answer: Json) -> list[str]:
    status = f" is {answer['status']}" if answer.get("status") else ""
    lines = [f"Pod {answer['pod']}{harmless(status)}, last looked at {answer['observedAt']}"]
    for title, key in _WHY:
        if answer.get(key):
            lines += [f"{title}:", *(f"  - {indented(sentence, '    ')}" for sentence in answer[key])]
        if key == "reasons" and (change := answer.get("lastChange")):
            lines += [f"Last change: {change['at']}", *_change_lines(change)]
    return [*lines, f"Next: {answer['next']}"] if answer.get("next") else lines


def _change_lines(change: Json) -> list[str]:
    sentences = [*change["decided"], *(f"because {reason}" for reason in change["reasons"])]
    return [f"  - {indented(sentence, '    ')}" for sentence in sentences]

"""`kubelite autoscale`: write a HorizontalPodAutoscaler for a workload, with kubectl's flags.

Source: kubectl pkg/cmd/autoscale/autoscale.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.create.writing import dry_run_option, mark, output_option, write
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import path_of, wanted
from kubelite.cli.options import client, complete_types, namespace_option, socket_option
from kubelite.cli.workloads.scale import SCALED

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_DEFAULT_UNIT = {"cpu": "m", "memory": "Mi"}  # of a number without one


@click.command(
    cls=Command,
    examples="""
    # Between 2 and 10 pods of a deployment, so that they use 80 % of the CPU that they request
    kubelite autoscale deployment/web --min=2 --max=10

    # The same for 50 %
    kubelite autoscale deployment/web --max=5 --cpu=50%

    # As many pods as are needed for 200 MiB in each
    kubelite autoscale statefulset/db --min=3 --max=6 --memory=200Mi
    """,
)
@click.argument("what", nargs=-1, metavar="TYPE/NAME | TYPE NAME", shell_complete=complete_types)
@click.option(
    "--min", "least", type=int, default=-1, metavar="N", help="The lowest number of pods. [default: 1]"
)
@click.option("--max", "most", type=int, required=True, metavar="N", help="The highest number of pods.")
@click.option(
    "--cpu",
    default="",
    metavar="PERCENT|AMOUNT",
    help="What a pod uses on average: 70% of its request, or 500m.",
)
@click.option(
    "--memory",
    default="",
    metavar="PERCENT|AMOUNT",
    help="What a pod uses on average: 60% of its request, or 200Mi.",
)
@click.option("--cpu-percent", type=int, default=-1, metavar="N", help="The same as --cpu=N%; deprecated.")
@click.option("--name", default="", metavar="NAME", help="The autoscaler's name. [default: the workload's]")
@namespace_option
@dry_run_option
@output_option
@socket_option
@click.pass_context
def autoscale(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Let the number of pods of a workload follow what they use.

    An autoscaler is written into the manifest directory. The number of pods that it sets is not written into the
    workload's manifest.
    """
    if options["most"] < 1:
        raise CliError(f"error: --max=MAXPODS is required and must be at least 1, max: {options['most']}")
    if options["most"] < options["least"]:
        raise CliError(
            "error: --max=MAXPODS must be larger or equal to --min=MINPODS, "
            f"max: {options['most']}, min: {options['least']}"
        )
    if options["cpu_percent"] > 0 and options["cpu"]:
        raise CliError("error: --cpu-percent and --cpu are mutually exclusive")
    server = client(ctx)
    for query in wanted(what):
        if query.type.kind not in SCALED:
            raise CliError(f"error: cannot autoscale a {query.type.kind}: {', '.join(SCALED)} can")
        if not query.names:
            raise CliError("error: resource(s) were provided, but no name was specified", code=2)
        for name in query.names:
            target = server.get(path_of(query.type, options["namespace"] or "default", name))
            document = document_of(target, options)
            if options["dry_run"] == "none":
                mark(document, "create")
            write(server, document, dry_run=options["dry_run"], output=options["output"])


def document_of(target: Json, options: Json) -> Json:
    """Return the autoscaler of a workload. Raises CliError. Pure."""
    metadata = {"name": options["name"] or target["metadata"]["name"]}
    if options["namespace"]:
        metadata["namespace"] = options["namespace"]
    spec: Json = {
        "scaleTargetRef": {
            "apiVersion": target["apiVersion"],
            "kind": target["kind"],
            "name": target["metadata"]["name"],
        }
    }
    if options["least"] > 0:
        spec["minReplicas"] = options["least"]
    spec["maxReplicas"] = options["most"]
    cpu = options["cpu"] or (f"{options['cpu_percent']}%" if options["cpu_percent"] > 0 else "")
    given = (("cpu", cpu), ("memory", options["memory"]))
    if metrics := [_metric(name, text) for name, text in given if text]:
        spec["metrics"] = metrics
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata,
        "spec": spec,
    }


def _metric(resource: str, text: str) -> Json:
    """parseResourceInput: a percentage is of the requests; a number without a unit is of millicpus or mebibytes."""
    from manifests.types.quantity import Quantity

    if text.endswith("%"):
        if not text[:-1].isdigit() or int(text[:-1]) < 1:
            raise CliError(f"error: invalid {resource} percentage {text!r}: write it like 50%")
        target: Json = {"type": "Utilization", "averageUtilization": int(text[:-1])}
    else:
        amount = text + _DEFAULT_UNIT[resource] if text.isdigit() else text
        try:
            target = {"type": "AverageValue", "averageValue": str(Quantity(amount))}
        except ValueError as error:
            raise CliError(
                f"error: invalid {resource} amount {text!r}: write it like 500m or 200Mi"
            ) from error
    return {"type": "Resource", "resource": {"name": resource, "target": target}}

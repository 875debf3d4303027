"""`kubelite scale`: set the number of replicas in a manifest, as `kubectl scale` sets it in the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_types
from kubelite.cli.workloads.changing import Each, Target, change, suffix, target_options, targets

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client

SCALED = ("Deployment", "ReplicaSet", "ReplicationController", "StatefulSet")


@click.command(
    cls=Command,
    examples="""
    # Run three pods of a deployment
    kubelite scale --replicas=3 deployment/web

    # Only if there are two now
    kubelite scale --current-replicas=2 --replicas=3 deployment/web

    # Scale several objects
    kubelite scale --replicas=5 deployment/web statefulset/db
    """,
)
@click.argument("what", nargs=-1, metavar="TYPE/NAME... | TYPE NAME...", shell_complete=complete_types)
@click.option("--replicas", type=click.IntRange(min=0), required=True, metavar="N", help="Number of pods.")
@click.option(
    "--current-replicas",
    type=click.IntRange(min=-1),
    default=-1,
    metavar="N",
    help="Only change it if this is the present number.",
)
@click.option("--timeout", default="0s", metavar="DURATION", help="Wait until the object has so many pods.")
@target_options
@click.pass_context
def scale(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Set the number of pods of a workload.

    Deployments, replica sets, replication controllers and stateful sets are scaled. The manifest in the manifest
    directory is changed, and its comments stay.
    """
    server, each = client(ctx), Each()
    found = list(targets(server, what, options, "scale"))
    if not found:
        raise CliError("error: no objects passed to scale")
    for target in found:
        with each:
            scale_one(server, target, options)
            print(f"{target} scaled{suffix(options['dry_run'])}", flush=True)
    if options["timeout"] not in ("", "0", "0s") and options["dry_run"] == "none" and not each.failed:
        for target in found:
            _wait(server, target, options)
    each.finish()


def scale_one(server: Client, target: Target, options: dict[str, Any]) -> None:
    """Change one object's manifest. Raises CliError."""
    if target.type.kind not in SCALED:
        raise CliError(f"error: {target.type.plural} cannot be scaled: {', '.join(SCALED)} can")
    now, expected = target.doc["spec"].get("replicas", 1), options["current_replicas"]
    if expected >= 0 and expected != now:
        raise CliError(f"error: Expected replicas to be {expected}, was {now}")
    change(server, target, [(["spec", "replicas"], options["replicas"])], dry_run=options["dry_run"])


def _wait(server: Client, target: Target, options: dict[str, Any]) -> None:
    """Wait until the object has as many pods as it shall have. Raises CliError."""
    import contextlib
    import time

    from kubelite.cli.objects.wait import states, until_of
    from kubelite.cli.output.waiting import waiting

    until = until_of(options["timeout"], time.monotonic())
    with (
        waiting(f"waiting for {target} to have {options['replicas']} pods"),
        contextlib.closing(states(server, target.type, target.namespace, target.name, until)) as every,
    ):
        for doc in every:
            status = (doc or {}).get("status") or {}
            seen = status.get("observedGeneration") or 0
            if doc is None or seen < (doc["metadata"].get("generation") or 0):
                continue
            if (status.get("replicas") or 0) == options["replicas"]:
                return
    raise CliError(f"error: timed out waiting for {target} to be scaled")

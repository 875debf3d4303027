"""`kubelite set resources`: set requests and limits of containers in manifests, as kubectl does (set_resources.go)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_types
from kubelite.cli.workloads.changing import Each, patch, suffix, target_options, targets
from kubelite.cli.workloads.pod_template import containers, patch_of

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    "resources",
    cls=Command,
    examples="""
    # Limit CPU and memory of all containers of a deployment
    kubelite set resources deployment/web --limits=cpu=500m,memory=256Mi

    # Set the request of one container
    kubelite set resources pod/web -c app --requests=cpu=100m

    # Remove the limit of the memory
    kubelite set resources deployment/web --limits=memory-
    """,
)
@click.argument("what", nargs=-1, metavar="TYPE/NAME... | TYPE NAME...", shell_complete=complete_types)
@click.option("--limits", default="", metavar="NAME=QUANTITY,...", help="Limits, such as cpu=1,memory=256Mi.")
@click.option("--requests", default="", metavar="NAME=QUANTITY,...", help="Requests, in the same form.")
@click.option(
    "-c", "--containers", "pattern", default="*", metavar="NAME", help="Containers to change; may contain *."
)
@target_options
@click.pass_context
def resources(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Set requests and limits of containers.

    The manifest in the manifest directory is changed, and its comments stay. NAME- removes a request or limit.
    """
    wanted = {field: quantities(options[field]) for field in ("limits", "requests") if options[field]}
    if not wanted:
        raise CliError(
            "error: you must specify an update to requests or limits (--requests or --limits)", code=2
        )
    server, each = client(ctx), Each()
    for target in targets(server, what, options, "change"):
        with each:
            listed = containers(target.doc, options["pattern"])["containers"]
            items = [{"name": container["name"], "resources": wanted} for container in listed]
            change = patch_of(target.type.kind, {"containers": items})
            if patch(server, target, change, dry_run=options["dry_run"]):
                print(f"{target} resource requirements updated{suffix(options['dry_run'])}", flush=True)
    each.finish()


def quantities(text: str) -> Json:
    """Read `cpu=1,memory=256Mi`; `memory-` becomes None, which removes it. Raises CliError."""
    found: Json = {}
    for word in text.split(","):
        name, equals, quantity = word.partition("=")
        if not equals and name.endswith("-") and len(name) > 1:
            found[name.removesuffix("-")] = None
        elif not name or not quantity:
            raise CliError(f'error: "{word}" is neither NAME=QUANTITY nor NAME-', code=2)
        else:
            found[name] = quantity
    return found

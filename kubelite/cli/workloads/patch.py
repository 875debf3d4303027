"""`kubelite patch`: apply a patch to an object's manifest, with kubectl's syntax."""

from __future__ import annotations

import sys
from typing import Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, complete_types
from kubelite.cli.workloads import changing
from kubelite.cli.workloads.changing import Each, suffix, target_options, targets


@click.command(
    cls=Command,
    examples="""
    # Set a field
    kubelite patch deployment/web -p '{"spec":{"replicas":3}}'

    # Change one container; containers are merged by name
    kubelite patch pod web -p '{"spec":{"containers":[{"name":"app","image":"nginx:1.27"}]}}'

    # Apply a JSON patch
    kubelite patch pod/web --type=json -p '[{"op":"remove","path":"/spec/containers/0/args"}]'
    """,
)
@click.argument("what", nargs=-1, metavar="TYPE/NAME | TYPE NAME", shell_complete=complete_types)
@click.option("-p", "--patch", "text", default="", metavar="JSON|YAML", help="The patch.")
@click.option(
    "--patch-file", type=click.Path(), default="", metavar="FILE", help="A file with the patch; - is stdin."
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["strategic", "merge", "json"]),
    default="strategic",
    show_default=True,
    help="How to read the patch: lists merged by name, RFC 7386, or RFC 6902.",
)
@target_options
@click.pass_context
def patch(
    ctx: click.Context, /, what: tuple[str, ...], text: str, patch_file: str, kind: str, **options: Any
) -> None:
    """Apply a patch to the manifest of an object.

    The manifest in the manifest directory is changed, and its comments stay. A JSON patch finds only the fields that
    the manifest has, not those that have their default.
    """
    if bool(text) == bool(patch_file):
        raise CliError("error: specify the patch: -p PATCH or --patch-file FILE", code=2)
    wanted = _parsed(text or _read(patch_file))
    server, each = client(ctx), Each()
    for target in targets(server, what, options, "patch"):
        with each:
            done = changing.patch(server, target, wanted, kind=kind, dry_run=options["dry_run"])
            unchanged = "" if done else " (no change)"
            print(f"{target} patched{unchanged}{suffix(options['dry_run'])}", flush=True)
    each.finish()


def _read(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read()
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"error: cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def _parsed(text: str) -> Any:
    """Read a patch in JSON or YAML. Raises CliError."""
    from manifests.yaml.document import SyntaxProblem, read_documents

    found = list(read_documents(text))
    if len(found) != 1 or isinstance(found[0], SyntaxProblem):
        why = found[0] if found and isinstance(found[0], SyntaxProblem) else "it is not one document"
        raise CliError(f"error: unable to parse the patch: {why}", code=2)
    return found[0].data

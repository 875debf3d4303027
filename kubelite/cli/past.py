"""Commands that look back, and go back: history, rollout history, rollout undo."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.names import moment, pod_name, resource_type
from kubelite.cli.options import client, complete_pods, namespace_option, socket_option
from kubelite.cli.output import TablePrinter, print_json

Json = dict[str, Any]

_KINDS = {"pods": "Pod", "configmaps": "ConfigMap", "secrets": "Secret"}


@click.command()
@click.argument("pod", shell_complete=complete_pods)
@namespace_option
@click.option("--since", default="", metavar="WHEN", help='Only later: "1h ago", or an RFC 3339 time.')
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")
@socket_option
@click.pass_context
def history(ctx: click.Context, /, pod: str, namespace: str | None, **options: Any) -> None:
    """Show what became of POD: its status, events and decisions, oldest first. Also of one that is gone."""
    query: Json = {"since": moment(options["since"], time.time())} if options["since"] else {}
    if options["limit"]:
        query["limit"] = options["limit"]
    answer = client(ctx).get(f"/kubelite/v1/history/{namespace or 'default'}/{pod_name(pod)}", query=query)
    if options["output"] == "json":
        print_json(answer)
        return
    if not answer["entries"]:
        print(f"Nothing is known of {answer['pod']} since {answer['since']}.", file=sys.stderr)
        return
    rows = [
        (entry["time"], _WORDS.get(entry["what"], entry["what"]), entry["reason"], entry["message"])
        for entry in answer["entries"]
        if entry["message"]
        or entry["what"] != "MODIFIED"  # a change of what nobody reads: a time, a generation seen
    ]
    TablePrinter().print(("Time", "What", "Reason", "Message"), rows)


_WORDS = {"ADDED": "Made", "MODIFIED": "Status", "DELETED": "Removed"}


@click.group()
def rollout() -> None:
    """Show the versions of a manifest that history has, and go back to one."""


_manifest = click.argument("manifest", metavar="FILE|TYPE/NAME", shell_complete=complete_pods)


@rollout.command("history")
@_manifest
@namespace_option
@click.option("--revision", type=click.IntRange(min=1), metavar="N", help="Print this one.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")
@socket_option
@click.pass_context
def rollout_history(
    ctx: click.Context, manifest: str, namespace: str | None, revision: int | None, output: str | None
) -> None:
    """Show the versions of a manifest file, by its name or by an object in it.

    \b
    kubelite rollout history pod/web
    kubelite rollout history web.yaml --revision 2
    """
    query = _reference(manifest, namespace) | ({"revision": revision} if revision else {})
    answer = client(ctx).get("/kubelite/v1/revisions", query=query)
    if output == "json":
        print_json(answer)
        return
    if revision:
        print(answer["revisions"][0]["text"], end="")
        return
    if not answer["revisions"]:
        print(f"No versions of {answer['file']} are kept.", file=sys.stderr)
        return
    print(answer["file"])
    rows = [(str(r["revision"]), r["time"], str(r["bytes"])) for r in answer["revisions"]]
    TablePrinter().print(("Revision", "Read", "Bytes"), rows)


@rollout.command("undo")
@_manifest
@namespace_option
@click.option(
    "--to-revision", type=click.IntRange(min=1), metavar="N", help="To this one [default: the one before]."
)
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@socket_option
@click.pass_context
def rollout_undo(
    ctx: click.Context, manifest: str, namespace: str | None, to_revision: int | None, dry_run: bool
) -> None:
    """Write the version before this one back into the manifests directory, the whole file. Once more undoes that.

    \b
    kubelite rollout undo pod/web
    kubelite rollout undo web.yaml --to-revision 2
    """
    wanted = {**_reference(manifest, namespace), "toRevision": to_revision, "dryRun": dry_run}
    answer = client(ctx).post("/kubelite/v1/rollback", wanted)
    if dry_run:
        print(answer["diff"], end="")
        return
    if not answer["diff"]:
        print(f"{answer['file']} is at revision {answer['to']} already")
        return
    print(f"{answer['file']} rolled back to revision {answer['to']}, now revision {answer['revision']}")


def _reference(manifest: str, namespace: str | None) -> Json:
    """`web.yaml` or an absolute path → a file; `pod/web`, `cm/app` → an object."""
    if manifest.endswith((".yaml", ".yml", ".json")) or manifest.startswith("/"):
        return {"file": manifest}
    kind, slash, name = manifest.partition("/")
    if not slash:
        kind, name = "pod", manifest
    plural = resource_type(kind).plural
    if plural not in _KINDS:
        raise CliError(f"error: {plural} come from no manifest", code=2)
    return {"kind": _KINDS[plural], "namespace": namespace or "default", "name": name}

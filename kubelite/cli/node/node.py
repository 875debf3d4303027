"""`kubelite node label|taint|cordon|uncordon`: change this node, with kubectl's syntax and messages."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command, Group
from kubelite.cli.options import client, socket_option
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an existing value.")
_NAME = click.argument("name", required=False, metavar="[NODE]")  # as in kubectl; there is only one


@click.group(
    cls=Group,
    examples="""
    # Keep new pods away from the node, and let them in again
    kubelite node cordon
    kubelite node uncordon

    # Label the node
    kubelite node label disk=ssd
    """,
)
def node() -> None:
    """Label, taint, cordon or uncordon the node."""


@node.command(
    examples="""
    # Set labels
    kubelite node label disk=ssd zone=a

    # Change a label
    kubelite node label --overwrite disk=hdd

    # Remove a label
    kubelite node label disk-
    """,
)
@click.argument("labels", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@_OVERWRITE
@socket_option
@click.pass_context
def label(ctx: click.Context, labels: tuple[str, ...], *, overwrite: bool) -> None:
    """Set or remove labels of the node.

    KEY=VALUE sets a label, KEY- removes it.
    """
    api = client(ctx)
    doc = _node(api)
    old = doc["metadata"].get("labels") or {}
    patch: dict[str, str | None] = {}
    for given in labels:
        if given.endswith("-") and "=" not in given:
            patch[given[:-1]] = None
            continue
        key, equals, value = given.partition("=")
        if not equals or not key:
            raise CliError(f'error: "{given}" is neither KEY=VALUE nor KEY-', code=2)
        if not overwrite and old.get(key, value) != value:
            raise CliError(f"error: '{key}' already has a value ({old[key]}), and --overwrite is false")
        patch[key] = value
    for key in (key for key, value in patch.items() if value is None and key not in old):
        click.echo(f'label "{key}" not found.')
    _patch(api, doc, {"metadata": {"labels": patch}})
    taken = all(value is None for value in patch.values())
    click.echo(f"node/{doc['metadata']['name']} {'unlabeled' if taken else 'labeled'}")


@node.command(
    examples="""
    # Taint the node
    kubelite node taint dedicated=db:NoSchedule

    # Remove the taint
    kubelite node taint dedicated-
    """,
)
@click.argument("taints", nargs=-1, required=True, metavar="KEY[=VALUE]:EFFECT|KEY[:EFFECT]-...")
@_OVERWRITE
@socket_option
@click.pass_context
def taint(ctx: click.Context, taints: tuple[str, ...], *, overwrite: bool) -> None:
    """Set or remove taints of the node.

    EFFECT is NoSchedule, PreferNoSchedule or NoExecute. A - at the end removes a taint.
    """
    api = client(ctx)
    doc = _node(api)
    now: list[Json] = list(doc["spec"].get("taints") or ())
    added = False
    for given in taints:
        if given.endswith("-"):
            now = _without(now, given[:-1])
        else:
            now, added = _with(now, given, overwrite=overwrite), True
    _patch(api, doc, {"spec": {"taints": now}})
    click.echo(f"node/{doc['metadata']['name']} {'tainted' if added else 'untainted'}")


def _without(taints: list[Json], given: str) -> list[Json]:
    pair, _, effect = given.partition(":")
    key = pair.partition("=")[0]  # kubectl also accepts KEY=VALUE:EFFECT-, and compares only key and effect
    kept = [t for t in taints if t["key"] != key or (effect and t["effect"] != effect)]
    if len(kept) == len(taints):
        raise CliError(f'error: taint "{given}" not found')
    return kept


def _with(taints: list[Json], given: str, *, overwrite: bool) -> list[Json]:
    pair, _, effect = given.rpartition(":")
    key, _, value = pair.partition("=")
    if not key or effect not in _EFFECTS:
        raise CliError(
            f'error: "{given}" is not KEY[=VALUE]:EFFECT with the effect {", ".join(_EFFECTS)}', code=2
        )
    if not overwrite and any(t["key"] == key and t["effect"] == effect for t in taints):
        raise CliError(
            f"error: the node already has taint {key} with effect {effect}, and --overwrite is false"
        )
    kept = [t for t in taints if t["key"] != key or t["effect"] != effect]
    return [*kept, {"key": key, "effect": effect, **({"value": value} if value else {})}]


dry_run_option = click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    is_flag=False,
    flag_value="client",
    metavar="[=client|server|none]",
    help="Change nothing, and say what would be done; with server, let the node check it.",
)


@click.command(
    cls=Command,
    examples="""
    # Accept no new pods
    kubelite cordon
    """,
)
@_NAME
@dry_run_option
@socket_option
@click.pass_context
def cordon(ctx: click.Context, name: str | None, dry_run: str) -> None:
    """Mark the node as unschedulable.

    New pods wait; running pods keep running.
    """
    set_unschedulable(client(ctx), name, wanted=True, dry_run=dry_run)


@click.command(
    cls=Command,
    examples="""
    # Accept new pods again
    kubelite uncordon
    """,
)
@_NAME
@dry_run_option
@socket_option
@click.pass_context
def uncordon(ctx: click.Context, name: str | None, dry_run: str) -> None:
    """Mark the node as schedulable.

    Pods that wait, after a drain for example, start.
    """
    set_unschedulable(client(ctx), name, wanted=False, dry_run=dry_run)


node.add_command(cordon)
node.add_command(uncordon)


def set_unschedulable(api: Client, name: str | None, *, wanted: bool, dry_run: str = "none") -> str:
    """Cordon or uncordon the node, report it as kubectl does, and return the node's name. `name`: that of the node, or
    None. Raises CliError for another name."""
    doc = _node(api)
    own = str(doc["metadata"]["name"])
    if name not in (None, own):
        raise CliError(f'error: nodes "{name}" not found: the only node is "{own}"')
    word = "cordoned" if wanted else "uncordoned"
    if bool(doc["spec"].get("unschedulable")) is wanted:
        word = f"already {word}"
    elif dry_run == "none":
        _patch(api, doc, {"spec": {"unschedulable": wanted}})
    suffix = {"client": " (dry run)", "server": " (server dry run)"}.get(dry_run, "")
    click.echo(f"node/{own} {word}{suffix}")
    return own


def _node(api: Client) -> Json:
    found: Json = api.get("/api/v1/nodes")["items"][0]
    return found


def _patch(api: Client, doc: Json, patch: Json) -> None:
    api.json(
        "PATCH",
        f"/api/v1/nodes/{doc['metadata']['name']}",
        body=json.dumps(patch).encode(),
        headers={"Content-Type": "application/merge-patch+json"},
    )

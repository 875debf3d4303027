"""`kubelite set env`: set, remove and list environment variables of containers in manifests.

Source: kubectl pkg/cmd/set/set_env.go and env/env_parse.go.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import path_of, resource_type
from kubelite.cli.options import client, complete_types
from kubelite.cli.output.foreign import harmless
from kubelite.cli.workloads.changing import Each, Target, patch, suffix, target_options, targets
from kubelite.cli.workloads.pod_template import containers, patch_of

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

_REFERENCES = {"ConfigMap": "configMapKeyRef", "Secret": "secretKeyRef"}


@click.command(
    "env",
    cls=Command,
    examples="""
    # Set a variable in all containers of a deployment
    kubelite set env deployment/web LOG_LEVEL=debug

    # Remove a variable from one container
    kubelite set env deployment/web -c app LOG_LEVEL-

    # Set variables from the keys of a config map, with a prefix
    kubelite set env deployment/web --from=configmap/settings --prefix=APP_

    # List the variables of a pod
    kubelite set env pod/web --list
    """,
)
@click.argument(
    "what", nargs=-1, metavar="TYPE/NAME... | TYPE NAME... KEY=VALUE|KEY-...", shell_complete=complete_types
)
@click.option("-e", "--env", "more", multiple=True, metavar="KEY=VALUE", help="A variable to set.")
@click.option(
    "-c", "--containers", "pattern", default="*", metavar="NAME", help="Containers to change; may contain *."
)
@click.option(
    "--from", "source", default="", metavar="TYPE/NAME", help="Config map or secret with the values."
)
@click.option("--prefix", default="", help="Prefix of the variables' names, with --from.")
@click.option("--keys", default="", metavar="KEY,...", help="Keys to take, with --from. [default: all]")
@click.option("--overwrite/--no-overwrite", default=True, help="Whether existing variables may change.")
@click.option("--list", "listing", is_flag=True, help="Only list the variables.")
@target_options
@click.pass_context
def env(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Set environment variables of containers.

    The manifest in the manifest directory is changed, and its comments stay. KEY- removes a variable. Init containers
    are changed, too.
    """
    words = [word for word in what if not _is_variable(word)]
    wanted, gone = parsed([word for word in what if _is_variable(word)] + list(options["more"]))
    server, each = client(ctx), Each()
    if options["source"]:
        namespace = options["namespace"] or "default"
        wanted += _from_object(server, namespace, options["source"], options["prefix"], options["keys"])
    if not options["listing"] and not wanted and not gone:
        raise CliError("error: at least one environment variable must be provided: KEY=VALUE or KEY-", code=2)
    for target in targets(server, words, options, "change"):
        with each:
            if options["listing"]:
                _list(target, options["pattern"])
                continue
            change = env_patch(target.doc, options["pattern"], wanted, gone, overwrite=options["overwrite"])
            if patch(server, target, change, dry_run=options["dry_run"]):
                print(f"{target} env updated{suffix(options['dry_run'])}", flush=True)
    each.finish()


def _is_variable(word: str) -> bool:
    return "=" in word or (word.endswith("-") and word != "-")


def parsed(words: Sequence[str]) -> tuple[list[Json], list[str]]:
    """Return the variables to set as items of `env`, and the names of those to remove. Raises CliError."""
    from kubelite.cli.create.key_values import valid_variable

    wanted: list[Json] = []
    gone = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            name = name.removesuffix("-")
        if not valid_variable(name):
            raise CliError(f'error: "{name}" is not a valid name of an environment variable', code=2)
        if equals:
            wanted.append({"name": name, "value": value})
        else:
            gone.append(name)
    both = sorted({one["name"] for one in wanted} & set(gone))
    if both:
        raise CliError(f"error: {both[0]} cannot be set and removed at the same time", code=2)
    return wanted, gone


def _from_object(server: Client, namespace: str, source: str, prefix: str, keys: str) -> list[Json]:
    """Return variables that refer to the keys of a ConfigMap or Secret. Raises CliError."""
    word, slash, name = source.partition("/")
    kind = resource_type(word)
    if not slash or not name or kind.kind not in _REFERENCES:
        raise CliError("error: --from takes configmap/NAME or secret/NAME", code=2)
    doc = server.get(path_of(kind, namespace, name))
    known = sorted({*(doc.get("data") or {}), *(doc.get("binaryData") or {}), *(doc.get("stringData") or {})})
    chosen = [key for key in keys.split(",") if key] or known
    missing = next((key for key in chosen if key not in known), None)
    if missing is not None:
        raise CliError(f'error: {source} has no key "{missing}", it has {", ".join(known)}')
    return [
        {
            "name": prefix + re.sub(r"[^A-Z0-9_]", "_", key.upper()),
            "valueFrom": {_REFERENCES[kind.kind]: {"name": name, "key": key}},
        }
        for key in chosen
    ]


def env_patch(
    doc: Json, pattern: str, wanted: Sequence[Json], gone: Sequence[str], *, overwrite: bool
) -> Json:
    """Return the strategic merge patch that sets and removes variables. Raises CliError."""
    found: dict[str, list[Json]] = {}
    for field, listed in containers(doc, pattern, init=True).items():
        for container in listed:
            known = {one["name"]: one for one in container.get("env") or ()}
            items = [_item(known.get(one["name"]), one, overwrite=overwrite) for one in wanted]
            items += [{"name": name, "$patch": "delete"} for name in gone if name in known]
            if items:
                found.setdefault(field, []).append({"name": container["name"], "env": items})
    return patch_of(doc["kind"], found)


def _item(old: Json | None, new: Json, *, overwrite: bool) -> Json:
    """Return a variable as an item of a patch: of value and valueFrom, the other one is removed."""
    if old is None:
        return new
    other = "value" if "valueFrom" in new else "valueFrom"
    item = {**new, **({other: None} if other in old else {})}
    if not overwrite and any(old.get(key) != value for key, value in item.items()):
        raise CliError(f"error: {new['name']} is set already, and --overwrite is false")
    return item


def _list(target: Target, pattern: str) -> None:
    for listed in containers(target.doc, pattern, init=True).values():
        for container in listed:
            print(f"# {target.type.plural} {target.name}, container {container['name']}")
            for line in _lines(container.get("env") or ()):
                print(harmless(line))
    sys.stdout.flush()


def _lines(variables: Sequence[Json]) -> Iterator[str]:
    for one in variables:
        source: Json = one.get("valueFrom") or {}
        if not source:
            yield f"{one['name']}={one.get('value', '')}"
        elif reference := source.get("configMapKeyRef"):
            yield f"# {one['name']} from configmap {reference['name']}, key {reference['key']}"
        elif reference := source.get("secretKeyRef"):
            yield f"# {one['name']} from secret {reference['name']}, key {reference['key']}"
        elif reference := source.get("fieldRef"):
            yield f"# {one['name']} from field path {reference['fieldPath']}"
        else:
            yield f"# {one['name']} from {next(iter(source))}"

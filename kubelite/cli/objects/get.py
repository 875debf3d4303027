"""`kubelite get`: print the server's tables, or the objects themselves."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import ALL, Type, Wanted, moment, path_of, wanted
from kubelite.cli.objects.manifest_files import objects_of_files
from kubelite.cli.options import (
    all_namespaces_option,
    client,
    complete_types,
    files_option,
    namespace_option,
    recursive_option,
    selector_option,
    socket_option,
)
from kubelite.cli.output.foreign import harmless
from kubelite.cli.output.formats import FORMATS_SHOWN, by_template, complete_format, known_format
from kubelite.cli.output.tables import TablePrinter, list_of, print_json, print_yaml
from kubelite.cli.transport.client import TABLE, Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@click.command(
    cls=Command,
    examples="""
    # List the pods in the default namespace
    kubelite get pods

    # List the pods in all namespaces, with IP addresses
    kubelite get pods -A -o wide

    # Print a pod as YAML
    kubelite get pod web -o yaml

    # List the pods with a label, and watch them
    kubelite get pods -l app=web -w

    # List the pods as they were ten minutes ago
    kubelite get pods --at "10m ago"

    # Print the IP address of a pod
    kubelite get pod web -o jsonpath='{.status.podIP}'

    # List events in the order of time
    kubelite get events --sort-by=.lastTimestamp

    # List the manifest files and their errors
    kubelite get manifests
    """,
)
@click.argument("what", nargs=-1, metavar="TYPE [NAME...] | TYPE/NAME...", shell_complete=complete_types)
@namespace_option
@all_namespaces_option
@click.option(
    "-o",
    "--output",
    metavar=FORMATS_SHOWN,
    callback=known_format,
    shell_complete=complete_format,
    help="Output format.",
)
@click.option("--sort-by", default="", metavar="JSONPATH", help="Sort by this field, like .metadata.name.")
@selector_option
@click.option(
    "--field-selector",
    default="",
    metavar="SELECTOR",
    help="Field selector, like status.phase=Running.",
)
@click.option("-w", "--watch", is_flag=True, help="After the list, show changes as they happen.")
@click.option("--watch-only", is_flag=True, help="Show changes as they happen, without the list.")
@click.option(
    "--at",
    default="",
    metavar="WHEN",
    help='Show pods and workloads as of a past time: "10m ago", or RFC 3339.',
)
@click.option("--no-headers", is_flag=True, help="Do not print the header row.")
@click.option("--show-labels", is_flag=True, help="Show all labels in the last column.")
@click.option(
    "-L",
    "--label-columns",
    multiple=True,
    metavar="KEY,...",
    help="Show the values of these labels as columns.",
)
@click.option("--show-kind", is_flag=True, help="Show the type before each name.")
@click.option("--ignore-not-found", is_flag=True, help="Do not fail if an object is missing.")
@click.option(
    "--raw",
    default="",
    metavar="PATH",
    help="Print the API's response for a path, like /api/v1/pods?limit=1.",
)
@click.option("--chunk-size", type=int, hidden=True)  # kubectl's; accepted and ignored
@click.option(
    "--show-managed-fields", is_flag=True, help="With -o json or yaml, keep metadata.managedFields."
)
@files_option
@recursive_option
@socket_option
@click.pass_context
def get(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """List pods, events, volumes, manifests and other objects.

    `kubelite api-resources` lists the types. The type `manifests` stands for the files in the manifest directory.
    """
    if options["raw"]:
        return _get_raw(client(ctx), options["raw"])
    if options["files"] and what:
        raise CliError("error: name objects, or files with -f, not both", code=2)
    getter = _Getter(client(ctx), options)
    queries = getter.in_files(options["files"]) if options["files"] else wanted(what)
    getter.with_kind = options["show_kind"] or len(queries) > 1
    for query in queries:
        if query.type.plural == "manifests":
            _get_manifests(client(ctx), query, options)
        else:
            getter.get(query)
    getter.finish()


class _Getter:
    def __init__(self, server: Client, options: Json) -> None:
        self.server = server
        self.output: str = options["output"]
        self.options = options
        self.with_kind = False
        self.label_columns = [key for keys in options["label_columns"] for key in keys.split(",") if key]
        self.namespace = None if options["all_namespaces"] else options["namespace"] or "default"
        self.objects: list[Json] = []
        self.single = False
        self.missing: list[ServerError] = []
        self.printed = False
        self.empty = False
        self.asked = False

        self.printed_by = by_template(self.output)
        self.sorted_by = _by_value(options["sort_by"])
        self.at = {"at": moment(options["at"], time.time())} if options["at"] else {}

    def in_files(self, files: tuple[str, ...]) -> list[Wanted]:
        """Return queries for the objects that manifests define, in the namespaces that the files name."""
        given = self.options["namespace"] or ""
        named: dict[tuple[Type, str], list[str]] = {}
        for kind, namespace, name in objects_of_files(
            self.server, files, self.options["recursive"], given, "get"
        ):
            named.setdefault((kind, namespace), []).append(name)
        return [Wanted(kind, tuple(names), namespace) for (kind, namespace), names in named.items()]

    def get(self, query: Wanted) -> None:
        self.asked = True
        if self.at and (query.type not in ALL or self.options["watch"] or self.options["watch_only"]):
            raise CliError("error: --at works only for pods and workloads, and without --watch", code=2)
        if self.options["watch"] or self.options["watch_only"]:
            self._watch(query)
        elif self.output in ("", "wide"):
            self._tables(query)
        else:
            self._objects(query)

    def finish(self) -> None:
        if not self.asked:  # only manifests were requested: they are already printed
            return
        if self.objects or not self.missing:
            one = self.single and len(self.objects) == 1
            self._print_whole(self.objects[0] if one else list_of(self.objects))
        if self.empty and not self.printed and not self.missing and not self.options["ignore_not_found"]:
            where = f" in {self.namespace} namespace" if self.namespace is not None else ""
            print(f"No resources found{where}.", file=sys.stderr) if where else print(
                "No resources found", file=sys.stderr
            )
        for error in self.missing:
            print(error, file=sys.stderr)
        if self.missing:
            raise Exit(1)

    def _print_whole(self, document: Json) -> None:
        if self.output == "json":
            print_json(self._shown(document))
        elif self.output == "yaml":
            print_yaml(self._shown(document))
        elif self.printed_by is not None:
            self.printed_by(document, not self.options["no_headers"])

    def _shown(self, document: Json) -> Json:
        """Return an object, or a list of them, as JSON and YAML show it (kubectl: OmitManagedFieldsPrinter)."""
        if self.options["show_managed_fields"]:
            return document
        if "items" in document:
            return {**document, "items": [self._shown(one) for one in document["items"]]}
        if "managedFields" not in (document.get("metadata") or {}):
            return document
        kept = {key: value for key, value in document["metadata"].items() if key != "managedFields"}
        return {**document, "metadata": kept}

    def _selection(self) -> Json:
        query = dict(self.at)
        if self.options["selector"]:
            query["labelSelector"] = self.options["selector"]
        if self.options["field_selector"]:
            query["fieldSelector"] = self.options["field_selector"]
        return query

    def _fetch(self, query: Wanted, *, table: bool) -> list[Json]:
        """Return one response for all objects, or one per name. Record the names that are not found."""
        if not query.names:
            path = path_of(query.type, self.namespace)
            whole = {"includeObject": "Object"} if table and self.sorted_by else {}
            return [self.server.get(path, query={**self._selection(), **whole}, table=table)]
        namespace = query.namespace or self.namespace
        if namespace is None and query.type.namespaced:
            raise CliError("error: a resource cannot be retrieved by name across all namespaces", code=2)
        found = []
        one = {**self.at, **({"includeObject": "Object"} if table and self.sorted_by else {})}
        for name in query.names:
            try:
                found.append(self.server.get(path_of(query.type, namespace, name), query=one, table=table))
            except ServerError as error:
                if error.reason != "NotFound":
                    raise
                if not self.options["ignore_not_found"]:
                    self.missing.append(error)
        return found

    def _tables(self, query: Wanted) -> None:
        tables = self._fetch(query, table=True)
        rows = [row for table in tables for row in table["rows"]]
        if not rows:
            self.empty = True
            return
        if self.sorted_by is not None:
            by = self.sorted_by
            rows.sort(key=lambda row: by(row["object"]))
        if self.printed:
            print()
        self.printed = True
        self._print(TablePrinter(headers=not self.options["no_headers"]), query.type, tables[0], rows)

    def _print(self, printer: TablePrinter, kind: Type, table: Json, rows: list[Json]) -> None:
        columns = [
            (index, column["name"])
            for index, column in enumerate(table["columnDefinitions"])
            if column.get("priority", 0) == 0 or self.output == "wide"
        ]
        names = [name for _, name in columns]
        with_namespace = self.namespace is None and kind.namespaced
        if with_namespace:
            names.insert(0, "Namespace")
        names += [key.rpartition("/")[2] for key in self.label_columns]
        if self.options["show_labels"]:
            names.append("Labels")
        lines = []
        for row in rows:
            metadata = row["object"]["metadata"]
            line = [row["cells"][index] for index, _ in columns]
            if self.with_kind:
                line[0] = f"{kind.qualified}/{line[0]}"
            if with_namespace:
                line.insert(0, metadata.get("namespace", ""))
            labels = metadata.get("labels") or {}
            line += [labels.get(key, "") for key in self.label_columns]
            if self.options["show_labels"]:
                line.append(",".join(f"{k}={v}" for k, v in sorted(labels.items())) or "<none>")
            lines.append(line)
        printer.print(names, lines)

    def _objects(self, query: Wanted) -> None:
        answers = self._fetch(query, table=False)
        found = answers if query.names else answers[0]["items"]
        if self.sorted_by is not None:
            found = sorted(found, key=self.sorted_by)
        if self.output == "name":
            for doc in found:
                print(f"{query.type.qualified}/{doc['metadata']['name']}")
        self.objects += found
        self.single = self.single or len(query.names) == 1
        self.empty = self.output == "name" and not self.objects

    def _watch(self, query: Wanted) -> None:
        if self.with_kind or len(query.names) > 1:
            raise CliError(
                "error: you may watch one type of resource, or one object of it, at a time", code=2
            )
        if self.sorted_by is not None:
            raise CliError("error: --sort-by does not work with --watch", code=2)
        path, selection = path_of(query.type, self.namespace), self._selection()
        if query.names:
            if not self.options["watch_only"]:
                self.server.get(
                    path_of(query.type, self.namespace, query.names[0])
                )  # reports NotFound before the watch
            selection["fieldSelector"] = f"metadata.name={query.names[0]}"
        as_table = self.output in ("", "wide")
        now = self.server.get(path, query=selection, table=as_table)
        printer = TablePrinter(headers=not self.options["no_headers"])
        if not self.options["watch_only"]:
            self._print_watched(printer, query.type, now)
        query_ = {**selection, "watch": "true", "resourceVersion": now["metadata"]["resourceVersion"]}
        headers = {"Accept": TABLE} if as_table else {}
        stream = self.server.open("GET", path, query=query_, headers=headers)
        for event in self.server.lines(stream):
            self._print_watched(printer, query.type, event["object"])
        raise CliError("error: kubelite ended the watch: it is stopping, or has just been restarted")

    def _print_watched(self, printer: TablePrinter, kind: Type, answer: Json) -> None:
        if "rows" in answer:
            if answer["rows"]:
                self._print(printer, kind, answer, answer["rows"])
            return
        for doc in answer.get("items", [answer]):
            if self.output == "json":
                print_json(self._shown(doc))
            elif self.output == "yaml":
                print_yaml(self._shown(doc), first=not self.printed)
            elif self.printed_by is not None:
                self.printed_by(doc, not self.options["no_headers"] and not self.printed)
                sys.stdout.flush()
            else:
                print(f"{kind.qualified}/{doc['metadata']['name']}", flush=True)
            self.printed = True


def _by_value(expression: str) -> Callable[[Json], tuple[Any, ...]] | None:
    if not expression:
        return None
    from kubelite.cli.output.jsonpath import sort_key

    return sort_key(expression)


def _get_raw(server: Client, wanted: str) -> None:
    from urllib.parse import parse_qs, urlsplit

    parts = urlsplit(wanted)
    query = parse_qs(parts.query, keep_blank_values=True)
    for chunk in server.chunks(server.open("GET", parts.path, query=query)):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def problem_line(file: str, problem: Json) -> str:
    """Format a manifest's problem as file:line: field: message, which editors recognize."""
    where = f"{file}:{problem['line']}" if problem["line"] else file
    return harmless(": ".join(word for word in (where, problem["field"], problem["message"]) if word))


def _get_manifests(server: Client, query: Wanted, options: Json) -> None:
    """Print the files of the manifest directory with their objects and errors, and what is said about them. What has no
    effect here is no error: the rest of the file applies."""
    import os

    answer = server.get("/kubelite/v1/manifests")
    files = [
        f for f in answer["files"] if not query.names or _named(f["file"], query.names, answer["directory"])
    ]
    document = {"directory": answer["directory"], "files": files}
    if options["output"] == "json":
        return print_json(document)
    if options["output"] == "yaml":
        return print_yaml(document)
    if (by := by_template(options["output"])) is not None:
        return by({**document, "items": files}, not options["no_headers"])
    if options["output"] == "name":
        for entry in files:
            print(entry["file"])
        return None
    if not files:
        print(f"No manifests in {answer['directory']}.", file=sys.stderr)
        raise Exit(1 if query.names else 0)
    rows = [
        [
            os.path.relpath(f["file"], answer["directory"]),
            f["status"],
            len(f["objects"]),
            sum(problem.get("kind") != "unsupported" for problem in f["errors"]),
            _given(f),
        ]
        for f in files
    ]
    TablePrinter(headers=not options["no_headers"]).print(
        ("File", "Status", "Objects", "Errors", "Gives"), rows
    )
    problems = [(f["file"], e) for f in files for e in f["errors"]]
    if problems:
        print()
    for file, problem in problems:
        print(problem_line(file, problem))
    return None


def _named(file: str, names: tuple[str, ...], directory: str) -> bool:
    import os

    return any(name in (file, os.path.basename(file), os.path.relpath(file, directory)) for name in names)


def _given(entry: Json) -> str:
    """Return the objects of the file's last valid version, and the unsupported kinds in the file."""
    objects = ", ".join(o.replace("/default/", "/") for o in entry["objects"]) or "<none>"
    unsupported = [
        e.get("object", "").partition(" ")[0] for e in entry["errors"] if e.get("kind") == "unsupported"
    ]
    kinds = ", ".join(dict.fromkeys(kind for kind in unsupported if kind))
    return f"{objects} (not supported: {kinds})" if kinds else objects

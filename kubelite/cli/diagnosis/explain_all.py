"""Commands that say what is and why: why, events, trace, inspect, doctor, version, completion."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.names import pod_name, wanted
from kubelite.cli.options import all_namespaces_option, client, complete_pods, namespace_option, socket_option
from kubelite.cli.output import trace_formats
from kubelite.cli.output.tables import TablePrinter, print_json
from kubelite.cli.transport.client import Client
from kubelite.telemetry.tracing.trace import spans

Json = dict[str, Any]


_WHY = (
    ("Seen", "observed"),
    ("Decided", "decided"),
    ("Because", "reasons"),
    ("Last words", "lastWords"),
    ("Try", "advice"),
)


@click.command()
@click.argument("pod", shell_complete=complete_pods)
@namespace_option
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")
@socket_option
@click.pass_context
def why(ctx: click.Context, pod: str, namespace: str | None, output: str | None) -> None:
    """Say what was last seen of POD, what was decided, and why."""
    server = client(ctx)
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


def _broken(server: Client) -> list[str]:
    """What is wrong with manifests, a sentence each."""
    from kubelite.cli.objects.get import problem_line

    files = server.get("/kubelite/v1/manifests")["files"]
    return [problem_line(file["file"], problem) for file in files for problem in file["errors"]]


def why_lines(answer: Json) -> list[str]:
    status = f" is {answer['status']}" if answer.get("status") else ""
    lines = [f"Pod {answer['pod']}{status}, last looked at {answer['observedAt']}"]
    for title, key in _WHY:
        if answer.get(key):
            lines += [f"{title}:", *(f"  - {sentence}" for sentence in answer[key])]
    return [*lines, f"Next: {answer['next']}"] if answer.get("next") else lines


@click.command()
@namespace_option
@all_namespaces_option
@click.option("--for", "about", metavar="TYPE/NAME", help="Only events about this: pod/web")
@click.option("--types", default="", metavar="Normal,Warning", help="Only of these types.")
@click.option("-w", "--watch", is_flag=True, help="Go on and show what happens.")
@click.option("--no-headers", is_flag=True)
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")
@socket_option
@click.pass_context
def events(ctx: click.Context, /, namespace: str | None, all_namespaces: bool, **options: Any) -> None:
    """Show what happened, oldest first."""
    from kubelite.cli.describe.parts import event_time

    server = client(ctx)
    where = "" if all_namespaces else f"/namespaces/{namespace or 'default'}"
    path, query = f"/api/v1{where}/events", _about(options["about"])
    answer = server.get(path, query=query)
    chosen = [e for e in sorted(answer["items"], key=event_time) if _of_types(e, options["types"])]
    if options["output"] == "json":
        print_json({"apiVersion": "v1", "kind": "List", "items": chosen})
        return
    printer = TablePrinter(headers=not options["no_headers"])
    if chosen:
        _print_events(printer, chosen, all_namespaces)
    elif not options["watch"]:
        print(
            "No events found."
            if all_namespaces
            else f"No events found in {namespace or 'default'} namespace.",
            file=sys.stderr,
        )
    if not options["watch"]:
        return
    query |= {"watch": "true", "resourceVersion": answer["metadata"]["resourceVersion"]}
    for change in server.lines(server.open("GET", path, query=query)):
        if change["type"] != "DELETED" and _of_types(change["object"], options["types"]):
            _print_events(printer, [change["object"]], all_namespaces)
    raise CliError("error: kubelite ended the watch: it is stopping, or has just been restarted")


def _about(text: str | None) -> Json:
    if not text:
        return {}
    query = wanted([text])[0]
    if not query.names:
        raise CliError("error: --for needs TYPE/NAME, as in --for pod/web", code=2)
    kinds = {"configmaps": "ConfigMap"}
    kind = kinds.get(query.type.plural, query.type.singular.capitalize())
    return {"fieldSelector": f"involvedObject.kind={kind},involvedObject.name={query.names[0]}"}


def _of_types(event: Json, types: str) -> bool:
    wanted_types = [t.strip().lower() for t in types.split(",") if t.strip()]
    return not wanted_types or str(event.get("type", "")).lower() in wanted_types


def _print_events(printer: TablePrinter, found: list[Json], all_namespaces: bool) -> None:
    from kubelite.api.kube.printers import event_object
    from kubelite.cli.describe.parts import event_age

    now = time.time()
    rows = [
        [
            *([e["metadata"].get("namespace", "")] if all_namespaces else []),
            event_age(e, now),
            e.get("type", ""),
            e.get("reason", ""),
            event_object(e),
            str(e.get("message", "")).strip(),
        ]
        for e in found
    ]
    columns = ("Last Seen", "Type", "Reason", "Object", "Message")
    printer.print(("Namespace", *columns) if all_namespaces else columns, rows)


@click.command()
@click.argument("pod", shell_complete=complete_pods)
@namespace_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["wide", "json", "chrome"]),
    metavar="wide|json|chrome",
    help="wide: drawn as a waterfall, with each step of the container's init; chrome: for ui.perfetto.dev or chrome://tracing.",
)
@socket_option
@click.pass_context
def trace(ctx: click.Context, pod: str, namespace: str | None, output: str | None) -> None:
    """Show the start of POD step by step: from the manifest's rename to execve."""
    answer = client(ctx).get(f"/kubelite/v1/trace/{namespace or 'default'}/{pod_name(pod)}")
    if output == "json":
        print_json(answer)
        return
    if output == "chrome":
        print_json(trace_formats.chrome(answer))
        return
    steps = answer["steps"]
    if not steps:
        print(
            f"Nothing is recorded of the start of {answer['pod']}: it was started by an earlier daemon.",
            file=sys.stderr,
        )
        return
    first, places = steps[0]["at"], spans(steps)
    wide = output == "wide"
    if not wide:  # what the init does step by step is for who wants it all
        places = [place for step, place in zip(steps, places, strict=True) if not step.get("call")]
        steps = [step for step in steps if not step.get("call")]
    rows = [
        [
            f"+{(step['at'] - first) * 1000:.2f} ms",
            f"{step['took'] * 1000:.2f} ms" if step.get("took") is not None else "",
            step.get("container", ""),
            f"  {trace_formats.short(step['step'])}" if step.get("call") else step["step"],
            *([trace_formats.bar(step, *place), step.get("call", "")] if wide else []),
            step.get("error") or step.get("detail", ""),
        ]
        for step, place in zip(steps, places, strict=True)
    ]
    columns = ("At", "Took", "Container", "Step", *(["Waterfall", "Kernel"] if wide else []), "Detail")
    TablePrinter().print(columns, rows)


@click.command()
@click.argument("ref", metavar="CONTAINER-ID|POD|IMAGE", shell_complete=complete_pods)
@namespace_option
@socket_option
@click.pass_context
def inspect(ctx: click.Context, ref: str, namespace: str | None) -> None:
    """Show all that is known of a container, a pod or an image, as JSON."""
    name = ref.partition("/")[2] if ref.startswith(("pod/", "po/", "pods/")) else ref
    print_json(client(ctx).get(f"/kubelite/v1/inspect/{f'{namespace}/{name}' if namespace else name}"))


@click.command()
@click.option("--deep", is_flag=True, help="Read every blob of the images and compare it with its digest.")
@click.option(
    "--repair", is_flag=True, help="First mend the image store; what cannot be mended is pulled again."
)
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")
@socket_option
@click.pass_context
def doctor(ctx: click.Context, output: str | None, deep: bool, repair: bool) -> None:
    """Check the node's invariants: what is left over, missing or wrong. Exit code 1 when something is."""
    if repair:
        for sentence in client(ctx).post("/kubelite/v1/images/repair", {"deep": deep})["done"]:
            print(f"repair: {sentence}", file=sys.stderr)
    findings = client(ctx).get("/kubelite/v1/doctor", query={"deep": "true"} if deep else None)["findings"]
    if output == "json":
        print_json({"findings": findings})
    else:
        for finding in findings:
            print(f"{finding['level']}: {finding['check']}: {finding['message']}")
            if finding.get("fix"):
                print(f"  fix: {finding['fix']}")
        if not findings:
            print("All is well.")
    if any(finding["level"] == "error" for finding in findings):
        raise Exit(1)


@click.command("api-resources")
@click.option("-o", "--output", type=click.Choice(["name", "wide"]), metavar="name|wide")
@click.option(
    "--namespaced", type=bool, metavar="true|false", help="Only those in namespaces, or only the others."
)
@click.option("--no-headers", is_flag=True, help="Leave the header line out.")
@socket_option
@click.pass_context
def api_resources(ctx: click.Context, output: str | None, namespaced: bool | None, no_headers: bool) -> None:
    """List the types of the API that this node serves (also to kubectl)."""
    server = client(ctx)
    groups = [g["preferredVersion"]["groupVersion"] for g in server.get("/apis")["groups"]]
    found = [
        (version, entry)
        for version, path in (("v1", "/api/v1"), *((group, f"/apis/{group}") for group in groups))
        for entry in server.get(path)["resources"]
        if "/" not in entry["name"] and namespaced in (None, entry["namespaced"])
    ]
    if output == "name":
        for version, entry in found:
            group = version.rpartition("/")[0]
            print(f"{entry['name']}.{group}" if group else entry["name"])
        return
    rows = [
        [
            *(
                entry["name"],
                ",".join(entry["shortNames"]),
                version,
                str(entry["namespaced"]).lower(),
                entry["kind"],
            ),
            *([",".join(entry["verbs"]), ""] if output == "wide" else ()),
        ]
        for version, entry in found
    ]
    wide = ("Verbs", "Categories") if output == "wide" else ()
    columns = ("Name", "ShortNames", "APIVersion", "Namespaced", "Kind", *wide)
    TablePrinter(headers=not no_headers).print(columns, rows)


@click.command()
@click.option("--client", "client_only", is_flag=True, help="Only our own version; asks no daemon.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json")
@socket_option
@click.pass_context
def version(ctx: click.Context, client_only: bool, output: str | None) -> None:
    """Print the version of this program and of the daemon."""
    from importlib.metadata import version as installed

    answer = {"client": installed("kubelite")}
    if not client_only:
        try:
            server = Client(ctx.obj["socket"], timeout=5.0).get("/version")
            answer["server"] = str(server["gitVersion"]).rpartition("kubelite-")[2]
        except CliError as error:
            answer["serverError"] = str(error)
    if output == "json":
        print_json(answer)
        return
    print(f"Client Version: {answer['client']}")
    if "server" in answer:
        print(f"Server Version: {answer['server']}")
    if "serverError" in answer:
        print(answer["serverError"], file=sys.stderr)
        raise Exit(1)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: source <(kubelite completion bash)"""
    from click.shell_completion import get_completion_class

    from kubelite.cli.main import cli

    found = get_completion_class(shell)
    if found is None:
        raise CliError(f"error: no completion for {shell}")
    complete = found(cli, {}, "kubelite", "_KUBELITE_COMPLETE")
    print(complete.source_template % complete.source_vars())

"""`kubelite logs`: print the log of a container or of all pods with a label, and follow it with -f."""

from __future__ import annotations

import queue
import sys
import threading
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.containers.chosen_pod import pod_of, running_timeout_option
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, duration, path_of
from kubelite.cli.options import (
    client,
    complete_pods_and_workloads,
    container_option,
    namespace_option,
    selector_option,
    socket_option,
)
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
SELECTED_TAIL = 10  # lines per pod with a selector, as in kubectl


@click.command(
    cls=Command,
    examples="""
    # Print the log of a pod, with rotated files
    kubelite logs web

    # Print the last 20 lines, and follow the log
    kubelite logs -f --tail 20 web

    # Print the log of the previous instance of a container
    kubelite logs -p web -c app

    # Print the log of a pod of a deployment, and of a job
    kubelite logs deployment/web
    kubelite logs job/import

    # Print the logs of all pods with a label
    kubelite logs -l app=web --prefix

    # Print what was logged in the last hour
    kubelite logs --since 1h web
    """,
)
@click.argument(
    "pod", required=False, metavar="[POD | TYPE/NAME]", shell_complete=complete_pods_and_workloads
)
@click.argument("container_name", required=False, metavar="[CONTAINER]")
@namespace_option
@container_option
@click.option(
    "-f", "--follow", is_flag=True, help="Follow the log, across restarts of the container and rotation."
)
@click.option(
    "-p", "--previous", is_flag=True, help="Print the log of the previous instance of the container."
)
@click.option(
    "--tail",
    type=click.IntRange(min=-1),
    metavar="LINES",
    help="Number of lines to print from the end; -1 for all. [default: -1; with -l, 10 for each pod]",
)
@click.option(
    "--since", metavar="DURATION", help="Only print lines newer than this, for example 30s, 5m or 1h."
)
@click.option("--since-time", metavar="RFC3339", help="Only print lines newer than this time.")
@click.option("--timestamps", is_flag=True, help="Print the time before each line.")
@click.option("--limit-bytes", type=int, metavar="BYTES", help="Maximum number of bytes to print.")
@click.option("--all-containers", is_flag=True, help="Print the logs of all containers of the pod.")
@selector_option
@click.option("--prefix", is_flag=True, help="Print [pod/NAME/CONTAINER] before each line.")
@click.option(
    "--max-log-requests",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Maximum number of logs to follow at the same time.",
)
@click.option("--ignore-errors", is_flag=True, help="If a log cannot be read, continue with the others.")
@running_timeout_option("20s")
@click.option(
    "--insecure-skip-tls-verify-backend", is_flag=True, hidden=True
)  # kubectl's; accepted and ignored: there is no kubelet certificate
@socket_option
@click.pass_context
def logs(ctx: click.Context, /, pod: str | None, container_name: str | None, **options: Any) -> None:
    """Print the logs of containers.

    Without a selector, the log is that of one container of POD. Of a workload, TYPE/NAME, one pod is chosen as kubectl
    chooses it.
    """
    if (pod is None) is (not options["selector"]):
        words = "only a selector (-l) or a POD name is allowed" if pod else "specify a POD, or -l SELECTOR"
        raise click.UsageError(words, ctx)
    if container_name and options["container"]:
        raise click.UsageError("only one of -c or a CONTAINER argument is allowed", ctx)
    server, namespace = client(ctx), options["namespace"] or "default"
    options["container"] = container_name or options["container"]
    if options["all_containers"] and options["container"]:
        raise CliError(
            f"error: --all-containers=true should not be specified with container name {options['container']}"
        )
    printers = [
        printer
        for document in _pods(server, namespace, pod, options)
        for printer in _printers(server, document, options)
    ]
    if len(printers) > 1 and options["follow"]:
        _together(printers, options)
        return
    for printer in printers:
        printer.run()


def _pods(server: Client, namespace: str, pod: str | None, options: Json) -> list[Json]:
    if pod is not None:
        return [pod_of(server, namespace, pod, options["pod_running_timeout"], logs=True)]
    query = {"labelSelector": options["selector"]}
    found: list[Json] = server.get(path_of(PODS, namespace), query=query)["items"]
    if not found:
        print(f"No resources found in {namespace} namespace.", file=sys.stderr)
    return found


def _printers(server: Client, pod: Json, options: Json) -> list[_Printer]:
    container, name = options["container"], pod["metadata"]["name"]
    if container and container not in _names(pod):
        raise CliError(f"error: container {container} is not valid for pod {name}")
    names = _names(pod) if options["all_containers"] else [container or default_container(pod)]
    path, query = path_of(PODS, pod["metadata"]["namespace"], name) + "/log", _query(options)
    ignore = options["ignore_errors"]
    return [
        _Printer(server, path, {**query, "container": c}, _prefix(options, name, c), ignore=ignore)
        for c in names
    ]


def _query(options: Json) -> Json:
    query: Json = {key: "true" for key in ("follow", "previous", "timestamps") if options[key]}
    tail = options["tail"]
    if tail is None:
        tail = SELECTED_TAIL if options["selector"] else -1
    if tail >= 0:
        query["tailLines"] = tail
    if options["since"] and options["since_time"]:
        raise CliError("error: only one of --since-time / --since may be used", code=2)
    if options["since"]:
        query["sinceSeconds"] = max(int(duration(options["since"])), 1)
    if options["since_time"]:
        query["sinceTime"] = options["since_time"]
    if options["limit_bytes"]:
        query["limitBytes"] = options["limit_bytes"]
    return query


def _names(pod: Json) -> list[str]:
    spec = pod["spec"]
    return [
        c["name"]
        for part in ("initContainers", "containers", "ephemeralContainers")
        for c in spec.get(part) or ()
    ]


def default_container(pod: Json, *, quiet: bool = False) -> str:
    """Return the default container. If the pod has several, print the choice on stderr, unless `quiet`."""
    names = [c["name"] for c in pod["spec"].get("containers") or ()]
    chosen = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER) or names[0]
    init = [f"{c['name']} (init)" for c in pod["spec"].get("initContainers") or ()]
    annotated = DEFAULT_CONTAINER in (pod["metadata"].get("annotations") or {})
    if len(names) + len(init) > 1 and not annotated and not quiet:
        print(f'Defaulted container "{chosen}" out of: {", ".join([*names, *init])}', file=sys.stderr)
    return str(chosen)


def _prefix(options: Json, pod: str, container: str) -> bytes:
    return f"[pod/{pod}/{container}] ".encode() if options["prefix"] else b""


_lock = threading.Lock()


class _Printer:
    """Print one container's log to stdout; only whole lines if it has a prefix or is one of several."""

    def __init__(self, server: Client, path: str, query: Json, prefix: bytes, *, ignore: bool) -> None:
        self._server, self._path, self._query, self._prefix = server, path, query, prefix
        self._ignore = ignore
        self.whole_lines = bool(prefix)
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._copy()
        except CliError as error:
            if not self._ignore:
                raise
            with _lock:
                print(error, flush=True)

    def _copy(self) -> None:
        out = sys.stdout.buffer
        left = b""
        for chunk in self._server.chunks(self._server.open("GET", self._path, query=self._query)):
            if not self.whole_lines:
                out.write(chunk)
                out.flush()
                continue
            *lines, left = (left + chunk).split(b"\n")
            with _lock:
                out.write(b"".join(self._prefix + line + b"\n" for line in lines))
                out.flush()
        if left:
            with _lock:
                out.write(self._prefix + left)
                out.flush()

    def keep(self, ended: queue.SimpleQueue[_Printer]) -> None:
        try:
            self.run()
        except (CliError, OSError) as error:  # a closed pipe or a full disk
            self.error = error
        finally:
            ended.put(self)


def _together(printers: list[_Printer], options: Json) -> None:
    if len(printers) > options["max_log_requests"]:
        raise CliError(
            f"error: you are attempting to follow {len(printers)} log streams, but maximum allowed concurrency is "
            f"{options['max_log_requests']}, use --max-log-requests to increase the limit"
        )
    ended: queue.SimpleQueue[_Printer] = queue.SimpleQueue()
    for printer in printers:
        printer.whole_lines = True
        threading.Thread(target=printer.keep, args=(ended,), daemon=True).start()
    for _ in printers:
        error = ended.get().error
        if error is not None:  # do not wait for the others
            raise error

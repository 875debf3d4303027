"""`kubelite logs`: a container's log as it is and, with -f, as it grows."""

from __future__ import annotations

import sys
import threading
from typing import Any

import click

from kubelite.cli.client import Client
from kubelite.cli.errors import CliError
from kubelite.cli.names import duration, path_of, pod_name, resource_type
from kubelite.cli.options import client, complete_pods, container_option, namespace_option, socket_option

Json = dict[str, Any]

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"


@click.command()
@click.argument("pod", shell_complete=complete_pods)
@click.argument("container_name", required=False, metavar="[CONTAINER]")
@namespace_option
@container_option
@click.option("-f", "--follow", is_flag=True, help="Go on as the log grows, over restarts and rotation.")
@click.option("-p", "--previous", is_flag=True, help="The log of the instance before this one.")
@click.option("--tail", type=int, default=-1, metavar="LINES", help="Only so many lines from the end.")
@click.option("--since", metavar="DURATION", help="Only what is newer: 30s, 5m, 1h.")
@click.option("--since-time", metavar="RFC3339", help="Only what is newer than this time.")
@click.option("--timestamps", is_flag=True, help="The time before each line.")
@click.option("--limit-bytes", type=int, metavar="BYTES", help="No more than so many bytes.")
@click.option("--all-containers", is_flag=True, help="Every container of the pod.")
@click.option("--prefix", is_flag=True, help="[pod/NAME/CONTAINER] before each line.")
@socket_option
@click.pass_context
def logs(ctx: click.Context, /, pod: str, container_name: str | None, **options: Any) -> None:
    """Print the log of a container of POD.

    \b
    kubelite logs web                   all of it, rotated files included
    kubelite logs -f --tail 20 web      the end, and what comes
    kubelite logs -p web -c app         of the instance that crashed
    """
    server, namespace, name = client(ctx), options["namespace"] or "default", pod_name(pod)
    container = container_name or options["container"]
    query = _query(options)
    document = server.get(path_of(resource_type("pods"), namespace, name))
    if container and container not in _names(document):
        raise CliError(f"error: container {container} is not valid for pod {name}")
    names = _names(document) if options["all_containers"] else [container or default_container(document)]
    path = path_of(resource_type("pods"), namespace, name) + "/log"
    printers = [_Printer(server, path, {**query, "container": c}, _prefix(options, name, c)) for c in names]
    if len(printers) > 1 and options["follow"]:
        _together(printers)
        return
    for printer in printers:
        printer.run()


def _query(options: Json) -> Json:
    query: Json = {key: "true" for key in ("follow", "previous", "timestamps") if options[key]}
    if options["tail"] >= 0:
        query["tailLines"] = options["tail"]
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


def default_container(pod: Json) -> str:
    """The container that is meant when none is named; says so when there are several."""
    names = [c["name"] for c in pod["spec"].get("containers") or ()]
    chosen = (pod["metadata"].get("annotations") or {}).get(DEFAULT_CONTAINER) or names[0]
    init = [f"{c['name']} (init)" for c in pod["spec"].get("initContainers") or ()]
    if len(names) + len(init) > 1 and DEFAULT_CONTAINER not in (pod["metadata"].get("annotations") or {}):
        print(f'Defaulted container "{chosen}" out of: {", ".join([*names, *init])}', file=sys.stderr)
    return str(chosen)


def _prefix(options: Json, pod: str, container: str) -> bytes:
    return f"[pod/{pod}/{container}] ".encode() if options["prefix"] else b""


_lock = threading.Lock()


class _Printer:
    """One container's log to stdout; with a prefix, whole lines at a time."""

    def __init__(self, server: Client, path: str, query: Json, prefix: bytes) -> None:
        self._server, self._path, self._query, self._prefix = server, path, query, prefix
        self.error: BaseException | None = None

    def run(self) -> None:
        out = sys.stdout.buffer
        left = b""
        for chunk in self._server.chunks(self._server.open("GET", self._path, query=self._query)):
            if not self._prefix:
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

    def keep(self) -> None:
        try:
            self.run()
        except (CliError, OSError) as error:  # a reader that is gone, a disk that is full
            self.error = error


def _together(printers: list[_Printer]) -> None:
    threads = [threading.Thread(target=printer.keep, daemon=True) for printer in printers]
    for thread in threads:
        thread.start()
    for thread, printer in zip(threads, printers, strict=True):
        thread.join()
        if printer.error is not None:
            raise printer.error

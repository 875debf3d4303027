"""Attach to a container of a pod, for `kubelite attach`, `kubelite debug` and `kubelite run`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from kubelite.cli.containers.pod_parts import SPECS, part_of, state_of
from kubelite.cli.containers.session import exit_code, is_terminal, run_session, terminal_size
from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.output.waiting import Waiting, waiting
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

LOOK_SECONDS = 0.1
_PERMANENT = ("InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull", "CrashLoopBackOff")
SETTLED = 10.0  # seconds for the pod's status to catch up with the shim


def attach_to(
    server: Client,
    path: str,
    document: Json,
    name: str,
    *,
    stdin: bool,
    quiet: bool,
    silent: Callable[[], None] = lambda: None,
) -> int:
    if "running" not in state_of(document, name):
        raise CliError(f"error: container {name} is not running")
    tty = bool(part_of(document["spec"], SPECS, name).get("tty"))
    query: Json = {"container": name, "stdout": "true"} | ({"stdin": "true"} if stdin else {})
    ours = tty and is_terminal(stdin)
    if ours:
        width, height = terminal_size()
        query |= {"tty": "true", "width": width, "height": height}
    status = run_session(server.path, f"{path}/attach", query, stdin=stdin, tty=ours, silent=silent)
    return exit_code(status, quiet=quiet)


def attach_when_started(
    server: Client, path: str, name: str, options: Json, *, until: float | None = None
) -> int:
    """Wait until the container has started, attach to it, and return its exit code. `until` (monotonic seconds; None:
    no limit) bounds the wait. `options`: stdin, tty and quiet. Raises CliError."""
    with waiting(f"waiting for container {name} to start") as line:
        document = _until_started(server, path, name, until, line)
    if "running" in state_of(document, name):
        if not options["quiet"] and options["tty"]:
            click.echo("If you don't see a command prompt, try pressing enter.", err=True)
        try:
            return attach_to(
                server,
                path,
                document,
                name,
                stdin=options["stdin"],
                quiet=options["quiet"],
                silent=lambda: _show_log(server, path, name),  # it may have ended before we attached
            )
        except ServerError:
            if (ended := _once_ended(server, path, name)) is None:
                raise
            document = ended
    return _was_faster(server, path, document, name, quiet=options["quiet"])


def _once_ended(server: Client, path: str, name: str) -> Json | None:
    """Wait until the pod's status shows that the container has terminated, and return the pod; None after SETTLED
    seconds. A container that has ended refuses an attachment shortly before its status shows the end."""
    until = time.monotonic() + SETTLED
    while time.monotonic() < until:
        document: Json = server.get(path)
        if "terminated" in state_of(document, name):
            return document
        time.sleep(LOOK_SECONDS)
    return None


def _was_faster(server: Client, path: str, document: Json, name: str, *, quiet: bool) -> int:
    """The container ended before we attached: print its log, as `kubectl debug` does, and return its exit code."""
    _show_log(server, path, name)
    code = int(state_of(document, name)["terminated"].get("exitCode", 1))
    if code and not quiet:
        click.echo(f"command terminated with exit code {code}", err=True)
    return code


def _advice(server: Client, path: str, name: str) -> list[str]:
    """Return the node's advice about this container."""
    where = path.removeprefix("/api/v1/namespaces/").replace("/pods/", "/")
    try:
        found = server.get(f"/kubelite/v1/why/{where}").get("advice") or ()
    except ServerError:  # no decision yet
        return []
    return [one.removeprefix(f"{name}: ") for one in found if one.startswith(f"{name}: ")]


def _until_started(server: Client, path: str, name: str, until: float | None, line: Waiting) -> Json:
    """Wait until the container runs or has ended, and return the pod. Raises CliError for permanent problems."""
    said = ""
    while True:
        document: Json = server.get(path)
        state = state_of(document, name)
        if "running" in state or "terminated" in state:
            return document
        if (document.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            raise CliError(f"error: the pod has ended; container {name} did not start")
        waiting = state.get("waiting") or {}
        words = ": ".join(filter(None, (waiting.get("reason"), waiting.get("message"))))
        if waiting.get("reason") in _PERMANENT:
            raise CliError(f"error: container {name} cannot be started: {words}")
        if words and words != said and waiting.get("message"):
            line.print(f"container {name} is waiting: {words}", err=True)
            for sentence in () if said else _advice(server, path, name):
                line.print(f"  {sentence}", err=True)
            said = words
        if until is not None and time.monotonic() >= until:
            raise CliError(
                f"error: timed out waiting for container {name} to start: {words or 'no state yet'}"
            )
        time.sleep(LOOK_SECONDS)


def _show_log(server: Client, path: str, name: str) -> None:
    for chunk in server.chunks(server.open("GET", f"{path}/log", query={"container": name})):
        sys.stdout.buffer.write(chunk)
    sys.stdout.flush()

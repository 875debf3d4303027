"""Attach to a container of a pod, for `kubelite attach` and `kubelite debug`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kubelite.cli.containers.pod_parts import SPECS, part_of, state_of
from kubelite.cli.containers.session import exit_code, is_terminal, run_session, terminal_size
from kubelite.cli.errors import CliError
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


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

"""`kubelite support-bundle`: collect diagnostic data in one archive, without confidential data.

The archive contains no secrets, config maps, logs or image contents. Values of environment variables, command lines and
annotations that could hold a password are replaced. Data that cannot be collected is listed in errors.txt.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
import time
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, socket_option
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


HIDDEN = "(not in the bundle)"
PAST = 500  # entries of a pod's history, the newest
#: Keys, at any depth, whose text could contain a password.
_PRIVATE = frozenset({"command", "args", "data", "stringData", "binaryData", "httpHeaders"})
#: Objects whose message comes from a program in a container.
_PROGRAMS = frozenset({"terminated"})
#: Events whose message contains a program's output.
_TELLING = frozenset({"Unhealthy", "ProbeWarning", "FailedPostStartHook", "FailedPreStopHook"})
#: The lists of workloads. Those that are empty are left out.
_WORKLOADS = (
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/statefulsets",
    "/apis/apps/v1/daemonsets",
    "/apis/batch/v1/jobs",
    "/apis/batch/v1/cronjobs",
    "/api/v1/replicationcontrollers",
)
_HOST = (
    "/proc/version",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/proc/mounts",
    "/proc/cgroups",
    "/etc/os-release",
)


@click.command(
    "support-bundle",
    cls=Command,
    examples="""
    # Write an archive to the current directory
    kubelite support-bundle

    # Choose its name
    kubelite support-bundle -f /tmp/node.tar.gz
    """,
)
@click.option(
    "-f",
    "--file",
    metavar="FILE",
    type=click.Path(),
    help="Path of the archive. [default: kubelite-<node>-<time>.tar.gz]",
)
@socket_option
@click.pass_context
def support_bundle(ctx: click.Context, file: str | None) -> None:
    """Collect diagnostic data in an archive.

    The archive has the state of the node, its pods and workloads, events, history, traces, the findings of
    `kubelite doctor`, and facts about the machine.
    """
    server = client(ctx)
    contents, errors = gather(server)
    if errors:
        contents["errors.txt"] = "\n".join(errors) + "\n"
    try:
        node = json.loads(contents["nodes.json"])["items"][0]["metadata"]["name"]
    except (KeyError, ValueError, IndexError):
        reasons = dict.fromkeys(
            sentence.partition(": ")[2] for sentence in errors
        )  # usually the same for every file
        raise CliError("\n".join(reasons) or "error: the daemon returned no data about its node") from None
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = file or f"kubelite-{node}-{stamp}.tar.gz"
    try:
        write(path, contents)
    except OSError as error:
        raise CliError(f"error: cannot write {path}: {error.strerror}") from error
    print(f"{path}: {len(contents)} files; no secrets, logs or values of environment variables are in it")
    for sentence in errors:
        print(f"  missing: {sentence}")


def gather(server: Client) -> tuple[dict[str, str], list[str]]:
    """Return (file name → text, errors)."""
    found: dict[str, str] = {"machine.txt": _machine()}
    errors: list[str] = []

    def ask(name: str, path: str, query: Json | None = None) -> Any:
        try:
            answer = redact(server.get(path, query=query))
        except CliError as error:
            errors.append(f"{name}: {error}")
            return None
        found[name] = json.dumps(answer, indent=1, sort_keys=True) + "\n"
        return answer

    for name, path in (
        ("version.json", "/version"),
        ("nodes.json", "/api/v1/nodes"),
        ("events.json", "/api/v1/events"),
        ("manifests.json", "/kubelite/v1/manifests"),
        ("doctor.json", "/kubelite/v1/doctor"),
        ("images.json", "/kubelite/v1/images"),
        ("usage.json", "/kubelite/v1/usage"),
    ):
        ask(name, path)
    for pod in (ask("pods.json", "/api/v1/pods") or {}).get("items", ()):
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        ask(f"traces/{namespace}_{name}.json", f"/kubelite/v1/trace/{namespace}/{name}")
        ask(f"history/{namespace}_{name}.json", f"/kubelite/v1/history/{namespace}/{name}", {"limit": PAST})
    for path in _WORKLOADS:
        name = f"{path.rpartition('/')[2]}.json"
        if not (ask(name, path) or {}).get("items"):
            found.pop(name, None)
    return found, errors


def redact(value: Any, key: str = "") -> Any:
    """Remove everything from the document that could contain a password. That includes programs' output (a container's
    termination message, the output of a failed probe), but not the node's own messages."""
    if key == "annotations" and isinstance(value, dict):
        return {name: v if name.startswith("kubelite.io/") else HIDDEN for name, v in value.items()}
    if key == "env" and isinstance(value, list):
        return [{k: HIDDEN if k == "value" else redact(v, k) for k, v in one.items()} for one in value]
    if key in _PRIVATE and value:
        return HIDDEN
    if key == "httpGet" and isinstance(value, dict) and "?" in str(value.get("path")):
        path = str(value["path"]).partition("?")[0]
        value = {**value, "path": f"{path}?{HIDDEN}"}
    if isinstance(value, dict):
        words = {k: redact(v, k) for k, v in value.items()}
        if (key in _PROGRAMS or value.get("reason") in _TELLING) and value.get("message"):
            words["message"] = HIDDEN
        return words
    if isinstance(value, list):
        return [redact(one) for one in value]
    return value


def write(path: str, contents: dict[str, str]) -> None:
    """Write an archive that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, text in sorted(contents.items()):
            data = text.encode()
            member = tarfile.TarInfo(f"kubelite/{name}")
            member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
            archive.addfile(member, io.BytesIO(data))


def _machine() -> str:
    parts = [f"{platform.platform()} {platform.machine()} Python {platform.python_version()}\n"]
    for path in _HOST:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                parts.append(f"== {path}\n{file.read(65536)}")
        except OSError as error:
            parts.append(f"== {path}\n{error.strerror}\n")
    return "\n".join(parts)

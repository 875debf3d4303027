"""`kubelite build`: build an image on this node from a Containerfile and its context.

The build runs in this process: it reads files with the caller's permissions, and Ctrl-C ends it. The daemon does what
must be coordinated on a node: pulls and attachments to the pods' network. The build uses the same locks, leases and
renames in the image store as the node's image workers, so both can work at the same time.
"""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.build import build_again
from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, socket_option
from kubelite.cli.transport.client import JSON_BODY, Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json
    from runtime.builder.output import Output
    from runtime.builder.run.running import Attached
    from runtime.builder.solver import Request, Services

_NAMES = ("Containerfile", "Dockerfile")
_STDIN_MAX = 10 << 20  # bytes of a Containerfile


@click.command(
    cls=Command,
    examples="""
    # Build an image from the Containerfile in the current directory
    kubelite build -t web:1 .

    # Pass an argument and a secret
    kubelite build -t web:1 --build-arg VERSION=2 --secret id=token,src=token.txt .

    # Build one stage, and write its files to a directory
    kubelite build --target test -o type=local,dest=out .

    # Read the Containerfile from standard input
    kubelite build -t tool:1 - <Containerfile
    """,
)
@click.argument("context", type=click.Path())
@click.option(
    "-t",
    "--tag",
    "tags",
    multiple=True,
    metavar="NAME[:TAG]",
    help="Name of the image. May be repeated.",
)
@click.option(
    "-f",
    "--file",
    metavar="FILE",
    type=click.Path(),
    help="Path of the Containerfile; - is standard input. [default: Containerfile or Dockerfile in CONTEXT]",
)
@click.option("--target", default="", metavar="STAGE", help="Build this stage and the stages that it needs.")
@click.option(
    "--build-arg",
    "args",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set an ARG; without a value, that of the environment variable.",
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="id=ID[,src=FILE|,env=NAME]",
    help="Secret for RUN --mount=type=secret.",
)
@click.option(
    "--ssh",
    "agents",
    multiple=True,
    metavar="default|ID[=SOCKET]",
    help="SSH agent for RUN --mount=type=ssh.",
)
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Set a label of the image.")
@click.option("--no-cache", is_flag=True, help="Run all steps, without the cache.")
@click.option("--pull", is_flag=True, help="Ask the registry for new versions of the base images.")
@click.option(
    "--network",
    type=click.Choice(["default", "none", "host"]),
    default="default",
    show_default=True,
    help="Network of RUN steps: the pod network, none, or that of the host. With host, ADD may also fetch from the "
    "host's own addresses.",
)
@click.option(
    "-o",
    "--output",
    metavar="DEST",
    help="Destination: type=local|tar|oci|docker,dest=PATH, a directory, or - for a tar archive on standard output. "
    "A directory gets no set-user-ID bits, file capabilities and devices, except with type=local,special=true. "
    "[default: an image on this node]",
)
@click.option("-m", "--memory", metavar="BYTES", help="Memory limit of each RUN step, like 512m.")
@click.option("--cpus", type=float, metavar="N", help="CPU limit of each RUN step.")
@click.option(
    "--platform",
    default="",
    metavar="OS/ARCH",
    help="Platform of the image; only that of this machine is supported.",
)
@click.option("--iidfile", metavar="FILE", type=click.Path(), help="Write the ID of the image to this file.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "plain", "tty", "json"]),
    default="auto",
    show_default=True,
    help="Form of the progress output.",
)
@click.option("-q", "--quiet", is_flag=True, help="Only print the ID of the image.")
@socket_option
@click.pass_context
def build(ctx: click.Context, /, **given: Any) -> None:
    """Build an image from a Containerfile (Dockerfile).

    CONTEXT is a directory, or - for a Containerfile from standard input without a directory.
    """
    from runtime.builder.errors import BuildError
    from runtime.errors import RuntimeFault

    server = client(ctx)
    about = server.get("/kubelite/v1/build")
    try:
        _build(server, about, given)
    except BuildError as error:
        raise CliError(f"error: {error}") from error
    except RuntimeFault as error:
        raise CliError(f"error: {error}") from error
    except BrokenPipeError:  # the reader of the archive has exited
        raise
    except OSError as error:
        named = f": {error.filename}" if error.filename else ""
        raise CliError(f"error: {error.strerror or error}{named}") from error


def _build(server: Client, about: Json, given: Json) -> None:
    from kubelite.cli.build import build_progress
    from runtime.builder import output as outputs
    from runtime.builder.solver import Build
    from runtime.builder.stage import run_stage
    from runtime.images.registry import registriesconf
    from runtime.images.store.store import ImageStore

    wanted = _output(given["output"])
    progress = "quiet" if given["quiet"] else str(given["progress"])
    began = time.time_ns()
    with ExitStack() as held:
        request = _request(given, wanted, held)
        index = f"{about['images']}/index.json"
        looked_at, ours = _looked_at(given, request, server.path), {index: build_again.stamp(index)}
        report = _Told(held.enter_context(build_progress.shown(build_progress.kind(progress))))
        store = ImageStore(about["images"], expand=registriesconf.load().expand)
        held.enter_context(_ended_by_signals())
        services = _services(server, about, report)
        with Build(store, request, services) as build_:
            result = build_.solve(run_stage)
            record = outputs.write(build_, result, wanted)
    if record is None:
        return
    if given["iidfile"]:
        with open(given["iidfile"], "w", encoding="utf-8") as file:
            file.write(record.id)
    if wanted.target == "-":  # standard output carries the archive
        return
    answer = [record.id] if given["quiet"] else [f"Built {name}" for name in request.tags or (record.id,)]
    print("\n".join(answer))
    if progress not in ("quiet", "json"):
        _hint(request.tags)
    if (
        looked_at is not None
        and build_.used_files.whole
        and _device(request.beside) == build_.used_files.device
    ):
        from runtime.images.store import buildcache

        seen = {path: build_again.shown(st) for path, st in build_.used_files.files.items()}
        build_again.keep(
            sys.argv[1:],
            began=began,
            files={**seen, **looked_at},
            ours={**{path: build_again.stamp(path) for path in record.layers}, **ours},
            environ=_environ(given),
            used=[buildcache.record_path(store, key) for key in build_.used],
            progress=progress,
            events=[json.dumps(event) for event in report.again()],
            answer=answer,
        )


def _hint(tags: tuple[str, ...]) -> None:
    """Print a note if pods with this image ask a registry first: Kubernetes' default pull policy for the tag latest."""
    for tag in tags:
        registry, _, rest = tag.partition("/")
        if rest.endswith(":latest") and registry != "localhost":
            name = tag.removesuffix(":latest").removeprefix("docker.io/library/")
            words = f"a pod with the image {name} asks {registry} for a newer one first, unless its imagePullPolicy is"
            print(f"note: {words} IfNotPresent; with localhost/{name} it does not", file=sys.stderr)


class _Told:
    """Passes a build's events on and records its steps."""

    def __init__(self, report: Callable[[Json], None]) -> None:
        self._report = report
        self._begun: list[Json] = []

    def __call__(self, event: Json) -> None:
        if event.get("event") == "step" and event["state"] == "begin":
            self._begun.append(event)
        self._report(event)

    def again(self) -> Iterator[Json]:
        """Yield the events to report when the same build is repeated without changes."""
        for event in self._begun:
            state = "done" if event["name"].partition("] ")[2].startswith("FROM ") else "cached"
            yield event
            yield {"event": "step", "id": event["id"], "state": state, "seconds": 0.0}


def _looked_at(given: Json, request: Request, socket: str) -> dict[str, str] | None:
    """Return the files that the result depends on besides the context, with their current stamps; None if it depends on
    more than files."""
    from runtime.images.registry import registriesconf

    more = ("no_cache", "pull", "secrets", "agents", "output", "iidfile")
    if any(given[name] for name in more) or not request.beside or socket != build_again.socket():
        return None
    conf, *parts = registriesconf.files()
    paths = [request.beside, f"{request.beside}.dockerignore", conf, f"{conf}.d", *parts]
    paths = [os.path.abspath(path) for path in paths]
    if any(map(os.path.islink, paths)):
        return None
    return {path: build_again.stamp(path) for path in paths}


def _device(path: str) -> int:
    return os.stat(path).st_dev


def _environ(given: Json) -> list[str]:
    """Return the environment variables that the result depends on."""
    named = [entry for entry in given["args"] if "=" not in entry]
    return sorted({"SOURCE_DATE_EPOCH", "CONTAINERS_REGISTRIES_CONF", *named})


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C: end the running steps and remove partial results."""

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# --- the request ---


def _output(text: str | None) -> Output:
    from runtime.builder import output as outputs

    try:
        found = outputs.parse(text) if text else outputs.Output()
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if found.target == "-" and sys.stdout.isatty():
        raise CliError("error: will not write an archive to a terminal: specify a file, or redirect")
    return found


def _request(given: Json, wanted: Output, held: ExitStack) -> Request:
    from runtime.builder.solver import Request, platform_args
    from runtime.images import reference
    from runtime.images.registry import registriesconf

    here = platform_args()["TARGETPLATFORM"]
    if given["platform"] not in ("", here):
        raise CliError(
            f"error: --platform={given['platform']} is not supported: this machine builds for {here}"
        )
    context, text, file, beside = _inputs(given["context"], given["file"], held)
    args = dict(_argument(entry) for entry in given["args"] if _argument(entry)[1] is not None)
    epoch = args.get("SOURCE_DATE_EPOCH") or os.environ.get("SOURCE_DATE_EPOCH") or ""
    if epoch and not epoch.isdigit():
        raise CliError(f"error: SOURCE_DATE_EPOCH must be a number of seconds, not {epoch}")
    expand = registriesconf.load().expand  # resolve short names as every other command does
    tags = tuple(str(reference.parse(expand(tag))) for tag in given["tags"])
    if any("@" in tag for tag in tags):
        raise CliError("error: a new image's name cannot have a digest")
    if wanted.kind in ("local", "tar") and tags:
        raise CliError(f"error: --output type={wanted.kind} creates no image for --tag to name")
    return Request(
        context=context,
        containerfile=text,
        file=file,
        beside=beside,
        tags=tags,
        target=given["target"],
        args={name: value or "" for name, value in args.items()},
        labels=dict(_label(entry) for entry in given["labels"]),
        secrets=dict(_secret(entry) for entry in given["secrets"]),
        agents=dict(_agent(entry) for entry in given["agents"]),
        no_cache=given["no_cache"],
        pull=given["pull"],
        network=given["network"],
        epoch=int(epoch) if epoch else None,
        resources=_resources(given["memory"], given["cpus"]),
    )


def _inputs(context: str, file: str | None, held: ExitStack) -> tuple[str, str, str, str]:
    """Return (context directory, the Containerfile's text, its name, its path or "")."""
    if context == "-":
        if file not in (None, "-"):
            raise CliError("error: with - as the context the Containerfile comes from stdin: omit --file")
        import tempfile

        empty = held.enter_context(tempfile.TemporaryDirectory(prefix="kubelite-build-"))
        return empty, _stdin(), "Containerfile", ""
    if re.match(r"^(https?|git|ssh)://|^git@", context):
        raise CliError(f"error: a context from the network is not supported: fetch {context} first")
    if not os.path.isdir(context):
        raise CliError(f"error: the context {context} is not a directory")
    if file == "-":
        return context, _stdin(), "Containerfile", ""
    path = file or next((p for name in _NAMES if os.path.isfile(p := os.path.join(context, name))), "")
    if not path:
        raise CliError(f"error: no Containerfile or Dockerfile in {context}; specify one with --file")
    from runtime.builder.solver import read_containerfile

    try:
        return context, read_containerfile(context, path), path, path
    except OSError as error:
        raise CliError(f"error: cannot read {path}: {error.strerror}") from error


def _stdin() -> str:
    data = sys.stdin.buffer.read(_STDIN_MAX + 1)
    if len(data) > _STDIN_MAX or data[:2] == b"\x1f\x8b" or data[257:262] == b"ustar":
        raise CliError(
            "error: stdin is the Containerfile; an archive as the context is not supported: unpack it first"
        )
    return data.decode("utf-8", "surrogateescape")


def _argument(entry: str) -> tuple[str, str | None]:
    name, equals, value = entry.partition("=")
    return name, value if equals else os.environ.get(name)


def _label(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value


def _secret(entry: str) -> tuple[str, bytes]:
    fields = dict(part.partition("=")[::2] for part in entry.split(","))
    identity = fields.pop("id", "")
    kind = fields.pop("type", "")
    path = fields.pop("src", "") or fields.pop("source", "")
    variable = fields.pop("env", "")
    if not identity or fields or kind not in ("", "file", "env"):
        raise click.UsageError(f'--secret must be like id=ID,src=FILE or id=ID,env=NAME, not "{entry}"')
    if not path and (variable or kind == "env" or identity in os.environ):
        value = os.environ.get(variable or identity)
        if value is None:
            raise CliError(f"error: --secret id={identity}: {variable or identity} is not set")
        return identity, os.fsencode(value)
    try:
        with open(path or identity, "rb") as file:
            return identity, file.read()
    except OSError as error:
        raise CliError(
            f"error: --secret id={identity}: cannot read {path or identity}: {error.strerror}"
        ) from error


def _agent(entry: str) -> tuple[str, str]:
    identity, _, path = entry.partition("=")
    path = path or os.environ.get("SSH_AUTH_SOCK", "")
    if not path:
        raise CliError(f"error: --ssh {entry}: no SSH agent: SSH_AUTH_SOCK is not set")
    try:
        found = stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise CliError(f"error: --ssh {entry}: {path}: {error.strerror}") from error
    if not found:
        raise CliError(f"error: --ssh {entry}: {path} is not an agent's socket; for a key file, use ssh-add")
    return identity, os.path.abspath(path)


def _resources(memory: str | None, cpus: float | None) -> Json:
    """Return the OCI runtime configuration's linux.resources."""
    found: Json = {}
    if memory:
        match = re.fullmatch(r"(\d+)([bkmg]?)", memory.lower())
        if match is None:
            raise click.UsageError(f"--memory must be a number of bytes, like 512m, not {memory}")
        found["memory"] = {"limit": int(match[1]) << {"": 0, "b": 0, "k": 10, "m": 20, "g": 30}[match[2]]}
    if cpus:
        found["cpu"] = {"quota": int(cpus * 100_000), "period": 100_000}
    return found


# --- services of the daemon ---


def _services(server: Client, about: Json, report: Any) -> Services:
    from runtime.builder.solver import Services

    def pull(reference: str, cancellable: Callable[[int], AbstractContextManager[None]]) -> None:
        body = json.dumps({"reference": reference}).encode()
        response = server.open("POST", "/kubelite/v1/images/pull", body=body, headers=JSON_BODY)
        with closing(response), cancellable(response.fileno()):
            _follow(server, response, report)

    limit = about.get("memory")  # a daemon of an older version sends none of these
    return Services(
        about["cgroupParent"],
        pull,
        lambda pid: _attached(server, pid),
        report,
        resources={"memory": {"limit": limit}} if limit else {},
        socketcall=about.get("socketcall", True),
        apparmor=about.get("apparmor", ""),
    )


def _follow(server: Client, response: Any, report: Any) -> None:
    from runtime.errors import ImageError

    for event in server.lines(response):
        if event.get("event") == "error":
            raise ImageError(str(event["status"].get("message")), reason=str(event["status"].get("reason")))
        if event.get("event") == "done":
            return
        report(event)
    raise CliError("error: kubelite closed the connection before the image was complete")


@contextmanager
def _attached(server: Client, pid: int) -> Iterator[Attached]:
    """Attach the process's network namespace to the pod network. The daemon keeps it attached until the response is
    closed."""
    from runtime.builder.run.running import Attached
    from runtime.errors import NetworkError

    body = json.dumps({"pid": pid}).encode()
    try:
        response = server.open("POST", "/kubelite/v1/build/network", body=body, headers=JSON_BODY)
    except ServerError as error:
        raise NetworkError(str(error)) from error
    with closing(response):
        line = json.loads(response.readline() or b"{}")
        if "address" not in line:
            raise NetworkError(str(line.get("error", {}).get("message", "the daemon attached no network")))
        try:
            yield Attached(line["address"])
        finally:
            with suppress(OSError):
                response.close()

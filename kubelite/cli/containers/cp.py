"""`kubelite cp`: copy files between this machine and a container with the container's tar, as kubectl cp does.

A `kubelite exec` subprocess runs the tar in the container, connected by a pipe. Names from a container are not trusted:
nothing is written outside the destination (tarfile's "data" filter, PEP 706).
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

from kubelite.cli.containers.chosen_pod import only_pod_name
from kubelite.cli.containers.logs import default_container
from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, WORKLOADS, path_of, pod_name
from kubelite.cli.options import client, complete_cp, container_option, namespace_option, socket_option

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

# How long the transfer may take to end after SIGTERM, in seconds.
GRACE = 2.0


class Place(NamedTuple):
    """One end of a copy. `pod` is empty for this machine."""

    pod: str
    namespace: str
    path: str


def place_of(text: str, namespace: str) -> Place:
    """Parse `[[NAMESPACE/]POD:]PATH`. Text that starts with `/` or `.` is a local path, even with colons. Raises
    CliError."""
    pod, colon, path = text.partition(":")
    if not colon or text[:1] in ("/", "."):
        return Place("", "", text)
    parts = pod.split("/")
    if not all(parts) or len(parts) > 2:
        raise CliError("error: filespec must match the canonical format: [[namespace/]pod:]file/path", code=2)
    if not path:
        raise CliError("error: filepath can not be empty", code=2)
    return Place(pod_name(parts[-1]), parts[0] if len(parts) == 2 else namespace, path)


@click.command(
    "cp",
    cls=Command,
    examples="""
    # Copy a file into a pod
    kubelite cp index.html web:/www/

    # Copy a file from a pod
    kubelite cp web:/etc/hosts hosts

    # Copy a directory into a certain container of a pod in another namespace
    kubelite cp -c app ./conf prod/api:/etc/api
    """,
)
@click.argument("source", metavar="SOURCE", shell_complete=complete_cp)
@click.argument("destination", metavar="DESTINATION", shell_complete=complete_cp)
@namespace_option
@container_option
@click.option(
    "--no-preserve", is_flag=True, help="Do not preserve ownership and permissions in the container."
)
@socket_option
@click.pass_context
def copy(ctx: click.Context, /, source: str, destination: str, **options: Any) -> None:
    """Copy files to and from containers.

    SOURCE and DESTINATION are a local PATH and a path in a container, [NAMESPACE/]POD:PATH. Directories are copied
    with their content. The container needs the program `tar`. Copied local files belong to the user who runs the
    command.
    """
    namespace = options["namespace"] or "default"
    from_, to = place_of(source, namespace), place_of(destination, namespace)
    if from_.pod and to.pod:
        raise CliError("error: one of src or dest must be a local file specification", code=2)
    if not from_.pod and not to.pod:
        raise CliError("error: one of src or dest must be a remote file specification", code=2)
    if "-" in (from_.path, to.path):  # docker's word for an archive on standard input or output
        raise CliError(
            'error: "-" is no local file: `kubelite exec POD -- cat FILE` prints a file, '
            "`kubelite exec POD -- tar c DIRECTORY` an archive; ./- is a file of this name",
            code=2,
        )
    server, there = client(ctx), from_ if from_.pod else to
    pod = _pod(server, there, namespace)  # fail early if the pod is missing
    # -P: import no package of this name from the current directory
    execute = [sys.executable, "-P", "-m", "kubelite", "--socket", server.path]
    execute += ["exec", "--user-agent", "kubelite cp", "-q", "-n", there.namespace]
    container = options["container"] or default_container(pod)
    execute += ["-c", container]
    where = f"container {container} of pod {there.namespace}/{there.pod}"
    if from_.pod:
        _out(execute, from_, to.path, where)
    else:
        _in(execute, from_.path, to, where, keep=not options["no_preserve"])


def _pod(server: Client, there: Place, namespace: str) -> Json:
    """Return the pod. `deployment/web:/x` reads as pod web of a namespace: without such a pod, name the pods of the
    deployment. Raises CliError."""
    try:
        found: Json = server.get(path_of(PODS, there.namespace, there.pod))
    except ServerError:
        if any(there.namespace in kind.words for kind in WORKLOADS):
            with contextlib.suppress(ServerError):  # neither: the first error says what was asked for
                only_pod_name(server, namespace, f"{there.namespace}/{there.pod}", "kubelite cp")
        raise
    return found


def _in(execute: list[str], source: str, to: Place, where: str, *, keep: bool) -> None:
    if not os.path.lexists(source):
        raise CliError(f"error: {source} doesn't exist in local filesystem")
    directory, name = posixpath.split(to.path.rstrip("/") or "/")
    asked = subprocess.run(
        [*execute, to.pod, "--", "test", "-d", to.path], stderr=subprocess.DEVNULL, check=False
    )
    if asked.returncode == 0:  # an existing directory: copy into it
        directory, name = to.path, os.path.basename(os.path.abspath(source))
    flags = [] if keep else ["--no-same-permissions", "--no-same-owner"]
    command = [*execute, "-i", to.pod, "--", "tar", "-xmf", "-", *flags, "-C", directory or "."]
    with (
        _running(command, where, stdin=subprocess.PIPE) as pipe,
        contextlib.suppress(BrokenPipeError),  # tar ended early: its exit code says why
        tarfile.open(fileobj=pipe, mode="w|", format=tarfile.GNU_FORMAT) as archive,
    ):
        archive.add(source, arcname=name or ".")


def _out(execute: list[str], from_: Place, destination: str, where: str) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise CliError(
            "error: copying from a container needs Python 3.11.4 or newer, which unpacks archives safely"
        )
    directory, name = posixpath.split(posixpath.normpath(from_.path))
    into = os.path.isdir(destination)
    target = os.path.join(destination, name) if into and name else destination
    parent = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(parent):
        raise CliError(f"error: directory {os.path.dirname(target)} does not exist")
    command = [*execute, from_.pod, "--", "tar", "-cf", "-", "-C", directory or ".", "--", name or "."]
    # Unpack in a separate directory, then rename: no name or link in the archive can refer to a file of this machine.
    there = target if os.path.isdir(target) else parent  # on the same file system
    with _private_directory(there) as fresh:
        unpacked = os.path.join(fresh, os.path.basename(os.path.abspath(target)) or "copy")
        broken, failed = "", None
        try:
            with _running(command, where, stdout=subprocess.PIPE) as pipe:
                broken = _unpack_all(pipe, name or ".", unpacked, where)
        except (
            Exit
        ) as error:  # tar has printed the reason; files copied so far are retained, as in kubectl cp
            failed = error
        if broken:
            raise failed or CliError(f"error: {where} sent no complete tar archive: {broken}")
        if os.path.lexists(unpacked):
            _put(unpacked, target)
        if failed is not None:
            raise failed


class _Ended(BaseException):
    """Raised by the handler of SIGTERM and SIGHUP. It is a BaseException, so that no `except Exception` catches it."""


@contextlib.contextmanager
def _private_directory(parent: str) -> Iterator[str]:
    """Yield a new directory in `parent`, and remove it afterwards. SIGTERM and SIGHUP remove it, too, and then end the
    process. A signal that the caller ignores (nohup) stays ignored. After SIGKILL the directory remains."""
    handled = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]

    def end(number: int, _: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, handled)
        os.kill(os.getpid(), number)  # stays pending until the signals are unblocked
        raise _Ended

    # The signals are blocked while the directory is created and removed, so that a handler cannot raise in between.
    signal.pthread_sigmask(signal.SIG_BLOCK, handled)
    with contextlib.ExitStack() as undo:
        # This runs last. A pending signal then ends the process.
        undo.callback(signal.pthread_sigmask, signal.SIG_UNBLOCK, handled)
        undo.enter_context(fresh := tempfile.TemporaryDirectory(prefix=".kubelite-cp-", dir=parent))
        for number in handled:
            undo.callback(signal.signal, number, signal.signal(number, end))
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, handled)
            yield fresh.name
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, handled)


def _unpack_all(pipe: IO[bytes], name: str, target: str, where: str) -> str:
    """Unpack the archive and return what is wrong with it, or "". Raises CliError if the data is no tar archive."""
    try:
        with tarfile.open(fileobj=pipe, mode="r|") as archive:
            for member in archive:
                _unpack(archive, member, name, target)
    except tarfile.ReadError as error:
        if pipe.read(1):
            raise CliError(f"error: the output of tar in {where} is not a tar archive: {error}") from error
        return str(error)
    return ""


def _put(unpacked: str, target: str) -> None:
    """Move the unpacked files to the target: replace a file, or merge into a directory."""
    if not os.path.isdir(unpacked) or os.path.islink(unpacked):
        if os.path.isdir(target) and not os.path.islink(target):
            raise CliError(f"error: {target} is a directory")
        os.replace(unpacked, target)
        return
    if not os.path.lexists(target):
        os.rename(unpacked, target)
        return
    if not os.path.isdir(target):
        raise CliError(f"error: {target} is not a directory")
    for name in os.listdir(unpacked):
        place = os.path.join(target, name)
        if os.path.islink(place) and os.path.isdir(os.path.join(unpacked, name)):
            print(f"warning: {place} is a symbolic link: nothing was copied below it", file=sys.stderr)
            continue
        _put(os.path.join(unpacked, name), place)


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str, target: str) -> None:
    """Unpack a member at or below `name` to the target, which is in a separate directory. Skip other members, and
    symbolic links, as kubectl cp does: a link could redirect a later member."""
    inside = _below(member.name, name)
    link = _below(member.linkname, name) if member.islnk() else ""
    if member.issym():
        print(f"warning: skipping symlink: {member.name} -> {member.linkname}", file=sys.stderr)
    elif inside is None or link is None or (member.islnk() and not (inside and link)):
        print(f"warning: {member.name} is not below {name}: skipped", file=sys.stderr)
    elif not inside and member.isdir():
        os.makedirs(target, exist_ok=True)
    else:
        place, path = (inside, target) if inside else os.path.split(os.path.abspath(target))[::-1]
        try:
            archive.extract(member.replace(name=place, linkname=link), path=path, filter="data")
        except tarfile.FilterError as error:
            print(f"warning: skipped {member.name}: {error}", file=sys.stderr)


def _below(member: str, name: str) -> str | None:
    """Return the member's path relative to `name`, "" for `name` itself, None if it is outside."""
    path = posixpath.normpath(member)
    if path == name:
        return ""
    if name == ".":
        return path
    return path.removeprefix(f"{name}/") if path.startswith(f"{name}/") else None


@contextlib.contextmanager
def _running(command: list[str], where: str, **pipes: int) -> Iterator[IO[bytes]]:
    """Run a command and yield its pipe. If the command fails, print where, because its own message does not say so, and
    raise Exit. If the caller fails, end a command that writes: it may wait for its container and not notice that the
    pipe has no reader."""
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        pipe: IO[bytes] = process.stdin if "stdin" in pipes else process.stdout
        try:
            yield pipe
        except BaseException:
            if "stdout" in pipes:
                _end(process)
            raise
        finally:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
            code = process.wait()
    if code:
        if code in (126, 127):
            print(f"error: {where} has no tar program", file=sys.stderr)
        else:
            print(f"error: the copy failed in {where} (exit code {code})", file=sys.stderr)
        raise Exit(1)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()

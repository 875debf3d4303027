"""`kubelite rollout`: of a manifest file or a pod, recreate its pods or wait for them, list or restore its versions.

Of a workload, `workloads/rollouts.py` does it as kubectl does.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import click

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.groups import Group
from kubelite.cli.names import PODS, path_of
from kubelite.cli.objects.pod_progress import PROGRESS_SECONDS, progress_of, settled
from kubelite.cli.objects.rollout_selection import Pod, only, selected, workload
from kubelite.cli.objects.wait import LOOK_SECONDS, states, until_of
from kubelite.cli.options import client, complete_manifests, namespace_option, socket_option
from kubelite.cli.output.tables import TablePrinter, print_json
from kubelite.cli.output.waiting import Waiting, waiting
from kubelite.cli.transport.client import KEEP, Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json


DECISION_SECONDS = 5.0


@click.group(
    cls=Group,
    examples="""
    # Wait until a deployment has rolled out, and restore its previous revision
    kubelite rollout status deployment/web
    kubelite rollout undo deployment/web

    # Restart a pod, and wait until it runs
    kubelite rollout restart web
    kubelite rollout status web

    # Restore the previous version of a manifest file
    kubelite rollout undo web.yaml
    """,
)
def rollout() -> None:
    """Restart pods, wait for them, or restore earlier manifests.

    These commands work on a deployment, daemon set or stateful set as kubectl's do: they change its manifest in the
    manifest directory. They also work on a pod, and on a whole file of the directory.
    """


_manifest = click.argument(
    "manifest", nargs=-1, required=True, metavar="FILE|TYPE/NAME", shell_complete=complete_manifests
)


@rollout.command(
    "history",
    examples="""
    # List the versions of the manifest file that has a pod
    kubelite rollout history pod/web

    # Print the second version of a manifest file
    kubelite rollout history web.yaml --revision 2

    # List the revisions of a deployment
    kubelite rollout history deployment/web
    """,
)
@_manifest
@namespace_option
@click.option("--revision", type=click.IntRange(min=1), metavar="N", help="Print this version.")
@click.option("-o", "--output", type=click.Choice(["json"]), metavar="json", help="Output format.")
@socket_option
@click.pass_context
def rollout_history(
    ctx: click.Context,
    manifest: tuple[str, ...],
    namespace: str | None,
    revision: int | None,
    output: str | None,
) -> None:
    """List the revisions of a workload, or the versions of a manifest file.

    A workload's revisions are the pod templates that it has had. Of a file, name it or a pod in it.
    """
    server, reference = client(ctx), only(manifest, namespace)
    if target := workload(server, reference):
        if output:
            raise CliError("error: -o is only for manifest files: `kubelite get replicasets -o json`", code=2)
        from kubelite.cli.workloads import rollouts

        rollouts.history(server, target, revision)
        return
    query = reference | ({"revision": revision} if revision else {})
    answer = server.get("/kubelite/v1/revisions", query=query)
    if output == "json":
        print_json(answer)
        return
    if revision:
        print(answer["revisions"][0]["text"], end="")
        return
    if not answer["revisions"]:
        print(f"No versions of {answer['file']} are retained.", file=sys.stderr)
        return
    print(answer["file"])
    rows = [(str(r["revision"]), r["time"], str(r["bytes"])) for r in answer["revisions"]]
    TablePrinter().print(("Revision", "Read", "Bytes"), rows)


@rollout.command(
    "undo",
    examples="""
    # Restore the previous version of the manifest file that has a pod
    kubelite rollout undo pod/web

    # Restore the second version of a manifest file
    kubelite rollout undo web.yaml --to-revision 2

    # Restore the previous pod template of a deployment
    kubelite rollout undo deployment/web
    """,
)
@_manifest
@namespace_option
@click.option(
    "--to-revision",
    type=click.IntRange(min=0),
    metavar="N",
    help="Revision or version to restore. [default: the previous one]",
)
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@socket_option
@click.pass_context
def rollout_undo(
    ctx: click.Context,
    manifest: tuple[str, ...],
    namespace: str | None,
    to_revision: int | None,
    dry_run: bool,
) -> None:
    """Restore an earlier version of a workload or a manifest file.

    Of a workload, the fields of the pod template that differ are changed in its manifest. Of a pod or a file, the
    whole file is written back to the manifest directory; a second undo restores the version before the first.
    """
    server, reference = client(ctx), only(manifest, namespace)
    if target := workload(server, reference):
        from kubelite.cli.workloads import rollouts

        rollouts.undo(server, target, to_revision or 0, dry_run="server" if dry_run else "none")
        return
    wanted = {**reference, "toRevision": to_revision or None, "dryRun": dry_run}
    answer = server.post("/kubelite/v1/rollback", wanted)
    if dry_run:
        print(answer["diff"], end="")
        return
    if not answer["diff"]:
        print(f"{answer['file']} is at revision {answer['to']} already")
        return
    print(f"{answer['file']} rolled back to revision {answer['to']}, now revision {answer['revision']}")


_manifests = click.argument(
    "manifests",
    nargs=-1,
    required=True,
    metavar="FILE|TYPE|[TYPE/]NAME...",
    shell_complete=complete_manifests,
)


@rollout.command(
    "restart",
    examples="""
    # Restart a pod
    kubelite rollout restart web

    # Restart all pods of a manifest file
    kubelite rollout restart web.yaml

    # Replace the pods of a deployment, as its strategy says, and of all deployments of a namespace
    kubelite rollout restart deployment/web
    kubelite rollout restart deployment -n shop
    """,
)
@_manifests
@namespace_option
@socket_option
@click.pass_context
def rollout_restart(ctx: click.Context, manifests: tuple[str, ...], namespace: str | None) -> None:
    """Replace the pods of a workload or a manifest.

    A workload's pods are replaced as its strategy says: an annotation in its pod template gets the current time. Pods
    of a manifest are deleted gracefully at the same time, and created again, with new UIDs, empty emptyDir volumes,
    and the current images and ConfigMaps. Completed pods run again. `kubelite rollout status` waits for the pods.
    """
    server = Client(
        ctx.obj["socket"], warnings=False
    )  # omit the warning that the pods are recreated: that is the purpose
    pods, targets = selected(server, manifests, namespace, "restarting")
    for pod in pods:
        server.json("DELETE", path_of(PODS, pod.namespace, pod.name), query=KEEP)
        print(f"pod/{pod.name} restarted", flush=True)
    if targets:
        from kubelite.cli.workloads import rollouts
        from kubelite.cli.workloads.changing import Each

        each = Each()
        for target in targets:
            with each:
                rollouts.restart(server, target)
        each.finish()


def _pausing(ctx: click.Context, manifests: tuple[str, ...], namespace: str | None, *, paused: bool) -> None:
    from kubelite.cli.workloads import rollouts

    server, word = client(ctx), "pausing" if paused else "resuming"
    pods, targets = selected(server, manifests, namespace, word)
    if pods:
        raise CliError(
            f'error: pods "{pods[0].name}" {word} is not supported: an edit takes effect as soon as its file is '
            "written; `kubelite diff -f FILE` shows the effect in advance"
        )
    for target in targets:
        rollouts.pause(server, target, paused=paused)


@rollout.command(
    "pause",
    examples="""
    # Edit a deployment several times, and roll it out once
    kubelite rollout pause deployment/web
    kubelite set image deployment/web app=nginx:1.27
    kubelite rollout resume deployment/web
    """,
)
@_manifests
@namespace_option
@socket_option
@click.pass_context
def rollout_pause(ctx: click.Context, manifests: tuple[str, ...], namespace: str | None) -> None:
    """Pause the rollout of a deployment.

    Edits of its pod template take effect when it is resumed. spec.paused is set in its manifest.
    """
    _pausing(ctx, manifests, namespace, paused=True)


@rollout.command(
    "resume",
    examples="""
    # Roll out what has changed since the pause
    kubelite rollout resume deployment/web
    """,
)
@_manifests
@namespace_option
@socket_option
@click.pass_context
def rollout_resume(ctx: click.Context, manifests: tuple[str, ...], namespace: str | None) -> None:
    """Resume the rollout of a paused deployment.

    spec.paused is removed from its manifest.
    """
    _pausing(ctx, manifests, namespace, paused=False)


@rollout.command(
    "status",
    examples="""
    # Wait up to two minutes until a pod runs as its manifest says
    kubelite rollout status web --timeout 2m

    # Apply a manifest, and wait for its pods
    kubelite apply -f web.yaml && kubelite rollout status web.yaml

    # Wait until a deployment has rolled out
    kubelite rollout status deployment/web
    """,
)
@_manifests
@namespace_option
@click.option(
    "-w",
    "--watch/--no-watch",
    default=True,
    help="Wait until the pods are done, or show their progress once. [default: watch]",
)
@click.option(
    "--timeout",
    default="0s",
    show_default=True,
    metavar="DURATION",
    help="Maximum time to wait; with 0, only pods without progress end the wait.",
)
@socket_option
@click.pass_context
def rollout_status(
    ctx: click.Context, manifests: tuple[str, ...], namespace: str | None, watch: bool, timeout: str
) -> None:
    """Wait until pods and workloads run as their manifests say.

    A workload is done as with kubectl. A pod is done if all its containers are ready, or have succeeded. The exit code
    is 1 if a pod has failed, is not done in time, or has made no progress for ten minutes, which is the default
    progress deadline of a Deployment. Progress is a new pod or one more ready container. What to do follows the error,
    as in `kubelite why`. A paused deployment with pods to replace, and a workload whose manifest has an error, end the
    wait at once.
    """
    server, now = client(ctx), time.monotonic()
    until: float | None = until_of(timeout, now)
    if until is not None and until <= now:
        until = None
    with waiting("the pods of the manifest") as line:
        pods, targets = selected(server, manifests, namespace, "waiting for")
        for pod in pods:
            _follow(server, pod, until, line, watch=watch)
        if targets:
            from kubelite.cli.workloads import rollouts

            for target in targets:
                rollouts.status(server, target, until, line, watch=watch)


def _follow(server: Client, pod: Pod, until: float | None, line: Waiting, *, watch: bool) -> None:
    """Print each change of the progress. Raises CliError if the pod fails, is stuck, or is not done in time."""
    said, mark = "", None
    stuck = time.monotonic() + PROGRESS_SECONDS
    while True:
        stop = stuck if until is None else min(stuck, until)
        with contextlib.closing(states(server, PODS, pod.namespace, pod.name, stop)) as every:
            for document in every:
                found = progress_of(document)
                if found.done and document is not None:
                    found = settled(document, found, _decision(server, pod))
                if found.failed:
                    raise CliError(f'error: pod "{pod.name}" {found.words}{_advice(server, pod)}')
                if found.done:
                    line.print(f'pod "{pod.name}" {found.words}')
                    return
                if found.words != said:
                    said = found.words
                    line.print(f'Waiting for pod "{pod.name}" rollout to finish: {said}...')
                    line.now(f'pod "{pod.name}": {said}')
                if not watch:
                    return
                if mark != (mark := _mark(document, found.ready)):
                    stuck = time.monotonic() + PROGRESS_SECONDS
        now = time.monotonic()
        if until is not None and now >= until:
            raise CliError(f"error: timed out waiting for the condition{_advice(server, pod)}")
        if now >= stuck:
            raise CliError(f'error: pod "{pod.name}" exceeded its progress deadline{_advice(server, pod)}')


def _decision(server: Client, pod: Pod) -> Json:
    """Return the node's last decision about the pod; {} if there is none. After its start, a daemon has one within
    DECISION_SECONDS."""
    until = time.monotonic() + DECISION_SECONDS
    while True:
        try:
            found: Json = server.get(f"/kubelite/v1/why/{pod.namespace}/{pod.name}")
            return found
        except ServerError as error:
            if error.reason != "NotFound":
                raise
        if time.monotonic() >= until:
            return {}
        time.sleep(LOOK_SECONDS)


def _mark(document: Json | None, ready: int) -> tuple[str, int, int]:
    """Return what changes with progress: which pod it is, which version, how many containers are ready."""
    metadata = (document or {}).get("metadata") or {}
    return str(metadata.get("uid")), metadata.get("generation") or 0, ready


def _advice(server: Client, pod: Pod) -> str:
    """Return the node's advice for the pod, one line each, as `kubelite why` gives it."""
    try:
        found = server.get(f"/kubelite/v1/why/{pod.namespace}/{pod.name}").get("advice") or ()
    except CliError:  # no decision yet, or the daemon is gone
        return ""
    return "".join(f"\n  {sentence}" for sentence in found)

"""`kubelite rollout` of Deployments, DaemonSets and StatefulSets, as kubectl has it: it changes their manifests."""

from __future__ import annotations

import contextlib
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING

from kubelite.cli.errors import CliError
from kubelite.cli.names import path_of
from kubelite.cli.objects.wait import states
from kubelite.cli.output.waiting import Waiting
from kubelite.cli.workloads.changing import REMOVE, Target, change, suffix
from kubelite.cli.workloads.rejected import rejected
from kubelite.cli.workloads.revisions import chosen, revisions_of, template_changes
from kubelite.cli.workloads.rollout_states import ROLLED_OUT, patience_of, rollout_of

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client

RESTARTED = "kubectl.kubernetes.io/restartedAt"  # annotation of the pod template; kubectl's name


def read(server: Client, target: Target) -> Target:
    return Target(target.type, server.get(path_of(target.type, target.namespace, target.name)))


def restart(server: Client, target: Target) -> None:
    """Change an annotation of the pod template, so that all pods are replaced. Raises CliError."""
    if target.type.kind not in ROLLED_OUT:
        raise CliError(f'error: {target.resource} "{target.name}" restarting is not supported')
    if target.doc["spec"].get("paused"):
        raise CliError(
            f'error: {target.resource} "{target.name}" can\'t restart paused deployment (run rollout resume first)'
        )
    now = datetime.now().astimezone().isoformat(timespec="seconds").replace("+00:00", "Z")
    change(
        server, target, [(["spec", "template", "metadata", "annotations", RESTARTED], now)], dry_run="none"
    )
    print(f"{target} restarted", flush=True)


def pause(server: Client, target: Target, *, paused: bool) -> None:
    """Set or clear spec.paused of a Deployment. Raises CliError."""
    doing, word = ("pausing", "paused") if paused else ("resuming", "resumed")
    if target.type.kind != "Deployment":
        raise CliError(f'error: {target.resource} "{target.name}" {doing} is not supported')
    if bool(target.doc["spec"].get("paused")) == paused:
        state = "already paused" if paused else "not paused"
        raise CliError(f'error: {target.resource} "{target.name}" is {state}')
    change(server, target, [(["spec", "paused"], True if paused else REMOVE)], dry_run="none")
    print(f"{target} {word}", flush=True)


def history(server: Client, target: Target, number: int | None) -> None:
    """Print the revisions, or the pod template of one. Raises CliError."""
    found = revisions_of(server, target)
    if number:
        from kubelite.cli.describe.parts import tabbed
        from kubelite.cli.describe.pod_template import template_lines
        from kubelite.cli.output.foreign import harmless

        revision = chosen(found, number, str(target))
        print(f"{target} with revision #{number}")
        print(harmless(tabbed(template_lines(revision.template))), end="")
        return
    if not found:
        print(f"No rollout history found for {target}.", file=sys.stderr)
        return
    from kubelite.cli.output.tables import TablePrinter

    print(f"{target} ")
    rows = [(str(one.number), one.cause or "<none>") for one in found]
    TablePrinter().print(("Revision", "Change-Cause"), rows)
    print()


def undo(server: Client, target: Target, number: int, *, dry_run: str) -> None:
    """Write the pod template of an earlier revision into the manifest. Raises CliError."""
    if target.doc["spec"].get("paused"):
        raise CliError(
            "error: you cannot rollback a paused deployment; resume it first with 'kubelite rollout resume' and try "
            "again"
        )
    revision = chosen(revisions_of(server, target), number, str(target))
    changes = template_changes(target, revision.template)
    if not changes:
        print(
            f"{target} skipped rollback (current template already matches revision {revision.number})",
            flush=True,
        )
        return
    answer = change(server, target, changes, dry_run=dry_run)
    print(answer.get("diff", ""), end="")
    print(f"{target} rolled back{suffix(dry_run)}", flush=True)


def status(server: Client, target: Target, until: float | None, line: Waiting, *, watch: bool) -> None:
    """Print each change of the rollout's progress. Raises CliError if it fails, or does not end in time."""
    kind = target.type.kind
    if kind not in ROLLED_OUT:
        raise CliError(f"error: no status viewer has been implemented for {kind}")
    if errors := rejected(server, target.doc):
        raise CliError("\n  ".join((f"error: {target}: an earlier version of its manifest runs", *errors)))
    said, mark, patience = "", None, patience_of(target.doc)
    stuck = None if patience is None else time.monotonic() + patience
    while True:
        stop = min((moment for moment in (stuck, until) if moment is not None), default=None)
        with contextlib.closing(states(server, target.type, target.namespace, target.name, stop)) as every:
            for doc in every:
                found = rollout_of(kind, doc)
                if found.failed:
                    paused = doc is not None and doc["spec"].get("paused")
                    raise CliError(f"error: {found.words}{'' if paused else _advice(server, target)}")
                if found.words != said:
                    said = found.words
                    line.print(said)
                    line.now(str(target))
                if found.done or not watch:
                    return
                if doc is not None and mark != (mark := (doc["metadata"].get("generation"), found)):
                    patience = patience_of(doc)
                    stuck = None if patience is None else time.monotonic() + patience
        now = time.monotonic()
        if until is not None and now >= until:
            raise CliError(f"error: timed out waiting for the condition{_advice(server, target)}")
        if stuck is not None and now >= stuck:
            raise CliError(f"error: {target} exceeded its progress deadline{_advice(server, target)}")


def _advice(server: Client, target: Target) -> str:
    """Return what `kubelite why` says of the workload, one line each."""
    from kubelite.cli.diagnosis.why_workload import reasons_of

    try:
        found = reasons_of(server, read(server, target))
    except CliError:
        return ""
    return "".join(f"\n  {sentence}" for sentence in found)

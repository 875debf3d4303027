"""`kubelite drain`: cordon the node and evict its pods, with kubectl's flags and messages.

Source: kubectl pkg/cmd/drain/drain.go and pkg/drain/drain.go.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, duration, path_of
from kubelite.cli.node.drain_plan import DrainOptions, DrainPlan, plan_drain
from kubelite.cli.node.node import dry_run_option, set_unschedulable
from kubelite.cli.options import client, socket_option
from kubelite.cli.transport.client import JSON_BODY, KEEP, Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

RETRY = 5.0  # seconds until a refused eviction is tried again
POLL = 0.3  # seconds between looks at the terminating pods
_WAITS_FOR_EVER = (
    "hint: while the node is cordoned, no replacement of an evicted pod becomes ready, so the budget may never allow "
    "more. Interrupt, and use --disable-eviction to delete the pods without asking budgets, or --timeout to give up"
)


@click.command(
    cls=Command,
    examples="""
    # Stop all pods for the maintenance of the machine, and let them run again
    kubelite drain --ignore-daemonsets --delete-emptydir-data
    kubelite uncordon

    # Give up after five minutes, if a disruption budget does not allow it
    kubelite drain --timeout=5m

    # Show which pods would be evicted
    kubelite drain --dry-run
    """,
)
@click.argument("name", required=False, metavar="[NODE]")
@click.option("--force", is_flag=True, help="Delete also pods that nothing would create again.")
@click.option("--ignore-daemonsets", is_flag=True, help="Leave the pods of DaemonSets running.")
@click.option("--delete-emptydir-data", is_flag=True, help="Evict also pods with emptyDir volumes.")
@click.option("--disable-eviction", is_flag=True, help="Delete pods without asking disruption budgets.")
@click.option("--grace-period", type=int, default=-1, metavar="SECONDS", help="Instead of that of each pod.")
@click.option(
    "--timeout", default="0", metavar="DURATION", help="Time after which to give up; 0 is without limit."
)
@click.option("--pod-selector", default="", metavar="SELECTOR", help="Label selector of the pods to evict.")
@dry_run_option
@socket_option
@click.pass_context
def drain(ctx: click.Context, /, name: str | None, **options: Any) -> None:
    """Cordon the node and evict its pods.

    A pod of a workload, or with its own manifest, is created again and waits until `kubelite uncordon`. An eviction
    that a disruption budget does not allow is tried again every five seconds.
    """
    server = client(ctx)
    seconds = duration(options["timeout"])
    node = set_unschedulable(server, name, wanted=True, dry_run=options["dry_run"])
    drainer = _Drainer(server, node, options)
    plan = drainer.plan()
    if plan.errors:
        raise drainer.failed(plan.errors)
    if plan.warnings:
        print(f"Warning: {'; '.join(plan.warnings)}", file=sys.stderr, flush=True)
    if options["dry_run"] == "client":
        for pod in plan.pods:
            print(f"evicting pod {_name(pod)} (dry run)")
    elif errors := drainer.evict(plan.pods, time.monotonic() + seconds if seconds else None):
        drainer.pending(errors)
        raise drainer.failed(errors)
    print(f"node/{node} drained{_SUFFIX[options['dry_run']]}")


_SUFFIX = {"none": "", "client": " (dry run)", "server": " (server dry run)"}


class _Drainer:
    def __init__(self, server: Client, node: str, options: Json) -> None:
        self.server, self.node, self.options = server, node, options
        self.verb = "deleted" if options["disable_eviction"] else "evicted"
        self.hinted = False

    def plan(self) -> DrainPlan:
        selector = self.options["pod_selector"]
        query = {"labelSelector": selector} if selector else None
        pods = self.server.get(path_of(PODS, None), query=query)["items"]
        sets = self.server.get("/apis/apps/v1/daemonsets")["items"]
        known = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in sets}
        flags = ("force", "ignore_daemonsets", "delete_emptydir_data")
        return plan_drain(pods, known, DrainOptions(*(self.options[flag] for flag in flags)))

    def evict(self, pods: Sequence[Json], until: float | None) -> list[str]:
        """Evict all pods, and wait until they are gone. `until`: monotonic time. Return what failed, as sentences."""
        tries = dict.fromkeys((pod["metadata"]["uid"] for pod in pods), 0.0)  # uid → when to try next
        left = {pod["metadata"]["uid"]: pod for pod in pods}
        going: dict[str, Json] = {}
        errors: list[str] = []
        while left or going:
            now = time.monotonic()
            if until is not None and now >= until:
                late = (self._late(pod) for pod in left.values())
                return [*errors, *late, *map(_still_there, going.values())]
            for uid in [uid for uid in left if tries[uid] <= now]:
                try:
                    accepted = self._ask(left[uid])
                except ServerError as error:
                    errors.append(f"error when evicting {_quoted(left.pop(uid))}: {_words(error)}")
                    continue
                tries[uid] = time.monotonic() + RETRY
                if accepted and self.options["dry_run"] == "none":
                    going[uid] = left.pop(uid)
                elif accepted:
                    left.pop(uid)
            self._gone(going)
            due = min((tries[uid] for uid in left), default=now + POLL)
            time.sleep(max(0.0, min(POLL if going else RETRY, due - time.monotonic(), _rest(until))))
        return errors

    def _ask(self, pod: Json) -> bool:
        """Ask for the eviction or deletion of a pod. Return False if it must be asked again. Raises ServerError."""
        dry = _SUFFIX[self.options["dry_run"]]
        if not self.options["disable_eviction"]:
            print(f"evicting pod {_name(pod)}{dry}", flush=True)
        metadata = pod["metadata"]
        path = path_of(PODS, metadata["namespace"], metadata["name"])
        given: Json = {"dryRun": ["All"]} if dry else {}
        if self.options["grace_period"] >= 0:
            given["gracePeriodSeconds"] = self.options["grace_period"]
        try:
            if self.options["disable_eviction"] and not dry:
                body = json.dumps(given).encode()
                self.server.json("DELETE", path, query=KEEP, body=body, headers=JSON_BODY)
            elif not self.options["disable_eviction"]:
                self.server.post(f"{path}/eviction", _eviction(metadata, given))
        except ServerError as error:
            if error.reason == "NotFound":
                return True
            if error.reason != "TooManyRequests":
                raise
            again = "" if dry else f" (will retry after {RETRY:g}s)"
            words = f"error when evicting {_quoted(pod)}{again}: {_words(error)}"
            print(words, file=sys.stderr, flush=True)
            self._hint()
            return bool(dry)
        return True

    def _hint(self) -> None:
        if not self.hinted:
            print(_WAITS_FOR_EVER, file=sys.stderr, flush=True)
        self.hinted = True

    def _gone(self, going: dict[str, Json]) -> None:
        """Report and forget the pods that do not exist any more."""
        if not going:
            return
        there = {pod["metadata"]["uid"] for pod in self.server.get(path_of(PODS, None))["items"]}
        for uid in [uid for uid in going if uid not in there]:
            print(f"pod/{going.pop(uid)['metadata']['name']} {self.verb}", flush=True)

    def _late(self, pod: Json) -> str:
        return f"error when evicting {_quoted(pod)}: global timeout reached: {self.options['timeout']}"

    def pending(self, errors: Sequence[str]) -> None:
        plan = self.plan()
        if plan.pods:
            words = f'There are pending pods in node "{self.node}" when an error occurred: {_list(errors)}'
            print(words, file=sys.stderr)
            print("\n".join(f"pod/{pod['metadata']['name']}" for pod in plan.pods), file=sys.stderr)

    def failed(self, errors: Sequence[str]) -> Exception:
        """Report the errors; return the exception that ends the command."""
        words = f'error: unable to drain node "{self.node}" due to error: {_list(errors)}'
        return CliError(
            f"{words}, continuing command...\nThere are pending nodes to be drained:\n {self.node}\n"
            + "\n".join(errors)
        )


def _eviction(metadata: Json, options: Json) -> Json:
    about = {"name": metadata["name"], "namespace": metadata["namespace"]}
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": about, "deleteOptions": options}


def _list(errors: Sequence[str]) -> str:
    return errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"


def _rest(until: float | None) -> float:
    return RETRY if until is None else until - time.monotonic()


def _words(error: ServerError) -> str:
    return str(error.status.get("message") or error)


def _name(pod: Json) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _still_there(pod: Json) -> str:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    words = "to terminate: context deadline exceeded"
    return f'error when waiting for pod "{name}" in namespace "{namespace}" {words}'


def _quoted(pod: Json) -> str:
    return f'pods/"{pod["metadata"]["name"]}" -n "{pod["metadata"]["namespace"]}"'

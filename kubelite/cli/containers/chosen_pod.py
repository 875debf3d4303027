"""The pod that a command works on: POD, or one of the pods of a workload, TYPE/NAME, chosen as kubectl chooses it.

Sources: kubectl pkg/polymorphichelpers (attachablepodforobject.go, logsforobject.go, helpers.go GetFirstPod and
SelectorsForObject), pkg/util/podutils/podutils.go (ActivePods, ByLogging).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from kubelite.cli.errors import CliError
from kubelite.cli.names import PODS, SERVICES, WORKLOADS, Type, duration, path_of, pod_name, resource_type

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

F = TypeVar("F", bound=Callable[..., Any])
SHOWN = 3  # names in a message
LOOK_SECONDS = 0.5  # between two lists while a workload has no pod
# Phases in the order in which a pod is preferred. Go's map has 0 for the phases that it does not list.
_TO_ATTACH = {"Running": 0, "Unknown": 1, "Pending": 2, "Succeeded": 2, "Failed": 2}
_TO_READ_LOGS = {"Unknown": 1, "Pending": 2}


def running_timeout_option(default: str) -> Callable[[F], F]:
    return click.option(
        "--pod-running-timeout",
        default=default,
        show_default=True,
        metavar="DURATION",
        help="Maximum time to wait until a workload, TYPE/NAME, has a pod.",
    )


def pod_of(server: Client, namespace: str, argument: str, timeout: str, *, logs: bool = False) -> Json:
    """Return the document of POD, or of the pod of a workload that kubectl chooses: for its logs, or to enter it.

    If a workload has no pod, wait for one, at most for `timeout` (a duration). With `logs`, the choice among several
    pods is said on stderr, as by kubectl. Raises CliError."""
    kind = _workload_type(argument)
    if kind is None:
        found: Json = server.get(path_of(PODS, namespace, pod_name(argument)))
        return found
    doc = server.get(path_of(kind, namespace, argument.partition("/")[2]))
    seconds = duration(timeout)
    if seconds <= 0:
        raise CliError("error: --pod-running-timeout must be higher than zero", code=2)
    pods = _pods_in_time(server, namespace, _selector(server, kind, doc), time.monotonic() + seconds)
    if not pods:
        raise CliError(
            f"error: timed out waiting for the condition: {argument} has no pods; "
            f"`kubelite why {argument}{_where(namespace)}` explains why"
        )
    chosen = min(pods, key=for_logs if logs else to_attach)
    if logs and len(pods) > 1:
        print(f"Found {len(pods)} pods, using pod/{chosen['metadata']['name']}", file=sys.stderr, flush=True)
    return chosen


def only_pod_name(server: Client, namespace: str, argument: str, command: str) -> str:
    """Return the name of POD for a command that takes no workload. Raises CliError, for a workload with its pods."""
    kind = _workload_type(argument)
    if kind is None:
        return pod_name(argument)
    import shlex

    doc = server.get(path_of(kind, namespace, argument.partition("/")[2]))
    text = _selector(server, kind, doc)
    pods = sorted(_selected(server, namespace, text), key=to_attach)
    names = f"its pods are {_listed(pods)}" if pods else "it has no pods now"
    raise CliError(
        f'error: "{argument}" is not a pod, and `{command}` takes a pod: {names}; '
        f"`kubelite get pods -l {shlex.quote(text)}{_where(namespace)}` lists them"
    )


def _where(namespace: str) -> str:
    return f" -n {namespace}" if namespace != "default" else ""


def to_attach(pod: Json) -> tuple[Any, ...]:
    """Return the sort key of the pod to attach to: the reverse of ActivePods, which is the order of deletion."""
    return _key(pod, _TO_ATTACH, most_restarts_first=False)


def for_logs(pod: Json) -> tuple[Any, ...]:
    """Return the sort key of the pod whose log is printed (ByLogging)."""
    return _key(pod, _TO_READ_LOGS, most_restarts_first=True)


def _key(pod: Json, phases: dict[str, int], *, most_restarts_first: bool) -> tuple[Any, ...]:
    status = pod.get("status") or {}
    ready: Json = next((c for c in status.get("conditions") or () if c["type"] == "Ready"), {})
    since = ready.get("lastTransitionTime") or "" if ready.get("status") == "True" else ""
    created = pod["metadata"].get("creationTimestamp") or ""
    restarts = max((one.get("restartCount") or 0 for one in status.get("containerStatuses") or ()), default=0)
    return (
        not pod["spec"].get("nodeName"),
        phases.get(status.get("phase", ""), 0),
        ready.get("status") != "True",
        (not since, since),  # ready for longer first
        -restarts if most_restarts_first else restarts,
        (not created, created),  # older first
    )


def _workload_type(argument: str) -> Type | None:
    """Return the type of TYPE/NAME; None for a pod. Raises CliError if the type has no pods."""
    word, slash, name = argument.partition("/")
    kind = resource_type(word) if slash else PODS
    if kind is PODS:
        return None
    if kind not in (*WORKLOADS, SERVICES) or not name:
        raise CliError(f'error: "{argument}" is not a pod, nor a workload that has pods')
    return kind


def _selector(server: Client, kind: Type, doc: Json) -> str:
    """Return the selector of the workload's pods as text. Raises CliError for a CronJob, which has none."""
    from kubelite.kube.label_selectors import selector_of, selector_text

    own = (doc.get("spec") or {}).get("selector")
    selector = ({"matchLabels": own} if own else None) if kind is SERVICES else selector_of(doc)
    if kind.kind == "CronJob" or not selector:
        raise CliError(
            f"error: {kind.qualified}/{doc['metadata']['name']} selects no pods{_jobs(server, doc)}"
        )
    return selector_text(selector)


def _jobs(server: Client, doc: Json) -> str:
    """Return which jobs to name in place of a CronJob."""
    from kubelite.cli.workloads.owned import owned_by

    if doc["kind"] != "CronJob":
        return ""
    jobs = sorted(
        owned_by(server, doc).sets,
        key=lambda job: str(job["metadata"].get("creationTimestamp")),
        reverse=True,
    )
    if not jobs:
        return ", and no job of its schedule is left: name a job, job/NAME; `kubelite get jobs` lists them"
    return f": name one of its jobs, {_listed(jobs, 'job/')}"


def _listed(docs: list[Json], prefix: str = "") -> str:
    names = [prefix + str(doc["metadata"]["name"]) for doc in docs[:SHOWN]]
    return ", ".join(names) + (f" and {len(docs) - SHOWN} more" if len(docs) > SHOWN else "")


def _pods_in_time(server: Client, namespace: str, selector: str, until: float) -> list[Json]:
    """Return the selected pods; [] if there is none until then (monotonic seconds)."""
    while not (found := list(_selected(server, namespace, selector))):
        left = until - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(LOOK_SECONDS, left))
    return found


def _selected(server: Client, namespace: str, selector: str) -> Iterable[Json]:
    items: list[Json] = server.get(path_of(PODS, namespace), query={"labelSelector": selector})["items"]
    return items

"""Which pods a drain evicts, and which it refuses or leaves. Pure.

Source: kubectl pkg/drain/filters.go, with its messages. Two rules are of this node: a pod with its own manifest is
created again from it, so it counts as managed; and if such a pod has ended, it stays, because it would run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kubelite.kube.json import Json

DAEMON_SET = "DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"
DAEMON_SET_IGNORED = "ignoring DaemonSet-managed Pods"
LOCAL_STORAGE = "Pods with local storage (use --delete-emptydir-data to override)"
LOCAL_STORAGE_DELETED = "deleting Pods with local storage"
UNMANAGED = "Pods that declare no controller (use --force to override)"
UNMANAGED_DELETED = "deleting Pods that declare no controller"
_SOURCE = "kubelite.io/source"


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """What may be deleted in addition: kubectl's flags."""

    force: bool = False
    ignore_daemonsets: bool = False
    delete_emptydir_data: bool = False


@dataclass(frozen=True, slots=True)
class DrainPlan:
    """`pods`: the documents of the pods to evict. `warnings`, `errors`: sentences; with an error, nothing is
    evicted."""

    pods: tuple[Json, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class _Verdict(NamedTuple):
    evict: bool
    warning: str = ""
    error: str = ""


_EVICT, _STAYS = _Verdict(True), _Verdict(False)


def plan_drain(
    pods: Iterable[Json], daemon_sets: Collection[tuple[str, str]], options: DrainOptions
) -> DrainPlan:
    """Decide about each pod. `daemon_sets`: namespace and name of those that exist."""
    chosen: list[Json] = []
    warnings: dict[str, list[str]] = {}
    errors: dict[str, list[str]] = {}
    for pod in pods:
        verdict = _verdict(pod, daemon_sets, options)
        name = "/".join(_key(pod))
        if verdict.evict:
            chosen.append(pod)
        if verdict.warning:
            warnings.setdefault(verdict.warning, []).append(name)
        if verdict.error:
            errors.setdefault(verdict.error, []).append(name)
    return DrainPlan(
        tuple(chosen),
        tuple(f"{words}: {', '.join(names)}" for words, names in warnings.items()),
        tuple(f"cannot delete {words}: {', '.join(names)}" for words, names in errors.items()),
    )


def _verdict(pod: Json, daemon_sets: Collection[tuple[str, str]], options: DrainOptions) -> _Verdict:
    owner = next((ref for ref in pod["metadata"].get("ownerReferences") or () if ref.get("controller")), None)
    if _waits(pod):
        return _STAYS
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return _EVICT if owner is not None or not _has_manifest(pod) else _STAYS
    if owner is not None and owner["kind"] == "DaemonSet":
        return _of_daemon_set(pod, owner["name"], daemon_sets, options)
    local = any("emptyDir" in volume for volume in pod["spec"].get("volumes") or ())
    if local and not options.delete_emptydir_data:
        return _Verdict(False, error=LOCAL_STORAGE)
    if owner is None and not _has_manifest(pod):
        forced = _Verdict(True, UNMANAGED_DELETED)
        return forced if options.force else _Verdict(False, error=UNMANAGED)
    return _Verdict(True, LOCAL_STORAGE_DELETED) if local else _EVICT


def _of_daemon_set(
    pod: Json, name: str, daemon_sets: Collection[tuple[str, str]], options: DrainOptions
) -> _Verdict:
    if (_key(pod)[0], name) not in daemon_sets:
        words = f'daemonsets.apps "{name}" not found'
        return _Verdict(True, words) if options.force else _Verdict(False, error=words)
    if not options.ignore_daemonsets:
        return _Verdict(False, error=DAEMON_SET)
    return _Verdict(False, DAEMON_SET_IGNORED)


def _waits(pod: Json) -> bool:
    """Whether a pod is not scheduled, so that nothing of it runs here."""
    status = pod.get("status") or {}
    conditions = status.get("conditions") or ()
    return status.get("phase") == "Pending" and any(
        one["type"] == "PodScheduled" and one.get("status") == "False" for one in conditions
    )


def _has_manifest(pod: Json) -> bool:
    return bool((pod["metadata"].get("annotations") or {}).get(_SOURCE))


def _key(pod: Json) -> tuple[str, str]:
    return pod["metadata"].get("namespace") or "default", pod["metadata"]["name"]

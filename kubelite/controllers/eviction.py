"""Evicts a pod through the API, if the PodDisruptionBudget that selects it allows that.

Source: Kubernetes pkg/registry/core/pod/storage/eviction.go (Create, addConditionAndDeletePod). The disruption is taken
from the budget first, in `status.disruptedPods`, and the pod is terminated after it. A daemon that is killed between
the two writes leaves a budget that allows one disruption too few, for two minutes
(`kubelite.controllers.decide.disruption`), and never one that allows too many.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubelite.controllers.decide.evictions import Verdict, judge
from kubelite.kube.errors import ApiError, not_found
from kubelite.kube.json import Json
from kubelite.kube.objects import belongs_to_cluster
from kubelite.node.scheduling.scheduler import disrupted
from state.errors import Conflict
from state.store import Record, Store

BUDGET = "PodDisruptionBudget"
RETRY_AFTER = 10  # seconds, for a budget that the controller has not looked at yet


@dataclass(frozen=True, slots=True)
class EvictionOptions:
    """`grace`: seconds (None: the pod's own). `uid`, `resource_version`: what the pod must have; "" if it does not
    matter. `dry_run`: only answer whether the pod may be evicted."""

    grace: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False


async def evict(store: Store, namespace: str, name: str, options: EvictionOptions, now: float) -> None:
    """Evict a pod: begin its graceful deletion. `now`: Unix seconds. Raises ApiError: NotFound, Conflict for a
    precondition, TooManyRequests if the budget does not allow it, InternalError if several budgets select the pod."""
    spent = False
    while True:
        record = store.get("Pod", namespace, name)
        if record is None:
            raise not_found("pods", name)
        _check(record.doc, options)
        if not spent:
            verdict = judge(record.doc, _budgets_for(store, record.doc), now)
            if verdict.budget is not None and not options.dry_run:
                verdict = await _spend(store, record, verdict.budget["metadata"]["uid"], now)
                spent = not verdict.code
            if verdict.code:
                raise _refusal(verdict)
        if options.dry_run:
            return
        try:
            if await _terminate(store, record, options, now, spent=spent) is not None:
                return
        except Conflict:  # the pod became ready meanwhile, so that its budget must be asked
            continue


def budgets_of(store: Store, namespace: str) -> list[Json]:
    return [record.doc for record in store.list(BUDGET, namespace)]


def _budgets_for(store: Store, pod: Json) -> list[Json]:
    """Return the budgets that may select a pod. Those of the node do not count the pods of a cluster."""
    return [] if belongs_to_cluster(pod) else budgets_of(store, pod["metadata"]["namespace"])


async def _spend(store: Store, pod: Record, budget: str, now: float) -> Verdict:
    """Take a disruption from a budget as it is at the moment of writing: evictions may be under way beside each
    other."""
    verdict = Verdict()

    def spend(doc: Json) -> Json | None:
        nonlocal verdict
        verdict = judge(pod.doc, [doc], now)
        return verdict.budget

    await store.modify(budget, spend)
    return verdict


async def _terminate(
    store: Store, pod: Record, options: EvictionOptions, now: float, *, spent: bool
) -> Record | None:
    """Return None if the pod does not exist any more. Raises Conflict if its budget must be asked now."""

    def terminate(doc: Json) -> Json | None:
        _check(doc, options)
        if not spent and _is_guarded(doc, _budgets_for(store, doc), now):
            raise Conflict(f'pod "{pod.name}" was changed meanwhile')
        return disrupted(doc, "EvictionByEvictionAPI", "Eviction API: evicting", now, grace=options.grace)

    return await store.modify(pod.uid, terminate)


def _is_guarded(pod: Json, budgets: Iterable[Json], now: float) -> bool:
    verdict = judge(pod, budgets, now)
    return bool(verdict.code) or verdict.budget is not None


def _check(pod: Json, options: EvictionOptions) -> None:
    metadata = pod["metadata"]
    wanted = (
        ("UID", options.uid, metadata.get("uid")),
        ("ResourceVersion", options.resource_version, metadata.get("resourceVersion")),
    )
    for what, given, found in wanted:
        if given and given != found:
            words = f"the {what} in the precondition ({given}) does not match the {what} in record ({found})"
            raise ApiError("Conflict", f'Operation cannot be fulfilled on pods "{metadata["name"]}": {words}')


def _refusal(verdict: Verdict) -> ApiError:
    """Return the error with the words of the API server (createTooManyRequestsError, checkAndDecrement)."""
    if verdict.code != 429:
        return ApiError("InternalError", verdict.message)
    details: Json = {"causes": [{"reason": "DisruptionBudget", "message": verdict.cause}]}
    if verdict.unobserved:
        details["retryAfterSeconds"] = RETRY_AFTER
    return ApiError("TooManyRequests", verdict.message, details=details)

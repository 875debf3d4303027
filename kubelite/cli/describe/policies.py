"""Format the text of `describe` for LimitRanges and ResourceQuotas, and what a Namespace shows of them, from documents.
Pure.

Layout and wording are kubectl's (kubectl pkg/describe/describe.go: describeLimitRange, DescribeLimitRanges,
describeQuota, DescribeResourceQuotas).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kubelite.cli.describe.parts import tabbed

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_PODS = "Matches all pods that "
#: helpTextForResourceQuotaScope
_SCOPES = {
    "Terminating": f"{_PODS}have an active deadline. These pods have a limited lifespan on a node before being "
    "actively terminated by the system.",
    "NotTerminating": f"{_PODS}do not have an active deadline. These pods usually include long running pods whose "
    "container command is not expected to terminate.",
    "BestEffort": f"{_PODS}do not have resource requirements set. These pods have a best effort quality of service.",
    "NotBestEffort": f"{_PODS}have at least one resource requirement set. These pods have a burstable or guaranteed "
    "quality of service.",
}
_AMOUNTS = ("min", "max", "defaultRequest", "default", "maxLimitRequestRatio")
_HEAD = "Type\tResource\tMin\tMax\tDefault Request\tDefault Limit\tMax Limit/Request Ratio"
_RULE = "----\t--------\t---\t---\t---------------\t-------------\t-----------------------"


def describe_limit_range(doc: Json, _events: object, _now: float) -> str:
    """kubectl shows no events of a LimitRange."""
    metadata = doc["metadata"]
    head = [f"Name:\t{metadata['name']}", f"Namespace:\t{metadata.get('namespace', '')}"]
    return tabbed([*head, _HEAD, _RULE, *_limit_lines(doc)])


def limits_of_namespace(ranges: Sequence[Json]) -> list[str]:
    """Return the lines that `describe namespace` has about its LimitRanges."""
    if not ranges:
        return ["No LimitRange resource."]
    rows = (f" {line}" for one in ranges for line in _limit_lines(one))
    return ["Resource Limits", f" {_HEAD}", f" {_RULE}", *rows]


def describe_quota(doc: Json, _events: object, _now: float) -> str:
    """kubectl shows no events of a ResourceQuota."""
    metadata = doc["metadata"]
    head = [
        f"Name:\t{metadata['name']}",
        f"Namespace:\t{metadata.get('namespace', '')}",
        *_scope_lines(doc, " "),
    ]
    return tabbed([*head, "Resource\tUsed\tHard", "--------\t----\t----", *_usage_lines(doc, of_hard=True)])


def quotas_of_namespace(quotas: Sequence[Json]) -> list[str]:
    """Return the lines that `describe namespace` has about its ResourceQuotas."""
    if not quotas:
        return ["No resource quota."]
    lines = ["Resource Quotas"]
    for doc in sorted(quotas, key=lambda one: str(one["metadata"]["name"])):
        own = [f"Name:\t{doc['metadata']['name']}", *_scope_lines(doc, "")]
        own += ["Resource\tUsed\tHard", "--------\t---\t---", *_usage_lines(doc, of_hard=False)]
        lines += [f"  {line}" for line in own]
    return lines


def _scope_lines(doc: Json, indent: str) -> Iterator[str]:
    scopes = sorted(doc["spec"].get("scopes") or ())
    if scopes:
        yield f"Scopes:\t{', '.join(scopes)}"
    for scope in scopes:
        if scope in _SCOPES:
            yield f"{indent}* {_SCOPES[scope]}"


def _usage_lines(doc: Json, *, of_hard: bool) -> Iterator[str]:
    """`of_hard`: print what is used in the form in which the limit is written."""
    from manifests.types.quantity import Quantity

    status = doc.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    for name in sorted(hard):
        most, now = Quantity(hard[name]), Quantity(used.get(name, 0))
        if of_hard and most.form is not now.form:
            now = Quantity.of(now.value(), most.form)
        yield f"{name}\t{now}\t{most}"


def _limit_lines(doc: Json) -> Iterator[str]:
    for item in doc["spec"].get("limits") or ():
        for name in sorted({name for field in _AMOUNTS for name in item.get(field) or ()}):
            cells = ((item.get(field) or {}).get(name, "-") for field in _AMOUNTS)
            yield "\t".join((item["type"], name, *map(str, cells)))

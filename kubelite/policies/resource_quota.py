"""ResourceQuota: what objects use of a quota, and whether one more fits. Pure.

Sources: Kubernetes pkg/quota/v1/evaluator/core/pods.go, persistent_volume_claims.go and services.go, and
staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go (CheckRequest). Events are not counted
(pkg/quota/v1/install/registry.go, DefaultIgnoredResources).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from kubelite.kube.json import Json
from kubelite.kube.objects import TERMINAL_PHASES, belongs_to_cluster
from kubelite.kube.times import parse_time
from kubelite.policies.amounts import (
    Amounts,
    add,
    amounts,
    containers_of,
    limits_of,
    pod_limits,
    pod_requests,
    requests_of,
)
from manifests.types.quantity import Quantity

_ONE, _NOTHING = Quantity(1), Quantity(0)
#: Compute resources of a quota that each container must set, once a quota has them.
_CONSTRAINED = ("cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory")
_OF_PODS = frozenset(
    (*_CONSTRAINED, "ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage")
)
_STORAGE = ".storageclass.storage.k8s.io/"
#: kind → its plural, with the group if it is not the core group: `count/deployments.apps`
PLURALS = {
    "ConfigMap": "configmaps",
    "ControllerRevision": "controllerrevisions.apps",
    "CronJob": "cronjobs.batch",
    "DaemonSet": "daemonsets.apps",
    "Deployment": "deployments.apps",
    "EndpointSlice": "endpointslices.discovery.k8s.io",
    "Endpoints": "endpoints",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers.autoscaling",
    "Ingress": "ingresses.networking.k8s.io",
    "Job": "jobs.batch",
    "LimitRange": "limitranges",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "Pod": "pods",
    "PodDisruptionBudget": "poddisruptionbudgets.policy",
    "ReplicaSet": "replicasets.apps",
    "ReplicationController": "replicationcontrollers",
    "ResourceQuota": "resourcequotas",
    "Role": "roles.rbac.authorization.k8s.io",
    "RoleBinding": "rolebindings.rbac.authorization.k8s.io",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
    "StatefulSet": "statefulsets.apps",
}
#: plurals that a quota may name without `count/`
_BARE = frozenset(
    (
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
    )
)
_OF_SERVICES = ("services.nodeports", "services.loadbalancers")


def usage(doc: Json, now: float) -> Amounts:
    """Return what an object uses of a quota, by the names that quotas have. `now`: Unix seconds."""
    kind = doc["kind"]
    plural = PLURALS.get(kind)
    if plural is None or belongs_to_cluster(doc):
        return {}
    found: Amounts = {f"count/{plural}": _ONE}
    if kind == "Pod":
        return {**found, **_pod_usage(doc)} if _counts(doc, now) else found
    if kind == "PersistentVolumeClaim":
        return {**found, **_claim_usage(doc)}
    if kind == "Service":
        found |= _service_usage(doc["spec"])
    return {**found, plural: _ONE} if plural in _BARE else found


def _counts(pod: Json, now: float) -> bool:
    """Whether a pod uses more than its place in the store: it has not ended (QuotaV1Pod)."""
    if (pod.get("status") or {}).get("phase") in TERMINAL_PHASES:
        return False
    metadata = pod["metadata"]
    ends, grace = parse_time(metadata.get("deletionTimestamp")), metadata.get("deletionGracePeriodSeconds")
    return ends is None or grace is None or now <= ends + int(grace)


def _pod_usage(pod: Json) -> Amounts:
    spec = pod["spec"]
    requests, limits, overhead = pod_requests(spec), pod_limits(spec), amounts(spec.get("overhead"))
    add(requests, overhead)
    add(limits, {name: amount for name, amount in overhead.items() if name in limits})
    return {"pods": _ONE, **_compute(requests, limits)}


def _compute(requests: Amounts, limits: Amounts) -> Amounts:
    """podComputeUsageHelper."""
    found: Amounts = {}
    for name, amount in requests.items():
        if name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-"):
            found |= {name: amount, f"requests.{name}": amount}
        elif "/" in name:
            found[f"requests.{name}"] = amount
    for name, amount in limits.items():
        if name in ("cpu", "memory", "ephemeral-storage"):
            found[f"limits.{name}"] = amount
    return found


def _claim_usage(claim: Json) -> Amounts:
    spec = claim["spec"]
    size = amounts((spec.get("resources") or {}).get("requests")).get("storage", _NOTHING)
    found = {"persistentvolumeclaims": _ONE, "requests.storage": size}
    if name := spec.get("storageClassName"):
        found |= {
            f"{name}{_STORAGE}persistentvolumeclaims": _ONE,
            f"{name}{_STORAGE}requests.storage": size,
        }
    return found


def _service_usage(spec: Json) -> Amounts:
    """serviceEvaluator.Usage: node ports count as they are asked for, allocated or not."""
    ports, type_ = spec.get("ports") or (), spec.get("type")
    balanced = type_ == "LoadBalancer"
    if balanced and spec.get("allocateLoadBalancerNodePorts") is False:
        ports = [port for port in ports if port.get("nodePort")]
    node_ports = len(ports) if balanced or type_ == "NodePort" else 0
    return dict(zip(_OF_SERVICES, (Quantity(node_ports), Quantity(int(balanced))), strict=True))


def matches(quota: Json, doc: Json) -> bool:
    """Whether a quota is about an object: it has one of its resources, and all its scopes match."""
    spec = quota["spec"]
    if not any(_concerns(name, doc["kind"]) for name in spec.get("hard") or ()):
        return False
    wanted = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    wanted += (spec.get("scopeSelector") or {}).get("matchExpressions") or []
    return all(_in_scope(one, doc) for one in wanted)


def _concerns(resource: str, kind: str) -> bool:
    """Whether a resource of a quota counts objects of a kind (MatchingResources)."""
    plural = PLURALS.get(kind)
    if plural is None:
        return False
    if resource == f"count/{plural}" or (resource == plural and plural in _BARE):
        return True
    if kind == "PersistentVolumeClaim":
        return resource == "requests.storage" or _STORAGE in resource
    if kind == "Service":
        return resource in _OF_SERVICES
    if kind != "Pod":
        return False
    extended = resource.startswith("requests.") and "/" in resource and _STORAGE not in resource
    return resource in _OF_PODS or resource.startswith(("hugepages-", "requests.hugepages-")) or extended


def _in_scope(requirement: Json, doc: Json) -> bool:
    """podMatchesScopeFunc, pvcMatchesScopeFunc. A scope of pods matches nothing else."""
    scope = requirement["scopeName"]
    if doc["kind"] == "PersistentVolumeClaim" and scope == "VolumeAttributesClass":
        return _has_class(requirement, doc["spec"].get("volumeAttributesClassName") or "")
    if doc["kind"] != "Pod":
        return False
    spec, terminating = doc["spec"], _deadline(doc)
    match scope:
        case "Terminating":
            return terminating
        case "NotTerminating":
            return not terminating
        case "BestEffort":
            return _is_best_effort(spec)
        case "NotBestEffort":
            return not _is_best_effort(spec)
        case "PriorityClass":
            return _has_class(requirement, spec.get("priorityClassName") or "")
        case "CrossNamespacePodAffinity":
            return _looks_elsewhere(spec.get("affinity") or {})
    return False


def _has_class(requirement: Json, name: str) -> bool:
    values = requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return name in values
        case "NotIn":
            return name not in values
        case "DoesNotExist":
            return not name
    return bool(name)


def _is_best_effort(spec: Json) -> bool:
    """Whether no container, nor the pod, has a request or a limit of CPU or memory (GetPodQOS)."""
    given = [{"resources": spec.get("resources")}, *(container for _, container in containers_of(spec))]
    return not any(
        amount.nanos
        for one in given
        for name, amount in requests_of(one).items()
        if name in ("cpu", "memory")
    )


def _looks_elsewhere(affinity: Json) -> bool:
    """usesCrossNamespacePodAffinity."""
    for key in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(key) or {}
        weighted = found.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms = [
            *(found.get("requiredDuringSchedulingIgnoredDuringExecution") or ()),
            *(one.get("podAffinityTerm") or {} for one in weighted),
        ]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def used_by(quota: Json, doc: Json, now: float) -> Amounts:
    """Return what one object uses of a quota, of its resources alone."""
    if not matches(quota, doc):
        return {}
    hard = quota["spec"].get("hard") or {}
    return {name: amount for name, amount in usage(doc, now).items() if name in hard}


def used(quota: Json, docs: Iterable[Json], now: float) -> Amounts:
    """Return what the objects of the namespace use of a quota, for each of its resources: its `status.used`."""
    total: Amounts = dict.fromkeys(quota["spec"].get("hard") or {}, _NOTHING)
    for doc in docs:
        add(total, used_by(quota, doc, now))
    return total


def excess(
    quotas: Sequence[Json], new: Json, now: float, count: Callable[[Json], Amounts], old: Json | None = None
) -> str:
    """Return why a new object does not fit into the quotas of its namespace, "" if it does (CheckRequest). `count`
    returns what is used of a quota already; `old`: what an edited object was before."""
    if old is not None and usage(old, now) == usage(new, now) and _deadline(old) == _deadline(new):
        return ""  # an edit of something else: podEvaluator.Handles
    concerned = [quota for quota in sorted(quotas, key=_name) if matches(quota, new)]
    for quota in concerned:
        if said := _missing(quota, new):
            return f"failed quota: {_name(quota)}: {said}"
    for quota in concerned:
        hard = amounts(quota["spec"].get("hard"))
        before = used_by(quota, old, now) if old is not None else {}
        asked = _more(used_by(quota, new, now), before)
        has = count(quota) if asked else {}
        over = [name for name, amount in asked.items() if hard[name] < has[name] + amount]
        if over:
            texts = (_text({name: one[name] for name in over}) for one in (asked, has, hard))
            words = zip(("requested", "used", "limited"), texts, strict=True)
            return f"exceeded quota: {_name(quota)}, " + ", ".join(f"{word}: {text}" for word, text in words)
    return ""


def _deadline(doc: Json) -> bool:
    return doc["kind"] == "Pod" and doc["spec"].get("activeDeadlineSeconds") is not None


def _more(after: Amounts, before: Amounts) -> Amounts:
    """Return by how much amounts are larger (SubtractWithNonNegativeResult, RemoveZeros)."""
    found = {name: amount - before.get(name, _NOTHING) for name, amount in after.items()}
    return {name: amount for name, amount in found.items() if amount.nanos > 0}


def forbidden(doc: Json, said: str) -> str:
    """Return the message of a refusal: `deployments.apps "web" is forbidden: …`."""
    name = doc["metadata"].get("name") or doc["metadata"].get("generateName", "")
    return f'{PLURALS[doc["kind"]]} "{name}" is forbidden: {said}'


def _missing(quota: Json, pod: Json) -> str:
    """Return which compute resources of a quota a pod's containers leave open, "" if none (the evaluator's
    Constraints)."""
    if pod["kind"] != "Pod":
        return ""
    own = pod["spec"].get("resources") or {}
    if own.get("requests") or own.get("limits"):
        return ""
    found: dict[str, list[str]] = {}
    for name in sorted(set(quota["spec"].get("hard") or ()).intersection(_CONSTRAINED)):
        for _, container in containers_of(pod["spec"]):
            if name not in _compute(requests_of(container), limits_of(container)):
                found.setdefault(name, []).append(container["name"])
    parts = (f"{name} for: {','.join(sorted(containers))}" for name, containers in found.items())
    return f"must specify {'; '.join(parts)}" if found else ""


def _text(given: Mapping[str, Quantity]) -> str:
    return ",".join(f"{name}={amount}" for name, amount in sorted(given.items()))


def _name(quota: Json) -> str:
    return str(quota["metadata"]["name"])

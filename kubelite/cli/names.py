"""Parse what users type: resource types and their short names, pod/web, durations, and the nearest known word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kubelite.cli.errors import CliError


class Type(NamedTuple):
    plural: str
    kind: str
    namespaced: bool
    short: tuple[str, ...] = ()
    api: str = "/api/v1"

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def words(self) -> tuple[str, ...]:
        """The names that commands take: pods, pod, po."""
        return (self.plural, self.singular, *self.short)

    @property
    def qualified(self) -> str:
        """The form that kubectl prints before a name: with the API group, if any."""
        _, root, *group = self.api.split("/")
        return f"{self.singular}.{group[0]}" if root == "apis" else self.singular


_DISCOVERY = "/apis/discovery.k8s.io/v1"
_NETWORKING = "/apis/networking.k8s.io/v1"
_APPS, _BATCH, _RBAC = "/apis/apps/v1", "/apis/batch/v1", "/apis/rbac.authorization.k8s.io/v1"
TYPES = (
    Type("pods", "Pod", True, ("po",)),
    Type("replicationcontrollers", "ReplicationController", True, ("rc",)),
    Type("daemonsets", "DaemonSet", True, ("ds",), _APPS),
    Type("deployments", "Deployment", True, ("deploy",), _APPS),
    Type("replicasets", "ReplicaSet", True, ("rs",), _APPS),
    Type("statefulsets", "StatefulSet", True, ("sts",), _APPS),
    Type("cronjobs", "CronJob", True, ("cj",), _BATCH),
    Type("jobs", "Job", True, (), _BATCH),
    Type("services", "Service", True, ("svc",)),
    Type("endpoints", "Endpoints", True, ("ep",)),
    Type("endpointslices", "EndpointSlice", True, (), _DISCOVERY),
    Type("ingresses", "Ingress", True, ("ing",), _NETWORKING),
    Type("ingressclasses", "IngressClass", False, (), _NETWORKING),
    Type("controllerrevisions", "ControllerRevision", True, (), _APPS),
    Type("events", "Event", True, ("ev",)),
    Type("configmaps", "ConfigMap", True, ("cm",)),
    Type("secrets", "Secret", True),
    Type("persistentvolumeclaims", "PersistentVolumeClaim", True, ("pvc",)),
    Type("persistentvolumes", "PersistentVolume", False, ("pv",)),
    Type("storageclasses", "StorageClass", False, ("sc",), "/apis/storage.k8s.io/v1"),
    Type("horizontalpodautoscalers", "HorizontalPodAutoscaler", True, ("hpa",), "/apis/autoscaling/v2"),
    Type("networkpolicies", "NetworkPolicy", True, ("netpol",), "/apis/networking.k8s.io/v1"),
    Type("limitranges", "LimitRange", True, ("limits",)),
    Type("resourcequotas", "ResourceQuota", True, ("quota",)),
    Type("priorityclasses", "PriorityClass", False, ("pc",), "/apis/scheduling.k8s.io/v1"),
    Type("clustertrustbundles", "ClusterTrustBundle", False, (), "/apis/certificates.k8s.io/v1beta1"),
    Type("poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), "/apis/policy/v1"),
    Type("serviceaccounts", "ServiceAccount", True, ("sa",)),
    Type("roles", "Role", True, (), _RBAC),
    Type("rolebindings", "RoleBinding", True, (), _RBAC),
    Type("clusterroles", "ClusterRole", False, (), _RBAC),
    Type("clusterrolebindings", "ClusterRoleBinding", False, (), _RBAC),
    Type("namespaces", "Namespace", False, ("ns",)),
    Type("nodes", "Node", False, ("no",)),
    Type("manifests", "Manifest", False),
)
PODS = TYPES[0]
WORKLOADS = TYPES[1:8]
SERVICES = next(one for one in TYPES if one.kind == "Service")
NAMESPACES = next(one for one in TYPES if one.kind == "Namespace")
AUTOSCALERS = next(one for one in TYPES if one.kind == "HorizontalPodAutoscaler")
ALL = (
    PODS,
    WORKLOADS[0],
    SERVICES,
    *WORKLOADS[1:5],
    AUTOSCALERS,
    *WORKLOADS[5:],
)  # kubectl's category "all", in the order of its API groups
_BY_WORD = {word: t for t in TYPES for word in t.words}


class Wanted(NamedTuple):
    type: Type
    names: tuple[str, ...]  # () = all
    namespace: str | None = None  # None: the command's namespace


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean "pods"?`, or "" if no known word is similar."""
    from difflib import get_close_matches

    found = get_close_matches(word, list(known), n=1)
    return f'; did you mean "{found[0]}"?' if found else ""


def resource_type(word: str) -> Type:
    """Return the type of a name, a short name, or a name with its API group (deployments.apps)."""
    name, _, group = word.lower().partition(".")
    found = _BY_WORD.get(name)
    if found is not None and group and found.qualified != f"{found.singular}.{group}":
        found = None
    if found is None:
        names = [t.plural for t in TYPES]
        raise CliError(
            f'error: kubelite doesn\'t have a resource type "{word}", it has {", ".join(names)}{nearest(word, names)}'
        )
    return found


def qualified(kind: str) -> str:
    """Return how kubectl names a kind before an object's name: pod, deployment.apps."""
    found = _BY_WORD.get(kind.lower())
    return found.qualified if found is not None else kind.lower()


def wanted(arguments: Sequence[str]) -> list[Wanted]:
    """Parse `pods`, `pods web db`, `pod/web cm/app`, `pods,events` into types and names. Raises CliError."""
    if not arguments:
        raise CliError(
            "error: you must specify the type of resource, one of: " + ", ".join(t.plural for t in TYPES),
            code=2,
        )
    if "/" in arguments[0]:
        grouped: dict[Type, list[str]] = {}
        for argument in arguments:
            kind, slash, name = argument.partition("/")
            if not slash or not name:
                raise CliError(
                    "error: there is no need to specify a resource type as a separate argument when passing "
                    f"arguments in type/name form: {argument!r}"
                )
            grouped.setdefault(resource_type(kind), []).append(name)
        return [Wanted(kind, tuple(names)) for kind, names in grouped.items()]
    words = [word for word in arguments[0].split(",") if word]
    types = [kind for word in words for kind in (ALL if word.lower() == "all" else (resource_type(word),))]
    names = tuple(arguments[1:])
    slashed = next((n for n in names if "/" in n), None)
    if slashed:
        raise CliError(f"error: use either TYPE NAME or TYPE/NAME, not both: {slashed!r}")
    return [Wanted(kind, names) for kind in types]


def pod_name(argument: str) -> str:
    """Return `web` for both `web` and `pod/web` (also po/, pods/)."""
    kind, slash, name = argument.partition("/")
    if not slash:
        return argument
    if resource_type(kind) is not PODS or not name:
        raise CliError(f'error: "{argument}" is not a pod')
    return name


def duration(text: str) -> float:
    """Return the seconds of `90s`, `1h30m`, `7d` or `5` (Go's format plus days and bare seconds). Raises CliError."""
    from kubelite.kube.durations import parse_duration

    try:
        return parse_duration(text, days=True)
    except ValueError:
        raise CliError(f'error: invalid duration "{text}": write it like 30s, 5m or 1h30m', code=2) from None


def moment(text: str, now: float) -> str:
    """Convert `10m ago`, `10m` or an RFC 3339 time to RFC 3339. Raises CliError."""
    from kubelite.kube.times import parse_time, rfc3339_micro

    words = text.strip()
    found: float | None
    if "T" in words and "-" in words:
        found = parse_time(words)
    else:
        try:
            found = now - duration(words.removesuffix("ago").replace(" ", ""))
        except CliError:
            found = None
    if found is None:
        raise CliError(
            f'error: invalid time "{text}": write it like 2026-05-01T12:00:00Z or "10m ago"', code=2
        )
    return rfc3339_micro(found)


def path_of(kind: Type, namespace: str | None, name: str = "") -> str:
    """Return the API path of a type (in one namespace, or in all for None), or of one object."""
    where = f"/namespaces/{namespace}" if kind.namespaced and namespace is not None else ""
    return f"{kind.api}{where}/{kind.plural}" + (f"/{name}" if name else "")

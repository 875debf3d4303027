"""Who may do what: roles and bindings, evaluated as Kubernetes does. Pure.

Source: Kubernetes pkg/registry/rbac/validation/rule.go (rules of a user), pkg/apis/rbac/v1/evaluation_helpers.go (what
a rule matches), pkg/controller/clusterroleaggregation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from kubelite.api.secure.users import User
from kubelite.kube.json import Json
from kubelite.kube.label_selectors import matches_labels

ALL = "*"
_ACCOUNT = "system:serviceaccount:"


class Attributes(NamedTuple):
    """A request: for an object, or for a `path` that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Roles(NamedTuple):
    """The documents by which requests are decided. `roles` and `bindings` are those of namespaces, by namespace."""

    cluster_roles: Mapping[str, Json]
    cluster_bindings: Iterable[Json]
    roles: Mapping[tuple[str, str], Json]
    bindings: Iterable[Json]

    def rules(self, user: User, namespace: str) -> Iterator[tuple[Json, bool]]:
        """Yield the rules of a user in a namespace ("": in none), and whether each holds everywhere."""
        for binding in self.cluster_bindings:
            if _applies(binding, user, ""):
                for rule in self._of_cluster_role(_name(binding)):
                    yield rule, True
        for binding in self.bindings if namespace else ():
            if binding["metadata"].get("namespace") == namespace and _applies(binding, user, namespace):
                for rule in self._referred(binding, namespace):
                    yield rule, False

    def allow(self, user: User, request: Attributes) -> bool:
        return any(
            matches(rule, request)
            for rule, everywhere in self.rules(user, request.namespace)
            if everywhere or not request.path
        )

    def _referred(self, binding: Json, namespace: str) -> Iterable[Json]:
        if (binding.get("roleRef") or {}).get("kind") == "ClusterRole":
            return self._of_cluster_role(_name(binding))
        found = self.roles.get((namespace, _name(binding)))
        return (found or {}).get("rules") or ()

    def _of_cluster_role(self, name: str, above: frozenset[str] = frozenset()) -> Iterator[Json]:
        """Yield the rules of a ClusterRole: its own, or those of the roles that it aggregates."""
        role = self.cluster_roles.get(name)
        if role is None or name in above:
            return
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors")
        if not selectors:
            yield from role.get("rules") or ()
            return
        for other, doc in self.cluster_roles.items():
            labels = doc["metadata"].get("labels") or {}
            if other != name and any(matches_labels(selector, labels) for selector in selectors):
                yield from self._of_cluster_role(other, above | {name})


def matches(rule: Json, request: Attributes) -> bool:
    """Whether a PolicyRule allows a request."""
    if not _has(rule.get("verbs"), request.verb):
        return False
    if request.path:
        return any(_covers(pattern, request.path) for pattern in rule.get("nonResourceURLs") or ())
    names = rule.get("resourceNames") or ()
    return (
        _has(rule.get("apiGroups"), request.group)
        and _has_resource(rule.get("resources") or (), request)
        and (not names or request.name in names)
    )


def _has(given: Iterable[str] | None, wanted: str) -> bool:
    return any(one in (ALL, wanted) for one in given or ())


def _has_resource(given: Iterable[str], request: Attributes) -> bool:
    whole = f"{request.resource}/{request.subresource}" if request.subresource else request.resource
    part = f"{ALL}/{request.subresource}" if request.subresource else None
    return any(one in (ALL, whole, part) for one in given)


def _covers(pattern: str, path: str) -> bool:
    if pattern.endswith(ALL):
        return path.startswith(pattern.rstrip(ALL))
    return pattern == path


def _applies(binding: Json, user: User, namespace: str) -> bool:
    return any(_is(subject, user, namespace) for subject in binding.get("subjects") or ())


def _is(subject: Json, user: User, namespace: str) -> bool:
    name = subject.get("name", "")
    match subject.get("kind"):
        case "User":
            return bool(user.name == name)
        case "Group":
            return name in user.groups
        case "ServiceAccount":
            where = subject.get("namespace") or namespace
            return bool(where) and user.name == f"{_ACCOUNT}{where}:{name}"
    return False


def _name(binding: Json) -> str:
    return str((binding.get("roleRef") or {}).get("name", ""))

"""The objects of `kubelite create role` and the other commands about access: those of kubectl's generators. Pure.

Source: k8s.io/kubectl pkg/cmd/create/create_{role,clusterrole,rolebinding,clusterrolebinding,token}.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from kubelite.cli.create.documents import filled, named
from kubelite.cli.errors import CliError
from kubelite.cli.names import resource_type
from kubelite.kube.durations import parse_duration

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_GROUP: Final = "rbac.authorization.k8s.io"
_VERSION: Final = f"{_GROUP}/v1"
#: Verbs that only these resources have, by group and plural. Some of them are no objects of the API.
_SPECIAL: Final = {
    "bind": {(_GROUP, "roles"), (_GROUP, "clusterroles")},
    "escalate": {(_GROUP, "roles"), (_GROUP, "clusterroles")},
    "impersonate": {
        ("", "users"), ("", "serviceaccounts"), ("", "groups"), ("authentication.k8s.io", "userextras"),
    },
}  # fmt: skip
_PATH_VERBS: Final = frozenset({"*", "get", "post", "put", "delete", "patch", "head", "options"})


def _words(given: Iterable[str]) -> list[str]:
    """Split at commas, without repetitions."""
    return list(dict.fromkeys(word for one in given for word in one.split(",") if word))


def rules(
    verbs: Iterable[str],
    resources: Iterable[str],
    names: Iterable[str],
    paths: Iterable[str] = (),
    *,
    cluster: bool = False,
) -> list[Json]:
    """Return a rule for each API group, and one for the paths. Raises CliError."""
    allowed, asked, urls = _words(verbs), _words(resources), _words(paths)
    if "*" in allowed:
        allowed = ["*"]
    if not allowed:
        raise CliError("error: at least one --verb is required", code=2)
    if not asked and not urls:
        what = "--resource or --non-resource-url" if cluster else "at least one --resource"
        raise CliError(f"error: {what} is required", code=2)
    by_group: dict[str, list[str]] = {}
    for one in ["*"] if "*" in asked else asked:
        group, resource = _resource(one, allowed)
        if resource not in (known := by_group.setdefault(group, [])):
            known.append(resource)
    chosen = list(dict.fromkeys(names))
    found: list[Json] = [
        filled({"verbs": allowed, "resources": by_group[group], "resourceNames": chosen})
        | {"apiGroups": [group]}
        for group in sorted(by_group)
    ]
    if urls:
        _check_paths(allowed, urls)
        found.append({"verbs": allowed, "nonResourceURLs": urls})
    return found


def _resource(given: str, verbs: Sequence[str]) -> tuple[str, str]:
    """Return the API group and the plural, with the subresource, of `deploy.apps/scale`. Raises CliError."""
    word, _, sub = given.partition("/")
    if not word or word.startswith("."):
        raise CliError(f'error: invalid resource "{given}", expected TYPE[.GROUP][/SUBRESOURCE]', code=2)
    plural, _, group = word.partition(".")
    special = {pair for verb in verbs for pair in _SPECIAL.get(verb, ())}
    if plural != "*" and (group, plural) not in special:
        known = resource_type(word)
        plural = known.plural
        group = known.api.split("/")[2] if known.api.startswith("/apis/") else ""
    for verb in verbs:
        if verb in _SPECIAL and plural != "*" and (group, plural) not in _SPECIAL[verb]:
            raise CliError(f'error: the verb "{verb}" has no meaning for {plural} of the group "{group}"')
    return group, f"{plural}/{sub}" if sub else plural


def _check_paths(verbs: Sequence[str], urls: Sequence[str]) -> None:
    for verb in verbs:
        if verb not in _PATH_VERBS:
            raise CliError(f'error: invalid verb "{verb}" for --non-resource-url')
    for url in urls:
        if url != "*" and (not url.startswith("/") or "*" in url[:-1]):
            raise CliError(
                f'error: --non-resource-url "{url}" must begin with / and may have * at its end only'
            )


def role(name: str, namespace: str | None, rules: Sequence[Json]) -> Json:
    return named("Role", name, namespace, version=_VERSION) | {"rules": list(rules)}


def cluster_role(name: str, rules: Sequence[Json], labels: dict[str, str]) -> Json:
    made = named("ClusterRole", name, None, version=_VERSION)
    if labels:
        return made | {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": labels}]}}
    return made | {"rules": list(rules)}


def subjects(users: Iterable[str], groups: Iterable[str], accounts: Iterable[str]) -> list[Json]:
    """Return the subjects of a binding. Raises CliError."""
    found: list[Json] = [
        {"kind": kind, "apiGroup": _GROUP, "name": name}
        for kind, names in (("User", users), ("Group", groups))
        for name in names
    ]
    for account in accounts:
        namespace, _, name = account.partition(":")
        if not namespace or not name or ":" in name:
            raise CliError(f'error: invalid service account "{account}", expected NAMESPACE:NAME', code=2)
        found.append({"kind": "ServiceAccount", "name": name, "namespace": namespace})
    return found


def binding(name: str, namespace: str | None, kind: str, role: str, subjects: Sequence[Json]) -> Json:
    made = named("RoleBinding", name, namespace, version=_VERSION)
    return (
        made
        | {"roleRef": {"apiGroup": _GROUP, "kind": kind, "name": role}}
        | filled({"subjects": list(subjects)})
    )


def cluster_binding(name: str, role: str, subjects: Sequence[Json]) -> Json:
    made = named("ClusterRoleBinding", name, None, version=_VERSION)
    reference = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": role}
    return made | {"roleRef": reference} | filled({"subjects": list(subjects)})


def service_account(name: str, namespace: str | None) -> Json:
    return named("ServiceAccount", name, namespace)


def token_request(options: dict[str, Any]) -> Json:
    """Return the TokenRequest of `create token`. Raises CliError."""
    seconds = 0
    if options["duration"]:
        try:
            seconds = int(parse_duration(options["duration"]))
        except ValueError as error:
            raise CliError(f"error: --duration: {error}", code=2) from error
    kind, name, uid = (options[f"bound_object_{word}"] for word in ("kind", "name", "uid"))
    if bool(kind) != bool(name) or (uid and not kind):
        raise CliError("error: --bound-object-kind and --bound-object-name belong together", code=2)
    bound = {"kind": kind, "apiVersion": "v1", "name": name} | filled({"uid": uid}) if kind else {}
    spec = {"audiences": list(options["audience"]), "expirationSeconds": seconds, "boundObjectRef": bound}
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": filled(spec)}

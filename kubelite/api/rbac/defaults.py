"""The ClusterRoles and bindings that every node has, as every cluster does: view, edit, admin, cluster-admin and those
of all users. A manifest of the same name takes the place of one.

Source: Kubernetes plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go, for the kinds that this node runs.
"""

from __future__ import annotations

from kubelite.accounts.claims import GROUP as ACCOUNTS
from kubelite.api.secure.users import AUTHENTICATED, MASTERS, READERS, UNAUTHENTICATED
from kubelite.kube.json import Json

GROUP = "rbac.authorization.k8s.io"
_AGGREGATE = f"{GROUP}/aggregate-to-"  # label of a ClusterRole: whose rules it adds to
_READ = ("get", "list", "watch")
_WRITE = ("create", "delete", "deletecollection", "patch", "update")
_PUBLIC = ("/healthz", "/livez", "/readyz", "/version", "/version/")
_ISSUER = (
    "/.well-known/openid-configuration",
    "/.well-known/openid-configuration/",
    "/openid/v1/jwks",
    "/openid/v1/jwks/",
)
_DISCOVERY = (*_PUBLIC, "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")
#: What a namespace's users see, by API group, and what its editors may change of it.
_SEEN = {
    "": (
        "configmaps endpoints events limitranges namespaces persistentvolumeclaims persistentvolumeclaims/status pods "
        "pods/log pods/status replicationcontrollers replicationcontrollers/scale replicationcontrollers/status "
        "resourcequotas resourcequotas/status serviceaccounts services services/status"
    ),
    "apps": (
        "controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets "
        "replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status"
    ),
    "autoscaling": "horizontalpodautoscalers horizontalpodautoscalers/status",
    "batch": "cronjobs cronjobs/status jobs jobs/status",
    "discovery.k8s.io": "endpointslices",
    "metrics.k8s.io": "nodes pods",  # metrics-server's system:aggregated-metrics-reader
    "networking.k8s.io": "ingresses ingresses/status networkpolicies",
    "policy": "poddisruptionbudgets poddisruptionbudgets/status",
}
_EDITED = {
    "": (
        "configmaps events persistentvolumeclaims pods pods/attach pods/exec pods/portforward pods/proxy "
        "replicationcontrollers replicationcontrollers/scale secrets serviceaccounts services services/proxy"
    ),
    "apps": "daemonsets deployments deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale",
    "autoscaling": "horizontalpodautoscalers",
    "batch": "cronjobs jobs",
    "networking.k8s.io": "ingresses networkpolicies",
    "policy": "poddisruptionbudgets",
}
#: What only the readers of everything see besides.
_OF_NODE = {
    "": "namespaces/status nodes nodes/proxy nodes/status persistentvolumes persistentvolumes/status",
    "certificates.k8s.io": "clustertrustbundles",
    "networking.k8s.io": "ingressclasses",
    GROUP: "clusterrolebindings clusterroles rolebindings roles",
    "scheduling.k8s.io": "priorityclasses",
    "storage.k8s.io": "storageclasses",
}
_SECRET_READS = "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"


def cluster_roles() -> dict[str, Json]:
    view = [_rule(_READ, group, words) for group, words in _SEEN.items()]
    edit = [_rule(_WRITE, group, words) for group, words in _EDITED.items()]
    edit += [_rule(_READ, "", _SECRET_READS), _rule(("create",), "", "pods/eviction serviceaccounts/token")]
    admin = [
        _rule((*_READ, *_WRITE), GROUP, "rolebindings roles"),
        _rule(("create",), "authorization.k8s.io", "localsubjectaccessreviews"),
    ]
    everything = [_rule(("*",), "*", "*"), {"nonResourceURLs": ["*"], "verbs": ["*"]}]
    reviews = [
        _rule(("create",), "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        _rule(("create",), "authentication.k8s.io", "selfsubjectreviews"),
    ]
    delegated = [
        _rule(("create",), "authentication.k8s.io", "tokenreviews"),
        _rule(("create",), "authorization.k8s.io", "subjectaccessreviews"),
    ]
    plain = {
        name: _role(name, rules)
        for name, rules in (
            ("cluster-admin", everything),
            ("kubelite:reader", _readers()),
            ("system:auth-delegator", delegated),
            ("system:basic-user", reviews),
            ("system:discovery", [{"nonResourceURLs": list(_DISCOVERY), "verbs": ["get"]}]),
            (
                "system:service-account-issuer-discovery",
                [{"nonResourceURLs": list(_ISSUER), "verbs": ["get"]}],
            ),
            ("system:public-info-viewer", [{"nonResourceURLs": list(_PUBLIC), "verbs": ["get"]}]),
        )
    }
    return (
        plain
        | _aggregated("view", view, "edit")
        | _aggregated("edit", edit, "admin")
        | _aggregated("admin", admin)
    )


def _aggregated(name: str, rules: list[Json], larger: str = "") -> dict[str, Json]:
    """Return a role that has the rules of all with its label, one of them with these rules. `larger` has them, too."""
    part = f"system:aggregate-to-{name}"
    selector = {"matchLabels": {f"{_AGGREGATE}{name}": "true"}}
    whole = {**_role(name, []), "aggregationRule": {"clusterRoleSelectors": [selector]}}
    if larger:
        whole["metadata"]["labels"][f"{_AGGREGATE}{larger}"] = "true"
    one = _role(part, rules)
    one["metadata"]["labels"][f"{_AGGREGATE}{name}"] = "true"
    return {name: whole, part: one}


def cluster_role_bindings() -> dict[str, Json]:
    bound = {
        "cluster-admin": (MASTERS,),
        "kubelite:reader": (READERS,),
        "system:basic-user": (AUTHENTICATED,),
        "system:discovery": (AUTHENTICATED,),
        "system:service-account-issuer-discovery": (ACCOUNTS,),
        "system:public-info-viewer": (AUTHENTICATED, UNAUTHENTICATED),
    }
    return {
        name: {
            **_head("ClusterRoleBinding", name),
            "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group} for group in groups],
        }
        for name, groups in bound.items()
    }


def _readers() -> list[Json]:
    """The rules of those who read everything except Secrets: rules can only allow, so they name the rest."""
    seen = [_rule(_READ, group, words) for group, words in _SEEN.items()]
    others = [_rule(_READ, group, words) for group, words in _OF_NODE.items()]
    return [*seen, *others, {"nonResourceURLs": ["*"], "verbs": ["get"]}]


def _rule(verbs: tuple[str, ...], group: str, resources: str) -> Json:
    return {"apiGroups": [group], "resources": resources.split(), "verbs": list(verbs)}


def _role(name: str, rules: list[Json]) -> Json:
    return {**_head("ClusterRole", name), "rules": rules}


def _head(kind: str, name: str) -> Json:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name, "labels": labels}}

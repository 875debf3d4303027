"""Which lists, maps and structs are merged field by field, and which are replaced as a whole.

Tables of what the API's types say by `+listType`, `+listMapKey`, `+mapType` and `+structType`. Source: Kubernetes,
client-go applyconfigurations/internal/internal.go. What is not named here is the default: a list is atomic, a map or a
struct is granular.
"""

from __future__ import annotations

#: Type and field of a list → the fields that identify an item of it.
KEYED_LISTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("Container", "env"): ("name",),
    ("Container", "ports"): ("containerPort", "protocol"),
    ("Container", "volumeDevices"): ("devicePath",),
    ("Container", "volumeMounts"): ("mountPath",),
    ("EphemeralContainer", "env"): ("name",),
    ("EphemeralContainer", "ports"): ("containerPort", "protocol"),
    ("EphemeralContainer", "volumeDevices"): ("devicePath",),
    ("EphemeralContainer", "volumeMounts"): ("mountPath",),
    ("ObjectMeta", "ownerReferences"): ("uid",),
    ("PodSpec", "containers"): ("name",),
    ("PodSpec", "ephemeralContainers"): ("name",),
    ("PodSpec", "hostAliases"): ("ip",),
    ("PodSpec", "imagePullSecrets"): ("name",),
    ("PodSpec", "initContainers"): ("name",),
    ("PodSpec", "resourceClaims"): ("name",),
    ("PodSpec", "schedulingGates"): ("name",),
    ("PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("PodSpec", "volumes"): ("name",),
    ("ResourceRequirements", "claims"): ("name",),
    ("ServiceAccount", "secrets"): ("name",),
    ("ServiceSpec", "ports"): ("port", "protocol"),
}
#: Keys that an item may leave out, and what they are then.
KEY_DEFAULTS = {"protocol": "TCP"}

#: Lists of words without an order.
SETS = frozenset(
    {
        ("ContainerRestartRuleOnExitCodes", "values"),
        ("Endpoint", "addresses"),
        ("ObjectMeta", "finalizers"),
        ("PodFailurePolicyOnExitCodesRequirement", "values"),
    }
)

ATOMIC_MAPS = frozenset(
    {
        ("PodSpec", "nodeSelector"),
        ("ReplicationControllerSpec", "selector"),
        ("ServiceSpec", "selector"),
    }
)

ATOMIC_STRUCTS = frozenset(
    {
        "ConfigMapKeySelector",
        "EndpointAddress",
        "EndpointPort",
        "EndpointsPort",
        "FileKeySelector",
        "IngressResource",
        "LabelSelector",
        "LocalObjectReference",
        "NodeSelector",
        "NodeSelectorTerm",
        "ObjectFieldSelector",
        "ObjectReference",
        "OwnerReference",
        "ResourceFieldSelector",
        "RoleRef",
        "ScopeSelector",
        "SecretKeySelector",
        "ServiceBackendPort",
        "Subject",
        "TopologySelectorTerm",
        "TypedLocalObjectReference",
    }
)
#: Fields whose struct is granular although its type is atomic.
GRANULAR_FIELDS = frozenset({("PersistentVolumeSpec", "claimRef")})

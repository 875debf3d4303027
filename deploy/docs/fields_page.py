"""docs/reference/manifest-fields.md: the kinds and fields of manifests, from the types in the code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from deploy.docs.tables import table, titled
from kubelite.cli.objects.explain import fields_of
from kubelite.node.decide.unsupported import WORKING_VOLUMES, unsupported_fields
from manifests.types.core import Pod, Volume
from manifests.types.workloads.descriptions import kind_description
from manifests.yaml.loader import KINDS

HEAD: Final = """# Manifest fields

The kinds and fields that kubelite reads. Types, defaults and validation are those of Kubernetes 1.36; Kubernetes'
[API reference](https://kubernetes.io/docs/reference/kubernetes-api/) describes each field at length. This page says
what a field does on this node. `kubelite explain pod.spec.containers` prints the same.

An unknown field or an invalid value rejects the document: `kubelite get manifests` names file, line and field. What
already runs keeps running.
"""
UNSUPPORTED: Final = """
## Valid fields without effect here

The node accepts these fields but cannot act on them. It never ignores one silently: the pod gets a Warning event that
names the field. If the program could not run as intended without it, the container also waits, with the reason
`CreateContainerConfigError`.

"""
MACHINE: Final = """
Depending on the kernel: a pod with an `appArmorProfile` of `type: Localhost` stays Pending, with the reason `AppArmor`,
where the kernel has no AppArmor; a container with `type: RuntimeDefault` waits where the kernel has AppArmor, but the
default profile could not be loaded; `seLinuxOptions` are left out where it has no SELinux, and an event says so.
"""
_CONTAINER: Final[dict[str, Any]] = {"name": "app", "image": "app:1"}
#: A pod for each field that `unsupported_fields` may name, whatever the machine.
EXAMPLES: Final[tuple[dict[str, Any], ...]] = (
    {"resourceClaims": [{"name": "gpu"}]},
    {"schedulingGroup": {"podGroupName": "g"}},
    {"schedulerName": "my-scheduler"},
    {"os": {"name": "windows"}},
    {"securityContext": {"windowsOptions": {"runAsUserName": "a"}}},
    {"hostUsers": False, "hostNetwork": True},
    {"containers": [{**_CONTAINER, "resources": {"claims": [{"name": "gpu"}]}}]},
    {
        "hostUsers": False,
        "containers": [{**_CONTAINER, "volumeDevices": [{"name": "v", "devicePath": "/dev/v"}]}],
    },
    {
        "volumes": [
            {
                "name": "v",
                "projected": {
                    "sources": [{"podCertificate": {"signerName": "example.com/s", "keyType": "ED25519"}}]
                },
            }
        ]
    },
)


def page() -> str:
    parts = [HEAD, "\n## Kinds\n\n", table(("kind", "apiVersion", ""), _kinds())]
    parts += [UNSUPPORTED, table(("field", "container waits", "message"), _unsupported()), MACHINE]
    refused = ", ".join(f"`{name}`" for name in _volume_kinds() if name not in WORKING_VOLUMES)
    parts += [f"\nVolumes of other kinds make their containers wait: {refused}.\n"]
    for model in _models():
        parts += [f"\n## {model.__name__}\n\n", table(("field", "type", "meaning"), _fields(model))]
    return titled("".join(parts))


def _kinds() -> Iterator[tuple[str, str, str]]:
    for version, kind in KINDS:
        yield f"[{kind}](#{kind.lower()})", f"`{version}`", kind_description(kind)


def _unsupported() -> Iterator[tuple[str, str, str]]:
    for spec in EXAMPLES:
        pod = Pod.model_validate({"metadata": {"name": "p"}, "spec": {"containers": [_CONTAINER], **spec}})
        for field in unsupported_fields(pod):
            path = field.path.replace("[0]", "[]")
            yield f"`{path}`", "yes" if field.blocks else "no", field.sentence


def _volume_kinds() -> list[str]:
    return [entry.name for entry in fields_of(Volume) if entry.name != "name"]


def _models() -> list[Any]:
    """Every type that a manifest may contain, breadth first from the kinds, without the types of unsupported
    volumes."""
    found: list[Any] = list(KINDS.values())
    for model in found:
        for entry in fields_of(model):
            if entry.name == "status" or (model is Volume and entry.name not in WORKING_VOLUMES):
                continue
            if entry.value.model is not None and entry.value.model not in found:
                found.append(entry.value.model)
    # Older API versions have types of the same names: the newest, which comes first, is described.
    return list({model.__name__: model for model in reversed(found)}.values())[::-1]


def _fields(model: Any) -> Iterator[tuple[str, str, str]]:
    for entry in fields_of(model):
        if model is Volume and entry.name not in {*WORKING_VOLUMES, "name"}:
            continue
        shown, inner = entry.value.shown.replace("[", "\\["), entry.value.model
        link = (
            f"[{shown}](#{inner.__name__.lower()})" if inner is not None and entry.name != "status" else shown
        )
        yield f"`{entry.name}`" + " (required)" * entry.required, link, entry.words

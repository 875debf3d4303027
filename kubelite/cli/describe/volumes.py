"""Format volume sources: the Volumes section of `describe pod`, a PersistentVolume's Source. Pure.

Source: kubectl pkg/describe/describe.go describeVolumes, describePersistentVolume.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kubelite.cli.describe.parts import truth

if TYPE_CHECKING:
    from kubelite.kube.json import Json


def describe_volumes(volumes: list[Json]) -> list[str]:
    if not volumes:
        return ["Volumes:\t<none>"]
    out = ["Volumes:"]
    for volume in volumes:
        out.append(f"  {volume['name']}:")
        kind = next((key for key in volume if key != "name"), "")
        write = _WRITERS.get(kind)
        out += write(volume[kind] or {}) if write else [f"    Type:\t{kind or '<unknown>'}"]
    return out


def describe_source(spec: Json) -> list[str]:
    """Format the source in a PersistentVolume's spec."""
    kind = next((kind for kind in ("hostPath", "nfs", "local") if spec.get(kind)), "")
    return ["Source:", *(_WRITERS[kind](spec[kind]) if kind else ["  <unknown>"])]


def _type(words: str) -> str:
    return f"    Type:\t{words}"


def _empty_dir(source: Json) -> list[str]:
    return [
        _type("EmptyDir (a temporary directory that shares a pod's lifetime)"),
        f"    Medium:\t{source.get('medium', '')}",
        f"    SizeLimit:\t{source.get('sizeLimit', '<unset>')}",
    ]


def _host_path(source: Json) -> list[str]:
    return [
        _type("HostPath (bare host directory volume)"),
        f"    Path:\t{source.get('path', '')}",
        f"    HostPathType:\t{source.get('type', '<none>')}",
    ]


def _nfs(source: Json) -> list[str]:
    return [
        _type("NFS (an NFS mount that lasts the lifetime of a pod)"),
        f"    Server:\t{source.get('server', '')}",
        f"    Path:\t{source.get('path', '')}",
        f"    ReadOnly:\t{truth(source.get('readOnly'))}",
    ]


def _local(source: Json) -> list[str]:
    return [
        _type("LocalVolume (a persistent volume backed by local storage on a node)"),
        f"    Path:\t{source.get('path', '')}",
    ]


def _image(source: Json) -> list[str]:
    return [
        _type("Image (a container image or OCI artifact)"),
        f"    Reference:\t{source.get('reference', '')}",
        f"    PullPolicy:\t{source.get('pullPolicy', '')}",
    ]


def _secret(source: Json) -> list[str]:
    return [
        _type("Secret (a volume populated by a Secret)"),
        f"    SecretName:\t{source.get('secretName', '')}",
        f"    Optional:\t{truth(source.get('optional'))}",
    ]


def _config_map(source: Json) -> list[str]:
    return [
        _type("ConfigMap (a volume populated by a ConfigMap)"),
        f"    Name:\t{source.get('name', '')}",
        f"    Optional:\t{truth(source.get('optional'))}",
    ]


def _downward(source: Json) -> list[str]:
    out = [_type("DownwardAPI (a volume populated by information about the pod)"), "    Items:"]
    for item in source.get("items") or ():
        field = (item.get("fieldRef") or {}).get("fieldPath")
        resource = (item.get("resourceFieldRef") or {}).get("resource")
        out.append(f"      {field or resource} -> {item.get('path')}")
    return out


def _projected(source: Json) -> list[str]:
    out = [_type("Projected (a volume that contains injected data from multiple sources)")]
    for part in source.get("sources") or ():
        if secret := part.get("secret"):
            out += [
                f"    SecretName:\t{secret.get('name', '')}",
                f"    Optional:\t{truth(secret.get('optional'))}",
            ]
        elif config := part.get("configMap"):
            out += [
                f"    ConfigMapName:\t{config.get('name', '')}",
                f"    Optional:\t{truth(config.get('optional'))}",
            ]
        elif "downwardAPI" in part:
            out.append("    DownwardAPI:\ttrue")
        elif token := part.get("serviceAccountToken"):
            out.append(f"    TokenExpirationSeconds:\t{token.get('expirationSeconds', 3600)}")
    return out


def _claim(source: Json) -> list[str]:
    return [
        _type("PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)"),
        f"    ClaimName:\t{source.get('claimName', '')}",
        f"    ReadOnly:\t{truth(source.get('readOnly'))}",
    ]


def _ephemeral(source: Json) -> list[str]:
    """Format the claim template. As in kubectl, fields that only an existing claim has are empty."""
    template = source.get("volumeClaimTemplate") or {}
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    words = (
        "EphemeralVolume (an inline specification for a volume that gets created and deleted with the pod)"
    )
    return [
        _type(words),
        f"    StorageClass:\t{spec.get('storageClassName', '')}",
        f"    Volume:\t{spec.get('volumeName', '')}",
        f"    Labels:\t{_pairs(metadata.get('labels'), '=')}",
        f"    Annotations:\t{_pairs(metadata.get('annotations'), ': ')}",
        "    Capacity:\t",
        "    Access Modes:\t",
        f"    VolumeMode:\t{spec.get('volumeMode', 'Filesystem')}",
    ]


def _pairs(given: Json | None, sign: str) -> str:
    return ", ".join(f"{key}{sign}{value}" for key, value in sorted((given or {}).items())) or "<none>"


_WRITERS: dict[str, Callable[[Json], list[str]]] = {
    "emptyDir": _empty_dir,
    "hostPath": _host_path,
    "nfs": _nfs,
    "local": _local,
    "image": _image,
    "secret": _secret,
    "configMap": _config_map,
    "downwardAPI": _downward,
    "projected": _projected,
    "persistentVolumeClaim": _claim,
    "ephemeral": _ephemeral,
}

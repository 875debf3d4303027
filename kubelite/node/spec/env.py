"""A container's environment: $(VAR) expansion, envFrom, and values from fields, ConfigMaps, Secrets and resources
(docs/explanation/pod-semantics.md, "Environment").

`Sources` provides the values. Its `find` reads objects from memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kubelite.kube.expansion import _expanded, expand
from kubelite.node.model.cri import ObservedImage
from kubelite.node.model.errors import ConfigError
from kubelite.node.model.node_config import NodeConfig
from manifests.types.core import (
    Container,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    FileKeySelector,
    Pod,
    ResourceFieldSelector,
    ResourceRequirements,
    ServiceAccountTokenProjection,
    Volume,
)

Find = Callable[[str, str, str], Mapping[str, Any] | None]  # (kind, namespace, name) → the document
ReadFile = Callable[[str, str], str | None]
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_AMOUNTS = ("cpu", "memory", "ephemeral-storage")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of the values for one pod."""

    find: Find
    config: NodeConfig
    pod_ips: tuple[str, ...] = ()
    #: All objects of a kind, in all namespaces.
    every: Callable[[str], Iterable[Mapping[str, Any]]] = lambda _: ()
    image: Callable[[str], ObservedImage | None] | None = None  # by name; None if it is not present
    #: A file of one of the pod's volumes: (volume, path) → its text, None = missing.
    read: ReadFile | None = None
    #: The token for a file of one of the pod's volumes; "" = the file is left out.
    token: Callable[[Volume, ServiceAccountTokenProjection], str] = lambda _volume, _wanted: ""


def expand_all(text: str, values: Mapping[str, str]) -> str:
    """Like `expand`, but no value may be missing or empty (Kubernetes ExpandContainerVolumeMounts). Raises
    ConfigError."""
    missing: set[str] = set()

    def value_of(name: str) -> str:
        value = values.get(name, "")
        missing.update(() if value else (name,))
        return value

    expanded = _expanded(text, value_of)
    if missing:
        raise ConfigError(
            f'failed to expand subPathExpr "{text}": missing value for {", ".join(sorted(missing))}'
        )
    return expanded


def container_env(pod: Pod, container: Container, sources: Sources) -> dict[str, str]:
    """The variables of the pod in order: those of Services, envFrom, then env, where later entries win. Raises
    ConfigError if something is missing and not optional."""
    result = _service_links(pod, sources)
    for source in container.env_from:
        result.update(_from_object(pod, source, sources))
    for variable in container.env:
        value = _value(pod, container, variable, result, sources)
        if value is not None:
            result[variable.name] = value
    return result


def _service_links(pod: Pod, sources: Sources) -> dict[str, str]:
    """The variables that name Services. Nothing of them is imported while there is none."""
    services = list(sources.every("Service"))
    if not services:
        return {}
    from kubelite.node.spec.service_links import service_links

    enabled = pod.spec.enable_service_links is not False
    return service_links(services, pod.metadata.namespace or "default", enabled=enabled)


def process_env(image_env: list[str], given: Mapping[str, str], *, hostname: str, tty: bool) -> list[str]:
    """The complete environment for config.json: the image's, HOSTNAME, and the manifest's, which wins."""
    merged: dict[str, str] = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if tty:
        merged["TERM"] = "xterm"
    for entry in image_env:
        name, _, value = entry.partition("=")
        merged[name] = value
    merged.update(given)
    return [f"{name}={value}" for name, value in merged.items()]


def _from_object(pod: Pod, source: EnvFromSource, sources: Sources) -> dict[str, str]:
    prefix = source.prefix or ""
    if source.config_map_ref is not None:
        ref = source.config_map_ref
        found = _object(pod, "ConfigMap", ref.name, bool(ref.optional), sources)
        return {prefix + key: value for key, value in (found or {}).get("data", {}).items()}
    if source.secret_ref is not None:
        secret = source.secret_ref
        found = _object(pod, "Secret", secret.name, bool(secret.optional), sources)
        return {
            prefix + key: value.decode(errors="replace") for key, value in secret_data(found or {}).items()
        }
    return {}


def content_hash(pod: Pod, container: Container, find: Find) -> str:
    """A digest of the content of every ConfigMap and Secret that the container uses in its environment or volumes."""
    namespace = pod.metadata.namespace or "default"
    whole = hashlib.sha256()
    for kind, name in sorted(_references(pod, container)):
        found = find(kind, namespace, name) or {}
        parts = [found.get(part) for part in ("data", "stringData", "binaryData")]
        whole.update(json.dumps([kind, name, parts], sort_keys=True).encode())
    return whole.hexdigest()[:16]


def _references(pod: Pod, container: Container) -> set[tuple[str, str]]:
    found: set[tuple[str, str | None]] = set()
    for source in container.env_from:
        found |= {("ConfigMap", source.config_map_ref.name)} if source.config_map_ref else set()
        found |= {("Secret", source.secret_ref.name)} if source.secret_ref else set()
    for variable in container.env:
        ref = variable.value_from
        if ref is not None and ref.config_map_key_ref is not None:
            found.add(("ConfigMap", ref.config_map_key_ref.name))
        if ref is not None and ref.secret_key_ref is not None:
            found.add(("Secret", ref.secret_key_ref.name))
    mounted = {mount.name for mount in container.volume_mounts}
    for volume in pod.spec.volumes:
        if volume.name not in mounted:
            continue
        found |= {("ConfigMap", volume.config_map.name)} if volume.config_map else set()
        found |= {("Secret", volume.secret.secret_name)} if volume.secret else set()
        for part in volume.projected.sources if volume.projected is not None else ():
            found |= {("ConfigMap", part.config_map.name)} if part.config_map else set()
            found |= {("Secret", part.secret.name)} if part.secret else set()
    return {(kind, name) for kind, name in found if name}


def secret_data(document: Mapping[str, Any]) -> dict[str, bytes]:
    """A Secret's decoded data; stringData wins."""
    data = {key: base64.b64decode(value) for key, value in document.get("data", {}).items()}
    data.update({key: value.encode() for key, value in document.get("stringData", {}).items()})
    return data


def configmap_data(document: Mapping[str, Any]) -> dict[str, bytes]:
    data = {key: value.encode() for key, value in document.get("data", {}).items()}
    data.update({key: base64.b64decode(value) for key, value in document.get("binaryData", {}).items()})
    return data


def _object(
    pod: Pod, kind: str, name: str | None, optional: bool, sources: Sources
) -> Mapping[str, Any] | None:
    found = sources.find(kind, pod.metadata.namespace or "default", name or "")
    if found is None and not optional:
        raise ConfigError(f'{kind.lower()} "{name}" not found')
    return found


def _value(
    pod: Pod, container: Container, variable: EnvVar, so_far: Mapping[str, str], sources: Sources
) -> str | None:
    source = variable.value_from
    if source is None:
        return expand(variable.value or "", so_far)
    if source.field_ref is not None:
        return field_value(pod, source.field_ref.field_path, sources)
    if source.resource_field_ref is not None:
        return resource_value(pod, container, source.resource_field_ref, sources.config)
    if source.file_key_ref is not None:
        return _file_value(source.file_key_ref, sources)
    return _key_value(pod, source, sources)


def _file_value(ref: FileKeySelector, sources: Sources) -> str | None:
    """fileKeyRef (KEP-3721): a variable from an env file that another container has written to an emptyDir."""
    where = f'file "{ref.path}" of volume "{ref.volume_name}"'
    text = sources.read(ref.volume_name, ref.path) if sources.read is not None else None
    if text is None:
        if ref.optional:
            return None
        raise ConfigError(f"env: {where} not found")
    try:
        found = env_file(text)
    except ValueError as error:
        raise ConfigError(f"env: {where}: {error}") from error
    if ref.key not in found and not ref.optional:
        raise ConfigError(f"env: couldn't find key {ref.key} in {where}")
    return found.get(ref.key)


def env_file(text: str) -> dict[str, str]:
    """The variables of an env file with NAME='value' lines. Blank lines and lines that begin with # are skipped. The
    text between the quotes is taken literally and may contain line ends. The last value of a name wins. Raises
    ValueError with the number of an invalid line."""
    found: dict[str, str] = {}
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        line, first = lines[number].strip(), number + 1
        number += 1
        if not line or line.startswith("#"):
            continue
        name, value = line.partition("=")[0].strip(), line.partition("=")[2].lstrip()
        if not name or not value.startswith("'"):
            raise ValueError(f"line {first} is not NAME='value'")
        value = lines[first - 1].partition("=")[2].lstrip()[1:]
        while "'" not in value:
            if number == len(lines):
                raise ValueError(f"line {first}: the quote is not closed")
            value += "\n" + lines[number]
            number += 1
        value, _, rest = value.partition("'")
        if rest.strip() and not rest.lstrip().startswith("#"):
            raise ValueError(f"line {first}: unexpected text after the closing quote")
        found[name] = value
    return found


def _key_value(pod: Pod, source: EnvVarSource, sources: Sources) -> str | None:
    ref = source.config_map_key_ref or source.secret_key_ref
    if ref is None:
        raise ConfigError("env: valueFrom names no source that is available on this node")
    kind = "ConfigMap" if source.config_map_key_ref is not None else "Secret"
    found = _object(pod, kind, ref.name, bool(ref.optional), sources)
    if found is None:
        return None
    data = configmap_data(found) if kind == "ConfigMap" else secret_data(found)
    if ref.key not in data:
        if ref.optional:
            return None
        where = f"{pod.metadata.namespace or 'default'}/{ref.name}"
        raise ConfigError(f"couldn't find key {ref.key} in {kind} {where}")
    return data[ref.key].decode(errors="replace")


def field_value(pod: Pod, path: str, sources: Sources) -> str:
    """The value of the downward API's fieldRef."""
    meta, config = pod.metadata, sources.config
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript is not None:
        values = meta.labels if subscript[1] == "labels" else meta.annotations
        return values.get(subscript[2], "")
    simple = {
        "metadata.name": meta.name,
        "metadata.namespace": meta.namespace or "default",
        "metadata.uid": meta.uid,
        "spec.nodeName": config.node_name,
        "spec.serviceAccountName": pod.spec.service_account_name or "default",
        "status.hostIP": config.host_ip,
        "status.hostIPs": ",".join(config.host_ips),
        "status.podIP": sources.pod_ips[0] if sources.pod_ips else "",
        "status.podIPs": ",".join(sources.pod_ips),
    }
    if path in simple:
        return simple[path] or ""
    if path in ("metadata.labels", "metadata.annotations"):
        values = meta.labels if path.endswith("labels") else meta.annotations
        return "\n".join(f'{key}="{_quoted(value)}"' for key, value in sorted(values.items()))
    raise ConfigError(f"unsupported fieldPath: {path}")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource_value(pod: Pod, container: Container, ref: ResourceFieldSelector, config: NodeConfig) -> str:
    """The value of a resourceFieldRef, rounded up to the divisor. Without a limit it is the node's allocatable
    amount."""
    if ref.container_name and ref.container_name != container.name:
        named = [c for c in [*pod.spec.init_containers, *pod.spec.containers] if c.name == ref.container_name]
        if not named:
            raise ConfigError(f"container {ref.container_name} not found")
        container = named[0]
    kind, _, name = ref.resource.partition(".")
    if kind not in ("limits", "requests") or not (name in _AMOUNTS or name.startswith("hugepages-")):
        raise ConfigError(f"unsupported container resource: {ref.resource}")
    given = container.resources or ResourceRequirements()
    amount = given.limits.get(name)
    if kind == "requests":
        amount = given.requests.get(name, amount)  # a limit without a request is also the request
    nanos = amount.nanos if amount is not None else 0
    if not nanos and kind == "limits" and name in _AMOUNTS:
        nanos = config.allocatable[name] * (10**6 if name == "cpu" else 10**9)
    divisor = ref.divisor.nanos if ref.divisor is not None and ref.divisor.nanos else 10**9
    return str(-(-nanos // divisor))

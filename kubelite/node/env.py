"""PURE: a container's environment (C9): $(VAR) expansion, envFrom, values from fields, ConfigMaps, Secrets, resources.

`Sources` is what the values come from; its `find` reads the store, which is a look into memory.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubelite.node import resources
from kubelite.node.config import NodeConfig
from kubelite.node.faults import ConfigError
from manifests.core import Container, EnvFromSource, EnvVar, EnvVarSource, Pod, ResourceFieldSelector

Find = Callable[[str, str, str], Mapping[str, Any] | None]  # (kind, namespace, name) → the document
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the values of one pod come from."""

    find: Find
    config: NodeConfig
    pod_ips: tuple[str, ...] = ()


def expand(text: str, values: Mapping[str, str]) -> str:
    """$(NAME) → its value; $$ → $; an unknown name or an unclosed reference stays as it is; one pass only (K
    third_party/forked/golang/expansion)."""
    out: list[str] = []
    position = 0
    while (dollar := text.find("$", position)) >= 0 and dollar + 1 < len(text):
        out.append(text[position:dollar])
        following = text[dollar + 1]
        position = dollar + 2
        if following == "$":
            out.append("$")
        elif following != "(":
            out.append("$" + following)
        elif (end := text.find(")", position)) < 0:
            out.append("$(")
        else:
            name = text[position:end]
            out.append(values.get(name, f"$({name})"))
            position = end + 1
    out.append(text[position:])
    return "".join(out)


def container_env(pod: Pod, container: Container, sources: Sources) -> dict[str, str]:
    """The variables that the manifest gives, in order: envFrom first, env over it, later over earlier. Raises
    ConfigError for what is missing and not optional."""
    result: dict[str, str] = {}
    for source in container.env_from:
        result.update(_from_object(pod, source, sources))
    for variable in container.env:
        value = _value(pod, container, variable, result, sources)
        if value is not None:
            result[variable.name] = value
    return result


def process_env(image_env: list[str], given: Mapping[str, str], *, hostname: str, tty: bool) -> list[str]:
    """The whole environment as config.json has it: the image's, HOSTNAME, the manifest's over both."""
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


def secret_data(document: Mapping[str, Any]) -> dict[str, bytes]:
    """A Secret's data decoded, stringData over it."""
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
    return _key_value(pod, source, sources)


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
    """The downward API's fieldRef."""
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
        "status.hostIPs": config.host_ip,
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
    """resourceFieldRef: rounded up by the divisor; a missing limit is the node's whole."""
    if ref.container_name and ref.container_name != container.name:
        named = [c for c in [*pod.spec.init_containers, *pod.spec.containers] if c.name == ref.container_name]
        if not named:
            raise ConfigError(f"container {ref.container_name} not found")
        container = named[0]
    asked = resources.amounts(container.resources)
    nanos = {
        "limits.cpu": (asked.cpu_limit or config.cpu_milli) * 10**6,
        "requests.cpu": (asked.cpu_request or 0) * 10**6,
        "limits.memory": (asked.memory_limit or config.memory_bytes) * 10**9,
        "requests.memory": (asked.memory_request or 0) * 10**9,
    }
    if ref.resource not in nanos:
        raise ConfigError(f"unsupported container resource: {ref.resource}")
    divisor = ref.divisor.nanos if ref.divisor is not None and ref.divisor.nanos else 10**9
    return str(-(-nanos[ref.resource] // divisor))

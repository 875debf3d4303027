"""The objects that `kubelite run` and `kubelite create` write. They have the fields that kubectl's generators write,
without empty ones. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kubelite.cli.create.key_values import valid_variable
from kubelite.cli.errors import CliError

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_NOT_IN_A_NAME = re.compile(r"[^a-z0-9]+")


def filled(fields: Json) -> Json:
    """Return the fields that are neither empty nor false."""
    return {key: value for key, value in fields.items() if value}


def named(kind: str, name: str, namespace: str | None, *, version: str = "v1") -> Json:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def name_of_image(image: str) -> str:
    """Return a pod's name from an image's: `quay.io/Org/my_app:1.2` → `my-app`."""
    repository = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return _NOT_IN_A_NAME.sub("-", repository.lower()).strip("-")[:63].rstrip("-")


def pairs_of(given: str, what: str) -> dict[str, str]:
    """Parse `a=1,b=2`. Raises CliError."""
    found = {}
    for pair in filter(None, given.split(",")):
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise CliError(f'error: invalid {what} "{pair}", expected KEY=VALUE', code=2)
        found[key] = value
    return found


def pod(name: str, image: str, words: Sequence[str], options: Json) -> Json:
    """Return the pod that `kubectl run` creates. `words`: the container's args, or with --command its command. Raises
    CliError."""
    labels = pairs_of(options["labels"], "label") or {"run": name}
    annotations = [pairs_of(one, "annotation") for one in options["annotations"]]
    document = named("Pod", name, options["namespace"])
    document["metadata"] |= {"labels": labels} | filled(
        {"annotations": {k: v for a in annotations for k, v in a.items()}}
    )
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": options["image_pull_policy"],
        "command" if options["command"] else "args": list(words),
        "env": [_variable(one) for one in options["env"]],
        "ports": [{"containerPort": options["port"]}] if options["port"] else [],
        "stdin": options["stdin"],
        "stdinOnce": options["stdin"] and not options["leave_stdin_open"],
        "tty": options["tty"],
        "securityContext": {"privileged": True} if options["privileged"] else {},
    }
    document["spec"] = {
        "containers": [filled(container)],
        "dnsPolicy": "ClusterFirst",
        "restartPolicy": options["restart"],
    }
    return document


def _variable(given: str) -> Json:
    name, equals, value = given.partition("=")
    if not equals or not valid_variable(name):
        raise CliError(f'error: invalid env "{given}", expected NAME=VALUE', code=2)
    return {"name": name, "value": value}


def config_map(name: str, namespace: str | None, values: Mapping[str, bytes]) -> Json:
    """Return a ConfigMap; values that are not UTF-8 are binaryData."""
    text, binary = {}, {}
    for key, value in values.items():
        try:
            text[key] = value.decode()
        except UnicodeDecodeError:
            binary[key] = base64.b64encode(value).decode()
    return named("ConfigMap", name, namespace) | filled({"data": text, "binaryData": binary})


def secret(name: str, namespace: str | None, values: Mapping[str, bytes], kind: str = "") -> Json:
    """Return a Secret of this type."""
    data = {key: base64.b64encode(value).decode() for key, value in values.items()}
    return named("Secret", name, namespace) | filled({"type": kind, "data": data})


def docker_config(server: str, username: str, password: str, email: str) -> bytes:
    """Return the content of a .dockerconfigjson with one registry."""
    auth = base64.b64encode(f"{username}:{password}".encode()).decode()
    entry = filled({"username": username, "password": password, "email": email}) | {"auth": auth}
    return json.dumps({"auths": {server: entry}}, separators=(",", ":")).encode()


def priority_class(name: str, options: Json) -> Json:
    """Return a PriorityClass."""
    document = named("PriorityClass", name, None, version="scheduling.k8s.io/v1")
    document["value"] = options["value"]
    optional = {"globalDefault": options["global_default"], "description": options["description"]}
    return document | filled(optional) | {"preemptionPolicy": options["preemption_policy"]}


def quota(name: str, namespace: str | None, hard: str, scopes: str) -> Json:
    """Return a ResourceQuota. Raises CliError for what kubectl refuses (populateResourceListV1, parseScopes)."""
    limits: dict[str, str] = {}
    for statement in hard.split(",") if hard else ():
        resource, *value = statement.split("=")
        if len(value) != 1:
            raise CliError(
                f"error: failed to create quota: Invalid argument syntax {statement}, expected <resource>=<value>"
            )
        limits[resource] = value[0]
    names = scopes.split(",") if scopes else []
    if "" in names:
        raise CliError('error: failed to create quota: invalid resource quota scope ""')
    return named("ResourceQuota", name, namespace) | {"spec": filled({"hard": limits, "scopes": names})}


def namespace_object(name: str) -> Json:
    """Return a Namespace."""
    return named("Namespace", name, None)

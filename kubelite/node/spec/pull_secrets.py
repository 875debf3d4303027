"""A pod's imagePullSecrets as docker configs (Secret types kubernetes.io/dockerconfigjson and dockercfg)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from kubelite.node.spec.env import Find, secret_data
from manifests.types.core import Pod
from runtime.errors import ImageError

_KEYS = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}


class Secret(NamedTuple):
    """A Secret, and the hash of its login for an image (runtime.images.registry.auth.login_hash)."""

    uid: str
    namespace: str
    name: str
    hash: str


class PullSecrets(NamedTuple):
    """The configs for `ImageClient.pull`, a message for each secret that is missing or invalid, and the uid, namespace
    and name of the Secret of each config's source."""

    configs: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    coordinates: Mapping[str, tuple[str, str, str]] = MappingProxyType({})

    def accepted(self, login: tuple[str, str] | None) -> Secret | None:
        """The Secret of a login (source and hash); None if the login is no Secret's."""
        if login is None or login[0] not in self.coordinates:
            return None
        return Secret(*self.coordinates[login[0]], login[1])


def collect(pod: Pod, find: Find, check: Callable[[dict[str, Any], str], object]) -> PullSecrets:
    """The pull secrets that can be used. As in kubelet, a missing or broken secret does not stop the others from being
    tried. `check(config, source)` raises ImageError when a config is not a docker config."""
    namespace = pod.metadata.namespace or "default"
    configs: list[dict[str, Any]] = []
    problems: list[str] = []
    coordinates: dict[str, tuple[str, str, str]] = {}
    for ref in pod.spec.image_pull_secrets:
        found = find("Secret", namespace, ref.name or "")
        if found is None:
            problems.append(f"{ref.name} (not found)")
            continue
        kind = str(found.get("type") or "Opaque")
        key = _KEYS.get(kind)
        if key is None:
            problems.append(f"{ref.name} (its type is {kind})")
            continue
        source = f"secret {namespace}/{ref.name}"
        try:
            config = json.loads(secret_data(found)[key])
            if kind == "kubernetes.io/dockercfg":
                config = {"auths": config}
            check(config, source)
        except KeyError:
            problems.append(f"{ref.name} (it has no {key})")
        except (ValueError, RecursionError):  # binascii.Error is a ValueError
            problems.append(f"{ref.name} (its {key} is not base64 of JSON)")
        except ImageError as error:
            problems.append(f"{ref.name} ({error})")
        else:
            configs.append({"source": source, "config": config})
            uid = str((found.get("metadata") or {}).get("uid") or "")
            coordinates[source] = (uid, namespace, ref.name or "")
    return PullSecrets(tuple(configs), tuple(problems), coordinates)

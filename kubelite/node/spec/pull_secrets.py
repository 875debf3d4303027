"""A pod's imagePullSecrets as docker configs (Secret types kubernetes.io/dockerconfigjson and dockercfg)."""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from kubelite.node.spec.env import Find, secret_data
from manifests.types.core import Pod
from runtime.errors import ImageError

_KEYS = {
    "kubernetes.io/dockerconfigjson": ".dockerconfigjson",
    "kubernetes.io/dockercfg": ".dockercfg",
}


class PullSecrets(NamedTuple):
    """The configs for `ImageClient.pull`, and a message for each secret that is missing or invalid."""

    configs: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()


def collect(pod: Pod, find: Find, check: Callable[[dict[str, Any], str], object]) -> PullSecrets:
    """The pull secrets that can be used. As in kubelet, a missing or broken secret does not stop the others from being
    tried. `check(config, source)` raises ImageError when a config is not a docker config."""
    namespace = pod.metadata.namespace or "default"
    configs: list[dict[str, Any]] = []
    problems: list[str] = []
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
        except (ValueError, binascii.Error):
            problems.append(f"{ref.name} (its {key} is not base64 of JSON)")
        except ImageError as error:
            problems.append(f"{ref.name} ({error})")
        else:
            configs.append({"source": source, "config": config})
    return PullSecrets(tuple(configs), tuple(problems))

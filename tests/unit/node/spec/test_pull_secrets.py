"""imagePullSecrets of a pod."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kubelite.node.spec.pull_secrets import collect
from manifests.types.core import Pod
from runtime.images.registry.auth import read_config

LOGIN = {"reg.test": {"auth": base64.b64encode(b"u:p").decode()}}


def secret(kind: str, **data: Any) -> dict[str, Any]:
    encoded = {k: base64.b64encode(json.dumps(v).encode()).decode() for k, v in data.items()}
    return {"kind": "Secret", "type": kind, "data": {f".{key}": value for key, value in encoded.items()}}


SECRETS = {
    ("apps", "deep"): {
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": "[" * 100_000},
    },
    ("apps", "new"): secret("kubernetes.io/dockerconfigjson", dockerconfigjson={"auths": LOGIN}),
    ("apps", "old"): secret("kubernetes.io/dockercfg", dockercfg=LOGIN),
    ("apps", "plain"): {
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": LOGIN})},
    },
    ("apps", "opaque"): secret("Opaque", dockerconfigjson={"auths": LOGIN}),
    ("apps", "keyless"): secret("kubernetes.io/dockerconfigjson", dockercfg=LOGIN),
    ("apps", "broken"): {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "%%%"}},
    ("apps", "nojson"): {"type": "kubernetes.io/dockercfg", "data": {".dockercfg": "e30x"}},
    ("apps", "noauth"): secret("kubernetes.io/dockerconfigjson", dockerconfigjson={"auths": {"a": 1}}),
    ("other", "elsewhere"): secret("kubernetes.io/dockerconfigjson", dockerconfigjson={"auths": LOGIN}),
}


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("new", ""),
        ("old", ""),
        ("plain", ""),
        ("opaque", "its type is Opaque"),
        ("keyless", "it has no .dockerconfigjson"),
        ("broken", "not base64 of JSON"),
        ("nojson", "not base64 of JSON"),
        ("deep", "not base64 of JSON"),
        ("noauth", "a is not an object"),
        ("missing", "not found"),
        ("elsewhere", "not found"),
    ],
)
def test_pull_secrets(name: str, problem: str) -> None:
    pod = Pod.model_validate(
        {
            "metadata": {"name": "p", "namespace": "apps"},
            "spec": {"imagePullSecrets": [{"name": name}, {"name": "new"}], "containers": []},
        }
    )
    found = collect(pod, lambda _kind, namespace, which: SECRETS.get((namespace, which)), read_config)
    assert found.configs[-1] == {"source": "secret apps/new", "config": {"auths": LOGIN}}
    if not problem:
        assert found.problems == () and len(found.configs) == 2
        assert found.configs[0] == {"source": f"secret apps/{name}", "config": {"auths": LOGIN}}
    else:
        assert len(found.configs) == 1 and len(found.problems) == 1
        assert found.problems[0].startswith(f"{name} (") and problem in found.problems[0]

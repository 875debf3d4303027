"""Manifests for tests: small pods that stop quickly."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from tests.e2e.node import IMAGE

SLEEP = "trap 'exit 0' TERM; echo started; while :; do sleep 0.1; done"


def container(name: str = "main", script: str = SLEEP, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", textwrap.dedent(script)],
        **fields,
    }


def pod(
    name: str,
    *containers: dict[str, Any],
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    namespace: str | None = None,
    **spec: Any,
) -> str:
    metadata: dict[str, Any] = {"name": name}
    for key, value in (("labels", labels), ("annotations", annotations), ("namespace", namespace)):
        if value:
            metadata[key] = value
    body = {"terminationGracePeriodSeconds": 2, "containers": list(containers) or [container()], **spec}
    return yaml.safe_dump(
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body}, sort_keys=False
    )

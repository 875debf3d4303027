"""ConfigMaps and Secrets for pods, without a store."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from kubelite.node.model.node_config import NodeConfig
from kubelite.node.spec import env
from tests.unit.node.decide.pod_worlds import CONFIG

STORE: dict[tuple[str, str], Mapping[str, Any]] = {
    ("ConfigMap", "cm"): {
        "data": {"a": "1", "b": "2"},
        "binaryData": {"raw": base64.b64encode(b"\xff").decode()},
    },
    ("Secret", "s"): {"data": {"key": base64.b64encode(b"hidden").decode()}},
}


def sources(config: NodeConfig = CONFIG) -> env.Sources:
    return env.Sources(lambda kind, _ns, name: STORE.get((kind, name)), config, ("10.88.0.2",))

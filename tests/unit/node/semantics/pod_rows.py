"""Rows that check a rule of Kubernetes' pod semantics, and helpers for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kubelite.node.model.cri import ObservedSandbox
from kubelite.node.spec.env import Sources
from manifests.types.core import Container, Pod, Probe
from manifests.types.defaults import default_pod
from tests.unit.node.decide.pod_worlds import CONFIG, make_pod

SANDBOX = ObservedSandbox("s", True, 1, 0.0)
NONE = Sources(lambda *_: None, CONFIG, ("10.88.0.2",))


class Row(NamedTuple):
    rule: str
    words: str
    got: Callable[[], object]
    wanted: object = True


def box(**fields: Any) -> Container:
    return Container.parse({"name": "app", "image": "app:1", **fields})


def probe(**fields: Any) -> Probe:
    return Probe.parse({"tcpSocket": {"port": 80}, **fields})


def defaulted(*containers: dict[str, Any], **spec: Any) -> Pod:
    return default_pod(make_pod(*containers, **spec))

"""Objects as kubectl's own commands send them: protobuf in Kubernetes' envelope."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelite.api.kube.writes.protobuf import MESSAGES, decoded
from kubelite.kube.errors import ApiError

SCALARS = {"str", "int", "bool", "bytes", "time", "quantity", "intstr", "strings"}


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def message(*fields: tuple[int, Any]) -> bytes:
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value & (1 << 64) - 1)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def envelope(version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\x00" + message((1, message((1, version), (2, kind))), (2, raw))


def test_a_deployment() -> None:
    metadata = message((1, "web"), (3, ""), (7, 0), (8, b""), (11, message((1, "app"), (2, "web"))))
    container = message((1, "c"), (2, "busybox"), (3, "sleep"), (3, "9"), (6, message((2, 0), (3, 80))))
    template = message((1, message((1, ""))), (2, message((2, container), (11, 0))))
    rolling = message((1, message((1, 1), (2, 0), (3, "25%"))), (2, message((1, 0), (2, 0), (3, ""))))
    spec = message((1, 0), (3, template), (4, message((1, "RollingUpdate"), (2, rolling))), (7, 0))
    raw = message((1, metadata), (2, spec), (3, message((1, 0))))
    assert decoded(envelope("apps/v1", "Deployment", raw)) == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 0,
            "template": {
                "metadata": {},
                "spec": {
                    "containers": [
                        {
                            "name": "c",
                            "image": "busybox",
                            "command": ["sleep", "9"],
                            "ports": [{"containerPort": 80}],
                        }
                    ]
                },
            },
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 0}},
        },
        "status": {},
    }


def test_fields_of_embedded_structs_belong_to_the_message_around_them() -> None:
    """A pod of `kubectl debug --copy-to`, and an Ingress of `kubectl create ingress`."""
    probe = message((1, message((2, message((1, "/"), (2, message((1, 0), (2, 80), (3, ""))))))), (2, 5))
    reference = message((3, message((3, message((1, message((1, "conf"))), (2, "a"))))), (1, "A"))
    container = message((1, "c"), (2, "busybox"), (7, reference), (10, probe))
    volume = message((1, "data"), (2, message((2, message((1, ""))))))
    ephemeral = message((1, message((1, "d"), (2, "busybox"))), (2, "c"))
    spec = message((1, volume), (2, container), (34, ephemeral))
    found = decoded(envelope("v1", "Pod", message((2, spec), (3, message((1, ""), (2, b""))))))["spec"]
    assert found["volumes"] == [{"name": "data", "emptyDir": {}}]
    assert found["containers"] == [
        {
            "name": "c",
            "image": "busybox",
            "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "initialDelaySeconds": 5},
        }
    ]
    assert found["ephemeralContainers"] == [{"name": "d", "image": "busybox", "targetContainerName": "c"}]
    backend = message((4, message((1, "web"), (2, message((1, ""), (2, 80))))))
    rule = message(
        (1, "web.example"), (2, message((1, message((1, message((1, "/"), (2, backend), (3, "Exact")))))))
    )
    assert decoded(envelope("networking.k8s.io/v1", "Ingress", message((2, message((3, rule))))))["spec"] == {
        "rules": [
            {
                "host": "web.example",
                "http": {
                    "paths": [
                        {
                            "path": "/",
                            "pathType": "Exact",
                            "backend": {"service": {"name": "web", "port": {"number": 80}}},
                        }
                    ]
                },
            }
        ]
    }


def test_bytes_and_negative_numbers() -> None:
    raw = message((2, message((1, "key"), (2, b"\x00\xff"))), (5, 0))
    assert decoded(envelope("v1", "Secret", raw))["data"] == {"key": "AP8="}
    assert decoded(envelope("scheduling.k8s.io/v1", "PriorityClass", message((2, -5))))["value"] == -5


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "BadRequest"),
        (b"k8s\x00", "UnsupportedMediaType"),
        (b"{}", "BadRequest"),
        (envelope("v1", "Node", b""), "UnsupportedMediaType"),
        (envelope("v1", "ConfigMap", message((99, "x"))), "UnsupportedMediaType"),
        (envelope("v1", "ConfigMap", message((1, 5))), "BadRequest"),
        (envelope("v1", "ConfigMap", message((1, message((1, b"\xff"))))), "BadRequest"),
        (envelope("v1", "ConfigMap", b"\x0a\x7f"), "BadRequest"),
        (envelope("v1", "ConfigMap", b"\xff" * 20), "BadRequest"),
        (envelope("v1", "ConfigMap", b"\x09" + b"\x00" * 8), "BadRequest"),
    ],
)
def test_what_cannot_be_read(body: bytes, reason: str) -> None:
    with pytest.raises(ApiError) as caught:
        decoded(body)
    assert caught.value.reason == reason


@given(st.binary(max_size=60), st.sampled_from(sorted(MESSAGES)))
def test_any_bytes_are_an_object_or_an_api_error(raw: bytes, kind: str) -> None:
    try:
        assert decoded(envelope("v1", kind, raw))["kind"] == kind
    except ApiError as error:
        assert error.code < 500


def test_the_table_names_what_it_has() -> None:
    kinds = {field.kind for fields in MESSAGES.values() for field in fields.values()}
    assert kinds - SCALARS <= MESSAGES.keys()
    for name, fields in MESSAGES.items():
        assert len({field.name for field in fields.values()}) == len(fields), name

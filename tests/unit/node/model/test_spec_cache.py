"""What is reused of a pod when it is parsed again."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.node.model.spec_cache import as_before, once_a_spec
from manifests.types.core import Pod


def read(version: str = "1", **parts: dict[str, Any]) -> Pod:
    doc = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "resourceVersion": version, **parts.get("metadata", {})},
        "spec": {"containers": [{"name": "app", "image": "app:1"}], **parts.get("spec", {})},
        "status": {"phase": "Running", **parts.get("status", {})},
    }
    return Pod.parse(doc)


PARTS = ("spec", "metadata", "status")


@pytest.mark.parametrize(
    ("fresh", "other"),
    [
        ({}, ()),
        ({"spec": {"hostNetwork": True}}, ("spec",)),
        ({"metadata": {"labels": {"a": "b"}}}, ("metadata",)),
        ({"status": {"podIP": "10.88.0.7"}}, ("status",)),
        ({"metadata": {"generation": 2}, "spec": {"hostPID": True}}, ("spec", "metadata")),
    ],
)
def test_equal_parts_are_the_same_object(fresh: dict[str, Any], other: tuple[str, ...]) -> None:
    before, after = read(), read("2", **fresh)
    found = as_before(after, before)
    assert [part for part in PARTS if getattr(found, part) is not getattr(before, part)] == list(other)
    assert [getattr(found, part) == getattr(after, part) for part in other] == [True] * len(other)


def test_the_first_parse_changes_nothing() -> None:
    pod = read()
    assert as_before(pod, None) is pod


def test_a_cached_result_survives_a_new_status() -> None:
    asked: list[Pod] = []

    @once_a_spec
    def names(pod: Pod) -> list[str]:
        asked.append(pod)
        return [container.name for container in pod.spec.containers]

    before = read()
    for pod in (before, as_before(read("2", status={"phase": "Succeeded"}), before)):
        assert names(pod) == ["app"]
    assert asked == [before]

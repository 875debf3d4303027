"""Taints as arguments of `kubelite node taint`, and which node `kubelite reset` ends."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.main import DEFAULT_SOCKET
from kubelite.cli.node.node import _with, _without, set_unschedulable
from kubelite.cli.node.reset import _refuse_another_node
from kubelite.settings import Settings

NOW: list[dict[str, Any]] = [
    {"key": "gpu", "value": "a", "effect": "NoSchedule"},
    {"key": "gpu", "effect": "NoExecute"},
    {"key": "old", "effect": "NoSchedule"},
]


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("gpu", ["old:NoSchedule"]),
        ("gpu:NoSchedule", ["gpu:NoExecute", "old:NoSchedule"]),
        ("gpu=a:NoSchedule", ["gpu:NoExecute", "old:NoSchedule"]),
        ("gpu=other:NoExecute", ["gpu:NoSchedule", "old:NoSchedule"]),
    ],
)
def test_a_taint_is_removed_by_key_and_effect(given: str, left: list[str]) -> None:
    assert [f"{t['key']}:{t['effect']}" for t in _without(NOW, given)] == left


def test_a_missing_taint_is_reported() -> None:
    with pytest.raises(CliError, match='taint "old:NoExecute" not found'):
        _without(NOW, "old:NoExecute")


def test_a_taint_is_added_once() -> None:
    assert {"key": "new", "value": "1", "effect": "NoExecute"} in _with(
        NOW, "new=1:NoExecute", overwrite=False
    )
    with pytest.raises(CliError, match="--overwrite is false"):
        _with(NOW, "gpu=b:NoSchedule", overwrite=False)
    assert len(_with(NOW, "gpu=b:NoSchedule", overwrite=True)) == len(NOW)
    with pytest.raises(CliError, match="KEY"):
        _with(NOW, "gpu", overwrite=False)


class _Api:
    def __init__(self) -> None:
        self.patched: list[str] = []

    def get(self, path: str) -> Any:
        return {"items": [{"metadata": {"name": "here"}, "spec": {}}]}

    def json(self, method: str, path: str, **_: Any) -> None:
        self.patched.append(f"{method} {path}")


@pytest.mark.parametrize("name", [None, "here"])
def test_a_node_is_cordoned_with_and_without_its_name(name: str | None) -> None:
    api: Any = _Api()
    set_unschedulable(api, name, wanted=True)
    assert api.patched == ["PATCH /api/v1/nodes/here"]


def test_another_node_is_not_cordoned() -> None:
    api: Any = _Api()
    with pytest.raises(CliError, match='nodes "there" not found: the only node is "here"'):
        set_unschedulable(api, "there", wanted=True)
    assert not api.patched


def test_reset_does_not_end_another_node_than_the_socket_is_of() -> None:
    settings = Settings(run_dir="/run/b")
    with pytest.raises(CliError, match=r"/run/c/kubelite\.sock .* runs in /run/b: .* --run-dir"):
        _refuse_another_node("/run/c/kubelite.sock", settings)
    for named in (settings.socket, DEFAULT_SOCKET):
        _refuse_another_node(named, settings)

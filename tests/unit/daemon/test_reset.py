"""`kubelite reset` without a node: the network while pods terminate."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.daemon import reset
from kubelite.settings import Settings
from runtime.network.plan import NetworkConfig


class FakeNetwork:
    """Remembers how the network was set up last."""

    config: NetworkConfig | None = None

    @classmethod
    async def start(cls, config: NetworkConfig) -> FakeNetwork:
        cls.config = config
        return cls()

    async def teardown(self) -> None: ...
    async def close(self) -> None: ...


@pytest.mark.parametrize("routing", [False, True])
async def test_pods_remain_reachable_while_they_terminate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, routing: bool
) -> None:
    """The helper of a reset writes the node's rules again, so they must be those of the daemon."""
    monkeypatch.setattr(reset, "NetworkClient", FakeNetwork)
    (tmp_path / "network").mkdir()
    environ = {"KUBELITE_RUN_DIR": str(tmp_path), "KUBELITE_POD_ROUTING": str(routing).lower()}
    settings = Settings.load({}, environ)
    await reset._end_pods_and_network(settings, lambda _step: None, now=False, timeout=None)
    assert FakeNetwork.config is not None and FakeNetwork.config.routed is routing

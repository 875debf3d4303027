"""The heartbeat time of the node's conditions: it changes every five minutes."""

from __future__ import annotations

import pytest

from kubelite.daemon.node_document import HEARTBEAT_SECONDS, AgentState, _heartbeat


@pytest.mark.parametrize("started", [1795901400.0, 1795901400.1, 0.3])
def test_the_heartbeat_time_changes_every_five_minutes(started: float) -> None:
    looks = [started + 7 * HEARTBEAT_SECONDS + step * 0.0137 for step in range(20_000)]
    assert {_heartbeat(AgentState(started, ("",), now)) for now in looks} == {started + 7 * HEARTBEAT_SECONDS}

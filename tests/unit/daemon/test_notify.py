"""What systemd is told, on a real datagram socket, and what a reload of the settings changes."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kubelite.daemon import lifecycle
from kubelite.daemon.notify import Notifier
from kubelite.daemon.reload import RELOADABLE, plan_reload
from kubelite.settings import Settings


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(5)
        yield listening


def heard(systemd: socket.socket) -> list[str]:
    return systemd.recv(4096).decode().split("\n")


def test_systemd_hears_each_state(systemd: socket.socket) -> None:
    environ = {
        "NOTIFY_SOCKET": systemd.getsockname(),
        "WATCHDOG_USEC": "300000",
        "WATCHDOG_PID": "7",
        "A": "b",
    }
    notifier = Notifier.take(environ, 7)
    assert notifier is not None
    assert environ == {"A": "b"}, "no child may speak for the daemon"
    notifier.ready("3 pods\n2 running")
    assert heard(systemd) == ["READY=1", "STATUS=3 pods 2 running"]
    notifier.reloading()
    first, second, _ = heard(systemd)
    assert first == "RELOADING=1"
    assert re.fullmatch(r"MONOTONIC_USEC=\d+", second)
    notifier.stopping()
    assert heard(systemd)[0] == "STOPPING=1"


def test_the_watchdog_is_pinged_twice_in_its_interval(systemd: socket.socket) -> None:
    async def go(usec: str, pid: str) -> int:
        environ = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
        notifier = Notifier.take(environ, 7)
        assert notifier is not None
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(notifier.run(lambda: "well"), 0.4)
        systemd.setblocking(False)
        count = 0
        with contextlib.suppress(BlockingIOError):
            while heard(systemd) == ["WATCHDOG=1", "STATUS=well"]:
                count += 1
        return count

    assert asyncio.run(go("200000", "7")) >= 4
    assert asyncio.run(go("200000", "8")) == 0, "another process is watched"
    assert asyncio.run(go("", "")) == 0, "nobody watches"


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_nobody_listens(environ: dict[str, str]) -> None:
    assert Notifier.take(dict(environ), 1) is None


def test_a_socket_that_is_gone_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier(str(tmp_path / "gone")).ready("well")
    assert "cannot notify systemd" in caplog.text


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0kubelite-test-{id(listening)}")
        listening.settimeout(5)
        Notifier(f"@kubelite-test-{id(listening)}").ready("well")
        assert heard(listening) == ["READY=1", "STATUS=well"]


# -- reload ------------------------------------------------------------------------------------------------------


def test_a_reload_applies_what_can_change_and_names_the_rest() -> None:
    running = Settings.load({}, {})
    read = Settings.load(
        {}, {"KUBELITE_IMAGE_GC_PERIOD": "60", "KUBELITE_MAX_PODS": "5", "KUBELITE_BRIDGE": "b0"}
    )
    plan = plan_reload(running, read)
    assert (plan.applied, set(plan.restart)) == (("image_gc_period",), {"bridge", "max_pods"})
    assert plan.settings == running.model_copy(update={"image_gc_period": 60.0})
    assert "applied image_gc_period; " in plan.words()
    assert "need a restart" in plan.words()
    assert plan_reload(plan.settings, read).applied == (), "applied once"
    assert plan_reload(running, running).words() == "settings read again: nothing has changed"


def test_history_cannot_be_switched_on_or_off_by_a_reload() -> None:
    running = Settings.load({}, {})
    for value, applied in (("1h", ("history_time",)), ("0", ())):
        plan = plan_reload(running, Settings.load({}, {"KUBELITE_HISTORY_TIME": value}))
        assert plan.applied == applied


@pytest.mark.parametrize(
    ("value", "period", "said"),
    [
        ("60", 60.0, "settings read again: applied image_gc_period"),
        ("never", 300.0, "settings not read again: "),
    ],
)
def test_invalid_settings_change_nothing(
    value: str, period: float, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    told: list[float] = []
    agent: Any = SimpleNamespace(
        settings=Settings.load({}, {}), on_reload=[lambda new: told.append(new.image_gc_period)]
    )
    words = lifecycle._reload(agent, lambda: Settings.load({}, {"KUBELITE_IMAGE_GC_PERIOD": value}))
    assert words.startswith(said) and caplog.messages == [words]
    assert agent.settings.image_gc_period == period
    assert told == ([period] if period == 60.0 else [])


def test_what_can_change_is_a_setting() -> None:
    assert set(Settings.model_fields) > RELOADABLE

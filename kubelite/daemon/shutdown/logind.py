"""A client of systemd-logind (org.freedesktop.login1) for node shutdown: a delay lock delays a shutdown, and a signal
announces its begin. https://systemd.io/INHIBITOR_LOCKS

Each call blocks until the reply arrives, so callers run it in a thread. Call `take` when the socket is readable.
"""

from __future__ import annotations

import contextlib
import os

from runtime.dbus import SYSTEM_BUS, Bus
from runtime.errors import RuntimeFault

_NAME, _OBJECT = "org.freedesktop.login1", "/org/freedesktop/login1"
_MANAGER, _PROPERTIES = "org.freedesktop.login1.Manager", "org.freedesktop.DBus.Properties"
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_SYSTEMD = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
SIGNAL = "PrepareForShutdown"
OVERRIDE = "/etc/systemd/logind.conf.d/99-kubelite.conf"
SIGHUP = 1
_HEAD, _DELAY = "# kubelite: shutdown_grace_period of ", "InhibitDelayMaxSec="


class Logind:
    """A connection to logind; the caller closes it. Raises RuntimeFault if logind is not running or stops."""

    def __init__(self) -> None:
        address = os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM_BUS
        self._bus = Bus(address, descriptors=True)
        self._lock = -1
        try:
            rule = f"type='signal',interface='{_MANAGER}',member='{SIGNAL}',path='{_OBJECT}'"
            self._bus.call(*_BUS, "AddMatch", "s", rule)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        return self._bus.fileno()

    def close(self) -> None:
        self.release()
        self._bus.close()

    def longest_delay(self) -> float:
        """Return the longest time that a delay lock can delay a shutdown, in seconds (InhibitDelayMaxSec)."""
        return float(self._property("InhibitDelayMaxUSec")) / 1e6

    def shutting_down(self) -> bool:
        return bool(self._property("PreparingForShutdown"))

    def _property(self, name: str) -> int:
        ((_, value),) = self._bus.call(_NAME, _OBJECT, _PROPERTIES, "Get", "ss", _MANAGER, name)
        return int(value)

    def request_delay(self, seconds: float, root: str) -> None:
        """Make logind allow a delay of `seconds`, as kubelet does: write a drop-in file and reload logind. `root`: the
        node's directory, by which `withdraw_delay` recognizes the node's own file."""
        text = f"{_HEAD}{root}\n[Login]\n{_DELAY}{seconds:.0f}\n"
        try:
            os.makedirs(os.path.dirname(OVERRIDE), exist_ok=True)
            with open(OVERRIDE, "w", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            raise RuntimeFault(f"{OVERRIDE}: {os.strerror(error.errno or 0)}") from error
        self.read_again()

    def read_again(self) -> None:
        """Make logind reload its settings."""
        self._bus.call(*_SYSTEMD, "KillUnit", "ssi", "systemd-logind.service", "all", SIGHUP)

    def hold(self) -> None:
        """Take the lock. A shutdown waits while the lock is held, at most as long as logind allows."""
        self.release()
        why = ("shutdown", "kubelite", "pods terminate before the machine shuts down", "delay")
        self._bus.call(_NAME, _OBJECT, _MANAGER, "Inhibit", "ssss", *why)
        if not self._bus.received:
            raise RuntimeFault("logind gave no lock")
        self._lock = self._bus.received.pop()

    def release(self) -> None:
        if self._lock >= 0:
            with contextlib.suppress(OSError):
                os.close(self._lock)
        self._lock = -1

    def take(self) -> list[bool]:
        """Read the received signals, in order: True if a shutdown begins, False if it was cancelled."""
        found = []
        while True:
            said = self._bus.take()
            if said.member == SIGNAL and said.interface == _MANAGER and said.body:
                found.append(bool(said.body[0]))
            if not self._bus.waits:
                return found


def requested_delay(root: str) -> int | None:
    """Return the delay in this node's drop-in file, in seconds; None if the file is missing or belongs to another
    node."""
    try:
        with open(OVERRIDE, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    found = [line.removeprefix(_DELAY) for line in lines if line.startswith(_DELAY)]
    ours = bool(lines) and lines[0] == f"{_HEAD}{root}"
    return int(found[0]) if ours and found and found[0].isdigit() else None


def withdraw_delay(root: str) -> None:
    """Undo `request_delay` if this node called it: remove the file and reload logind. Raises OSError, and RuntimeFault
    if logind is not running."""
    if requested_delay(root) is None:
        return
    os.unlink(OVERRIDE)
    logind = Logind()
    try:
        logind.read_again()
    finally:
        logind.close()

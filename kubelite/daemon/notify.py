"""Tell systemd the state of the daemon (sd_notify(3)), for `Type=notify` units. Imported only if NOTIFY_SOCKET is
set."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, MutableMapping

log = logging.getLogger(__name__)

#: Minimum number of pings in one watchdog interval: systemd recommends two.
PINGS = 2


class Notifier:
    """Sends messages to the socket in NOTIFY_SOCKET. Errors are only logged: the node does not depend on systemd."""

    def __init__(self, path: str, watchdog_usec: int = 0) -> None:
        """`watchdog_usec`: microseconds within which systemd expects a ping; 0: it expects none."""
        self._address = f"\0{path[1:]}" if path.startswith("@") else path
        self._watchdog = watchdog_usec / 1e6

    @classmethod
    def take(cls, environ: MutableMapping[str, str], pid: int) -> Notifier | None:
        """Return the notifier that the environment describes, if any. Remove its variables, so that child processes
        send no messages for the daemon."""
        path = environ.pop("NOTIFY_SOCKET", "")
        usec, addressee = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        if not path.startswith(("/", "@")):
            return None
        ours = not addressee or addressee == str(pid)
        return cls(path, int(usec) if usec.isdigit() and ours else 0)

    def ready(self, status: str) -> None:
        """Report that the node has started, or that a reload is complete."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """Report that a reload begins. systemd requires the time with this message."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}\nSTATUS=reading the settings")

    def stopping(self) -> None:
        """Report that the node stops."""
        self._send("STOPPING=1\nSTATUS=stopping; pods keep running")

    async def run(self, status: Callable[[], str]) -> None:
        """Ping the watchdog from the event loop and update the status. If the loop is stuck, the pings stop and systemd
        restarts the daemon. Containers keep running."""
        if not self._watchdog:
            return
        while True:
            self._send(f"WATCHDOG=1\nSTATUS={_line(status())}")
            await asyncio.sleep(self._watchdog / PINGS / 1.5)

    def _send(self, text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.setblocking(False)
                connection.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("cannot notify systemd: %s", error)


def _line(text: str) -> str:
    return " ".join(text.split())

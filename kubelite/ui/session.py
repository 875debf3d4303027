"""What all screens share: the connection to the daemon, and the user's choices."""

from __future__ import annotations

from kubelite.cli.transport.client import Client
from kubelite.ui.model import Samples

TIMEOUT = 10.0  # seconds to wait for an answer


class Session:
    """Created once by the application and handed to each screen."""

    def __init__(self, socket: str, *, namespace: str | None, interval: float) -> None:
        self.client = Client(socket, timeout=TIMEOUT)
        self.streams = Client(socket)  # no timeout: a followed log may be silent for any length of time
        self.namespace = namespace  # None: all namespaces
        self.interval = interval  # seconds between two refreshes
        self.samples = Samples()

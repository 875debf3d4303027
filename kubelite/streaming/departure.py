"""Notices that a client has left while nothing is read from its connection.

A program that does not read its input stops the reading of its client's connection. The end of the connection is then
behind bytes that nobody takes, and the kernel alone knows that the client is gone. Over TCP, if not even the kernel has
room for all bytes of the client, the client's kernel gives up some minutes later, and its reset is what is seen.
"""

from __future__ import annotations

import asyncio
import select

LOOK = 5.0  # seconds between looks
_GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL


class Departure:
    """Looks at a connection until it ends, and ends it when the client has closed its side. These protocols have no use
    for a connection that is open in one direction: at its end, `left` is set."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.left = asyncio.Event()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._loop.call_later(LOOK, self._look)

    def _look(self) -> None:
        if self._transport.is_closing() or has_left(self._transport):
            self._transport.abort()
            self.left.set()
        else:
            self._loop.call_later(LOOK, self._look)


def has_left(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed the connection, or the connection is broken."""
    descriptor = transport.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLRDHUP)
    return any(events & _GONE for _, events in poll.poll(0))

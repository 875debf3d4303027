"""Streams of a SPDY connection, from the server's side. asyncio.

The client opens streams; each is answered at once, and then both sides send data until they finish or reset it. There
is no flow control, as in the library of Kubernetes' clients: streams whose readers are slow hold up the others after
`MOST_UNREAD` bytes in all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping

from kubelite.streaming.pipes import Pipe
from kubelite.streaming.spdy.frames import (
    Data,
    Decoder,
    Encoder,
    Frame,
    FrameError,
    GoAway,
    Ping,
    Reset,
    RstStream,
    SynReply,
    SynStream,
)

MOST_STREAMS = 1024  # open at a time
MOST_UNREAD = 256 << 10  # bytes of a connection's streams that wait for their readers
PIECE = 32 << 10  # bytes of a data frame, so that other streams get their turn


class Stream:
    """One stream. `headers` are the client's, with names in lower case."""

    def __init__(self, connection: Connection, number: int, headers: Mapping[str, str], *, fin: bool) -> None:
        self.headers = headers
        self.number = number
        self._connection = connection
        self._unread: deque[bytes] = deque()
        self.unread = 0  # bytes that wait for the reader
        self._changed = asyncio.Event()
        self._received_all = fin
        self._sent_all = False
        self._broken = False
        self._on_break: Callable[[], object] | None = None

    async def read(self) -> bytes:
        """Return the next bytes; b"" when the client has finished, or has reset the stream."""
        while not self._unread:
            if self._received_all:
                return b""
            self._changed.clear()
            await self._changed.wait()
        data = self._unread.popleft()
        self.unread -= len(data)
        self._connection.look_again()
        self._forget_if_done()
        return data

    async def write(self, data: bytes) -> None:
        """Return when there is room for more. Raises ConnectionError if the client is gone or has reset the stream."""
        for start in range(0, len(data), PIECE):
            if self._broken:
                raise ConnectionResetError("the client has reset the stream")
            await self._connection.send(Data(self.number, data[start : start + PIECE]))

    async def finish(self) -> None:
        """Say that nothing follows. No error if the client is gone."""
        if self._sent_all or self._broken:
            return
        self._sent_all = True
        with contextlib.suppress(ConnectionError):
            await self._connection.send(Data(self.number, b"", fin=True))
        self._forget_if_done()

    async def reset(self, why: Reset = Reset.CANCEL) -> None:
        """End both directions; what nobody has read is dropped. No error if the client is gone."""
        self._unread.clear()
        self.unread = 0
        if self._broken or (self._sent_all and self._received_all):
            self._connection.forget(self.number)
            return
        self.broken()
        with contextlib.suppress(ConnectionError):
            await self._connection.send(RstStream(self.number, why))

    def received(self, frame: Data) -> None:
        if frame.data and not self._received_all:
            self._unread.append(frame.data)
            self.unread += len(frame.data)
        if frame.fin:
            self._received_all = True
            self._forget_if_done()
        self._changed.set()

    def broken(self) -> None:
        """End the stream because the client has reset it or is gone. Data received before can still be read."""
        self._broken = self._received_all = True
        self._changed.set()
        self._connection.forget(self.number)
        called, self._on_break = self._on_break, None
        if called is not None:
            called()

    def when_broken(self, call: Callable[[], object] | None) -> None:
        """Call this, in place of what was asked for before, when either side resets the stream or the client is gone;
        at once if that has happened."""
        self._on_break = call
        if self._broken:
            self.broken()

    def _forget_if_done(self) -> None:
        if self._sent_all and self._received_all and not self._unread:
            self._connection.forget(self.number)


class Connection:
    """Streams that the client opens, on a pipe."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._decoder, self._encoder = Decoder(), Encoder()
        self._streams: dict[int, Stream] = {}
        self._last = 0  # the client's last stream
        self._writing = asyncio.Lock()
        self._changed = asyncio.Event()  # bytes were taken, or a stream ended, or the client is gone
        self._lost = False
        pipe.when_lost(self._leave)

    def _leave(self) -> None:
        self._lost = True
        self._changed.set()

    async def opened(self) -> AsyncIterator[Stream]:
        """Yield each new stream, until the client closes the connection or sends something that is no SPDY. Its data
        arrives while the next stream is waited for."""
        try:
            while data := await self._pipe.read():
                for frame in self._decoder.feed(data):
                    if (stream := await self._received(frame)) is not None:
                        yield stream
        except FrameError:
            with contextlib.suppress(ConnectionError):
                await self.send(GoAway(self._last, 1))
        except ConnectionError:
            pass
        finally:
            for stream in list(self._streams.values()):
                stream.broken()

    async def send(self, frame: Frame) -> None:
        """Raises ConnectionError if the client is gone."""
        async with self._writing:  # header blocks must leave in the order in which they are compressed
            await self._pipe.write(self._encoder.encode(frame))

    def forget(self, number: int) -> None:
        self._streams.pop(number, None)
        self.look_again()

    def look_again(self) -> None:
        """Look whether there is room for more."""
        self._changed.set()

    async def _room(self) -> None:
        """Wait until less than `MOST_UNREAD` bytes wait for the streams' readers, or the client is gone."""
        while not self._lost and sum(one.unread for one in self._streams.values()) >= MOST_UNREAD:
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        self._pipe.close()

    async def _received(self, frame: Frame) -> Stream | None:
        match frame:
            case SynStream():
                return await self._open(frame)
            case Data():
                await self._room()
                if (stream := self._streams.get(frame.stream)) is not None:
                    stream.received(frame)
            case RstStream():
                if (stream := self._streams.get(frame.stream)) is not None:
                    stream.broken()
            case Ping() if frame.number % 2:
                await self.send(frame)
        return None

    async def _open(self, frame: SynStream) -> Stream | None:
        number = frame.stream
        if number % 2 == 0 or number <= self._last:
            raise FrameError(f"stream {number} is not the next one of a client")
        self._last = number
        if len(self._streams) >= MOST_STREAMS:
            await self.send(RstStream(number, Reset.REFUSED_STREAM))
            return None
        stream = self._streams[number] = Stream(self, number, frame.headers, fin=frame.fin)
        await self.send(SynReply(number, {}))
        return stream

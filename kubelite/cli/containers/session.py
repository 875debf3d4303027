"""Run a command, or attach to a container, over a WebSocket, with this process's terminal or pipes.

One thread polls the connection, stdin and a pipe that SIGWINCH writes to. It reads stdin only when no data waits to be
sent, so a slow process slows down our input.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.signals import exit_on_signals
from kubelite.cli.transport.client import agent, connect

if TYPE_CHECKING:
    from kubelite.kube.json import Json

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHUNK = 32 * 1024


def is_terminal(stdin: bool) -> bool:
    """Whether to use a terminal: -t requires that our standard input is one, too."""
    if os.isatty(0) or not stdin:
        return True
    print("Unable to use a TTY - input is not a terminal or the right kind of file", file=sys.stderr)
    return False


def terminal_size() -> tuple[int, int]:
    for fd in (1, 0, 2):
        with contextlib.suppress(OSError):
            size = os.get_terminal_size(fd)
            if size.columns and size.lines:
                return size.columns, size.lines
    return 80, 24


def exit_code(status: Json | None, *, quiet: bool) -> int:
    if status is None:
        raise CliError("error: the connection to kubelite broke before the command ended")
    if status.get("status") == "Success":
        return 0
    if status.get("reason") == "NonZeroExitCode":
        for cause in (status.get("details") or {}).get("causes", []):
            if cause.get("reason") == "ExitCode":
                if not quiet:
                    print(f"command terminated with exit code {cause['message']}", file=sys.stderr)
                raise Exit(int(cause["message"]))
    raise CliError(f"error: {status.get('message') or 'the command failed'}")


def run_session(
    socket_path: str,
    path: str,
    query: Json,
    *,
    stdin: bool,
    tty: bool,
    silent: Callable[[], None] = lambda: None,
    user_agent: str = "",
) -> Json | None:
    """Run a session and return the command's Status, or None if the connection broke. Call `silent` if the program
    ended without output. `user_agent`: the command that the audit log names."""
    with contextlib.ExitStack() as undo:
        session = _Session(socket_path, path, query, user_agent or agent())
        undo.callback(session.close)
        session.handshake()
        wake = -1
        if tty:
            wake = undo.enter_context(_window_changes())
            if stdin and os.isatty(0):
                undo.enter_context(_raw_terminal())
        status = session.pump(stdin=stdin, tty=tty, wake=wake)
    if not session.heard:
        silent()
    return status


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Send every key to the command, including Ctrl-C. Restore the terminal on every exit except SIGKILL."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    with exit_on_signals():
        try:
            tty.setraw(0, termios.TCSANOW)  # text typed ahead goes to the command
            yield
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _window_changes() -> Iterator[int]:
    """Yield a descriptor that becomes readable when the terminal's size changes."""
    read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    former = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(former)
        signal.signal(signal.SIGWINCH, before)
        os.close(read)
        os.close(write)


class _Session:
    """The WebSocket: websockets' protocol without its I/O."""

    def __init__(self, socket_path: str, path: str, query: Json, user_agent: str) -> None:
        from urllib.parse import quote, urlencode

        from websockets.client import ClientProtocol
        from websockets.typing import Subprotocol
        from websockets.uri import parse_uri

        self.socket = connect(socket_path)
        self._user_agent = user_agent
        uri = parse_uri(f"ws://kubelite{quote(path)}?{urlencode(query, doseq=True)}")
        protocols = [Subprotocol("v5.channel.k8s.io"), Subprotocol("v4.channel.k8s.io")]
        self.protocol = ClientProtocol(uri, subprotocols=protocols, max_size=None)
        self.out = bytearray()
        self.ended = False
        self.early: list[Any] = []  # frames received together with the handshake response
        self.status: Json | None = None
        self.heard = False  # whether the program has written output

    def close(self) -> None:
        self.socket.close()

    def handshake(self) -> None:
        from websockets.http11 import Response

        request = self.protocol.connect()
        request.headers["User-Agent"] = self._user_agent
        self.protocol.send_request(request)
        self._collect()
        self.socket.sendall(bytes(self.out))
        self.out.clear()
        answered = False
        while not answered:
            self._receive()
            for event in self.protocol.events_received():
                if not isinstance(event, Response):
                    self.early.append(event)  # shown by pump(): the terminal is not raw yet
                elif event.status_code != 101:
                    raise _refused(event.status_code, bytes(event.body or b""))
                else:
                    answered = True
            if self.ended and not answered:
                raise CliError("error: kubelite closed the connection instead of running the command")
        self.socket.setblocking(False)

    def pump(self, *, stdin: bool, tty: bool, wake: int) -> Json | None:
        """Transfer data until the command has ended. Return its Status, or None if the connection broke."""
        reading = stdin
        for event in self.early:
            self._frame(event)
        if tty:
            self._resize()
            self._flush()
        while not self.ended:
            poll = select.poll()
            poll.register(self.socket, select.POLLIN | (select.POLLOUT if self.out else 0))
            if reading and not self.out:
                poll.register(0, select.POLLIN)
            if wake >= 0:
                poll.register(wake, select.POLLIN)
            for fd, _ in poll.poll():
                if fd == wake:
                    os.read(wake, 512)
                    self._resize()
                elif fd == 0:
                    reading = self._read_stdin()
                else:
                    self._receive()
                    for event in self.protocol.events_received():
                        self._frame(event)
            self._flush()
        return self.status

    def _read_stdin(self) -> bool:
        try:
            data = os.read(0, CHUNK)
        except OSError:  # EIO: our terminal is closed
            data = b""
        if data:
            self._send(STDIN, data)
            return True
        if self.protocol.subprotocol == "v5.channel.k8s.io":
            self._send(CLOSE, bytes([STDIN]))
        return False

    def _resize(self) -> None:
        width, height = terminal_size()
        self._send(RESIZE, json.dumps({"Width": width, "Height": height}).encode())

    def _send(self, channel: int, data: bytes) -> None:
        from websockets.protocol import State

        if self.protocol.state is State.OPEN:
            self.protocol.send_binary(bytes([channel]) + data)
            self._collect()

    def _collect(self) -> None:
        for data in self.protocol.data_to_send():
            self.out += data

    def _flush(self) -> None:
        try:
            while self.out:
                del self.out[: self.socket.send(self.out)]
        except BlockingIOError:
            pass
        except OSError:
            self.out.clear()  # read the remaining data first: the end of the stream reports the error

    def _receive(self) -> None:
        try:
            data = self.socket.recv(256 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.protocol.receive_data(data)
        else:
            self.protocol.receive_eof()
            self.ended = True
        self._collect()

    def _frame(self, event: Any) -> None:
        from websockets.frames import Frame, Opcode

        if not isinstance(event, Frame):
            return
        if event.opcode is Opcode.CLOSE:
            self.ended = True
        elif event.opcode in (Opcode.BINARY, Opcode.TEXT) and event.data:
            self._take(event.data[0], bytes(event.data[1:]))

    def _take(self, channel: int, data: bytes) -> None:
        if channel in (STDOUT, STDERR):
            self.heard = self.heard or bool(data)
            _write_all(channel, data)
        elif channel == ERROR:
            self.status = json.loads(data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # our stdout is a non-blocking terminal
            select.select([], [fd], [])


def _refused(code: int, body: bytes) -> CliError:
    try:
        return ServerError(json.loads(body))
    except ValueError:
        return CliError(f"error: kubelite answered {code}: {body.decode(errors='replace')}")

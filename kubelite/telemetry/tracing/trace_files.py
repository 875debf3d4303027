"""Keeps the start traces of this node's pods in files: `kubelite trace` shows them after a restart of the daemon.

A pod's file is written `SETTLE` seconds after one of its containers started, in one piece by rename. A daemon that is
killed loses the traces of that time. The directory is below the run directory: a reboot ends what the traces are about.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Container
from typing import TYPE_CHECKING, Any

from kubelite.kube.json import Json

if TYPE_CHECKING:
    import asyncio

SETTLE = 1.0  # seconds from a start to the file, so that a pod's containers share one


class TraceFiles:
    """`record` returns what is to be kept of a pod, by its uid. Call `close()` at the end."""

    def __init__(self, directory: str, record: Callable[[str], Json]) -> None:
        self._directory = directory
        self._record = record
        self._due: dict[str, asyncio.TimerHandle] = {}

    def started(self, uid: str) -> None:
        """A container of the pod has started."""
        import asyncio  # `kubelite trace`, which imports this module, has no use for it

        if uid not in self._due:
            self._due[uid] = asyncio.get_running_loop().call_later(SETTLE, self._write, uid)

    def read(self, uid: str) -> Json:
        """Return what is kept of the pod; nothing if there is no file, or none that can be read."""
        try:
            with open(f"{self._directory}/{uid}.json", encoding="utf-8") as file:
                found: Any = json.load(file)
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def forget(self, uid: str) -> None:
        """The pod is deleted."""
        if (due := self._due.pop(uid, None)) is not None:
            due.cancel()
        with contextlib.suppress(OSError):
            os.unlink(f"{self._directory}/{uid}.json")

    def sweep(self, uids: Container[str]) -> None:
        """Remove the files of all other pods, which were deleted while no daemon ran."""
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
        # A full disk costs the trace after a restart, and nothing else.
        with contextlib.suppress(OSError):
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                json.dump(self._record(uid), file, ensure_ascii=False, separators=(",", ":"))
            os.replace(f"{path}.new", path)

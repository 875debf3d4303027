"""Follows a list of objects: list, then watch from there, and again when the watch ends.

Source: client-go tools/cache/reflector.go (ListAndWatchWithContext, the back-off of NewReflectorWithOptions).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable

from kubelite.cluster.client import MALFORMED, ClusterClient, ClusterError, Refusal
from kubelite.kube.json import Json

log = logging.getLogger(__name__)

FIRST, LAST = 0.8, 30.0  # seconds between tries


def pause(failures: int, chance: float) -> float:
    """Return the seconds until the next try. `chance`: from 0 to 1, so that clients do not return together."""
    wait: float = min(FIRST * 2.0 ** min(failures, 16), LAST)
    return wait * (1.0 + chance)


class Reflector:
    """Follows the objects at `path` that match `fields` (a field selector).

    `listed` gets the whole list at the start and after each gap. `changed` gets each event: its type (ADDED, MODIFIED,
    DELETED) and its object. What was known stays known if the connection is lost or an answer is malformed."""

    def __init__(
        self,
        client: ClusterClient,
        path: str,
        *,
        listed: Callable[[list[Json]], None],
        changed: Callable[[str, Json], None],
        fields: str = "",
    ) -> None:
        self._client = client
        self._path = path
        self._params = {"fieldSelector": fields} if fields else {}
        self._listed = listed
        self._changed = changed
        self._version = ""  # the newest resourceVersion known; "": list first
        self.error = ""  # why the newest try failed, "" if it did not

    async def run(self) -> None:
        """Follow until cancelled."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._once()
                failures = 0
                if time.monotonic() - began < FIRST:  # a proxy that cuts streams, say
                    await asyncio.sleep(pause(0, random.random()))
            except (ClusterError, *MALFORMED) as error:
                if isinstance(error, Refusal) and error.code == 410:
                    self._version = ""
                    await asyncio.sleep(pause(0, random.random()))
                    continue
                words = str(error)
                if not isinstance(error, ClusterError):
                    self._version = ""  # the event that cannot be read is lost: list again
                    words = f"an answer is malformed: {error!r}"
                if words != self.error:
                    log.warning("cannot follow %s: %s", self._path, words)
                self.error = words
                await asyncio.sleep(pause(failures, random.random()))
                failures += 1

    async def _once(self) -> None:
        if not self._version:
            found = await self._client.get(self._path, **self._params)
            kind = str(found.get("kind") or "").removesuffix("List")
            items = [
                {"apiVersion": found.get("apiVersion"), "kind": kind, **one} for one in found["items"] or ()
            ]
            self._listed(items)
            self._version = str(found["metadata"]["resourceVersion"])
        self.error = ""
        asked = {**self._params, "resourceVersion": self._version}
        async for kind, found in self._client.watch(self._path, asked):
            self._version = str(found["metadata"]["resourceVersion"])
            if kind != "BOOKMARK":
                self._changed(kind, found)

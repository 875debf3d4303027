"""The rows of containers in the store: what remains of an instance after its shim."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from kubelite.node.cri.observed import lost_rows, rows_of
from runtime.shim.protocol import ContainerRecord
from state.errors import StoreError
from state.store import Store

log = logging.getLogger(__name__)

RECORD_DELAY = 0.1  # seconds that a row waits for other writes; until then only the shim has it


class ContainerRows:
    """Writes rows, at once or in the background."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._writing: set[asyncio.Task[None]] = set()

    async def write(
        self, uid: str, records: Iterable[ContainerRecord | dict[str, Any]], *, delay: float = 0.0
    ) -> None:
        """Write the instances of a pod as they are now."""
        typed = [ContainerRecord.from_json(r) if isinstance(r, dict) else r for r in records]
        if rows := rows_of(uid, typed, time.time()):
            # not durable: the pod's status, which is, follows; a power failure before that undoes this, too
            await self._store.put_containers(rows, durable=False, delay=delay)

    async def mark_lost(self, uid: str) -> None:
        """Record the end of the instances that ran in a sandbox that is gone."""
        if rows := lost_rows(self._store.containers(uid), time.time()):
            await self._store.put_containers(rows, durable=False)

    def soon(self, uid: str, record: ContainerRecord) -> None:
        """Write the row without delaying the start: the shim's own state.json has the record already."""
        self.in_background(self.write(uid, [record], delay=RECORD_DELAY))

    def remove(self, container_id: str) -> None:
        """Remove an instance's row. It shares a commit with other writes."""
        self.in_background(
            self._store.put_containers({container_id: None}, durable=False, delay=RECORD_DELAY)
        )

    def forget(self, uid: str) -> None:
        """Remove the rows of a pod. It shares a commit with the deletion of the pod's object, which follows."""
        self.in_background(self._store.forget_containers(uid, durable=False, delay=RECORD_DELAY))

    def in_background(self, write: Coroutine[Any, Any, None]) -> None:
        async def quietly() -> None:
            try:
                await write
            except StoreError as error:
                log.error("cannot write container records; the shims still have them: %s", error)

        task = asyncio.get_running_loop().create_task(quietly())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def close(self) -> None:
        """Wait for what is being written."""
        if self._writing:
            await asyncio.gather(*self._writing, return_exceptions=True)

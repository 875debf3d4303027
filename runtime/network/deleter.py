"""Delete interfaces in a second thread of the helper.

Unregistering a network device waits for RCU grace periods, some 15 ms, most of it without the kernel's RTNL lock.
Starting pods need not wait for that: a thread sends the request and sleeps in the kernel, and an eventfd(2) tells the
helper's loop when it is done. The thread does nothing else: it never changes its namespace and never touches the node's
records. Jobs that arrive while it is busy are done together afterwards.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from runtime.network import netlink
from runtime.network.netlink import NetlinkSocket

DELETION_GROUP = 0x6B6C0000  # the group of interfaces that are deleted together


@dataclass(slots=True)
class Job:
    """Interfaces to delete for some pods. `tag` belongs to the submitter. `error` is set at the end if the job
    failed."""

    names: Sequence[str]
    tag: Any = None
    error: Exception | None = field(default=None)


class Deleter:
    """The thread. `fd` becomes readable when jobs have ended; finished() then returns them."""

    def __init__(self, delete: Callable[[Sequence[str]], None]) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC)
        self.unfinished = 0
        self._delete = delete
        self._submitted: SimpleQueue[Job] = SimpleQueue()
        self._ended: deque[Job] = deque()
        threading.Thread(target=self._run, name="link-deleter", daemon=True).start()

    def submit(self, job: Job) -> None:
        self.unfinished += 1
        self._submitted.put(job)

    def finished(self, *, wait: bool = False) -> list[Job]:
        """The jobs that ended since the last call. With `wait`, first wait for all submitted jobs."""
        jobs: list[Job] = []
        while self.unfinished and (wait or select.select([self.fd], [], [], 0)[0]):
            for _ in range(os.eventfd_read(self.fd)):
                jobs.append(self._ended.popleft())
                self.unfinished -= 1
        return jobs

    def _run(self) -> None:
        while True:
            jobs = [self._submitted.get()]
            while not self._submitted.empty():
                jobs.append(self._submitted.get())
            error: Exception | None = None
            try:
                self._delete([name for job in jobs for name in job.names])
            except Exception as raised:  # noqa: BLE001 - the submitter raises it or reports it
                error = raised
            for job in jobs:
                job.error = error
            self._ended.extend(jobs)
            os.eventfd_write(self.fd, len(jobs))


def delete_links(route: NetlinkSocket, names: Sequence[str]) -> None:
    """Delete interfaces, several as one group: the kernel then waits for its grace periods once. Missing ones are no
    error."""
    if len(names) == 1:
        route.request([netlink.delete_link(names[0])], ignore=(errno.ENODEV,))
    elif names:
        batch = [netlink.set_group(name, DELETION_GROUP) for name in names]
        route.request([*batch, netlink.delete_group(DELETION_GROUP)], ignore=(errno.ENODEV,))

"""Events that say which process the kernel's OOM killer killed, and whose memory limit was reached.

The exit code and the cgroup's counters only say that an OOM kill happened. Only the kernel's log tells which process of
the container was killed, and whether the container's, the pod's or another limit was reached. The daemon follows the
log from its start on, which costs nothing while the log is quiet. Without access to /dev/kmsg there are no such events.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from dataclasses import dataclass
from typing import Protocol

from kubelite.node.cri.local import LocalCri

log = logging.getLogger(__name__)

KMSG = "/dev/kmsg"
RECORD = 8192  # bytes: more than any record of the kernel's log
# mm/oom_kill.c dump_oom_victim: oom-kill:constraint=…,oom_memcg=/a/b,task_memcg=/a/b/c,task=name,pid=1,uid=0
_KILL = re.compile(
    r"oom-kill:constraint=(?P<constraint>\w+),.*?(?:oom_memcg=(?P<limit>[^,]*),)?task_memcg=(?P<group>[^,]*),"
    r"task=(?P<task>.*),pid=(?P<pid>\d+),uid=\d+"
)


@dataclass(frozen=True, slots=True)
class OomKill:
    """One kill: the process, its cgroup, and the cgroup whose limit was reached ("" is the machine's memory)."""

    task: str
    pid: int
    group: str
    limit: str = ""


def parse(record: str) -> OomKill | None:
    """Pure: the OOM kill in a record of /dev/kmsg; None if the record is about something else."""
    found = _KILL.search(record)
    if found is None:
        return None
    return OomKill(found["task"], int(found["pid"]), found["group"], found["limit"] or "")


def whose(limit: str, pod: str) -> str:
    """Pure: which limit was reached, as a clause for an event of the pod whose cgroup is `pod`."""
    if not limit:
        return "the node is out of memory"
    if limit == pod:
        return "the pod's memory limit was reached"
    if limit.startswith(f"{pod}/"):
        return "the container's memory limit was reached"
    return f"the memory limit of {limit}, which all its pods share, was reached"


class NodeWithEvents(Protocol):
    """What the watch needs from the node: the running sandboxes, and a place for events."""

    @property
    def cri(self) -> LocalCri: ...

    def pod_event(self, uid: str, reason: str, message: str, *, container: str = "") -> None: ...

    def node_event(self, reason: str, message: str) -> None: ...


class OomWatch:
    """Call `start()`, then `close()`. Both do nothing if the kernel's log cannot be read."""

    def __init__(self, node: NodeWithEvents) -> None:
        self._node = node
        self._file = -1

    def start(self) -> None:
        try:
            self._file = os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError as error:
            self.close()
            log.warning("there are no OOMKilling events: %s: %s", KMSG, os.strerror(error.errno or 0))
            return
        asyncio.get_running_loop().add_reader(self._file, self._readable)

    def close(self) -> None:
        if self._file < 0:
            return
        with contextlib.suppress(RuntimeError):  # the loop may have ended
            asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)
        self._file = -1

    def _readable(self) -> None:
        """Read all available records, one per read(). EPIPE: records were overwritten before they were read."""
        while True:
            try:
                record = os.read(self._file, RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue
            except OSError as error:
                log.warning("OOMKilling events end: cannot read %s: %s", KMSG, error)
                self.close()
                return
            if b"oom-kill:" in record and (kill := parse(record.decode(errors="replace"))) is not None:
                self._tell(kill)

    def _tell(self, kill: OomKill) -> None:
        for uid, record in self._node.cri.running_sandboxes().items():
            if kill.group != record.cgroup and not kill.group.startswith(f"{record.cgroup}/"):
                continue
            name = next((c["name"] for c in record.containers if c["id"] in kill.group), "")
            words = (
                f"Process {kill.task} (pid {kill.pid}) of container {name or 'unknown'} was killed: "
                f"{whose(kill.limit, record.cgroup)}"
            )
            self._node.pod_event(uid, "OOMKilling", words, container=name)
            break
        if not kill.limit:  # kubelet's oom watcher
            words = f"System OOM encountered, victim process: {kill.task}, pid: {kill.pid}"
            self._node.node_event("SystemOOM", words)

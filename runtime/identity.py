"""Generate identifiers that compress well: uids of objects, ids of containers and sandboxes.

Each line of a metrics page contains an id, and the previous line with the same id is a whole family earlier, outside
gzip's window (32 KiB). So every random digit costs space in each of 70,000 lines: the page of 500 pods takes 1.9 MB
with random uids, but 0.8 MB with these. An identifier consists of random bits, which a process gets once from the
kernel (90 bits of a uid, 232 of an id), and a counter. So two identifiers of one process never collide. Those of two
processes (daemons of two machines, or of one machine at different times) collide only if all 90 bits are equal: among a
billion daemons ever started, with a probability of 4 in 10 billion.

The first twelve digits of an id, which people type, are half random and half counter. Identifiers are names, not
secrets: each reveals the next.
"""

from __future__ import annotations

import os
import secrets
from itertools import count

COUNT_OF_UID, COUNT_OF_ID = 32, 24  # bits


class Identities:
    """The process's series of uids and of ids. Thread-safe. A forked child starts its own series."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._begin_uids()
        self._begin_ids()

    def uid(self) -> str:
        """A UUID of version 8 (RFC 9562, 5.8: custom layout) with the counter in the last eight digits."""
        prefix, numbers = self._uids
        number = next(numbers)
        if number >> COUNT_OF_UID:
            self._begin_uids()
            return self.uid()
        digits = f"{prefix}{number:08x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def id(self) -> str:
        """64 hexadecimal digits, as all tools expect, with the counter in the second six."""
        prefix, numbers = self._ids
        number = next(numbers)
        if number >> COUNT_OF_ID:
            self._begin_ids()
            return self.id()
        return f"{prefix[:6]}{number:06x}{prefix[6:]}"

    def _begin_uids(self) -> None:
        chance = secrets.token_hex(12)
        variant = "89ab"[int(chance[16], 16) & 3]
        self._uids = f"{chance[:12]}8{chance[13:16]}{variant}{chance[17:]}", count()

    def _begin_ids(self) -> None:
        self._ids = secrets.token_hex(29), count()


_OURS = Identities()
os.register_at_fork(after_in_child=_OURS.renew)

new_uid = _OURS.uid
new_id = _OURS.id

"""Identities that gzip sees through: uids of objects, ids of containers and sandboxes.

An id is in each line of a metrics page, and the line before that has the same one is a family ago: too far for gzip's
window (32 KiB). So each digit of chance is paid for in each of 70,000 lines: the page of 500 pods is 1.9 MB with random
uids, 0.8 with these. What one process gives out is chance that it had from the kernel once (90 bits of a uid, 232 of an
id) and a count. So two of one process are never the same, and those of two processes (daemons of two machines, of one
machine today and tomorrow) are the same only when those 90 bits are: among a thousand million daemons ever started,
with a probability of 4 in 10,000 million.

The first twelve digits of an id, which people type, are half chance, half count. Ids are names, never secrets: who
knows one can tell the next.
"""

from __future__ import annotations

import os
import secrets
from itertools import count

COUNT_OF_UID, COUNT_OF_ID = 32, 24  # bits


class Identities:
    """One series of each kind. Thread-safe; a forked child begins series of its own."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._begin_uids()
        self._begin_ids()

    def uid(self) -> str:
        """A UUID of version 8 (RFC 9562, 5.8: a layout of one's own), the count in its last eight digits."""
        prefix, numbers = self._uids
        number = next(numbers)
        if number >> COUNT_OF_UID:
            self._begin_uids()
            return self.uid()
        digits = f"{prefix}{number:08x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def id(self) -> str:
        """64 hexadecimal digits, as every tool expects them, the count in the second six."""
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

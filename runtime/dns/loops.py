"""Notices that the upstream servers ask this server: a query would go round until every server gives up.

A name that nobody else can know is asked for upstream; if this server is asked for it, there is a loop (the check of
CoreDNS' plugin `loop`, https://coredns.io/plugins/loop/). While there is one, the check is repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Sequence

import dns.name
import dns.rdatatype

from runtime.dns.forward import Forwarder, ForwardError, Question

AGAIN = 30.0  # seconds between checks while there is a loop
SUFFIX = "loop-check.kubelite.invalid"  # RFC 6761, 6.4: no server has it


class LoopCheck:
    """`looped`: do the upstream servers ask this one?"""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._task: asyncio.Task[None] | None = None
        self._name = ""
        self._seen = asyncio.Event()
        self.looped = False

    def start(self, servers: Sequence[str]) -> None:
        """Check these servers, in place of those before."""
        if self._task is not None:
            self._task.cancel()
        self.looped = False
        self._task = asyncio.create_task(self._check(servers)) if servers else None

    def is_probe(self, name: str) -> bool:
        """Is this question a check's own? `name` is in lower case."""
        if not name.endswith(SUFFIX) or name != self._name:
            return False
        self.looped = True
        self._seen.set()
        return True

    async def _check(self, servers: Sequence[str]) -> None:
        while True:
            self._name = f"{secrets.token_hex(8)}.{SUFFIX}"
            self._seen.clear()
            question = Question(dns.name.from_text(self._name), dns.rdatatype.HINFO)
            with contextlib.suppress(ForwardError):  # what is asked for does not exist anyway
                await self._forwarder.ask(question, servers, "")
            self.looped = self._seen.is_set()
            if not self.looped:
                return
            await asyncio.sleep(AGAIN)

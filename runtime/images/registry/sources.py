"""Where one image is to be had: its mirrors in order, then the registry itself, each with the logins that may open it.

The first that has the manifest is asked for the blobs too. A blob that it lacks, refuses, breaks off or damages is
asked of the others; what has come already is kept, since a digest means the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self, TypeVar

from runtime.errors import ImageError
from runtime.images.install import Report
from runtime.images.layers.streams import Spool
from runtime.images.manifests import Descriptor, Platform
from runtime.images.reference import Endpoint, Reference
from runtime.images.registry.access import NOBODY, Access
from runtime.images.registry.auth import Login
from runtime.images.registry.repository import Registry, Resolved
from runtime.images.registry.transport import Refused
from runtime.images.store.listing import Layer

T = TypeVar("T")
Progress = Callable[[int], None]


class Sources:
    """An async context manager; connections stay open until its end."""

    def __init__(self, wanted: Reference, access: Access, report: Report) -> None:
        """Raises ImageError when the registry is blocked."""
        self._wanted = wanted
        self._access = access
        self._report = report
        self._ways = access.endpoints(wanted)
        self._open: dict[tuple[Endpoint, Login | None], Registry] = {}
        self._taken: dict[Endpoint, Login | None] = {}  # the login that was taken
        self._tried: dict[str, int] = {}  # blob → how many of the ways have been asked for it
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def resolve(self, platform: Platform) -> Resolved:
        """The manifest, from the first that has it; that one is asked first from here on."""
        failures: list[ImageError] = []
        for endpoint in self._ways:
            try:
                found = await self._ask(endpoint, lambda r: r.resolve(self._wanted.wanted, platform))
            except ImageError as error:
                failures.append(error)
                if endpoint is not self._ways[-1]:
                    self._report({"event": "warning", "message": f"mirror {endpoint.registry}: {error}"})
                continue
            self._ways.sort(key=lambda way: way is not endpoint)
            return found
        raise _together(failures)

    async def fetch_config(self, config: Descriptor) -> bytes:
        failures: list[ImageError] = []
        for at, endpoint in enumerate(self._ways):
            try:
                return await self._ask(endpoint, lambda r: r.fetch_config(config))
            except ImageError as error:
                failures.append(error)
                self._warn_of(at, config.digest, error)
        raise _together(failures)

    async def fetch_blob(self, layer: Layer, spool: Spool, progress: Progress) -> None:
        """Stream a blob into the spool. Called again for the same blob it goes on with the next way: what the one
        before gave was not it."""
        blob = Descriptor(layer.digest, layer.size, layer.media_type)
        failures: list[ImageError] = []
        while self.more(layer):
            at = self._tried.get(blob.digest, 0)
            self._tried[blob.digest] = at + 1
            try:
                await self._ask(self._ways[at], lambda r: r.fetch_blob(blob, spool, progress))
                return
            except ImageError as error:
                failures.append(error)
                self._warn_of(at, blob.digest, error)
        raise _together(failures)

    def more(self, layer: Layer) -> bool:
        """Whether there is a way that has not been asked for the blob."""
        return self._tried.get(layer.digest, 0) < len(self._ways)

    async def _ask(self, endpoint: Endpoint, question: Callable[[Registry], Awaitable[T]]) -> T:
        """As the first login that is not refused. Raises ImageError with what all of them were told."""
        refused: list[ImageError] = []
        async for login in self._logins(endpoint):
            try:
                answer = await question(await self._registry(endpoint, login))
            except Refused as error:
                refused.append(error)
                continue
            except ImageError as error:
                raise _together([*refused, error]) from error
            self._taken[endpoint] = login
            return answer
        raise _together(refused)

    async def _logins(self, endpoint: Endpoint) -> AsyncIterator[Login | None]:
        if endpoint in self._taken:
            yield self._taken[endpoint]
            return
        for login in await self._access.logins(endpoint, self._report) or NOBODY:
            yield login

    async def _registry(self, endpoint: Endpoint, login: Login | None) -> Registry:
        key = (endpoint, login)
        if key not in self._open:
            registry = Registry(endpoint, report=self._report, login=login)
            self._open[key] = await self._stack.enter_async_context(registry)
        return self._open[key]

    def _warn_of(self, at: int, digest: str, error: ImageError) -> None:
        if at + 1 < len(self._ways):
            message = f"{self._ways[at].registry} does not give {digest}, asking the next: {error}"
            self._report({"event": "warning", "message": message})


def _together(failures: Sequence[ImageError]) -> ImageError:
    """What every way said; one sentence when they said the same."""
    said = list(dict.fromkeys(map(str, failures)))
    last = failures[-1]
    return ImageError("; ".join(said), reason=last.reason, retriable=last.retriable)

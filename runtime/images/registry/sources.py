"""The sources of one image: its mirrors in order, then the registry itself, each with the logins to try.

The first source that has the manifest is asked for the blobs as well. If it lacks, refuses, breaks off or damages a
blob, the next source is asked for it. A download resumes across sources, because a digest means the same bytes
everywhere.
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
from runtime.images.registry.access import NO_LOGIN, Access
from runtime.images.registry.auth import Login
from runtime.images.registry.repository import Registry, Resolved
from runtime.images.registry.signatures import Signature
from runtime.images.registry.transport import Refused
from runtime.images.store.listing import Layer

T = TypeVar("T")
Progress = Callable[[int], None]


class Sources:
    """The sources of one image. An async context manager; its end closes the connections."""

    def __init__(self, wanted: Reference, access: Access, report: Report) -> None:
        """Raises ImageError if the registry is blocked."""
        self._wanted = wanted
        self._access = access
        self._report = report
        self._endpoints = access.endpoints(wanted)
        self._open: dict[tuple[Endpoint, Login | None], Registry] = {}
        self._accepted: dict[Endpoint, Login | None] = {}  # the login that was accepted
        self._tried: dict[str, int] = {}  # blob digest → number of endpoints asked for it
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def resolve(self, platform: Platform) -> Resolved:
        """Fetch the manifest from the first endpoint that has it. That endpoint is asked first from then on. Raises
        ImageError."""
        failures: list[ImageError] = []
        for endpoint in self._endpoints:
            try:
                found = await self._ask(endpoint, lambda r: r.resolve(self._wanted.wanted, platform))
            except ImageError as error:
                failures.append(error)
                if endpoint is not self._endpoints[-1]:
                    self._report({"event": "warning", "message": f"mirror {endpoint.registry}: {error}"})
                continue
            self._endpoints.sort(key=lambda other: other is not endpoint)
            return found
        raise _joined(failures)

    @property
    def login(self) -> Login | None:
        """The login with which the manifest was fetched; None: without one."""
        return self._accepted.get(self._endpoints[0])

    async def signatures(self, digest: str) -> list[Signature]:
        """Fetch the signatures of a manifest from all endpoints: a mirror may lack them. Raises ImageError if none
        could be asked."""
        found: list[Signature] = []
        failures: list[ImageError] = []
        for endpoint in self._endpoints:
            try:
                found += await self._ask(endpoint, lambda r: r.signatures(digest))
            except ImageError as error:
                failures.append(error)
        if len(failures) == len(self._endpoints):
            raise _joined(failures)
        return found

    async def fetch_config(self, config: Descriptor) -> bytes:
        failures: list[ImageError] = []
        for at, endpoint in enumerate(self._endpoints):
            try:
                return await self._ask(endpoint, lambda r: r.fetch_config(config))
            except ImageError as error:
                failures.append(error)
                self._warn(at, config.digest, error)
        raise _joined(failures)

    async def fetch_blob(self, layer: Layer, spool: Spool, progress: Progress) -> None:
        """Stream a blob into the spool. A second call for the same blob continues with the next endpoint, because the
        previous one sent damaged data. Raises ImageError."""
        blob = Descriptor(layer.digest, layer.size, layer.media_type)
        failures: list[ImageError] = []
        while self.more(layer):
            at = self._tried.get(blob.digest, 0)
            self._tried[blob.digest] = at + 1
            try:
                await self._ask(self._endpoints[at], lambda r: r.fetch_blob(blob, spool, progress))
                return
            except ImageError as error:
                failures.append(error)
                self._warn(at, blob.digest, error)
        raise _joined(failures)

    def more(self, layer: Layer) -> bool:
        """Whether an endpoint is left that has not been asked for the blob."""
        return self._tried.get(layer.digest, 0) < len(self._endpoints)

    async def _ask(self, endpoint: Endpoint, question: Callable[[Registry], Awaitable[T]]) -> T:
        """Ask with each login until one is not refused. Raises ImageError with the answers to all of them."""
        refused: list[ImageError] = []
        async for login in self._logins(endpoint):
            try:
                answer = await question(await self._registry(endpoint, login))
            except Refused as error:
                refused.append(error)
                continue
            except ImageError as error:
                raise _joined([*refused, error]) from error
            self._accepted[endpoint] = login
            return answer
        raise _joined(refused)

    async def _logins(self, endpoint: Endpoint) -> AsyncIterator[Login | None]:
        if endpoint in self._accepted:
            yield self._accepted[endpoint]
            return
        for login in await self._access.logins(endpoint, self._report) or NO_LOGIN:
            yield login

    async def _registry(self, endpoint: Endpoint, login: Login | None) -> Registry:
        key = (endpoint, login)
        if key not in self._open:
            registry = Registry(endpoint, report=self._report, login=login)
            self._open[key] = await self._stack.enter_async_context(registry)
        return self._open[key]

    def _warn(self, at: int, digest: str, error: ImageError) -> None:
        if at + 1 < len(self._endpoints):
            message = (
                f"cannot fetch {digest} from {self._endpoints[at].registry}, trying the next source: {error}"
            )
            self._report({"event": "warning", "message": message})


def _joined(failures: Sequence[ImageError]) -> ImageError:
    """Join the errors of all endpoints into one, without repetitions."""
    said = list(dict.fromkeys(map(str, failures)))
    last = failures[-1]
    return ImageError("; ".join(said), reason=last.reason, retriable=last.retriable)

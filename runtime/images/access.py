"""How this node gets at images: which registries in which order, and as whom. One value, told to every worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from runtime.images import auth
from runtime.images.auth import AuthConfig, Login
from runtime.images.reference import Reference
from runtime.images.transport import Endpoint, Report


@dataclass(frozen=True, slots=True)
class Access:
    """`files`: docker configs, the first that knows a registry counts; `secrets` come before them, every one."""

    files: tuple[str, ...] = ()
    secrets: tuple[AuthConfig, ...] = ()
    plain_http: frozenset[str] = frozenset()

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Access:
        """What a worker was told. Raises ImageError for a pull secret that is none."""
        return cls(
            tuple(auth.file_paths(request.get("auth_file", ""))),
            tuple(auth.read_config(entry["config"], entry["source"]) for entry in request.get("secrets", ())),
            frozenset(request.get("plain_http", ())),
        )

    async def ways(self, wanted: Reference, report: Report) -> AsyncIterator[tuple[Endpoint, Login | None]]:
        """Where to ask, and as whom; anonymously only where no login is known, as docker and kubelet do."""
        for endpoint in self.endpoints(wanted):
            known = await self.logins(endpoint, report)
            for login in known:
                yield endpoint, login
            if not known:
                yield endpoint, None

    def endpoints(self, wanted: Reference) -> list[Endpoint]:
        return [Endpoint(wanted.registry, wanted.repository, plain=wanted.registry in self.plain_http)]

    def endpoint_of(self, key: str) -> Endpoint:
        """The registry itself, for a login."""
        registry, _ = auth.split_key(key)
        return Endpoint(registry, "", plain=registry in self.plain_http)

    async def logins(self, endpoint: Endpoint, report: Report) -> list[Login]:
        def warn(message: str) -> None:
            report({"event": "warning", "message": message})

        there = Reference(endpoint.registry, endpoint.repository)
        return await auth.logins_for(there, self.secrets, auth.read_files(self.files, warn), warn)


ANONYMOUS = Access()

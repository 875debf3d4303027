"""How this node gets at images: which registries in which order, and as whom. One value, told to every worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runtime.images.reference import Endpoint, Reference
from runtime.images.registry import auth, registriesconf
from runtime.images.registry.auth import AuthConfig, Login
from runtime.images.registry.registriesconf import Registries
from runtime.images.registry.transport import Report


@dataclass(frozen=True, slots=True)
class Access:
    """`files`: docker configs, the first that knows a registry counts; `secrets` come before them, every one."""

    files: tuple[str, ...] = ()
    secrets: tuple[AuthConfig, ...] = ()
    plain_http: frozenset[str] = frozenset()
    registries: Registries = field(default_factory=Registries)

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Access:
        """What a worker was told. Raises ImageError for a pull secret that is none."""
        return cls(
            tuple(auth.file_paths(request.get("auth_file", ""))),
            tuple(auth.read_config(entry["config"], entry["source"]) for entry in request.get("secrets", ())),
            frozenset(request.get("plain_http", ())),
            registriesconf.load(),
        )

    def endpoints(self, wanted: Reference) -> list[Endpoint]:
        """Mirrors first, the registry itself last. Raises ImageError when it is blocked."""
        return [
            replace(endpoint, plain=endpoint.registry in self.plain_http)
            for endpoint in self.registries.endpoints(wanted)
        ]

    def endpoint_of(self, key: str) -> Endpoint:
        """The registry itself, for a login."""
        registry, _ = auth.split_key(key)
        insecure = self.registries.insecure(registry)
        return Endpoint(registry, "", insecure, plain=registry in self.plain_http)

    async def logins(self, endpoint: Endpoint, report: Report) -> list[Login]:
        """Whom to be there; anonymous only where this is empty, as docker and kubelet do."""

        def warn(message: str) -> None:
            report({"event": "warning", "message": message})

        there = Reference(endpoint.registry, endpoint.repository)
        return await auth.logins_for(there, self.secrets, auth.read_files(self.files, warn), warn)


ANONYMOUS = Access()
NOBODY: tuple[Login | None, ...] = (None,)

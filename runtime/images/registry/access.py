"""How this node accesses registries: their order, transport and logins. One value, passed to every worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runtime.images.reference import Endpoint, Reference
from runtime.images.registry import auth, policy, registriesconf
from runtime.images.registry.auth import AuthConfig, Login
from runtime.images.registry.policy import Policy
from runtime.images.registry.registriesconf import Registries
from runtime.images.registry.transport import Report


@dataclass(frozen=True, slots=True)
class Access:
    """Access settings. `files` are docker configs; the first that has a login for a registry counts. `secrets` (pull
    secrets) come before them, and all of them are tried."""

    files: tuple[str, ...] = ()
    secrets: tuple[AuthConfig, ...] = ()
    plain_http: frozenset[str] = frozenset()
    registries: Registries = field(default_factory=Registries)
    policy: Policy | None = None  # which images may be pulled; None: all

    @classmethod
    def from_request(cls, request: Mapping[str, Any]) -> Access:
        """Build the settings from a worker's request. Raises ImageError for an invalid pull secret."""
        return cls(
            tuple(auth.file_paths(request.get("auth_file", ""))),
            tuple(auth.read_config(entry["config"], entry["source"]) for entry in request.get("secrets", ())),
            frozenset(request.get("plain_http", ())),
            registriesconf.load(),
            policy.load(request["policy"]) if request.get("policy") else None,
        )

    def endpoints(self, wanted: Reference) -> list[Endpoint]:
        """The endpoints to try: mirrors first, the registry itself last. Raises ImageError if the registry is
        blocked."""
        return [
            replace(endpoint, plain=endpoint.registry in self.plain_http)
            for endpoint in self.registries.endpoints(wanted)
        ]

    def endpoint_of(self, key: str) -> Endpoint:
        """The endpoint of the registry itself, for a login."""
        registry, _ = auth.split_key(key)
        insecure = self.registries.insecure(registry)
        return Endpoint(registry, "", insecure, plain=registry in self.plain_http)

    async def logins(self, endpoint: Endpoint, report: Report) -> list[Login]:
        """The logins to try at an endpoint. Access is anonymous only if there is none, as in docker and kubelet."""

        def warn(message: str) -> None:
            report({"event": "warning", "message": message})

        there = Reference(endpoint.registry, endpoint.repository)
        return await auth.logins_for(there, self.secrets, auth.read_files(self.files, warn), warn)


ANONYMOUS = Access()
NO_LOGIN: tuple[Login | None, ...] = (None,)

"""Gives pods' volumes their tokens, and the API's CA certificate once pods can reach the API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kubelite.node.model.errors import ConfigError
from manifests.types.core import Pod, ServiceAccountTokenProjection
from runtime.errors import RuntimeFault

if TYPE_CHECKING:
    from kubelite.accounts.tokens import Tokens
    from kubelite.settings import Settings
    from state.store import Store

DEFAULT_SECONDS = 3600


class PodAccess:
    """The TokenSource of the node's pods. `needed` is set once a pod uses the API; `open` is called when pods can
    reach it. The modules of tokens are imported for the first token."""

    def __init__(self, settings: Settings, store: Store, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._tokens: Tokens | None = None
        self._authority: str | None = None
        self.needed = asyncio.Event()

    @property
    def tokens(self) -> Tokens:
        """Issues and checks the tokens of ServiceAccounts. Created on first use."""
        if self._tokens is None:
            from kubelite.accounts.tokens import Tokens

            settings = self._settings
            issuer = f"https://kubernetes.default.svc.{settings.cluster_domain}"
            key = f"{settings.root}/pki/sa.key"
            self._tokens = Tokens(self._store, key, issuer=issuer, node=settings.node_name, clock=self._clock)
        return self._tokens

    @property
    def known_authority(self) -> str | None:
        """The API's CA certificate (PEM), or None until pods can reach the API."""
        return self._authority

    def authority(self) -> str | None:
        if self._authority is None:
            self.needed.set()
        return self._authority

    def open(self, authority: str) -> None:
        """Record that pods can reach the API. `authority`: its CA certificate (PEM)."""
        self._authority = authority

    def token(self, pod: Pod, wanted: ServiceAccountTokenProjection, current: str) -> str:
        from kubelite.accounts.mounted import is_due, wish_of

        tokens, metadata = self.tokens, pod.metadata
        name = pod.spec.service_account_name or "default"
        account = tokens.account(metadata.namespace or "default", name)
        if account is None:
            raise ConfigError(f'failed to fetch token: serviceaccounts "{name}" not found')
        audiences = (wanted.audience,) if wanted.audience else tokens.audiences
        if not wanted.audience:
            self.needed.set()
        seconds = wanted.expiration_seconds or DEFAULT_SECONDS
        wish = wish_of({"name": metadata.name, "uid": metadata.uid}, audiences, seconds)
        try:
            names = {"issuer": tokens.issuer, "node": self._settings.node_name}
            if tokens.is_current(current) and not is_due(current, wish, account, self._clock(), **names):
                return current
            return tokens.issue(account, wish).text
        except RuntimeFault as error:
            raise ConfigError(f"failed to fetch token: {error}") from error

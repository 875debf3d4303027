"""The tokens in pods' volumes: what a file's token must be, and when it is replaced. Pure.

Source: Kubernetes pkg/kubelet/token/token_manager.go (requiresRefresh). kubelet keeps its tokens in memory. kubelite
reads the token in the file, so a restart of the daemon changes no file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubelite.accounts.claims import Bound, Wish
from kubelite.accounts.keys import payload_of
from kubelite.kube.json import Json

_PART = 0.8  # of its life, after which a token is replaced
_LONGEST = 24 * 3600.0  # seconds after which it is replaced in any case


def wish_of(pod: Mapping[str, Any], audiences: tuple[str, ...], seconds: int) -> Wish:
    """Return the token that a file of the pod must have. `pod`: the pod's metadata."""
    return Wish(audiences, seconds, Bound("Pod", str(pod["name"]), str(pod["uid"])))


def is_due(token: str, wish: Wish, account: Json, now: float, *, issuer: str, node: str) -> bool:
    """Whether the token in a file must be replaced: it is old, not the wanted one, or not a token. `issuer` and `node`:
    what the node's new tokens name."""
    claims = payload_of(token)
    if claims is None or wish.bound is None:
        return True
    try:
        own, began = claims["kubernetes.io"], float(claims["iat"])
        seconds = float(own.get("warnafter", claims["exp"])) - began
        same = (
            claims["iss"] == issuer
            and claims["aud"] == list(wish.audiences)
            and seconds == wish.seconds
            and own["serviceaccount"]["uid"] == account["metadata"]["uid"]
            and own["pod"]["uid"] == wish.bound.uid
            and own["node"]["name"] == node
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return True
    return not same or not began <= now < began + min(_PART * seconds, _LONGEST)

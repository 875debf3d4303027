"""The tokens in pods' volumes: which one a file has, and when it gets another. Pure.

Source: Kubernetes pkg/kubelet/token/token_manager.go (requiresRefresh). kubelet remembers its tokens. Here the file is
asked, so a restart of the daemon changes no file.
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
    """Return the token for a pod (its metadata) in a file."""
    return Wish(audiences, seconds, Bound("Pod", str(pod["name"]), str(pod["uid"])))


def is_due(token: str, wish: Wish, account: Json, now: float) -> bool:
    """Whether a file with this token needs another one: it is old, of something else, or none."""
    claims = payload_of(token)
    if claims is None or wish.bound is None:
        return True
    try:
        own, began = claims["kubernetes.io"], float(claims["iat"])
        seconds = float(own.get("warnafter", claims["exp"])) - began
        same = (
            claims["aud"] == list(wish.audiences)
            and seconds == wish.seconds
            and own["serviceaccount"]["uid"] == account["metadata"]["uid"]
            and own["pod"]["uid"] == wish.bound.uid
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return True
    return not same or not began <= now < began + min(_PART * seconds, _LONGEST)

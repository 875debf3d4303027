"""Pages of a list: the query parameters `limit` and `continue`. Pure, except for what `Snapshots` keeps.

A continue token has the form of an API server's: the version of the list, and the last object that the client has. It
says nothing that the client does not know, so it needs no signature: what a user may list is decided for each page.

All pages of a list show one version of it. Documents never change in place, so a snapshot of them is a list of
references: it costs 8 bytes an object, and keeps the old version of each object that changes meanwhile.

Source: apiserver pkg/storage/continue.go (the token), pkg/storage/etcd3/store.go (GetList: pages, remainingItemCount),
pkg/storage/etcd3/errors.go (the token to go on with after the snapshot has expired).
"""

from __future__ import annotations

import base64
import binascii
import json
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from kubelite.kube.selectors import Selector

LATEST = -1  # version of a token: whatever the list is now
SECONDS = 300  # that a snapshot is kept, as versions in etcd are
MOST = 16  # snapshots
_VERSION = "meta.k8s.io/v1"
_LONGEST = 4096  # characters of a token
_END = "\0"  # after the key of the last object: the least key that is greater


class Place(NamedTuple):
    """The order of a list."""

    namespace: str
    name: str


class Token(NamedTuple):
    version: int  # resourceVersion of the list, or LATEST
    after: Place  # the last object of the page before


class Snapshot(NamedTuple):
    """All objects of a list as they were at one version, sorted by `Place`."""

    version: int
    docs: Sequence[Json]


class Page(NamedTuple):
    items: list[Json]
    after: Place | None  # the last object, if others follow
    left: int  # objects that follow, before they are selected


def place_of(doc: Json) -> Place:
    metadata = doc["metadata"]
    return Place(metadata.get("namespace") or "", metadata["name"])


def encoded(token: Token, *, namespaced: bool) -> str:
    """Return the text of a token. `namespaced`: the list has objects of several namespaces."""
    key = f"{token.after.namespace}/{token.after.name}" if namespaced else token.after.name
    said = {"v": _VERSION, "rv": token.version, "start": key + _END}
    return base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")


def decoded(text: str, *, namespace: str, namespaced: bool) -> Token:
    """Return the token of a text. `namespace`: that of the list, if it is of one. Raises BadRequest."""
    try:
        found = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _bad("it is not one that this node has given") from None
    if len(text) > _LONGEST or not isinstance(found, dict) or found.get("v") != _VERSION:
        raise _bad(f"its version is not {_VERSION}")
    version, start = found.get("rv"), found.get("start")
    if type(version) is not int or not (version == LATEST or 0 < version < 2**63):
        raise _bad(f"incorrect encoded start resourceVersion ({_VERSION})")
    if not isinstance(start, str) or not start.removesuffix(_END):
        raise _bad(f"empty encoded start key ({_VERSION})")
    parts = start.removesuffix(_END).split("/")
    if len(parts) != 1 + namespaced:
        raise _bad("it belongs to another list")
    return Token(version, Place(parts[0] if namespaced else namespace, parts[-1]))


def _bad(said: str) -> ApiError:
    return bad_request(f"invalid continue token: continue key is not valid: {said}")


def expired(token: Token, *, namespaced: bool) -> ApiError:
    """Return the error for a token whose list is gone, with one by which the client can get the rest as it is now."""
    words = (
        "The provided continue parameter is too old: the list has changed, and its version is no longer kept. Start "
        "a new list without it, or use the continue token of this answer to get the remaining objects as they are "
        "now, which may not fit the objects before."
    )
    fresh = encoded(token._replace(version=LATEST), namespaced=namespaced)
    return ApiError("Expired", words, metadata={"continue": fresh})


def page(
    snapshot: Snapshot, selects: Selector, finish: Callable[[Json], Json], after: Place | None, limit: int
) -> Page:
    """Return a page of a list. `limit`: objects, 0: all that follow. `finish` makes of a document what clients see;
    only those that a page needs are finished."""
    first = bisect_right(snapshot.docs, after, key=place_of) if after is not None else 0
    rest = (finish(snapshot.docs[index]) for index in range(first, len(snapshot.docs)))
    selected = (doc for doc in rest if selects(doc))
    if not limit:
        return Page(list(selected), None, 0)
    items = list(islice(selected, limit))
    more = len(items) == limit and next(selected, None) is not None
    left = len(snapshot.docs) - first - len(items)
    return Page(items, place_of(items[-1]) if more else None, left)


class Snapshots:
    """Lists of which a client has seen a page and not yet the last one, the newest `MOST` of them. Nothing runs by
    itself: an expired snapshot goes when the next one comes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], tuple[float, Snapshot]] = OrderedDict()

    def get(self, key: tuple[str, ...], version: int, now: float) -> Snapshot | None:
        """Return a snapshot, if it is kept. `now`: seconds of a monotonic clock."""
        self._prune(now)
        found = self._kept.get((*key, str(version)))
        return found[1] if found is not None else None

    def keep(self, key: tuple[str, ...], snapshot: Snapshot, now: float) -> None:
        self._prune(now)
        self._kept.setdefault((*key, str(snapshot.version)), (now, snapshot))
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)

    def _prune(self, now: float) -> None:
        for key in [key for key, (at, _) in self._kept.items() if now - at > SECONDS]:
            del self._kept[key]

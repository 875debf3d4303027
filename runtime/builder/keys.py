"""Pure: cache keys. Two steps with equal keys give the same result.

A key is the digest of everything that can change a step's result: the chain id of the files below it, its words, its
environment, and the content of what it reads. Names and times are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

VERSION = 1  # changes whenever the same step would give another result


def step_key(kind: str, parent: str, inputs: Mapping[str, Any]) -> str:
    """The key of a step. `parent` is the chain id of the files below, "" for none. `inputs` is JSON."""
    document = {"version": VERSION, "kind": kind, "parent": parent, **inputs}
    return hashlib.sha256(canonical(document)).hexdigest()


def canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def run_inputs(
    args: Sequence[str],
    env: Mapping[str, str],
    *,
    user: str,
    workdir: str,
    network: str,
    mounts: Sequence[Mapping[str, Any]],
    hidden: frozenset[str],
    epoch: int | None,
) -> dict[str, Any]:
    """The inputs of a RUN. A bind mount counts by its content's digest, a cache mount by its id, a secret by its id
    alone: a secret's content must not change the result. `hidden` lists variables that do not count, such as
    proxies."""
    return {
        "args": list(args),
        "env": {name: value for name, value in env.items() if name not in hidden},
        "user": user,
        "workdir": workdir,
        "network": network,
        "mounts": [dict(mount) for mount in mounts],
        "epoch": epoch,
    }


def copy_inputs(
    sources: Sequence[tuple[str, str]],
    target: str,
    *,
    owner: str,
    mode: str,
    flags: Sequence[str],
    epoch: int | None,
) -> dict[str, Any]:
    """The inputs of a COPY or ADD. `sources` holds (target name, digest of the content)."""
    return {
        "sources": [list(source) for source in sources],
        "target": target,
        "owner": owner,
        "mode": mode,
        "flags": list(flags),
        "epoch": epoch,
    }


def image_key(parent: str, config: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """The key of a whole image, without its times: an equal image gets the recorded creation time, and so the same
    id."""
    words = [{k: v for k, v in entry.items() if k != "created"} for entry in history]
    return step_key("image", parent, {"config": dict(config), "history": words})

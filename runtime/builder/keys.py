"""PURE: what makes two steps the same. A key is the digest of everything that can change what a step makes: the files
below it by their chain id, its words, its environment, the content of what it reads. Names and times are not in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

VERSION = 1  # another one whenever the same step would be done differently


def step_key(kind: str, parent: str, inputs: Mapping[str, Any]) -> str:
    """`parent`: the chain id of the files below, "" for none. `inputs` is JSON."""
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
    """`mounts`: of a bind its content's digest, of a cache its id, of a secret its id alone: what is in a secret must
    not change what is made. `hidden`: variables that change nothing, like proxies."""
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
    """`sources`: (name it gets, digest of its content)."""
    return {
        "sources": [list(source) for source in sources],
        "target": target,
        "owner": owner,
        "mode": mode,
        "flags": list(flags),
        "epoch": epoch,
    }


def image_key(parent: str, config: Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> str:
    """Of a whole image, its times aside: the same one gets the same time of creation, and so the same id."""
    words = [{k: v for k, v in entry.items() if k != "created"} for entry in history]
    return step_key("image", parent, {"config": dict(config), "history": words})

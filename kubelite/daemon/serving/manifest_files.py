"""How the API shows the files of the manifests directory."""

from __future__ import annotations

from kubelite.api.node import ManifestFile, ManifestProblem
from kubelite.kube.objects import source_of
from kubelite.kube.times import rfc3339
from kubelite.sources.plan import KINDS, ManifestState
from state.store import Store


def manifest_file(state: ManifestState, store: Store) -> ManifestFile:
    problems: list[ManifestProblem] = [
        {"line": p.line, "field": p.field, "message": p.message, "kind": p.kind, "object": p.object}
        for p in state.problems
    ]
    keys = list(state.objects or ())
    if state.objects is None:  # not valid since the daemon's start: the store retains its objects
        records = (r for kind in KINDS for r in store.list(kind) if source_of(r) == state.file)
        keys = [(r.kind, r.namespace, r.name) for r in records]
    keys = [key for key in keys if _is_of(store, key, state.file)]
    return {
        "file": state.file,
        "status": "Ignored" if state.status == "Loaded" and not keys else state.status,
        "objects": ["/".join(part for part in (key[0].lower(), *key[1:]) if part) for key in keys],
        "errors": problems,
        "loadedAt": rfc3339(state.loaded_at) if state.loaded_at else "",
    }


def _is_of(store: Store, key: tuple[str, str, str], file: str) -> bool:
    """Whether an object that `file` defines comes from it. It does not if another file defined the object first, or if
    a pod owns it (a claim of an ephemeral volume). An object that the store does not have yet is about to be
    recorded."""
    record = store.get(*key)
    return record is None or source_of(record) == file

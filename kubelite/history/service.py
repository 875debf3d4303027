"""History for the API: the history of an object, pods and workloads at a past moment, revisions of manifests, and the
rollback to one."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Sequence

from kubelite.history import revisions as rollout
from kubelite.history.entries import objects_at
from kubelite.history.redaction import Lost, redact, restore
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from kubelite.kube.times import rfc3339, rfc3339_micro
from kubelite.sources import edits
from kubelite.sources.files import read_text
from manifests.yaml.object_names import may_define
from state.history import LARGEST, Question, Revision, Version
from state.store import Store

MICROSECOND = 1e-6  # precision of times in answers
PRUNE = 3600.0  # seconds between prunings


class NodeHistory:
    """Reads the store's history. Only `roll_back` writes a manifest."""

    def __init__(self, store: Store, directory: str, rescan: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._directory = directory
        self._rescan = rescan
        self._pruned = 0.0  # time of the last pruning on the monotonic clock

    async def of_object(
        self, namespace: str, name: str, *, kind: str, since: float, limit: int | None
    ) -> Json:
        """Return the history entries of all pods, or workloads of a kind, of this name, oldest first. Raises ApiError
        NotFound."""
        question = Question(kind=kind, namespace=namespace, name=name, since=since, limit=limit)
        entries, known = await self._store.history(question)
        if not entries and self._store.get(kind, namespace, name) is None:
            raise not_found(f"{kind.lower()}s", name)
        return {
            "pod" if kind == "Pod" else kind.lower(): f"{namespace}/{name}",
            "since": rfc3339(known),
            "entries": [
                {
                    "time": rfc3339_micro(entry.at),
                    "uid": entry.uid,
                    "what": entry.what,
                    "reason": entry.reason,
                    "message": entry.message,
                }
                for entry in entries
            ],
        }

    async def objects_at(self, kind: str, at: float) -> list[Json]:
        """Return every pod, or workload of a kind, as it was at a moment. Raises ApiError if the moment is in the
        future or too long ago."""
        if at > time.time():
            raise bad_request(f"{rfc3339(at)} is in the future")
        now = [record.doc for record in self._store.list(kind)]
        entries, known = await self._store.history(Question(kind=kind, since=at, changes=True))
        if at < known:
            raise ApiError("Expired", f"history goes back to {rfc3339(known)}, not to {rfc3339(at)}")
        # The result includes a change at exactly that moment.
        return objects_at(kind, now, [entry for entry in entries if entry.at > at + MICROSECOND / 2])

    async def revisions(self, ref: Json) -> tuple[str, Sequence[Revision]]:
        """Return a manifest file and its revisions, oldest first. `ref` is {"file"} or {"kind", "namespace", "name"}.
        Raises ApiError NotFound."""
        if ref.get("file"):
            file = self._inside(str(ref["file"]))
            found = await self._store.revisions(file)
            if not found and not os.path.exists(file):
                raise ApiError("NotFound", f"{file} is not in history")
            return file, found
        key = edits.Key(str(ref.get("kind")), str(ref.get("namespace")), str(ref.get("name")))
        record = self._store.get(*key)
        if record is not None:
            file = (record.metadata.get("annotations") or {}).get(SOURCE, "")
            if not file:
                raise ApiError("NotFound", f"{key} has no manifest file")
            return file, await self._store.revisions(file)
        return _last_with(key, await self._store.revisions())

    def _inside(self, file: str) -> str:
        path = os.path.abspath(os.path.join(self._directory, file))
        if not path.startswith(self._directory + "/"):
            raise bad_request(f"{file} is not in the manifests directory {self._directory}")
        return path

    async def roll_back(self, ref: Json, *, number: int | None, dry_run: bool) -> Json:
        """Write an older revision of a manifest. Return {"file", "from", "to", "revision", "diff"}. Raises ApiError."""
        await self._rescan()
        file, found = await self.revisions(ref)
        # Compare with the redacted text, because revisions have no values of Secrets.
        given = _text(file)
        text = (redact(given) or given) if given is not None else None
        try:
            chosen = rollout.choose(file, found, text, number=number, valid=lambda r: not _errors(r))
        except rollout.NothingToUndo as error:
            large = text is not None and len(text.encode()) > LARGEST
            raise ApiError(
                "Conflict", f"{error}{f' (versions above {LARGEST} bytes are not retained)' if large else ''}"
            ) from None
        if wrong := _errors(chosen):
            raise ApiError("Invalid", "\n".join(wrong))
        try:
            whole = restore(chosen.text, self._secrets())
        except Lost as error:
            raise ApiError(
                "Conflict", f"{file}: cannot go back to revision {chosen.number}: {error}"
            ) from None
        answer: Json = {
            "file": file,
            "from": found[-1].number if text is not None and found[-1].text == text else 0,
            "to": chosen.number,
            "diff": rollout.difference(file, text, chosen),
        }
        if dry_run or text == chosen.text:
            return {**answer, "revision": chosen.number}
        if text is not None:  # record the current text first: it may be a broken edit that is in no revision
            record_version(self._store, file, text)
            await self._store.revisions(file)
        keys = [key for chunk in edits.split(whole, file) for key in chunk.keys]
        outcomes = tuple(edits.Outcome(key, "configured", file) for key in keys)
        edits.execute(edits.Plan({file: whole}, outcomes), self._directory)
        await self._rescan()
        revisions = await self._store.revisions(file)
        return {**answer, "revision": revisions[-1].number}

    def _secrets(self) -> dict[tuple[str, str], Json]:
        found = self._store.list("Secret")
        return {(one.namespace, one.name): one.doc.get("data") or {} for one in found}

    async def prune(self, *, seconds: float, size: int) -> None:
        """Delete history older than `seconds` or beyond `size` bytes. Acts once an hour, and after many writes. Raises
        StoreError."""
        now = time.monotonic()
        if self._pruned and now - self._pruned < PRUNE and self._store.history_written < size // 20:
            return
        if not self._pruned:  # redact what an older kubelite recorded
            await self._store.rewrite_revisions(redact)
        self._pruned, self._store.history_written = now, 0
        await self._store.prune(before=time.time() - seconds, size=size)


def record_version(store: Store, file: str, text: str) -> None:
    """Record a revision: the text of a manifest, without the values of its Secrets."""
    if len(text.encode()) <= LARGEST and (redacted := redact(text)) is not None:
        store.note(Version(file, time.time(), redacted))


def _text(file: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return read_text(file)
    return None


def _errors(revision: Revision) -> list[str]:
    from manifests.yaml.loader import load_text

    loaded = load_text(revision.text, file=revision.file)
    return [str(error) for error in loaded.errors if error.kind != "unsupported"]


def _last_with(key: edits.Key, revisions: Sequence[Revision]) -> tuple[str, Sequence[Revision]]:
    """Return the file whose newest revision defines an object that no longer exists, and the file's revisions. Raises
    ApiError NotFound."""
    newest = {revision.file: revision for revision in revisions}
    for revision in sorted(newest.values(), key=lambda r: -r.at):
        if not may_define(revision.text, key.name):
            continue
        with contextlib.suppress(ApiError):
            chunks = edits.split(revision.text, revision.file)
            if any(key in chunk.keys for chunk in chunks):
                return revision.file, [r for r in revisions if r.file == revision.file]
    raise ApiError("NotFound", f'no manifest in history has {key.kind.lower()} "{key.name}"')

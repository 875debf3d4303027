"""The directory is the truth: watched files → objects in the store.

What a directory means is decided by `manifest_plan.plan`, a pure function from files and recorded objects to changes;
`Sources` reads, watches and applies. The rules (each has a test in tests/unit/sources/test_sources.py):

- `.yaml`, `.yml`, `.json`, in sub-directories too; dotfiles, `~`, `.bak`, `.swp` and the like are never read.
- A file that does not parse or validate changes nothing: its last good version stays, also over a restart.
- A directory that vanishes, or comes back as another and empty one (an unmounted file system), removes nothing; nor
  does a sub-directory that was a mounted file system and is empty now.
- A file or document that goes removes its objects, once it has been gone for `SETTLE` seconds: editors that write anew
  or rename leave a file missing or empty for a moment. A file that was seen to be unlinked, which only programs do that
  make it anew at once (git, install), for `SETTLE_UNLINKED`.
- A file that somebody still has open for writing is not read until it is closed (a lease is refused while a writer is
  there: fcntl(2), F_SETLEASE), so half a manifest is never taken for a whole one.
- Two documents with one name: the one that runs stays, else the first by file name; the other is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from kubelite.kube.json import Json
from kubelite.kube.objects import mark_deleting, source_of
from kubelite.node.model.priority import Classes, admitted
from kubelite.node.model.spec_cache import with_changes
from kubelite.node.storage.protection import FINALIZERS, terminating
from kubelite.sources.files import (
    MAX_BYTES,
    Listing,
    being_written,
    below,
    identity_of,
    list_manifests,
    no_file,
    readable_name,
)
from kubelite.sources.plan import (
    KINDS,
    Key,
    ManifestState,
    Problem,
    bound,
    created,
    failed,
    merged,
    plan,
)
from kubelite.sources.tree_watch import TreeWatch
from manifests.types.core import Pod, PodSpec
from manifests.yaml.loader import load_text
from runtime.identity import new_uid
from state.errors import AlreadyExists, StoreError
from state.store import Record, Store

log = logging.getLogger(__name__)

SETTLE = 0.1  # seconds a document must have been gone before that counts
SETTLE_UNLINKED = 0.03  # the same where its file was unlinked
WRITER_POLL = 0.02  # seconds between looks at a file that is being written
WRITER_PATIENCE = 5.0  # seconds after which it is read all the same


class Sources:
    """Keeps the store saying what the directory says. `run()` watches until cancelled; `scan()` looks once, now."""

    def __init__(
        self,
        directory: str,
        store: Store,
        *,
        node_name: str = "",
        priorities: Mapping[str, int] | None = None,  # of PriorityClasses by name
        relist: float = 20.0,
        uid_for: Callable[[str, str], str | None] = lambda _namespace, _name: None,
        report: Callable[[ManifestState], None] = lambda _state: None,
        applied: Callable[[str, ManifestState], None] = lambda _uid, _state: None,
        offer: Callable[[str, Json, PodSpec], None] = lambda _uid, _document, _spec: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.error = ""  # why the directory as a whole cannot be used, "" when it can
        self.ready = asyncio.Event()  # set once the directory was read a first time
        self._store = store
        self._node_name = node_name
        self._priorities = priorities or {}
        self._relist = relist
        self._uid_for = uid_for
        self._report = report
        self._applied = applied  # called with a pod's uid once what its file says of it is in the store
        self._offer = (
            offer  # called with a pod's uid, its spec as it goes to the store, and that in its typed form
        )
        #: Called with a file and its text when that is understood.
        self.keep: Callable[[str, str], None] = lambda _file, _text: None
        self._clock = clock
        self._files: dict[str, ManifestState] = {}
        self._typed: dict[tuple[str, Key], tuple[PodSpec, Json]] = {}  # of what was read since the last plan
        self._duplicates: Mapping[str, tuple[Problem, ...]] = {}
        self._missing: dict[
            Key, float
        ] = {}  # document gone from the files -> monotonic time it was first missed
        self._unlinked: set[str] = set()  # files seen to be unlinked that have not come back
        self._settling = False  # some of them not long enough yet to be believed
        self._writers: dict[str, float] = {}  # file being written -> monotonic time it was first seen so
        self._lost: frozenset[str] = frozenset()  # sub-directories that are not to be believed
        self._mounts: frozenset[str] = frozenset()  # sub-directories that are mounted file systems
        self._identity: tuple[int, int] | None = None
        self._lock = asyncio.Lock()
        # a lease that is broken at the very moment it is held sends SIGIO, whose default is to end the process
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._again: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()

    def states(self) -> list[ManifestState]:
        """Every file, sorted by name, with duplicates among its problems."""
        also = self._duplicates
        return [
            replace(state, problems=(*state.problems, *also[state.file])) if state.file in also else state
            for state in sorted(self._files.values(), key=lambda s: s.file)
        ]

    @property
    def complete(self) -> bool:
        """Whether all of the directory is known: only then is a pod that no file has really nobody's."""
        unknown = (state for state in self._files.values() if state.objects is None)
        return not self.error and not self._lost and next(unknown, None) is None

    async def run(self) -> None:
        """Scan at every change, when something is due to be looked at again, and every `relist` seconds."""
        watcher = asyncio.create_task(self._watch(), name="watch-manifests")
        try:
            while True:
                self._wake.clear()
                try:
                    await self.scan()
                except StoreError as error:
                    self._fail(f"what the manifests say cannot be recorded: {error}")
                    self._look_again(1.0)
                try:
                    async with asyncio.timeout(self._relist):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            watcher.cancel()
            if self._again:
                self._again.cancel()

    def deleted(self, record: Record) -> None:
        """An object went: when a manifest still stands for it, have `run` make it anew."""
        key = (record.kind, record.namespace, record.name)
        if any(key in state.objects for state in self._files.values() if state.objects):
            self._wake.set()

    async def scan(self, *, settle: float = SETTLE) -> None:
        """Look at the directory and bring the store to what it says. `settle` 0 believes a missing document at once."""
        async with self._lock:
            try:
                found = list_manifests(self.directory)
            except OSError as error:
                self._fail(
                    f"the manifests directory {self.directory} cannot be read: {os.strerror(error.errno or 0)}"
                )
                return
            if not found.files and found.identity != self._identity and await self._replaced(found.identity):
                self._fail(
                    f"the manifests directory {self.directory} is another one than before and empty (not mounted?); "
                    "nothing is removed until a manifest is in it"
                )
                return
            lost = self._lost_of(found)
            await self._remember(found.identity, found.mounts | (lost & self._mounts))
            await self._read(found.files, lost)
            await self._apply(settle)
            self._unfail()
            if (
                not self._settling
            ):  # else a pod whose manifest went while the daemon was away would be started first
                self.ready.set()

    async def rescan(self) -> None:
        """Look now, and return when the store has what the directory says on the disk: somebody asked for it."""
        await self.scan(settle=0)
        await self._store.sync()

    def _fail(self, words: str) -> None:
        if words != self.error:
            log.error(words)
        self.error = words
        self.ready.set()

    def _unfail(self) -> None:
        if self.error:
            log.info("the manifests in %s are followed again", self.directory)
        self.error = ""

    async def _replaced(self, identity: tuple[int, int]) -> bool:
        record = self._store.get("ManifestDirectory", "", self.directory)
        known = tuple(record.doc["identity"]) if record else None
        has_objects = any(source_of(r).startswith(self.directory + "/") for r in self._recorded())
        return known is not None and known != identity and has_objects

    def _lost_of(self, found: Listing) -> frozenset[str]:
        """Directories of which nothing is to be believed: they cannot be read, or were file systems and are mounted no
        more. Said once."""
        if self._identity is None and (record := self._store.get("ManifestDirectory", "", self.directory)):
            self._mounts = frozenset(record.doc.get("mounts", ()))
        unmounted = (self._mounts - found.mounts) & found.empty
        for directory in sorted((found.unreadable | unmounted) - self._lost):
            why = (
                "is empty and no longer a mounted file system" if directory in unmounted else "cannot be read"
            )
            log.error("the directory %s %s: what runs from it goes on running", directory, why)
        return found.unreadable | unmounted

    async def _remember(self, identity: tuple[int, int], mounts: frozenset[str]) -> None:
        if (identity, mounts) == (self._identity, self._mounts):
            return
        doc = {
            "metadata": {"name": self.directory, "uid": f"directory:{self.directory}"},
            "identity": list(identity),
            "mounts": sorted(mounts),
        }
        try:
            await self._store.create("ManifestDirectory", doc)
        except AlreadyExists:
            await self._store.update("ManifestDirectory", doc)
        self._identity, self._mounts = identity, mounts

    def _recorded(self) -> list[Record]:
        return [record for kind in KINDS for record in self._store.list(kind)]

    async def _read(self, listed: Mapping[str, tuple[int, ...]], lost: frozenset[str]) -> None:
        """Parse what changed. `lost`: directories not to be believed; what is below them stays as it was."""
        self._lost = lost
        self._unlinked.difference_update(listed)
        for file in [f for f in self._files if f not in listed and not below(f, lost)]:
            del self._files[file]
        self._writers = {file: since for file, since in self._writers.items() if file in listed}
        for file, signature in sorted(listed.items()):
            known = self._files.get(file)
            if known and known.signature == signature and file not in self._writers:
                continue
            state = self._load(file, signature, known)
            if state is None:
                if known is None:  # what it said before the daemon was away stays until it can be read
                    self._files[file] = ManifestState(file, status="Writing")
                continue
            self._files[file] = state
            if known is None or state.problems != known.problems or state.status != known.status:
                self._report(state)
            await asyncio.sleep(0)

    def _load(
        self, file: str, signature: tuple[int, ...], known: ManifestState | None
    ) -> ManifestState | None:
        """The file's new state, or None when it must be looked at again (somebody is still writing it)."""
        if why := no_file(signature):
            problem = Problem(f"cannot be read: it {why}", kind="unreadable")
            return failed(file, signature, known, (problem,), "Unreadable")
        try:
            text = self._text(file)
        except (OSError, UnicodeDecodeError) as error:
            words = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else _words(error)
            if "\ufffd" in file:
                words = "its name is not UTF-8"
            problem = Problem(f"cannot be read: {words}", kind="unreadable")
            return failed(file, signature, known, (problem,), "Unreadable")
        if text is None:
            return None
        loaded = load_text(text, file=file)
        problems = tuple(Problem(e.message, e.line, e.field, e.kind) for e in loaded.errors)
        if any(problem.kind != "unsupported" for problem in problems):
            return failed(file, signature, known, problems, "Invalid")
        objects: dict[Key, Json] = {}
        for document in loaded.documents:
            doc = document.obj.to_json()
            if isinstance(document.obj, Pod):
                self._typed[file, document.key] = document.obj.spec, doc["spec"]
            objects[document.key] = bound(doc, self._node_name)
        status = "Loaded" if objects or problems else "Empty"
        if objects:
            self.keep(file, text)
        return ManifestState(file, signature, objects, problems, status, self._clock())

    def _text(self, file: str) -> str | None:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if being_written(descriptor):
                began = self._writers.setdefault(file, time.monotonic())
                if time.monotonic() - began < WRITER_PATIENCE:
                    self._look_again(WRITER_POLL)
                    return None
            self._writers.pop(file, None)
            with open(descriptor, "rb", closefd=False) as stream:
                data = stream.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return data.decode("utf-8-sig")
        finally:
            os.close(descriptor)

    async def _apply(self, settle: float) -> None:
        wanted = plan(self._files.values(), self._recorded(), self._lost, priorities=self._priorities)
        self._duplicates = wanted.duplicates
        now = self._clock()
        jobs: list[Awaitable[object]] = []
        for (kind, namespace, name), doc, file in wanted.create:
            uid = doc["metadata"].get("uid") or self._uid_for(namespace, name) if kind == "Pod" else None
            new = created(doc, file, uid=uid or new_uid(), now=now)
            self._hand_over(file, (kind, namespace, name), new)
            # need not be durable: until the pod's first status, which is, it can as well be made anew from its manifest
            jobs.append(self._put(self._store.create(kind, new, durable=False), file))
        jobs.extend(
            self._put(self._update(key, file, wanted.classes), file) for key, _, file in wanted.update
        )
        jobs.extend(self._end(key, now) for key in wanted.replace)
        jobs.extend(self._removals(wanted.remove, settle, now))
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, AlreadyExists):
                log.error("manifests: %s", result)
            elif isinstance(result, BaseException):
                raise result
        self._typed.clear()

    def _hand_over(self, file: str, key: Key, doc: Json) -> None:
        """Offer what was read as it is, so that nobody reads it again out of what goes to the store."""
        found = self._typed.get((file, key))
        if found is not None and (spec := with_changes(*found, doc["spec"])) is not None:
            self._offer(doc["metadata"]["uid"], doc["spec"], spec)

    def _update(self, key: Key, file: str, classes: Classes) -> Awaitable[Record | None]:
        """Bring the object to what its file says as it is when it is written: a deletion, or a status, that came since
        the plan was made stays."""
        wanted = admitted((self._files[file].objects or {})[key], classes)

        def change(doc: Json) -> Json | None:
            going = doc["metadata"].get("deletionTimestamp") and key[0] not in FINALIZERS
            changed = None if going else merged(doc, wanted, file)
            if changed is not None:
                self._hand_over(file, key, changed)
            return changed

        return self._store.modify(self._store.uid_of(*key) or "", change)

    async def _put(self, write: Awaitable[Record | None], file: str) -> None:
        record = await write
        if record is not None and record.kind == "Pod" and file in self._files:
            self._applied(record.uid, self._files[file])

    def _removals(self, gone: tuple[Key, ...], settle: float, now: float) -> list[Awaitable[object]]:
        moment = time.monotonic()
        self._missing = {key: self._missing.get(key, moment) for key in gone}
        jobs: list[Awaitable[object]] = []
        self._settling = False
        for key, since in self._missing.items():
            left = self._settle_time(key, settle) - (moment - since)
            if left > 0:
                self._settling = True
                self._look_again(left + 0.001)
                continue
            jobs.append(self._end(key, now))
        if not self._settling:
            self._unlinked.clear()
        return jobs

    def _settle_time(self, key: Key, settle: float) -> float:
        record = self._store.get(*key)
        unlinked = record is not None and source_of(record) in self._unlinked
        return min(settle, SETTLE_UNLINKED) if unlinked else settle

    def _end(self, key: Key, now: float) -> Awaitable[object]:
        uid = self._store.uid_of(*key) or ""
        if key[0] == "Pod":
            # need not be durable: after a power cut the manifest is not there either
            return self._store.modify(uid, lambda doc: mark_deleting(doc, now=now), durable=False)
        if key[0] in FINALIZERS:  # gone when nobody has it any more (claims.py)
            return self._store.modify(uid, lambda doc: terminating(doc, key[0], now))
        return self._store.delete(uid)

    def _look_again(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._again and not self._again.cancelled() and loop.time() < self._again.when() <= due:
            return
        if self._again:
            self._again.cancel()
        self._again = loop.call_at(due, self._wake.set)

    async def _watch(self) -> None:
        """Wake `run` at file system events. The word for local files comes from `TreeWatch`, which costs nothing
        meanwhile; watchfiles, which wakes a thread at each of its steps, is loaded only for what inotify does not see
        (WATCHFILES_FORCE_POLLING, for file systems that other machines write to) or has no room for. That the
        directory itself is another one is looked at each second."""
        while True:
            before = identity_of(self.directory)
            if before is None:
                await asyncio.sleep(1.0)
                self._wake.set()
                continue
            quick = self._quick_watch()
            self._wake.set()  # what changed before the watch was there
            try:
                if quick is not None and not os.environ.get("WATCHFILES_FORCE_POLLING"):
                    while not quick.gone.is_set() and identity_of(self.directory) == before:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(1.0):
                                await quick.gone.wait()
                else:
                    await self._watch_slowly(before, quick)
            except (OSError, RuntimeError) as error:
                log.warning("watching %s failed, looking once a second: %s", self.directory, error)
                await asyncio.sleep(1.0)
            finally:
                if quick is not None:
                    quick.close()
            self._wake.set()

    async def _watch_slowly(self, before: tuple[int, int], quick: TreeWatch | None) -> None:
        """Until the directory is another one."""
        from watchfiles import awatch

        changed = awatch(
            self.directory,
            step=500,
            debounce=1000,
            rust_timeout=1000,
            yield_on_timeout=True,
            watch_filter=None,
        )
        async for changes in changed:
            if changes:
                self._wake.set()
            if identity_of(self.directory) != before or (quick is not None and quick.gone.is_set()):
                break

    def _quick_watch(self) -> TreeWatch | None:
        """None when the user's inotify limits are used up: changes are then seen a second later."""
        try:
            return TreeWatch(self.directory, readable_name, self._wake.set, self._unlinked.add)
        except OSError as error:
            if error.errno != errno.ENOENT:
                log.warning("%s is watched slowly: %s", self.directory, error)
            return None


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)

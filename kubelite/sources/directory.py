"""The manifests directory is the source of truth: this module watches its files and updates objects in the store.

`kubelite.sources.plan.plan` is a pure function that computes the changes from the files and the recorded objects.
`Sources` watches and reads the directory and applies the changes. The rules, each with a test in tests/unit/sources:

- `.yaml`, `.yml` and `.json` files are read, in sub-directories, too. Dotfiles and backups (`~`, `.bak`, `.swp`) are
  not.
- A file that does not parse or validate changes nothing: its last valid version applies, also after a restart.
- If the directory disappears or is replaced by an empty one (a file system was unmounted), nothing is removed. The same
  applies to a sub-directory that was a mount point and is now empty.
- When a file or document has been missing for `SETTLE` seconds, its objects are removed. The delay is for editors: when
  they rewrite or rename a file, it is missing or empty for a moment. For a file that was unlinked, the delay is
  `SETTLE_UNLINKED`, because programs that unlink a file to rewrite it (git, install) recreate it at once.
- A file that is open for writing is not read until it is closed, so that an incomplete manifest has no effect. (The
  kernel refuses a read lease while there is a writer: fcntl(2), F_SETLEASE.)
- If two documents define the same object, the one that the recorded object comes from applies, otherwise the first by
  file name. The other one is an error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from kubelite.kube.errors import Forbidden, is_shortage
from kubelite.kube.json import Json
from kubelite.kube.objects import (
    IMMORTAL,
    NAMESPACE,
    WORKLOADS,
    Automount,
    mark_deleting,
    object_name,
    source_of,
)
from kubelite.node.model.spec_cache import with_changes
from kubelite.node.storage.protection import FINALIZERS, terminating
from kubelite.sources import plan as plans
from kubelite.sources.ending import is_revived, marked, terminated
from kubelite.sources.files import Listing, being_written, below, list_manifests, no_file, read_open
from kubelite.sources.namespaces import DeclaredLabels, to_read_again
from kubelite.sources.ownership import NONE_GIVEN, Owners, Ownership
from kubelite.sources.plan import KINDS, Key, ManifestState, Problem, bound, created, failed, merged, plan
from kubelite.sources.refused import Refused
from kubelite.sources.services import Allocate
from kubelite.sources.watch.watching import follow
from kubelite.sources.workloads import without_effect
from manifests.types.core import Pod, PodSpec
from manifests.yaml.loader import load_text
from runtime.identity import new_uid
from state.errors import AlreadyExists, StoreError
from state.store import Record, Store

if TYPE_CHECKING:
    from kubelite.policies.ledger import Ledger

log = logging.getLogger(__name__)

SETTLE = 0.1  # seconds that a document must be gone before its objects are removed
SETTLE_UNLINKED = 0.03  # the same, if the document's file was unlinked
WRITER_POLL = 0.02  # seconds between checks of a file that is being written
WRITER_PATIENCE = 5.0  # seconds after which such a file is read nevertheless
LARGE = 32 * 1024  # characters from which a file is parsed in a thread; 50 ms of parsing
AFTER_SHORTAGE = (
    2.0  # seconds until a file is read again that could not be opened for lack of descriptors or memory
)


class Sources:
    """Updates the store to match the directory. `run()` watches until cancelled; `scan()` reads the directory once."""

    def __init__(
        self,
        directory: str,
        store: Store,
        *,
        node_name: str = "",
        priorities: Mapping[str, int] | None = None,  # PriorityClass in the settings → value
        automount: Automount = Automount.NONE,  # which pods get a token of the API
        allocate: Allocate | None = None,  # gives Services addresses and node ports
        relist: float = 20.0,
        uid_for: Callable[[str, str], str | None] = lambda _namespace, _name: None,
        report: Callable[[ManifestState], None] = lambda _state: None,
        refused: Callable[[Json, str], None] = lambda _doc, _sentence: None,
        applied: Callable[[Record, ManifestState], None] = lambda _record, _state: None,
        on_valid: Callable[[str, str], None] = lambda _file, _text: None,
        refusal: Callable[[Pod], str] = lambda _pod: "",
        labels: dict[str, Mapping[str, str]] | None = None,
        with_defaults: Callable[[Pod], Pod] = lambda pod: pod,
        offer: Callable[[str, Json, PodSpec], None] = lambda _uid, _document, _spec: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.error = ""  # why the directory as a whole cannot be used
        self.ready = asyncio.Event()  # set after the first complete scan, or the first failure
        self._store = store
        self._node_name = node_name
        self._plan = partial(
            plan, priorities=priorities or {}, automount=automount, allocate=allocate, ledger=cache(_ledger)
        )
        self._relist = relist
        self._uid_for = uid_for
        self._report = report
        self._refused = Refused(store, refused)  # with an object's document, and why its edit has no effect
        self._applied = applied  # called with a pod or workload after its manifest is in the store
        self._offer = offer  # called with a pod's uid, its stored spec, and the typed form of that spec
        self._refusal = refusal  # returns why a pod is not admitted, "" if it is
        self._labels = DeclaredLabels({} if labels is None else labels)  # by which `refusal` decides
        self._with_defaults = with_defaults  # returns a pod with the node's own defaults
        self._on_valid = on_valid  # called with a file and its text if the text is valid
        self._clock = clock
        self._ownership = Ownership(clock)
        self._files: dict[str, ManifestState] = {}
        self._typed: dict[tuple[str, Key], tuple[PodSpec, Json]] = {}  # specs read since the last plan
        self._duplicates: Mapping[str, tuple[Problem, ...]] = {}
        self._unchanged: plans.Unchanged | None = None  # of the last plan
        # document that is no longer in any file → monotonic time when this was noticed.
        self._missing: dict[Key, float] = {}
        self._unlinked: set[str] = set()  # files that were unlinked and have not come back
        self._settling = False  # whether objects of missing documents wait to be removed
        self._writers: dict[str, float] = {}  # file being written → monotonic time when this was noticed
        self._lost: frozenset[str] = frozenset()  # sub-directories whose contents are unknown
        self._mounts: frozenset[str] = frozenset()  # sub-directories that are mounted file systems
        self._identity: tuple[int, int] | None = None
        self._lock = asyncio.Lock()
        # If a lease is broken while it is held, the kernel sends SIGIO, which terminates the process by default.
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._again: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()

    def states(self) -> list[ManifestState]:
        """Return the state of every file, sorted by name, with duplicates among the problems."""
        also = self._duplicates
        return [
            replace(state, problems=(*state.problems, *also[state.file])) if state.file in also else state
            for state in sorted(self._files.values(), key=lambda s: s.file)
        ]

    @property
    def complete(self) -> bool:
        """Whether the contents of the whole directory are known. If not, a pod that is in no file may still have a
        manifest."""
        unknown = (state for state in self._files.values() if state.objects is None)
        return not self.error and not self._lost and next(unknown, None) is None

    def reload(self, relist: float) -> None:
        """Set the interval of scans, in seconds, from the next scan on."""
        self._relist = relist

    async def run(self) -> None:
        """Scan at every change, at scheduled checks, and every `relist` seconds."""
        following = follow(self.directory, self._wake.set, self._unlinked.add)
        watcher = asyncio.create_task(following, name="watch-manifests")
        watcher.add_done_callback(lambda _watcher: self._wake.set())
        try:
            while True:
                self._wake.clear()
                if watcher.done():  # it failed, or it would still be at work
                    watcher.result()
                try:
                    await self.scan()
                except StoreError as error:
                    self._fail(f"cannot record the manifests: {error}")
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
        """Report that an object was deleted. If a manifest still defines it, `run` recreates it."""
        key = (record.kind, record.namespace, record.name)
        if any(key in state.objects for state in self._files.values() if state.objects):
            self._wake.set()

    def retry(self) -> None:
        """Scan again if the last plan refused an object, because a namespace may have room for it now."""
        if any(problem.kind == "forbidden" for found in self._duplicates.values() for problem in found):
            self._wake.set()

    async def scan(self, *, settle: float = SETTLE) -> None:
        """Read the directory and update the store. `settle`: seconds that a document must be missing before its objects
        are removed."""
        async with self._lock:
            try:
                found = list_manifests(self.directory)
            except OSError as error:
                self._fail(
                    f"cannot read the manifests directory {self.directory}: {os.strerror(error.errno or 0)}"
                )
                return
            if not found.files and found.identity != self._identity and await self._replaced(found.identity):
                self._fail(
                    f"the manifests directory {self.directory} was replaced by an empty one (not mounted?); "
                    "nothing is removed until it contains a manifest"
                )
                return
            lost = self._lost_of(found)
            await self._remember(found.identity, found.mounts | (lost & self._mounts))
            await self._read(found.files, lost)
            await self._apply(settle)
            self._unfail()
            # Not ready before the removals: a pod whose manifest was deleted while the daemon was down must not start.
            if not self._settling:
                self.ready.set()

    async def rescan(self, owners: Owners = NONE_GIVEN) -> None:
        """Scan now and return when the result is on the disk. `owners`: the managers of what the API changes."""
        with self._ownership.given(owners):
            await self.scan(settle=0)
        await self._store.sync()

    def _fail(self, words: str) -> None:
        if words != self.error:
            log.error(words)
        self.error = words
        self.ready.set()

    def _unfail(self) -> None:
        if self.error:
            log.info("following the manifests in %s again", self.directory)
        self.error = ""

    async def _replaced(self, identity: tuple[int, int]) -> bool:
        record = self._store.get("ManifestDirectory", "", self.directory)
        known = tuple(record.doc["identity"]) if record else None
        has_objects = any(source_of(r).startswith(self.directory + "/") for r in self._recorded())
        return known is not None and known != identity and has_objects

    def _lost_of(self, found: Listing) -> frozenset[str]:
        """Return the sub-directories whose contents are unknown: they cannot be read, or their file system is no longer
        mounted. Each is logged once."""
        if self._identity is None and (record := self._store.get("ManifestDirectory", "", self.directory)):
            self._mounts = frozenset(record.doc.get("mounts", ()))
        unmounted = (self._mounts - found.mounts) & found.empty
        for directory in sorted((found.unreadable | unmounted) - self._lost):
            why = (
                "is empty and no longer a mounted file system" if directory in unmounted else "cannot be read"
            )
            log.error("the directory %s %s: its pods keep running", directory, why)
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
        """Read and parse the changed files. `lost`: directories with unknown contents; files below them keep their
        state."""
        self._lost = lost
        self._unlinked.difference_update(listed)
        for file in [f for f in self._files if f not in listed and not below(f, lost)]:
            del self._files[file]
        self._writers = {file: since for file, since in self._writers.items() if file in listed}
        before = dict(self._files)
        await self._read_changed(listed)
        if self._labels.publish(self._files):
            self._files = to_read_again(self._files, before)
            await self._read_changed(listed)

    async def _read_changed(self, listed: Mapping[str, tuple[int, ...]]) -> None:
        for file, signature in sorted(listed.items()):
            known = self._files.get(file)
            if known and known.signature == signature and file not in self._writers:
                continue
            state = await self._load(file, signature, known)
            if state is None:
                if known is None:  # the file's recorded objects are retained until it can be read
                    self._files[file] = ManifestState(file, status="Writing")
                continue
            self._files[file] = state
            if known is None or state.problems != known.problems or state.status != known.status:
                self._report(state)
            await asyncio.sleep(0)

    async def _load(
        self, file: str, signature: tuple[int, ...], known: ManifestState | None
    ) -> ManifestState | None:
        """Return the file's new state, or None if it is being written and must be read later."""
        if why := no_file(signature):
            problem = Problem(f"cannot be read: it {why}", kind="unreadable")
            return failed(file, signature, known, (problem,), "Unreadable")
        try:
            text = self._text(file)
        except (OSError, UnicodeDecodeError) as error:
            words = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else _words(error)
            if "\ufffd" in file:
                words = "its name is not UTF-8"
            if is_shortage(error):  # a state without a signature: the next scan reads the file again
                signature = ()
                self._look_again(AFTER_SHORTAGE)
            problem = Problem(f"cannot be read: {words}", kind="unreadable")
            return failed(file, signature, known, (problem,), "Unreadable")
        if text is None:
            return None
        # A thousand pods take a third of a second, during which nothing else would be answered.
        parse = partial(load_text, text, file=file)
        loaded = parse() if len(text) < LARGE else await asyncio.to_thread(parse)
        if all(error.kind == "unsupported" for error in loaded.errors):
            self._labels.note(file, loaded.documents)
        found = (*loaded.errors, *loaded.ignored)
        problems = tuple(Problem(e.message, e.line, e.field, e.kind, e.object) for e in found)
        problems += tuple(
            Problem(said, document.line, kind="forbidden", object=f"Pod {'/'.join(document.key[1:])}")
            for document in loaded.documents
            if isinstance(document.obj, Pod) and (said := self._refusal(document.obj))
        )
        if any(problem.kind != "unsupported" for problem in problems):
            return failed(file, signature, known, problems, "Invalid")
        objects: dict[Key, Json] = {}
        for document in loaded.documents:
            obj = self._with_defaults(document.obj) if isinstance(document.obj, Pod) else document.obj
            doc = obj.to_json()
            if isinstance(obj, Pod):
                self._typed[file, document.key] = obj.spec, doc["spec"]
            objects[document.key] = bound(doc, self._node_name)
            if said := without_effect(doc):
                name = object_name(*document.key)
                problems += (Problem(said, document.line, kind="unsupported", object=name),)
        # Ignored: no document has a kind that the node supports
        status = "Loaded" if objects else "Ignored" if problems else "Empty"
        if objects:
            self._on_valid(file, text)
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
            return read_open(descriptor)
        finally:
            os.close(descriptor)

    async def _apply(self, settle: float) -> None:
        now = self._clock()
        files, recorded = self._files.values(), self._recorded()
        wanted = self._plan(files, recorded, self._lost, now=now, before=self._unchanged)
        self._unchanged = wanted.unchanged
        self._duplicates = self._refused.located(wanted.duplicates, self._files)
        # First restore volumes and claims: a new claim that finds no volume would get a directory.
        restored = {key for key, _, _ in wanted.update if self._terminating(key)}
        for key, _, file in wanted.update:
            if key in restored:
                await self._restore(key, file, wanted, now)
        jobs: list[Awaitable[object]] = []
        for (kind, namespace, name), doc, file in wanted.create:
            uid = doc["metadata"].get("uid") or self._uid_for(namespace, name) if kind == "Pod" else None
            new = created(doc, file, uid=uid or new_uid(), now=now)
            new = self._ownership.of_new((kind, namespace, name), new)
            self._hand_over(file, (kind, namespace, name), new)
            # Not durable, because a lost pod is recreated from its manifest. Its first status is durable.
            jobs.append(self._put(self._store.create(kind, new, durable=False), file))
        edited = [(key, file) for key, _, file in wanted.update if key not in restored]
        jobs.extend(self._put(self._update(key, file, wanted), file) for key, file in edited)
        jobs.extend(self._end(key, now) for key in wanted.replace)
        jobs.extend(self._removals(wanted.remove, settle, now))
        jobs.extend(self._terminate(name, now) for name in wanted.terminate)
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, AlreadyExists):
                log.error("manifests: %s", result)
            elif isinstance(result, Forbidden):  # another object was first: the next plan counts it
                self._look_again(SETTLE)
            elif isinstance(result, BaseException):
                raise result
        self._typed.clear()

    def _terminating(self, key: Key) -> bool:
        record = self._store.get(*key)
        return record is not None and record.deleting

    async def _restore(self, key: Key, file: str, plan: plans.Plan, now: float) -> None:
        """Cancel the deletion of a volume or claim whose manifest exists again. If the object was deleted after the
        plan was computed, create it."""
        try:
            if await self._update(key, file, plan) is None:
                doc = created((self._files[file].objects or {})[key], file, uid=new_uid(), now=now)
                await self._store.create(key[0], doc, durable=False)
        except (
            AlreadyExists,
            Forbidden,
        ):  # the next plan sees the other object, or says why there is no room
            self._look_again(SETTLE)

    def _hand_over(self, file: str, key: Key, doc: Json) -> None:
        """Pass the typed spec on by `offer`, so that the document need not be parsed again."""
        found = self._typed.get((file, key))
        if found is not None and (spec := with_changes(*found, doc["spec"])) is not None:
            self._offer(doc["metadata"]["uid"], doc["spec"], spec)

    def _update(self, key: Key, file: str, plan: plans.Plan) -> Awaitable[Record | None]:
        """Merge a file's content into the current object when it is written, so that a deletion or a status that was
        recorded after the plan was computed is preserved."""
        wanted = plan.services.get(key) or (self._files[file].objects or {})[key]

        def change(doc: Json) -> Json | None:
            going = doc["metadata"].get("deletionTimestamp") and not is_revived(doc, plan.rules.ending)
            changed = None if going else merged(doc, plan.rules.edited(doc, wanted), file)
            if changed is not None:
                changed = self._ownership.of_edited(key, doc, changed)
                self._hand_over(file, key, changed)
            return changed

        return self._store.modify(self._store.uid_of(*key) or "", change, gated=True)

    async def _put(self, write: Awaitable[Record | None], file: str) -> None:
        record = await write
        if record is not None and (record.kind == "Pod" or record.kind in WORKLOADS) and file in self._files:
            self._applied(record, self._files[file])

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
            # Not durable, because the manifest is still missing after a power failure.
            return self._store.modify(uid, lambda doc: mark_deleting(doc, now=now), durable=False)
        if key[0] in FINALIZERS:  # deleted when nothing uses it any more (node/storage/protection.py)
            return self._store.modify(uid, lambda doc: terminating(doc, key[0], now))
        if key[0] == NAMESPACE and key[2] not in IMMORTAL:
            self._look_again(0)  # it ends once no document names it
            return self._store.modify(uid, lambda doc: marked(doc, now))
        return self._store.delete(uid)

    def _terminate(self, name: str, now: float) -> Awaitable[object]:
        log.info("namespace %s is terminated: no document names it any more", name)
        uid = self._store.uid_of(NAMESPACE, "", name) or ""
        return self._store.modify(uid, lambda doc: terminated(doc, now))

    def _look_again(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._again and not self._again.cancelled() and loop.time() < self._again.when() <= due:
            return
        if self._again:
            self._again.cancel()
        self._again = loop.call_at(due, self._wake.set)


def _ledger() -> Ledger:
    """Return what counts the use of quotas. A node without quotas does not import it."""
    from kubelite.policies.ledger import Ledger

    return Ledger()


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)

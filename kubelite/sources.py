"""The directory is the truth: watched files → objects in the store.

What a directory means is decided by `manifest_plan.plan`, a pure function from files and recorded objects to changes;
`Sources` reads, watches and applies. The rules (each has a test in tests/unit/test_sources.py):

- `.yaml`, `.yml`, `.json`, in sub-directories too; dotfiles, `~`, `.bak`, `.swp` and the like are never read.
- A file that does not parse or validate changes nothing: its last good version stays, also over a restart.
- A directory that vanishes, or comes back as another and empty one (an unmounted file system), removes nothing.
- A file or document that goes removes its objects, once it has been gone for `SETTLE` seconds: editors that write anew
  or rename leave a file missing or empty for a moment.
- A file that somebody still has open for writing is not read until it is closed (a lease is refused while a writer is
  there: fcntl(2), F_SETLEASE), so half a manifest is never taken for a whole one.
- Two documents with one name: the one that runs stays, else the first by file name; the other is an error.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import signal
import stat
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from watchfiles import awatch

from kubelite.manifest_plan import (
    KINDS,
    Doc,
    Key,
    ManifestState,
    Problem,
    bound,
    created,
    failed,
    merged,
    plan,
    source_of,
)
from kubelite.objects import mark_deleting
from kubelite.treewatch import TreeWatch
from manifests.loader import load_text
from state.errors import AlreadyExists, StoreError
from state.store import Record, Store

log = logging.getLogger(__name__)

SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 10 * 1024 * 1024
SETTLE = 0.1  # seconds a document must have been gone before that counts
WRITER_POLL = 0.02  # seconds between looks at a file that is being written
WRITER_PATIENCE = 5.0  # seconds after which it is read all the same


def readable_name(name: str) -> bool:
    """Whether a file of this name is a manifest. (kubelet reads all but dotfiles: a backup can win over the file.)"""
    return not name.startswith((".", "#")) and name.endswith(SUFFIXES)


class Sources:
    """Keeps the store saying what the directory says. `run()` watches until cancelled; `scan()` looks once, now."""

    def __init__(
        self,
        directory: str,
        store: Store,
        *,
        node_name: str = "",
        relist: float = 20.0,
        uid_for: Callable[[str, str], str | None] = lambda _namespace, _name: None,
        report: Callable[[ManifestState], None] = lambda _state: None,
        applied: Callable[[str, ManifestState], None] = lambda _uid, _state: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.error = ""  # why the directory as a whole cannot be used, "" when it can
        self.ready = asyncio.Event()  # set once the directory was read a first time
        self._store = store
        self._node_name = node_name
        self._relist = relist
        self._uid_for = uid_for
        self._report = report
        self._applied = applied  # called with a pod's uid once what its file says of it is in the store
        self._clock = clock
        self._files: dict[str, ManifestState] = {}
        self._duplicates: Mapping[str, tuple[Problem, ...]] = {}
        self._missing: dict[
            Key, float
        ] = {}  # document gone from the files -> monotonic time it was first missed
        self._settling = False  # some of them not long enough yet to be believed
        self._writers: dict[str, float] = {}  # file being written -> monotonic time it was first seen so
        self._lost: set[str] = set()  # sub-directories that cannot be read
        self._identity: tuple[int, int] | None = None
        self._lock = asyncio.Lock()
        # a lease that is broken at the very moment it is held sends SIGIO, whose default is to end the process
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self._again: asyncio.TimerHandle | None = None
        self._wake = asyncio.Event()

    def states(self) -> list[ManifestState]:
        """Every file, sorted by name, with duplicates among its problems."""
        return [
            replace(state, problems=(*state.problems, *self._duplicates.get(state.file, ())))
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
            found = _list(self.directory)
            if isinstance(found, OSError):
                self._fail(
                    f"the manifests directory {self.directory} cannot be read: {os.strerror(found.errno or 0)}"
                )
                return
            identity, listed, lost = found
            if not listed and identity != self._identity and await self._replaced(identity):
                self._fail(
                    f"the manifests directory {self.directory} is another one than before and empty (not mounted?); "
                    "nothing is removed until a manifest is in it"
                )
                return
            await self._remember(identity)
            await self._read(listed, lost)
            await self._apply(settle)
            self._unfail()
            if (
                not self._settling
            ):  # else a pod whose manifest went while the daemon was away would be started first
                self.ready.set()

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

    async def _remember(self, identity: tuple[int, int]) -> None:
        if identity == self._identity:
            return
        doc = {
            "metadata": {"name": self.directory, "uid": f"directory:{self.directory}"},
            "identity": list(identity),
        }
        try:
            await self._store.create("ManifestDirectory", doc)
        except AlreadyExists:
            await self._store.update("ManifestDirectory", doc)
        self._identity = identity

    def _recorded(self) -> list[Record]:
        return [record for kind in KINDS for record in self._store.list(kind)]

    async def _read(self, listed: Mapping[str, tuple[int, ...]], lost: set[str]) -> None:
        """Parse what changed. `lost`: directories that could not be read; what is below them stays as it was."""
        self._lost = lost
        for file in [f for f in self._files if f not in listed and not _below(f, lost)]:
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
        objects: dict[Key, Doc] = {}
        for document in loaded.documents:
            doc = bound(document.obj.to_json(), self._node_name)
            objects[document.kind, document.namespace, document.name] = doc
        status = "Loaded" if objects or problems else "Empty"
        return ManifestState(file, signature, objects, problems, status, self._clock())

    def _text(self, file: str) -> str | None:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if _being_written(descriptor):
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
        wanted = plan(self._files.values(), self._recorded(), self._lost)
        self._duplicates = wanted.duplicates
        now = self._clock()
        jobs: list[Awaitable[object]] = []
        for (kind, namespace, name), doc, file in wanted.create:
            uid = doc["metadata"].get("uid") or self._uid_for(namespace, name) if kind == "Pod" else None
            new = created(doc, file, uid=uid or str(uuid.uuid4()), now=now)
            # need not be durable: until the pod's first status, which is, it can as well be made anew from its manifest
            jobs.append(self._put(self._store.create(kind, new, durable=False), file))
        jobs.extend(self._put(self._update(key, file), file) for key, _, file in wanted.update)
        jobs.extend(self._end(key, now) for key in wanted.replace)
        jobs.extend(self._removals(wanted.remove, settle, now))
        for result in await asyncio.gather(*jobs, return_exceptions=True):
            if isinstance(result, AlreadyExists):
                log.error("manifests: %s", result)
            elif isinstance(result, BaseException):
                raise result

    def _update(self, key: Key, file: str) -> Awaitable[Record | None]:
        """Bring the object to what its file says as it is when it is written: a deletion, or a status, that came since
        the plan was made stays."""
        wanted = (self._files[file].objects or {})[key]

        def change(doc: Doc) -> Doc | None:
            return None if doc["metadata"].get("deletionTimestamp") else merged(doc, wanted, file)

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
            if moment - since < settle:
                self._settling = True
                self._look_again(settle - (moment - since) + 0.001)
                continue
            jobs.append(self._end(key, now))
        return jobs

    def _end(self, key: Key, now: float) -> Awaitable[object]:
        uid = self._store.uid_of(*key) or ""
        if key[0] == "Pod":
            # need not be durable: after a power cut the manifest is not there either
            return self._store.modify(uid, lambda doc: mark_deleting(doc, now=now), durable=False)
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
        """Wake `run` at file system events. watchfiles is the watcher in charge, at an easy pace (each of its steps
        wakes a thread, so the millisecond steps that a quick start wants would cost 17 ms of CPU a pod): it sees what
        inotify does not (WATCHFILES_FORCE_POLLING for file systems that other machines write to), and that the
        directory itself went. The word for local files comes from `TreeWatch`, which costs nothing meanwhile."""
        while True:
            before = _identity(self.directory)
            if before is None:
                await asyncio.sleep(1.0)
                self._wake.set()
                continue
            quick = self._quick_watch()
            polling = bool(os.environ.get("WATCHFILES_FORCE_POLLING"))
            self._wake.set()  # what changed before the watch was there
            try:
                async for changes in awatch(
                    self.directory,
                    step=500,
                    debounce=1000,
                    rust_timeout=1000,
                    yield_on_timeout=True,
                    recursive=True,
                    watch_filter=None,
                ):
                    if changes and (quick is None or polling):
                        self._wake.set()
                    if _identity(self.directory) != before or (quick is not None and quick.gone.is_set()):
                        break
            except (OSError, RuntimeError) as error:
                log.warning("watching %s failed, looking once a second: %s", self.directory, error)
                await asyncio.sleep(1.0)
            finally:
                if quick is not None:
                    quick.close()
            self._wake.set()

    def _quick_watch(self) -> TreeWatch | None:
        """None when the user's inotify limits are used up: changes are then seen a second later."""
        try:
            return TreeWatch(self.directory, readable_name, self._wake.set)
        except OSError as error:
            if error.errno != errno.ENOENT:
                log.warning("%s is watched slowly: %s", self.directory, error)
            return None


def _list(directory: str) -> tuple[tuple[int, int], dict[str, tuple[int, ...]], set[str]] | OSError:
    """The directory's identity, its manifest files with what tells a changed one, and sub-directories that fail."""
    files: dict[str, tuple[int, ...]] = {}
    lost: set[str] = set()
    try:
        top = os.stat(directory)
        _walk(directory, files, lost, top=True)
    except OSError as error:
        return error
    return (top.st_dev, top.st_ino), files, lost


def _walk(directory: str, files: dict[str, tuple[int, ...]], lost: set[str], *, top: bool = False) -> None:
    try:
        entries = sorted(os.scandir(directory), key=lambda e: e.name)
    except OSError:
        if top:
            raise
        lost.add(directory)
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            _walk(entry.path, files, lost)
        elif readable_name(entry.name):
            if (path := os.fsencode(entry.path).decode(errors="replace")) != entry.path:
                files[path] = ()  # a name that nothing can be recorded under: reported when it is read
                continue
            try:
                found = entry.stat()
            except OSError:
                files[entry.path] = ()  # a dangling link: reported when it is read
                continue
            if stat.S_ISREG(found.st_mode):
                files[entry.path] = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _below(file: str, directories: set[str]) -> bool:
    return any(file.startswith(directory + "/") for directory in directories)


def _identity(directory: str) -> tuple[int, int] | None:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _being_written(descriptor: int) -> bool:
    """Whether anybody has the file open for writing: a read lease is then refused with EAGAIN. File systems without
    leases say something else, and are believed to be quiet."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _words(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)

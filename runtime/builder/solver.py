"""Run a build: the needed stages in parallel, each step by its cache key.

A step that creates files has a key, a digest of everything that can change them (`keys.py`). If the cache has the key,
its result is used. Otherwise the step runs on an overlay of its own, whose upper directory becomes a layer. Tar and
directory are synced, renamed into the store, and then recorded. So a build that is killed at any point leaves complete
cache entries or nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.builder.copy.context import Tree, UsedFiles, read_given, read_ignore
from runtime.builder.errors import BuildError, Cancelled
from runtime.builder.known import Contents
from runtime.builder.language import graph, lexer
from runtime.builder.language.graph import Graph, Stage
from runtime.builder.language.ignore import PatternError
from runtime.builder.overlay import make_upper, mount_overlay
from runtime.builder.run import leftovers
from runtime.errors import SyscallError
from runtime.images import manifests
from runtime.images.manifests import LAYER_TYPE
from runtime.images.store import buildcache
from runtime.images.store.buildcache import Step
from runtime.images.store.content import Session
from runtime.images.store.disk import disk_error, syncfs
from runtime.images.store.listing import Layer
from runtime.images.store.store import ImageRecord, ImageStore, chain_ids
from runtime.removal import remove_tree

if TYPE_CHECKING:
    from runtime.builder.run.running import Attached

Json = dict[str, Any]
Report = Callable[[Json], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to build. `containerfile` is its text, `file` its name in errors, `beside` its path or ""."""

    context: str  # a directory
    containerfile: str
    file: str
    beside: str = ""
    tags: tuple[str, ...] = ()  # canonical references
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    agents: Mapping[str, str] = field(default_factory=dict)  # id → socket path of an ssh agent
    no_cache: bool = False
    pull: bool = False
    network: str = "default"
    epoch: int | None = None
    resources: Json = field(default_factory=dict)
    parallel: int = 4  # steps that run at the same time


def read_containerfile(context: str, path: str) -> str:
    """Return the text of a Containerfile. One in the context is opened beneath it (`read_given`). Raises BuildError or
    OSError."""
    try:
        return read_given(context, path)
    except SyscallError as error:
        if error.errno != errno.EXDEV:
            raise
        raise BuildError(f"{path} is a link out of the context; name the file with --file") from error


@dataclass(frozen=True, slots=True)
class Services:
    """What a build needs from the node.

    `pull` brings an image into the store. It holds the given context manager on the descriptor of the connection it
    waits for, so that it can be cancelled. `attach` connects a process's network namespace to the pods' network while
    it is held.
    """

    cgroup_parent: str  # "/kubelite"
    pull: Callable[[str, Callable[[int], AbstractContextManager[None]]], None]
    attach: Callable[[int], AbstractContextManager[Attached]]
    report: Report
    #: OCI linux.resources of a RUN; those of the request take precedence.
    resources: Json = field(default_factory=dict)
    socketcall: bool = True  # the seccomp profile of a RUN allows socketcall(2)
    apparmor: str = ""  # the AppArmor profile of a RUN


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a stage. Layers are lowest first."""

    state: Any
    layers: tuple[Layer, ...]
    variant: str = ""


class Build:
    """One build. A context manager; call `solve`, then `output.write`, inside it."""

    def __init__(self, store: ImageStore, request: Request, services: Services) -> None:
        self.store, self.request, self.services = store, request, services
        self.session = Session(store)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[int] = set()
        self._keys: dict[str, threading.Lock] = {}
        self._numbers = 0
        self._held: set[str] = set()
        self.slots = threading.Semaphore(request.parallel)
        self._pulls: dict[str, threading.Lock] = {}
        self.used: dict[str, None] = {}  # keys of all results, cached or new

    def __enter__(self) -> Build:
        self.session.__enter__()
        try:
            self.empty = os.path.join(self.session.directory, "empty")
            os.mkdir(self.empty, 0o755)
            self.context_fd = os.open(self.request.context, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.used_files = UsedFiles(self.request.context, self.context_fd)
        except BaseException as error:
            self.session.__exit__(None, None, None)
            if isinstance(error, OSError):
                raise BuildError(
                    f"cannot open the context {self.request.context}: {error.strerror}"
                ) from error
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self.context_fd)
        self.session.__exit__(None, None, None)

    # --- the build ---

    def solve(self, run_stage: Callable[[Build, Stage], Result]) -> Result:
        """Run the build. `run_stage` is `stage.run_stage`. Raises BuildError, ImageError; KeyboardInterrupt after
        everything has ended."""
        request = self.request
        leftovers.sweep(self.services.cgroup_parent, self.store.root)
        parsed = lexer.parse(request.containerfile, request.file)
        self.plan = graph.plan(
            parsed, target=request.target, args=request.args, platform_args=platform_args()
        )
        try:
            self.used_files.note("", os.fstat(self.context_fd))
            ignored = read_ignore(self.context_fd, request.context, request.beside, self.used_files)
        except PatternError as error:
            raise BuildError(f".dockerignore: {error}") from error
        except SyscallError as error:
            if error.errno != errno.EXDEV:
                raise
            raise BuildError(f"{request.beside}.dockerignore is a link out of the context") from error
        contents = buildcache.contents_directory(self.store)
        known = Contents(contents, self.context_fd, trusting=not request.no_cache)
        self.context = Tree(self.context_fd, ignored, known=known, used_files=self.used_files)
        try:
            return self._stages(self.plan, run_stage)
        finally:
            known.save()

    def _stages(self, plan: Graph, run_stage: Callable[[Build, Stage], Result]) -> Result:
        needed = [plan.stages[index] for index in sorted(plan.needed)]
        self._futures: dict[int, Future[Result]] = {stage.index: Future() for stage in needed}

        def work(stage: Stage) -> None:
            future = self._futures[stage.index]
            try:
                future.set_result(run_stage(self, stage))
            except BaseException as error:
                future.set_exception(error)
                raise

        with ThreadPoolExecutor(max_workers=len(needed), thread_name_prefix="stage") as threads:
            tasks = [threads.submit(work, stage) for stage in needed]
            try:
                wait(tasks, return_when=FIRST_EXCEPTION)
            finally:
                if not all(task.done() and task.exception() is None for task in tasks):
                    self.cancel()
        failures = [error for task in tasks if (error := task.exception()) is not None]
        if failures:
            raise next((error for error in failures if not isinstance(error, Cancelled)), failures[0])
        return self._futures[plan.target].result()

    def stage_result(self, index: int) -> Result:
        """Wait for another stage. If it fails, it reports that itself, and this raises Cancelled."""
        if index not in self._futures:
            name = self.plan.stages[index].shown
            raise BuildError(
                f"an ONBUILD trigger needs stage {name}, which no other step needs: this is not supported"
            )
        try:
            return self._futures[index].result()
        except BaseException as error:
            raise Cancelled from error

    def cancel(self) -> None:
        """Cancel the build: every wait in it raises Cancelled."""
        self._stop.set()
        with self._lock:
            for fd in self._sockets:
                with suppress(OSError), socket.socket(fileno=os.dup(fd)) as other:
                    other.shutdown(socket.SHUT_RDWR)

    def check(self) -> None:
        if self._stop.is_set():
            raise Cancelled

    @contextmanager
    def cancellable(self, fd: int) -> Iterator[None]:
        """Shut the socket down if the build is cancelled while the context lasts."""
        with self._lock:
            self.check()
            self._sockets.add(fd)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(fd)
        self.check()

    # --- what stages use ---

    def number(self) -> int:
        with self._lock:
            self._numbers += 1
            return self._numbers

    def directories(self, layers: Sequence[Layer]) -> list[str]:
        """The layers' directories, topmost first."""
        return [self.store.layer_path(layer.chain_id) for layer in reversed(layers)]

    @contextmanager
    def snapshot(self, layers: Sequence[Layer]) -> Iterator[int]:
        fd = mount_overlay(self.directories(layers), scratch=self.empty)
        try:
            yield fd
        finally:
            os.close(fd)

    def image(self, reference: str) -> ImageRecord:
        """An image by name; pulls it if it is missing. Its layers stay until the build ends."""
        with self._lock:
            lock = self._pulls.setdefault(reference, threading.Lock())
        with lock:
            record = None if self.request.pull else self.store.get(reference)
            if record is None:
                self.services.pull(reference, self.cancellable)
                record = self.store.get(reference)
            if record is None:
                raise BuildError(f"{reference} was removed right after it was pulled")
            chains = {f"chain:sha256:{os.path.basename(path)}" for path in record.layers}
            self.session.lease_digests({record.manifest_digest, record.id, *record.layer_digests} | chains)
            if any(not os.path.isdir(path) for path in record.layers):
                raise BuildError(f"{reference} was removed during the build; build again")
            return record

    def layers_of(self, record: ImageRecord) -> tuple[Layer, ...]:
        manifest = self.store.manifest(record)
        diff_ids = self.store.image_config(record)["rootfs"]["diff_ids"]
        entries = zip(manifest["layers"], diff_ids, chain_ids(diff_ids), strict=True)
        return tuple(
            Layer(entry["digest"], entry["size"], entry["mediaType"], diff_id, chain)
            for entry, diff_id, chain in entries
        )

    def cached(self, key: str) -> Step | None:
        """The cached result of a step, or None. It may be pruned at any time: call `hold` before using its files."""
        self.used[key] = None
        return None if self.request.no_cache else buildcache.load(self.store, key)

    def hold(self, layers: Sequence[Layer]) -> None:
        """Protect the layers from deletion. Raises BuildError if one is missing already."""
        things = {thing for layer in layers for thing in (layer.digest, f"chain:{layer.chain_id}")}
        with self._lock:
            fresh = things - self._held
            if fresh:
                self.session.lease_digests(fresh)
                self._held |= fresh
        for layer in layers:
            if not self.session.has_layer(layer.chain_id):
                raise BuildError(f"layer {layer.digest} was removed during the build; build again")

    @contextmanager
    def once(self, key: str) -> Iterator[None]:
        """Serialise equal steps of several stages: the second one waits and finds the result."""
        with self._lock:
            lock = self._keys.setdefault(key, threading.Lock())
        with lock:
            self.check()
            yield

    def make(
        self,
        key: str,
        layers: tuple[Layer, ...],
        fill: Callable[[str, str, str], None],
        changed: Callable[[], str],
    ) -> Step:
        """Run `fill(upper, work, directory)` and store what it leaves in `upper` as the step's layer. `changed` returns
        the name of an input that changed since the key was computed, or "". If one changed, the result is used by this
        build alone."""
        directory = self.session.temporary("step")
        os.mkdir(directory, 0o700)
        try:
            self.hold(layers)
            lower = self.directories(layers)
            upper, work = make_upper(directory, lower)
            fill(upper, work, directory)
            self.check()
            step = self._layer(layers, upper, lower)
            if name := changed():
                message = f"{name} changed while it was copied: the step's result is not cached"
                self.services.report({"event": "warning", "message": message})
            else:
                buildcache.save(self.store, key, step)
            return step
        except OSError as error:
            if isinstance(error, BuildError):
                raise
            raise disk_error(error) from error
        finally:
            remove_tree(directory)

    def _layer(self, layers: tuple[Layer, ...], upper: str, lower: list[str]) -> Step:
        from runtime.builder.diff import write_layer

        path = self.session.temporary("blob")
        with open(path, "xb", buffering=1 << 20) as file:
            diff = write_layer(upper, lower, file.write, epoch=self.request.epoch)
        chain = tuple(layer.chain_id for layer in layers)
        created = self.now()
        if not diff.entries:
            os.unlink(path)
            step = Step(created, None, chain)
        else:
            chains = chain_ids([*(layer.diff_id for layer in layers), diff.digest])
            layer = Layer(diff.digest, diff.size, LAYER_TYPE, diff.digest, chains[-1])
            self.session.lease_digests({layer.digest, f"chain:{layer.chain_id}"})
            syncfs(self.session.directory)
            self.session.commit_blob(path, layer.digest)
            self.session.commit_layer(upper, layer.chain_id)
            step = Step(created, layer, (*chain, layer.chain_id))
        return step

    def now(self) -> str:
        """The current time, or SOURCE_DATE_EPOCH if set, in RFC 3339."""
        epoch = self.request.epoch
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() if epoch is None else epoch))

    def cgroup(self, number: int) -> str:
        return leftovers.cgroup(self.services.cgroup_parent, self.session.directory, number)


def platform_args() -> dict[str, str]:
    """The predefined platform arguments (docs.docker.com/reference/dockerfile, "Automatic platform ARGs in the global
    scope")."""
    platform = manifests.this_platform()
    values = {
        "PLATFORM": str(platform),
        "OS": platform.os,
        "ARCH": platform.architecture,
        "VARIANT": platform.variant,
    }
    return {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in values.items()}

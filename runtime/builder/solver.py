"""A build from beginning to end: needed stages beside each other, each step by its key, its result kept.

A step that makes files has a key of all that can change them (`keys`). What the cache has by that key is taken; else
the step runs on an overlay of its own, whose upper directory becomes a layer: tar and directory are synced, renamed
into the store, and only then recorded. So a build that is killed at any line has made cache, or nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runtime.builder.copy.context import Seen, Tree, read_ignore
from runtime.builder.errors import BuildError, Cancelled
from runtime.builder.known import Contents
from runtime.builder.language import graph, lexer
from runtime.builder.language.graph import Graph, Stage
from runtime.builder.language.ignore import PatternError
from runtime.builder.overlay import make_upper, mount_overlay
from runtime.builder.run import leftovers
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
    """What to build. `containerfile`: its text; `file`: what it is called in errors; `beside`: its path, or ""."""

    context: str  # a directory
    containerfile: str
    file: str
    beside: str = ""
    tags: tuple[str, ...] = ()  # canonical references
    target: str = ""
    args: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    agents: Mapping[str, str] = field(default_factory=dict)  # ssh agents' sockets by id
    no_cache: bool = False
    pull: bool = False
    network: str = "default"
    epoch: int | None = None
    resources: Json = field(default_factory=dict)
    parallel: int = 4  # steps at a time


@dataclass(frozen=True, slots=True)
class Services:
    """What a build needs of the node. `pull` brings an image into the store, and holds what it is given on the
    descriptor of the connection it waits on, so that it can be cancelled; `attach` a process's network namespace
    to the pods' network, for as long as it is held."""

    cgroup_parent: str  # "/kubelite"
    pull: Callable[[str, Callable[[int], AbstractContextManager[None]]], None]
    attach: Callable[[int], AbstractContextManager[Attached]]
    report: Report


@dataclass(frozen=True, slots=True)
class Result:
    """What the target stage has come to: layers lowest first."""

    state: Any
    layers: tuple[Layer, ...]
    variant: str = ""


class Build:
    """One build under way. Use as a context manager; `solve` then `output.commit`, within it."""

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
        self.used: dict[str, None] = {}  # keys of results that were taken from the cache, or made

    def __enter__(self) -> Build:
        self.session.__enter__()
        try:
            self.empty = os.path.join(self.session.directory, "empty")
            os.mkdir(self.empty, 0o755)
            self.context_fd = os.open(self.request.context, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.seen = Seen(self.request.context, self.context_fd)
        except BaseException as error:
            self.session.__exit__(None, None, None)
            if isinstance(error, OSError):
                raise BuildError(f"the context {self.request.context}: {error.strerror}") from error
            raise
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self.context_fd)
        self.session.__exit__(None, None, None)

    # --- the whole ---

    def solve(self, run_stage: Callable[[Build, Stage], Result]) -> Result:
        """`run_stage`: `stage.run_stage`. Raises BuildError, ImageError; KeyboardInterrupt ends everything first."""
        request = self.request
        leftovers.sweep(self.services.cgroup_parent, self.store.root)
        parsed = lexer.parse(request.containerfile, request.file)
        self.plan = graph.plan(
            parsed, target=request.target, args=request.args, platform_args=platform_args()
        )
        try:
            self.seen.note("", os.fstat(self.context_fd))
            ignored = read_ignore(self.context_fd, request.beside, self.seen)
        except PatternError as error:
            raise BuildError(f".dockerignore: {error}") from error
        noted = buildcache.contents_directory(self.store)
        known = Contents(noted, self.context_fd, trusting=not request.no_cache)
        self.context = Tree(self.context_fd, ignored, known=known, seen=self.seen)
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
        """Wait for another stage. Its failure is told by itself."""
        if index not in self._futures:
            name = self.plan.stages[index].shown
            raise BuildError(
                f"a trigger (ONBUILD) needs stage {name}, which nothing else here needs: not supported"
            )
        try:
            return self._futures[index].result()
        except BaseException as error:
            raise Cancelled from error

    def cancel(self) -> None:
        """End what runs: every wait for it then raises Cancelled."""
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
        """The socket is shut down when the build is cancelled meanwhile."""
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
        """Topmost first."""
        return [self.store.layer_path(layer.chain_id) for layer in reversed(layers)]

    @contextmanager
    def snapshot(self, layers: Sequence[Layer]) -> Iterator[int]:
        fd = mount_overlay(self.directories(layers), scratch=self.empty)
        try:
            yield fd
        finally:
            os.close(fd)

    def image(self, reference: str) -> ImageRecord:
        """An image by name, pulled when it is not here. Its layers stay for as long as this build lasts."""
        with self._lock:
            lock = self._pulls.setdefault(reference, threading.Lock())
        with lock:
            record = None if self.request.pull else self.store.get(reference)
            if record is None:
                self.services.pull(reference, self.cancellable)
                record = self.store.get(reference)
            if record is None:
                raise BuildError(f"{reference} vanished right after it was pulled")
            chains = {f"chain:sha256:{os.path.basename(path)}" for path in record.layers}
            self.session.lease_digests({record.manifest_digest, record.id, *record.layer_digests} | chains)
            if any(not os.path.isdir(path) for path in record.layers):
                raise BuildError(f"{reference} was removed just now; build again")
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
        """What is known of a step. Nobody promises that it stays: `hold` before its files are used."""
        self.used[key] = None
        return None if self.request.no_cache else buildcache.load(self.store, key)

    def hold(self, layers: Sequence[Layer]) -> None:
        """From here on nobody deletes these. Raises BuildError when somebody has."""
        things = {thing for layer in layers for thing in (layer.digest, f"chain:{layer.chain_id}")}
        with self._lock:
            fresh = things - self._held
            if fresh:
                self.session.lease_digests(fresh)
                self._held |= fresh
        for layer in layers:
            if not self.session.has_layer(layer.chain_id):
                raise BuildError(f"layer {layer.digest} was removed just now; build again")

    @contextmanager
    def once(self, key: str) -> Iterator[None]:
        """Two stages with the same step: the second waits, and finds it done."""
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
        """Run `fill(upper, work, directory)` and keep what it leaves in `upper` as the step's layer. `changed` names
        what is not any more as the key has it, or "": such a result is this build's alone."""
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
                message = (
                    f"{name} changed while it was copied: the step's result is not kept for other builds"
                )
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
        """RFC 3339; what SOURCE_DATE_EPOCH says, where it does."""
        epoch = self.request.epoch
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() if epoch is None else epoch))

    def cgroup(self, number: int) -> str:
        return leftovers.cgroup(self.services.cgroup_parent, self.session.directory, number)


def platform_args() -> dict[str, str]:
    """docs.docker.com/reference/dockerfile, "Automatic platform ARGs in the global scope"."""
    platform = manifests.this_platform()
    values = {
        "PLATFORM": str(platform),
        "OS": platform.os,
        "ARCH": platform.architecture,
        "VARIANT": platform.variant,
    }
    return {f"{side}{name}": value for side in ("TARGET", "BUILD") for name, value in values.items()}

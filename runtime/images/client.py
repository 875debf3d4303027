"""The daemon's side of image work: each operation runs in a worker process of its own.

Concurrent pulls of the same image share one worker. Cancelling a call ends its worker by SIGTERM (the worker cleans
up), and by SIGKILL after a grace period (the next worker cleans up). If the daemon is killed, the worker's standard
input ends, which cancels the worker too. A worker that gives no sign of life is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import runtime
from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.pull_limits import Bucket, PullLimits
from runtime.images.registry import registriesconf
from runtime.images.requests import MemoryCap, PackRequest
from runtime.images.store.store import ImageRecord, ImageStore, Removed

Progress = Callable[[dict[str, Any]], None]
PullSecret = dict[str, Any]  # {"source": name for messages, "config": the content of a docker config.json}
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
HEARTBEAT = 5.0  # seconds between two signs of life of a worker
SILENT = 60.0  # seconds without one after which a worker is killed: it is stopped, or stuck in the kernel
_LINE_MAX = 16 << 20  # bytes of one answer: a config with labels may be large


class Pulled(NamedTuple):
    """A pulled image, and the login that the registry accepted: its source and its hash. None: without a login."""

    record: ImageRecord
    login: tuple[str, str] | None


@dataclass(slots=True)
class _Flight:
    """A pull in progress and its waiting callers."""

    task: asyncio.Task[Pulled]
    listeners: list[Progress] = field(default_factory=list)
    waiting: int = 0


class ImageClient:
    """Image operations for one store. Use within one event loop; `close` when done."""

    def __init__(
        self,
        root: str,
        *,
        parallel: int = 3,
        rate: float = 0.0,
        burst: int = 1,
        layers_parallel: int = 3,
        plain_http: Collection[str] = (),
        platform: str = "",
        auth_file: str = "",
        policy: str = "",
        memory: MemoryCap | None = None,
    ) -> None:
        """`parallel`: pulls at the same time. `rate`: pulls that may start each second (0: no limit), after a `burst`
        that may start at once. `layers_parallel`: layers of one pull at the same time. `plain_http`: registries to use
        without TLS, besides those on this machine. `platform`: os/arch[/variant]; default: this machine's. `auth_file`:
        the node's own logins, which take precedence over docker's and podman's. `policy`: path of a
        containers-policy.json(5) that says which images may be pulled; "": all. `memory`: of all workers together;
        None: no limit."""
        self.store = ImageStore(root, expand=_expander())
        self._settings: dict[str, Any] = {
            "root": self.store.root,
            "parallel": layers_parallel,
            "plain_http": list(plain_http),
            "platform": platform,
            "auth_file": auth_file,
            "policy": policy,
            "memory": memory,
        }
        self._memory = memory
        self.limits = PullLimits(parallel, Bucket(rate, burst))
        self._flights: dict[tuple[str, str], _Flight] = {}  # by canonical reference and secrets
        self._running: set[asyncio.Task[Any]] = set()

    async def pull(
        self, reference: str, *, secrets: Sequence[PullSecret] = (), progress: Progress | None = None
    ) -> ImageRecord:
        """Pull an image. If it is being pulled already with the same secrets, wait for that pull and receive its
        progress from now on. A pull with other secrets is separate, so that no caller uses another caller's
        rights. Raises ImageError (InvalidImageName, RegistryUnavailable or ErrImagePull)."""
        return (await self.pull_with_login(reference, secrets=secrets, progress=progress)).record

    async def pull_with_login(
        self, reference: str, *, secrets: Sequence[PullSecret] = (), progress: Progress | None = None
    ) -> Pulled:
        """Like `pull`, and say which login was accepted."""
        canonical = str(references.parse(self.store.expand(reference)))
        key = canonical, json.dumps(list(secrets), sort_keys=True)
        flight = self._flights.get(key)
        if flight is None:
            pulling = self._pull(key, secrets)
            flight = self._flights[key] = _Flight(asyncio.create_task(pulling))
            flight.task.add_done_callback(lambda task: self._finished(key, task))
        flight.waiting += 1
        if progress is not None:
            flight.listeners.append(progress)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if progress is not None and progress in flight.listeners:
                flight.listeners.remove(progress)
            if flight.waiting == 0 and not flight.task.done():  # the last waiting caller was cancelled
                if self._flights.get(key) is flight:
                    del self._flights[key]
                flight.task.cancel()
                await asyncio.wait([flight.task])

    async def load(
        self, path: str, *, reference: str | None = None, shown: str = "", progress: Progress | None = None
    ) -> list[ImageRecord]:
        """Import a docker-archive, an oci-archive or an OCI layout directory. `reference` renames the image if there is
        only one. `shown` is the path in error messages. Raises ImageError."""
        request = {
            "op": "load",
            "path": os.path.abspath(path),
            "reference": reference or "",
            "shown": shown,
        }
        return _records(await self._run(request, progress))

    async def pack(
        self,
        programs: Sequence[str],
        reference: str,
        *,
        files: Sequence[str] = (),
        entrypoint: Sequence[str] | None = None,
        cmd: Sequence[str] | None = None,
        env: Sequence[str] = (),
        workdir: str = "",
        user: str = "",
        progress: Progress | None = None,
    ) -> ImageRecord:
        """Create an image of host programs and their shared libraries; see `PackRequest`. Raises ImageError."""
        pack = PackRequest(
            programs=list(programs),
            reference=reference,
            files=list(files),
            entrypoint=None if entrypoint is None else list(entrypoint),
            cmd=None if cmd is None else list(cmd),
            env=list(env),
            workdir=workdir,
            user=user,
        )
        return _records(await self._run({"op": "pack", "pack": asdict(pack)}, progress))[0]

    async def remove(self, reference: str, *, in_use: Collection[str] = (), force: bool = False) -> Removed:
        """Remove an image in a worker, because deleting a large image takes time; see `deletion.remove_image`."""
        request = {"op": "remove", "reference": reference, "in_use": sorted(in_use), "force": force}
        return _removed(await self._run(request, None))

    async def prune(
        self,
        *,
        in_use: Collection[str] = (),
        every: bool = False,
        before: float | None = None,
        cache: bool = True,
    ) -> Removed:
        """Delete dangling images that no container uses, and blobs and layers that no image needs. `every`: also images
        with names. `before` (Unix seconds) limits `every` to images last used before that time. `cache`: also build
        results whose layers belong to no image; with `every`, all build results."""
        request = {"op": "prune", "in_use": sorted(in_use), "all": every, "before": before, "cache": cache}
        return _removed(await self._run(request, None))

    async def prune_cache(self, *, before: float | None = None) -> Removed:
        """See `deletion.prune_cache`."""
        return _removed(await self._run({"op": "prune-cache", "before": before}, None))

    async def push(
        self,
        reference: str,
        target: str = "",
        *,
        compression: dict[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> tuple[str, str, int]:
        """Push an image, under the name `target` unless that is empty. Returns (name, the manifest's digest, its size
        in bytes). `compression`: the arguments of `compress.Compression`. Raises ImageError."""
        request = {"op": "push", "reference": reference, "target": target, "compression": compression}
        answer = await self._run(request, progress)
        return str(answer["reference"]), str(answer["digest"]), int(answer["size"])

    async def save(
        self, references: Sequence[str], path: str, *, form: str, progress: Progress | None = None
    ) -> list[ImageRecord]:
        """Write images to a file, a pipe or a directory. `form` is one of `export.FORMATS`. Raises ImageError."""
        request = {"op": "save", "references": list(references), "path": path, "format": form}
        return _records(await self._run(request, progress))

    async def tag(self, reference: str, target: str) -> ImageRecord:
        return _records(await self._run({"op": "tag", "reference": reference, "target": target}, None))[0]

    async def usage(self, in_use: Collection[str] = ()) -> dict[str, Any]:
        """See `usage.usage`."""
        return await self._run({"op": "usage", "in_use": sorted(in_use)}, None)

    async def repair(self, *, deep: bool = False) -> tuple[list[str], list[str]]:
        """See `repair.repair`."""
        answer = await self._run({"op": "repair", "deep": deep}, None)
        return list(answer["done"]), list(answer["broken"])

    async def check(self, *, deep: bool = False) -> list[str]:
        """See `verify.check_store`."""
        return list((await self._run({"op": "check", "deep": deep}, None))["problems"])

    async def close(self) -> None:
        """Cancel all operations and wait for the workers to end."""
        tasks = [*self._running, *(flight.task for flight in self._flights.values())]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def login(self, registry: str, username: str, password: str) -> str:
        """Store a login if the registry accepts it. Returns the path of the file. Raises ImageError otherwise."""
        request = {"op": "login", "registry": registry, "username": username, "password": password}
        return str((await self._run(request, None))["file"])

    async def logout(self, registry: str) -> bool:
        """Delete a login, or with "" all logins in the node's own file. False if there was none."""
        return bool((await self._run({"op": "logout", "registry": registry}, None))["removed"])

    async def _pull(self, key: tuple[str, str], secrets: Sequence[PullSecret]) -> Pulled:
        login: tuple[str, str] | None = None

        def hear(event: dict[str, Any]) -> None:
            nonlocal login
            if event["event"] == "login":
                login = event["source"], event["hash"]
            else:
                self._broadcast(key, event)

        async with self.limits.pull():
            request = {"op": "pull", "reference": key[0], "secrets": list(secrets)}
            record = _records(await self._run(request, hear))[0]
            return Pulled(record, login)

    def _broadcast(self, key: tuple[str, str], event: dict[str, Any]) -> None:
        flight = self._flights.get(key)
        for listener in list(flight.listeners) if flight else ():
            listener(event)

    def _finished(self, key: tuple[str, str], task: asyncio.Task[Pulled]) -> None:
        flight = self._flights.get(key)
        if flight is not None and flight.task is task:
            del self._flights[key]
        if not task.cancelled():
            task.exception()  # mark it as retrieved: all callers may have left

    async def _run(self, request: dict[str, Any], progress: Progress | None) -> dict[str, Any]:
        """Run one worker process. Passes on its events and returns its answer."""
        task = asyncio.ensure_future(self._work({**self._settings, **request}, progress))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await task

    async def _work(self, request: dict[str, Any], progress: Progress | None) -> dict[str, Any]:
        oom_kills = _oom_kills(self._memory)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "runtime.images.worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_MAX,
            env=_environment(),
            start_new_session=True,  # Ctrl-C in a terminal reaches the daemon alone, which ends its workers
        )
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        errors = asyncio.ensure_future(process.stderr.read())
        try:
            process.stdin.write(json.dumps({**request, "heartbeat": HEARTBEAT}).encode() + b"\n")
            while line := await _line(process, process.stdout):
                event = json.loads(line)
                if event["event"] == "alive":
                    continue
                if event["event"] == "done":
                    with suppress(TimeoutError):
                        await asyncio.wait_for(process.wait(), _GRACE)
                    return dict(event)
                if event["event"] == "error":
                    raise ImageError(event["message"], reason=event["reason"], retriable=event["retriable"])
                if progress is not None:
                    progress(event)
            await process.wait()
            raise self._died(process, await errors, oom_kills)
        except (BrokenPipeError, ConnectionResetError):
            await process.wait()
            raise self._died(process, await errors, oom_kills) from None
        finally:
            await asyncio.shield(_end(process))
            errors.cancel()

    def _died(self, process: asyncio.subprocess.Process, errors: bytes, oom_kills: int) -> ImageError:
        """Return why a worker ended without an answer. `oom_kills`: what `_oom_kills` returned before its start."""
        cap = self._memory
        if cap and process.returncode == -signal.SIGKILL and _oom_kills(cap) > oom_kills:
            return ImageError(
                f"the kernel killed the image worker at its memory limit of {cap.limit >> 20}Mi "
                "(setting image_worker_memory)",
                retriable=True,
            )
        lines = errors.decode("utf-8", "replace").strip().splitlines()
        last = f": {lines[-1]}" if lines else ""
        return ImageError(
            f"the image worker ended unexpectedly (status {process.returncode}){last}", retriable=True
        )


def _oom_kills(cap: MemoryCap | None) -> int:
    """Return how many processes the kernel has killed in the workers' cgroup so far; 0 if there is no such cgroup."""
    if cap is None:
        return 0
    from runtime.cgroups import open_cgroup

    return open_cgroup(cap.cgroup).oom_kills()


async def _line(process: asyncio.subprocess.Process, output: asyncio.StreamReader) -> bytes:
    """Return the worker's next line; b"" at the end. Kills a silent worker and raises ImageError."""
    try:
        async with asyncio.timeout(SILENT):
            return await output.readline()
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        raise ImageError(
            f"the image worker (pid {process.pid}) gave no sign of life for {SILENT:.0f} s and was killed",
            retriable=True,
        ) from None


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the worker: SIGTERM, then SIGKILL after the grace period."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _GRACE)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _expander() -> Callable[[str], str]:
    """The aliases of registries.conf. If the file is invalid, return names unchanged: the pull reports the error."""
    try:
        return registriesconf.load().expand
    except ImageError:
        return str


def _environment() -> dict[str, str]:
    """An environment in which the worker imports this package, installed or not."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
    if os.path.basename(here) in {"site-packages", "dist-packages"}:
        return dict(os.environ)
    path = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here}


def _records(answer: dict[str, Any]) -> list[ImageRecord]:
    return [ImageRecord.from_json(image) for image in answer["images"]]


def _removed(answer: dict[str, Any]) -> Removed:
    return Removed(tuple(answer["untagged"]), tuple(answer["deleted"]), int(answer["freed"]))

"""The daemon's side of image work: each operation is one worker process; pulls of one image are one pull.

Cancelling a call ends its worker by SIGTERM (it cleans up), by SIGKILL after a grace period (the next worker cleans
up). If the daemon itself is killed, the worker's standard input ends, which cancels it too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import runtime
from runtime.errors import ImageError
from runtime.images import reference as references
from runtime.images.registry import registriesconf
from runtime.images.requests import PackRequest
from runtime.images.store.store import ImageRecord, ImageStore, Removed
from runtime.images.turns import Bucket, Turns

Progress = Callable[[dict[str, Any]], None]
PullSecret = dict[str, Any]  # {"source": for messages, "config": a docker config.json's content}
_GRACE = 5.0  # seconds between SIGTERM and SIGKILL
_LINE_MAX = 16 << 20  # bytes of one answer; a config with its labels may be large


@dataclass(slots=True)
class _Flight:
    """A pull under way and everyone who waits for it."""

    task: asyncio.Task[ImageRecord]
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
    ) -> None:
        """`parallel`: pulls at a time; `rate`: pulls that may begin a second (0 = any number), after a `burst` at once;
        `layers_parallel`: layers of one pull at a time; `plain_http`: registries that
        are spoken to without TLS, besides this machine's own; `platform`: os/arch[/variant], else this machine's;
        `auth_file`: the node's own logins, looked at before docker's and podman's."""
        self.store = ImageStore(root, expand=_expander())
        self._settings: dict[str, Any] = {
            "root": self.store.root,
            "parallel": layers_parallel,
            "plain_http": list(plain_http),
            "platform": platform,
            "auth_file": auth_file,
        }
        self.turns = Turns(parallel, Bucket(rate, burst))
        self._flights: dict[tuple[str, str], _Flight] = {}  # by canonical reference and secrets
        self._running: set[asyncio.Task[Any]] = set()

    async def pull(
        self, reference: str, *, secrets: Sequence[PullSecret] = (), progress: Progress | None = None
    ) -> ImageRecord:
        """Pull; if this image is being pulled already (with the same secrets: nobody rides on another's rights), wait
        for that and hear its progress from here on.
        Raises ImageError (reason InvalidImageName, RegistryUnavailable or ErrImagePull)."""
        canonical = str(references.parse(self.store.expand(reference)))
        flown = canonical, json.dumps(list(secrets), sort_keys=True)
        flight = self._flights.get(flown)
        if flight is None:
            pulling = self._pull(flown, secrets)
            flight = self._flights[flown] = _Flight(asyncio.create_task(pulling))
            flight.task.add_done_callback(lambda task: self._landed(flown, task))
        flight.waiting += 1
        if progress is not None:
            flight.listeners.append(progress)
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if progress is not None and progress in flight.listeners:
                flight.listeners.remove(progress)
            if flight.waiting == 0 and not flight.task.done():  # the last one who wanted it was cancelled
                if self._flights.get(flown) is flight:
                    del self._flights[flown]
                flight.task.cancel()
                await asyncio.wait([flight.task])

    async def load(
        self, path: str, *, reference: str | None = None, shown: str = "", progress: Progress | None = None
    ) -> list[ImageRecord]:
        """Import a docker-archive, an oci-archive or an OCI layout directory. `reference` renames a single image;
        `shown` is what errors call the file."""
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
        """Make an image of host programs with their shared libraries; `files` are further `HOST[:IMAGE]` trees."""
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
        """See ImageStore.remove; in a worker, since deleting a large image takes its time."""
        request = {"op": "remove", "reference": reference, "in_use": sorted(in_use), "force": force}
        return _removed(await self._run(request, None))

    async def prune(
        self, *, in_use: Collection[str] = (), every: bool = False, before: float | None = None
    ) -> Removed:
        """Delete dangling images no container uses, and blobs and layers no image needs; `every`: named ones too, of
        those used for the last time `before` (Unix seconds)."""
        request = {"op": "prune", "in_use": sorted(in_use), "all": every, "before": before}
        return _removed(await self._run(request, None))

    async def prune_cache(self, *, before: float | None = None) -> Removed:
        """See content.prune_cache."""
        return _removed(await self._run({"op": "prune-cache", "before": before}, None))

    async def push(
        self,
        reference: str,
        target: str = "",
        *,
        compression: dict[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> tuple[str, str, int]:
        """Send an image to a registry, under another name if `target` is one: (name, the manifest's digest and size).
        `compression`: what `compress.Compression` takes."""
        request = {"op": "push", "reference": reference, "target": target, "compression": compression}
        answer = await self._run(request, progress)
        return str(answer["reference"]), str(answer["digest"]), int(answer["size"])

    async def save(
        self, references: Sequence[str], path: str, *, form: str, progress: Progress | None = None
    ) -> list[ImageRecord]:
        """Write images to a file, a pipe or a directory; `form` is one of `export.FORMATS`."""
        request = {"op": "save", "references": list(references), "path": path, "format": form}
        return _records(await self._run(request, progress))

    async def tag(self, reference: str, target: str) -> ImageRecord:
        return _records(await self._run({"op": "tag", "reference": reference, "target": target}, None))[0]

    async def usage(self) -> dict[str, Any]:
        """See `repair.usage`."""
        return await self._run({"op": "usage"}, None)

    async def repair(self, *, deep: bool = False) -> tuple[list[str], list[str]]:
        """See `repair.repair`."""
        answer = await self._run({"op": "repair", "deep": deep}, None)
        return list(answer["done"]), list(answer["broken"])

    async def check(self, *, deep: bool = False) -> list[str]:
        """See ImageStore.check."""
        return list((await self._run({"op": "check", "deep": deep}, None))["problems"])

    async def close(self) -> None:
        """Cancel what runs and wait until the workers are gone."""
        tasks = [*self._running, *(flight.task for flight in self._flights.values())]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def login(self, registry: str, username: str, password: str) -> str:
        """Keep a login that the registry takes; the file it is kept in. Raises ImageError (Unauthorized, …)."""
        request = {"op": "login", "registry": registry, "username": username, "password": password}
        return str((await self._run(request, None))["file"])

    async def logout(self, registry: str) -> bool:
        """Forget a login, or with "" every one of the node's own file; False when there was none."""
        return bool((await self._run({"op": "logout", "registry": registry}, None))["removed"])

    async def _pull(self, flown: tuple[str, str], secrets: Sequence[PullSecret]) -> ImageRecord:
        async with self.turns.pull():
            request = {"op": "pull", "reference": flown[0], "secrets": list(secrets)}
            return _records(await self._run(request, lambda event: self._spread(flown, event)))[0]

    def _spread(self, flown: tuple[str, str], event: dict[str, Any]) -> None:
        flight = self._flights.get(flown)
        for listener in list(flight.listeners) if flight else ():
            listener(event)

    def _landed(self, flown: tuple[str, str], task: asyncio.Task[ImageRecord]) -> None:
        flight = self._flights.get(flown)
        if flight is not None and flight.task is task:
            del self._flights[flown]
        if not task.cancelled():
            task.exception()  # every waiter may have gone

    async def _run(self, request: dict[str, Any], progress: Progress | None) -> dict[str, Any]:
        """One worker process, its events passed on, its answer returned."""
        task = asyncio.ensure_future(self._work({**self._settings, **request}, progress))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await task

    async def _work(self, request: dict[str, Any], progress: Progress | None) -> dict[str, Any]:
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
            start_new_session=True,  # Ctrl-C in the daemon's terminal is the daemon's to pass on
        )
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        errors = asyncio.ensure_future(process.stderr.read())
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            async for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "done":
                    await process.wait()
                    return dict(event)
                if event["event"] == "error":
                    raise ImageError(event["message"], reason=event["reason"], retriable=event["retriable"])
                if progress is not None:
                    progress(event)
            await process.wait()
            raise _died(process.returncode, await errors)
        except (BrokenPipeError, ConnectionResetError):
            raise _died(await process.wait(), await errors) from None
        finally:
            await asyncio.shield(_end(process))
            errors.cancel()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Make sure the worker is gone: politely, then not."""
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
    """Short names as registries.conf has them now; a file that cannot be used is a pull's trouble, which says so."""
    try:
        return registriesconf.load().expand
    except ImageError:
        return str


def _environment() -> dict[str, str]:
    """The worker finds this very package, installed or not."""
    here = os.path.dirname(os.path.dirname(os.path.abspath(runtime.__file__)))
    if os.path.basename(here) in {"site-packages", "dist-packages"}:
        return dict(os.environ)
    path = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{path}" if path else here}


def _died(returncode: int | None, errors: bytes) -> ImageError:
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    last = f": {lines[-1]}" if lines else ""
    return ImageError(f"the image worker ended unexpectedly (status {returncode}){last}", retriable=True)


def _records(answer: dict[str, Any]) -> list[ImageRecord]:
    return [ImageRecord.from_json(image) for image in answer["images"]]


def _removed(answer: dict[str, Any]) -> Removed:
    return Removed(tuple(answer["untagged"]), tuple(answer["deleted"]), int(answer["freed"]))

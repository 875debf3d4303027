"""The image worker: a process per operation, so that heavy work neither blocks the daemon nor grows its memory.

`python -m runtime.images.worker` reads one request, a JSON object on one line, from standard input. It answers in JSON
lines on standard output: progress events, then `{"event": "done", …}` or `{"event": "error", "reason", "message",
"retriable"}`. If the request has `heartbeat`, `{"event": "alive"}` comes each so many seconds. The client keeps
standard input open while it waits. End of input or SIGTERM cancels the operation, and the session's directory is
removed. If a worker is killed, the next one removes its leftovers.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import ModuleType
from typing import Any, cast

from runtime.errors import ImageError, RuntimeFault, SyscallError
from runtime.images.install import PARALLEL
from runtime.images.store.disk import disk_error
from runtime.images.store.store import ImageRecord, ImageStore, Removed

Request = dict[str, Any]
Report = Callable[[dict[str, Any]], None]
_CANCELLED = 130  # exit status, as in a shell after Ctrl-C
_SWITCH_INTERVAL = 0.0001  # seconds; at the default of 5 ms decompression and unpacking wait for each other


async def perform(request: Request, report: Report) -> dict[str, Any]:
    """Run the requested operation. Returns the fields of the `done` event. Raises ImageError."""
    from runtime.images.registry import registriesconf

    store = ImageStore(request["root"], expand=registriesconf.load().expand)
    operation = _OPERATIONS.get(request.get("op", ""))
    if operation is None:
        raise ImageError(f"the image worker has no operation {request.get('op')!r}", reason="InvalidRequest")
    return await operation(store, request, report)


async def _pull(store: ImageStore, request: Request, report: Report) -> dict[str, Any]:
    from runtime.images.manifests import parse_platform
    from runtime.images.pull import pull
    from runtime.images.registry.access import Access

    record = await pull(
        store,
        request["reference"],
        report=report,
        platform=parse_platform(request.get("platform", "")),
        parallel=request.get("parallel", PARALLEL),
        access=Access.from_request(request),
    )
    return _images([record])


async def _login(_store: ImageStore, request: Request, report: Report) -> dict[str, Any]:
    """Check the login with the registry, and store it only if the registry accepts it."""
    from runtime.images.registry import auth
    from runtime.images.registry.access import Access
    from runtime.images.registry.repository import Registry

    login = auth.Login(request["username"], request["password"])
    if request["username"] == auth.TOKEN_USER:
        login = auth.Login(identity_token=request["password"])
    endpoint = Access.from_request(request).endpoint_of(request["registry"])
    async with Registry(endpoint, report=report, login=login) as registry:
        await registry.ping()
    auth.write_login(request["auth_file"], request["registry"], login)
    return {"file": request["auth_file"]}


async def _logout(_store: ImageStore, request: Request, _report: Report) -> dict[str, Any]:
    from runtime.images.registry import auth

    return {"removed": auth.remove_login(request["auth_file"], request["registry"])}


async def _load(store: ImageStore, request: Request, report: Report) -> dict[str, Any]:
    from runtime.images.archive.reading import load
    from runtime.images.manifests import parse_platform

    records = await load(
        store,
        request["path"],
        report=report,
        reference=request.get("reference") or None,
        platform=parse_platform(request.get("platform", "")),
        shown=request.get("shown", ""),
    )
    return _images(records)


async def _pack(store: ImageStore, request: Request, report: Report) -> dict[str, Any]:
    from runtime.images.archive.pack import pack
    from runtime.images.requests import PackRequest

    return _images([await pack(store, PackRequest(**request["pack"]), report=report)])


async def _remove(store: ImageStore, request: Request, _report: Report) -> dict[str, Any]:
    from runtime.images.store.deletion import remove_image

    removed = await asyncio.to_thread(
        remove_image,
        store,
        request["reference"],
        in_use=request.get("in_use", ()),
        force=request.get("force", False),
    )
    return _removed(removed)


async def _prune(store: ImageStore, request: Request, _report: Report) -> dict[str, Any]:
    from runtime.images.store.deletion import prune, prune_unused

    in_use, before, cache = request.get("in_use", ()), request.get("before"), request.get("cache", True)
    if not request.get("all"):
        return _removed(await asyncio.to_thread(prune, store, in_use=in_use, cache=cache))
    return _removed(await asyncio.to_thread(prune_unused, store, in_use=in_use, before=before, cache=cache))


async def _prune_cache(store: ImageStore, request: Request, _report: Report) -> dict[str, Any]:
    from runtime.images.store.deletion import prune_cache

    return _removed(await asyncio.to_thread(prune_cache, store, before=request.get("before")))


async def _push(store: ImageStore, request: Request, report: Report) -> dict[str, Any]:
    from runtime.images.layers.compress import Compression
    from runtime.images.push import push
    from runtime.images.registry.access import Access

    record, name, sent = await push(
        store,
        request["reference"],
        request.get("target", ""),
        report=report,
        parallel=request.get("parallel", PARALLEL),
        access=Access.from_request(request),
        compression=Compression(**(request.get("compression") or {})),
    )
    return {**_images([record]), "reference": name, "digest": sent.digest, "size": sent.size}


async def _save(store: ImageStore, request: Request, report: Report) -> dict[str, Any]:
    from runtime.images.archive.export import save

    return _images(
        await asyncio.to_thread(
            save, store, request["references"], request["path"], form=request["format"], report=report
        )
    )


async def _tag(store: ImageStore, request: Request, _report: Report) -> dict[str, Any]:
    from runtime.images.store.names import tag

    return _images([await asyncio.to_thread(tag, store, request["reference"], request["target"])])


async def _usage(store: ImageStore, request: Request, _report: Report) -> dict[str, Any]:
    from runtime.images.store.usage import usage

    return await asyncio.to_thread(usage, store, request.get("in_use") or ())


async def _repair(store: ImageStore, request: Request, report: Report) -> dict[str, Any]:
    from runtime.images.repair import repair

    done, broken = await repair(store, deep=request.get("deep", False), report=report)
    return {"done": done, "broken": broken}


async def _check(store: ImageStore, request: Request, _report: Report) -> dict[str, Any]:
    from runtime.images.store.verify import check_store

    return {"problems": await asyncio.to_thread(check_store, store, deep=request.get("deep", False))}


_OPERATIONS: dict[str, Callable[[ImageStore, Request, Report], Coroutine[Any, Any, dict[str, Any]]]] = {
    "pull": _pull,
    "login": _login,
    "logout": _logout,
    "load": _load,
    "pack": _pack,
    "remove": _remove,
    "prune": _prune,
    "prune-cache": _prune_cache,
    "check": _check,
    "push": _push,
    "save": _save,
    "tag": _tag,
    "usage": _usage,
    "repair": _repair,
}


def _images(records: list[ImageRecord]) -> dict[str, Any]:
    return {"images": [record.to_json() for record in records]}


def _removed(removed: Removed) -> dict[str, Any]:
    return {"untagged": removed.untagged, "deleted": removed.deleted, "freed": removed.freed}


def _print_line(event: dict[str, Any]) -> None:
    """Write the line in one write(2), so that events of several threads do not mix."""
    with suppress(BrokenPipeError):  # the client has gone; end of input cancels
        os.write(1, json.dumps(event).encode() + b"\n")


def _confine(cgroup: str, limit: int) -> None:
    """Move this process into a cgroup with a memory limit in bytes. Create the cgroup if it is missing: it is not there
    at first, and a reset or an administrator may have removed it. Raises RuntimeFault."""
    from runtime.cgroups import open_cgroup

    group = open_cgroup(cgroup)
    group.create()
    try:
        group.apply({"memory": {"limit": limit}})
    except SyscallError as error:
        if error.errno != errno.EBUSY:  # v1 keeps the old limit while other workers use more than the new one
            raise
    group.attach(0)  # before other threads exist: v1 would move this one alone


def _beat(seconds: float) -> None:
    """Report at intervals that this process runs. In a thread, because the event loop may be busy for long."""
    while True:
        time.sleep(seconds)
        _print_line({"event": "alive"})


async def _serve(line: bytes) -> int:
    loop = asyncio.get_running_loop()
    request = json.loads(line)
    try:
        if cap := request.get("memory"):
            _confine(*cap)
    except RuntimeFault as error:
        _print_error(error)
        return 1
    if seconds := request.get("heartbeat"):
        threading.Thread(target=_beat, args=(seconds,), daemon=True).start()
    task = asyncio.ensure_future(perform(request, _print_line))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    _cancel_at_end_of_input(loop, task)
    try:
        answer = await task
    except asyncio.CancelledError:
        return _CANCELLED
    except RuntimeFault as error:
        _print_error(error)
        return 1
    except OSError as error:
        _print_error(disk_error(error))
        return 1
    _print_line({"event": "done", **answer})
    return 0


def _cancel_at_end_of_input(loop: asyncio.AbstractEventLoop, task: asyncio.Future[Any]) -> None:
    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            task.cancel()

    with suppress(OSError):  # epoll refuses a plain file (`worker < request.json`)
        loop.add_reader(0, readable)


def _print_error(error: RuntimeFault) -> None:
    _print_line(
        {"event": "error", "reason": error.reason, "message": str(error), "retriable": error.retriable}
    )


def _read_line() -> bytes:
    """Read the request line unbuffered, so that the rest of the input can be watched."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line


def _lean_httpx() -> None:
    """Keep httpx from importing its command line, with rich and pygments, if installed: a third of the worker's start.
    httpx works without that module."""
    sys.modules["httpx._main"] = cast(ModuleType, None)


def main() -> int:
    """Serve one request from standard input. Returns the exit status; 2 if the input is empty."""
    _lean_httpx()
    sys.setswitchinterval(_SWITCH_INTERVAL)
    os.umask(0o022)
    line = _read_line()
    if not line:
        return 2
    return asyncio.run(_serve(line))


if __name__ == "__main__":
    sys.exit(main())

"""Runs a plugin until its deadline. A plugin that is late is killed with its process group, and named."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from runtime.cni.results import failure
from runtime.errors import NetworkError

MOST = 4 << 20  # bytes of a plugin's output
BUSY = 5  # attempts, a second apart, while a plugin's file is being written (libcni, pkg/invoke/raw_exec.go)
KILLED = 2.0  # seconds for a killed plugin to end
_OURS = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID")


class PluginError(NetworkError):
    """A plugin failed. `code`: the specification's number of the error, or 0."""

    reason = "CniPluginFailed"

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


def find(kind: str, paths: Sequence[str]) -> str:
    """The path of a plugin's program. Raises PluginError, in libcni's words (pkg/invoke/find.go)."""
    for directory in paths:
        path = f"{directory}/{kind}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise PluginError(f'failed to find plugin "{kind}" in path [{" ".join(paths)}]')


async def run(path: str, environ: Mapping[str, str], config: Mapping[str, Any], *, seconds: float) -> bytes:
    """Run a plugin and return its output. Raises PluginError."""
    own = {
        key: value
        for key, value in os.environ.items()
        if key not in _OURS and not key.startswith("KUBELITE_")
    }
    process = await _start(path, own | dict(environ))
    try:
        async with asyncio.timeout(seconds):
            output, errors = await _talk(process, json.dumps(config).encode())
            code = await process.wait()
    except TimeoutError:
        await _kill(process)
        raise PluginError(f"it has not answered for {seconds:g} s, and was killed ({path})") from None
    except BaseException:
        await _kill(process)
        raise
    if code:
        raise PluginError(*failure(code, output, errors))
    return output


async def _start(path: str, environ: dict[str, str]) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    for left in reversed(range(BUSY)):
        try:
            return await asyncio.create_subprocess_exec(
                path, stdin=pipe, stdout=pipe, stderr=pipe, env=environ, start_new_session=True, cwd="/"
            )
        except OSError as error:
            if error.errno != errno.ETXTBSY or not left:
                raise PluginError(f"{path} cannot be executed: {error.strerror}") from error
            await asyncio.sleep(1.0)
    raise AssertionError("unreachable")


async def _talk(process: asyncio.subprocess.Process, config: bytes) -> tuple[bytes, bytes]:
    assert process.stdin and process.stdout and process.stderr
    answers = asyncio.gather(_read(process.stdout), _read(process.stderr))
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it did not read all
        process.stdin.write(config)
        await process.stdin.drain()
    process.stdin.close()
    output, errors = await answers
    return output, errors


async def _read(stream: asyncio.StreamReader) -> bytes:
    found = bytearray()
    while part := await stream.read(1 << 16):
        found += part
        if len(found) > MOST:
            raise PluginError(f"it writes more than {MOST >> 20} MiB")
    return bytes(found)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill the plugin's process group, and reap the plugin."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):  # it waits in the kernel; asyncio reaps it later
            await asyncio.wait_for(process.wait(), KILLED)

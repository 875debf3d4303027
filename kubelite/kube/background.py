"""Runs the tasks of the node in the background, and begins them anew after errors that pass.

An error that nobody expects stops the node: a restart loses nothing, whereas a node without one of its tasks would
ignore changes. A feature of the node, such as Ingresses, begins anew after every error that storage, admission or a
helper process may raise: pods keep running, whatever happens to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine

from kubelite.kube.errors import is_shortage

log = logging.getLogger(__name__)

FIRST, LAST = 2.0, 60.0  # seconds until work begins anew: at first, and at last if it fails again and again

Work = Callable[[], Coroutine[object, object, None]]


class TaskFailed(Exception):
    """A task of the node failed with an error that nobody expects, and stopped the node. The log has its traceback."""


def in_background(
    stack: contextlib.AsyncExitStack,
    work: Work,
    name: str,
    *,
    passes: Callable[[BaseException], bool] = is_shortage,
) -> None:
    """Run `work` until `stack` is closed. After an error that `passes`, it begins anew. Any other error is logged and
    stops the node with SIGTERM; closing `stack` then raises TaskFailed."""
    task = asyncio.ensure_future(again(work, name, passes))

    def done(finished: asyncio.Future[None]) -> None:
        error = _error(finished)
        if error is not None and not isinstance(error, TaskFailed):  # the task inside has done both already
            log.critical("%s failed: %s", name, error, exc_info=error)
            os.kill(os.getpid(), signal.SIGTERM)

    async def cancel() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if (error := _error(task)) is not None:
            raise TaskFailed(f"{name} failed: {error}; the log says where") from error

    task.add_done_callback(done)
    stack.push_async_callback(cancel)


def _error(finished: asyncio.Future[None]) -> BaseException | None:
    return None if finished.cancelled() else finished.exception()


async def again(work: Work, name: str, passes: Callable[[BaseException], bool] = is_shortage) -> None:
    """Do `work` until it returns. After an error that `passes`, do it anew a moment later, unless the error comes from
    the end of a cancelled task; raise any other one."""
    pause = FIRST
    while True:
        began = time.monotonic()
        try:
            return await work()
        except Exception as error:
            if not passes(error):
                raise
            if time.monotonic() - began > LAST:
                pause = FIRST
            # An OSError may also come from a bug, which only its traceback shows.
            where = None if is_shortage(error) else error
            if (task := asyncio.current_task()) is not None and task.cancelling():
                log.error("%s: %s; it has ended", name, error, exc_info=where)
                return
            log.error("%s: %s; it begins anew in %.0f s", name, error, pause, exc_info=where)
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST)

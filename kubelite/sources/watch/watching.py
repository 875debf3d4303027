"""Follows the changes of the manifests directory: by inotify, or by polling where inotify has reached its limits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable

from kubelite.sources.files import identity_of, readable_name
from kubelite.sources.watch.tree_watch import TreeWatch

log = logging.getLogger(__name__)


async def follow(directory: str, changed: Callable[[], None], unlinked: Callable[[str], None]) -> None:
    """Call `changed` at file system events, and `unlinked` with each file that is unlinked, until cancelled.

    `TreeWatch` reports changes of local files and costs nothing while there are none. watchfiles wakes a thread
    periodically. It is loaded only if inotify has reached its limits, or with WATCHFILES_FORCE_POLLING, for file
    systems that other machines write to. The directory itself is checked for replacement every second."""
    while True:
        before = identity_of(directory)
        if before is None:
            await asyncio.sleep(1.0)
            changed()
            continue
        quick = _quick_watch(directory, changed, unlinked)
        changed()  # find changes that were made before the watch existed
        try:
            if quick is not None and not os.environ.get("WATCHFILES_FORCE_POLLING"):
                while not quick.gone.is_set() and identity_of(directory) == before:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(1.0):
                            await quick.gone.wait()
            else:
                await _watch_slowly(directory, before, quick, changed)
        except (OSError, RuntimeError) as error:
            log.warning("watching %s failed, checking once a second: %s", directory, error)
            await asyncio.sleep(1.0)
        finally:
            if quick is not None:
                quick.close()
        changed()


async def _watch_slowly(
    directory: str, before: tuple[int, int], quick: TreeWatch | None, changed: Callable[[], None]
) -> None:
    """Watch by watchfiles until the directory is replaced."""
    from watchfiles import awatch

    events = awatch(
        directory,
        step=500,
        debounce=1000,
        rust_timeout=1000,
        yield_on_timeout=True,
        watch_filter=None,
    )
    async for changes in events:
        if changes:
            changed()
        if identity_of(directory) != before or (quick is not None and quick.gone.is_set()):
            break


def _quick_watch(
    directory: str, changed: Callable[[], None], unlinked: Callable[[str], None]
) -> TreeWatch | None:
    """Return a watch, or None if the directory is missing or inotify's limits are reached."""
    try:
        return TreeWatch(directory, readable_name, changed, unlinked)
    except OSError as error:
        if error.errno != errno.ENOENT:
            log.warning("cannot watch %s by inotify, using slower polling: %s", directory, error)
        return None

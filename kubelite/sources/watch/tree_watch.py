"""Watches a directory and everything below it.

Only relevant changes wake the caller: changes of files with wanted names, of directories, and of the symbolic link
`..data`, by which ConfigMap volumes replace files. An event that does not say what changed (a queue overflow, a
directory that moved) counts as a change, because the caller then reads everything anyway.

A file may be a link that leads out of the directory, as with a directory of links into a ConfigMap volume. Then the
directories that hold the links on its way, and the file at its end, are watched, too, for such changes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from kubelite.kube import inotify
from kubelite.kube.inotify import Event, Inotify

_MOST_LINKS = 40  # as for the kernel (path_resolution(7))
_SELF = inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_UNMOUNT
_MASK = (
    inotify.IN_MODIFY
    | inotify.IN_ATTRIB
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_MOVED
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_ONLYDIR
)


class TreeWatch:
    """Watches from construction until `close()`.

    `on_change()` is called after changes to directories and to files whose names `wanted` accepts. Before that,
    `on_unlink(path)` is called for each such file that was unlinked; a rename to another name, as editors do it, is not
    an unlink. `gone` is set when the top directory is removed, moved or unmounted, or events are lost. The caller then
    creates a new watch.

    Raises OSError if a directory cannot be watched (ENOENT; ENOSPC, EMFILE: the user's limits in
    /proc/sys/fs/inotify).
    """

    def __init__(
        self,
        top: str,
        wanted: Callable[[str], bool],
        on_change: Callable[[], None],
        on_unlink: Callable[[str], None] = lambda _path: None,
    ) -> None:
        self.gone = asyncio.Event()
        self._wanted = wanted
        self._on_change = on_change
        self._on_unlink = on_unlink
        self._paths: dict[int, str] = {}  # watch descriptor → directory
        self._outside: set[int] = set()  # watch descriptors of directories that links lead to
        self._links: set[str] = set()
        self._inotify = Inotify(self._read)
        try:
            self._top = self._add(top, _SELF)
            self._add_below(top)
        except BaseException:
            self._inotify.close()
            raise

    def close(self) -> None:
        self._inotify.close()

    def _add(self, path: str, more: int = 0) -> int:
        found = self._inotify.add(path, _MASK | more)
        self._paths[found] = path
        self._outside.discard(found)
        return found

    def _add_below(self, directory: str) -> None:
        """Watch the sub-directories, except hidden ones.

        A sub-directory that disappears meanwhile, or that may not be read, is ignored. Any other failure to watch one
        is an error, because changes in it would be missed.
        """
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError),
            os.scandir(directory) as found,
        ):
            for entry in found:
                if entry.is_symlink() and self._wanted(entry.name):
                    self._follow(entry.path)
                if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                    continue
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                    self._add(entry.path)
                    self._add_below(entry.path)

    def _follow(self, link: str) -> None:
        """Watch the directories that a link leads through."""
        self._links.add(link)
        for directory in link_directories(link):
            with contextlib.suppress(OSError):  # it may be missing, or must not be read
                found = self._inotify.add(directory, _MASK | inotify.IN_MASK_ADD)
                if found not in self._paths:
                    self._paths[found] = directory
                    self._outside.add(found)

    def _read(self, events: Iterator[Event]) -> None:
        changed = False
        for event in events:
            changed = self._changed(*event) or changed
        if changed:
            self._on_change()

    def _changed(self, wd: int, mask: int, name: str) -> bool:
        if mask & inotify.IN_Q_OVERFLOW or (wd == self._top and mask & (_SELF | inotify.IN_IGNORED)):
            self.gone.set()  # also after an overflow: new directories may have been missed
            return True
        if mask & inotify.IN_IGNORED:
            self._paths.pop(wd, None)
            self._outside.discard(wd)
            return True
        if wd in self._outside:
            moved = name.startswith("..") and mask & (inotify.IN_MOVED | inotify.IN_CREATE)
            if changed := bool(moved) or self._wanted(name):
                for link in list(self._links):
                    self._follow(link)  # it may lead to another directory now
            return changed
        if not mask & inotify.IN_ISDIR:
            if mask & inotify.IN_DELETE and self._wanted(name) and (parent := self._paths.get(wd)):
                self._on_unlink(f"{parent}/{name}")
            if self._wanted(name) and (parent := self._paths.get(wd)) and os.path.islink(f"{parent}/{name}"):
                self._follow(f"{parent}/{name}")
            # A ConfigMap volume replaces all its files by renaming the link `..data`.
            return self._wanted(name) or (name.startswith("..") and bool(mask & inotify.IN_MOVED))
        if name.startswith("."):
            return False
        if mask & (inotify.IN_CREATE | inotify.IN_MOVED) and (parent := self._paths.get(wd)):
            path = f"{parent}/{name}"
            try:
                self._add(path)
                self._add_below(path)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
                    self.gone.set()  # the caller creates a new watch, which reports the error
        return True


def link_directories(link: str) -> list[str]:
    """Return the directories in which a replaced entry changes what a link leads to: that of each link on its way, and
    that of the file at its end."""
    here = os.path.realpath(os.path.dirname(link))
    pending, found = [os.path.basename(link)], list[str]()
    while pending and len(found) < _MOST_LINKS:
        name = pending.pop(0)
        if name in ("", "."):
            continue
        path = os.path.dirname(here) if name == ".." else os.path.join(here, name)
        try:
            target = os.readlink(path)
        except OSError:
            here = path
            continue
        found.append(here)
        if target.startswith("/"):
            here = "/"
        pending = [*target.split("/"), *pending]
    if not pending:  # otherwise the links lead in a circle
        found.append(os.path.dirname(here))
    return list(dict.fromkeys(found))

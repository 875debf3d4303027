"""Remove a directory tree whose content may be hostile.

A container can nest directories as deeply as its disk has inodes. A removal that recurses, or that keeps a descriptor
or path per level (shutil.rmtree, os.walk), fails on such a tree, and the pod could never be removed. Here links are not
followed, every path has a single component, and the depth does not matter: directories deeper than DEPTH are first
moved to the top. The content of other file systems is kept, because an unexpected mount must not be emptied.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable

DEPTH = 64  # levels to descend, with a descriptor each
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove `path`, a directory or file. Do nothing if it is missing. Removes as much as possible, then raises the
    first OSError."""
    try:
        top = os.open(path, _FLAGS)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(path)
        return
    errors: list[OSError] = []
    try:
        _Emptying(top, errors.append).run()
    finally:
        os.close(top)
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise (errors[0] if errors else error) from error


class _Emptying:
    """Empties a directory."""

    def __init__(self, top: int, failed: Callable[[OSError], None]) -> None:
        self._top = top
        self._device = os.fstat(top).st_dev
        self._failed = failed
        self._moved = True

    def run(self) -> None:
        # directories that were moved to the top are removed by the next pass at the latest
        while self._moved:
            self._moved = False
            self._empty(self._top, 0)

    def _empty(self, directory: int, depth: int) -> None:
        try:
            with os.scandir(directory) as entries:
                found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            self._failed(error)
            return
        for name, is_directory in found:
            try:
                if not is_directory:
                    os.unlink(name, dir_fd=directory)
                elif depth < DEPTH:
                    self._remove_directory(directory, name, depth)
                else:
                    os.rename(name, secrets.token_hex(8), src_dir_fd=directory, dst_dir_fd=self._top)
                    self._moved = True
            except FileNotFoundError:
                continue
            except OSError as error:
                self._failed(error)

    def _remove_directory(self, parent: int, name: str, depth: int) -> None:
        directory = os.open(name, _FLAGS, dir_fd=parent)
        try:
            if os.fstat(directory).st_dev != self._device:
                raise OSError(errno.EXDEV, "another file system is mounted there", name)
            self._empty(directory, depth + 1)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=parent)

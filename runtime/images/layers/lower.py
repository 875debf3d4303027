"""Look at the layers below the one that is being unpacked, as overlayfs would show them merged.

A tar layer may rely on its parent layers in three cases: a directory that it uses but does not list (the parent's owner
and mode must stay), a hard link to a file of an earlier layer, and a path through a symbolic link of an earlier layer.
Every component is looked up with lstat, so nothing here leaves the layer directories.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.errors import ImageError

OPAQUE = b"trusted.overlay.opaque"
_MAX_LINKS = 40  # as the kernel's MAXSYMLINKS


@dataclass(frozen=True, slots=True)
class Found:
    """An object of the merged view. `path` is its name in the view, after following the links of its parents."""

    path: bytes
    real: bytes  # absolute, inside one layer directory
    stat: os.stat_result


class LowerView:
    """The merged view of unpacked layers, topmost first."""

    def __init__(self, layers: Sequence[str]) -> None:
        self._layers = [os.fsencode(layer) for layer in layers]

    def find(self, path: bytes) -> Found | None:
        """The object at `path` (relative, b"" is the root), or None if it is hidden or absent. Links among its parents
        are followed inside the view; a final symbolic link is not. Raises ImageError for too many links."""
        for _ in range(_MAX_LINKS):
            found, redirected = self._step(path)
            if redirected is None:
                return found
            path = redirected
        raise ImageError(f'too many symbolic links in "{path.decode("utf-8", "backslashreplace")}"')

    def _step(self, path: bytes) -> tuple[Found | None, bytes | None]:
        """One step: the object at `path`, or, if a parent is a symbolic link, the path to continue with."""
        components = path.split(b"/") if path else []
        for layer in self._layers:
            real = layer
            hidden_below = False
            for index, component in enumerate(components):
                hidden_below = hidden_below or is_opaque(real)
                real = real + b"/" + component
                st = _lstat(real)
                if st is None:
                    break
                last = index == len(components) - 1
                if is_whiteout(st):
                    return None, None
                if not last and stat.S_ISLNK(st.st_mode):
                    rest = components[index + 1 :]
                    return None, _redirect(components[:index], os.readlink(real), rest)
                if not last and not stat.S_ISDIR(st.st_mode):
                    return None, None
                if last:
                    return Found(path, real, st), None
            else:
                return Found(path, real, os.lstat(real)), None
            if hidden_below:
                return None, None
        return None, None

    def resolve(self, path: bytes) -> Found | None:
        """Like `find`, but follow a final symbolic link too."""
        for _ in range(_MAX_LINKS):
            found = self.find(path)
            if found is None or not stat.S_ISLNK(found.stat.st_mode):
                return found
            path = _redirect(found.path.split(b"/")[:-1], os.readlink(found.real), [])
        raise ImageError(f'too many symbolic links in "{path.decode("utf-8", "backslashreplace")}"')


def final_path(view: LowerView, path: bytes) -> bytes:
    """The path at which following symbolic links ends, whether or not it exists: the file that an open for writing
    would create. Raises ImageError for too many links."""
    for _ in range(_MAX_LINKS):
        found = view.find(path)
        if found is None or not stat.S_ISLNK(found.stat.st_mode):
            return path
        path = _redirect(found.path.split(b"/")[:-1], os.readlink(found.real), [])
    raise ImageError(f'too many symbolic links in "{path.decode("utf-8", "backslashreplace")}"')


def is_whiteout(st: os.stat_result) -> bool:
    """Whether this is overlayfs's mark for a deleted name: a 0:0 character device (kernel docs,
    filesystems/overlayfs.rst)."""
    return stat.S_ISCHR(st.st_mode) and st.st_rdev == 0


def is_opaque(directory: bytes | int) -> bool:
    """Whether the directory, a path or a descriptor, hides its lower layers' content (overlayfs.rst, "whiteouts and
    opaque directories")."""
    try:
        return os.getxattr(directory, OPAQUE, follow_symlinks=isinstance(directory, int)) == b"y"
    except OSError as error:
        if error.errno in {errno.ENODATA, errno.ENOTSUP, errno.EPERM}:
            return False
        raise


def copy_metadata(source: bytes, st: os.stat_result, target_fd: int) -> None:
    """Copy owner, mode, extended attributes (except overlayfs's own) and times to an open file or directory. Raises
    OSError."""
    os.fchown(target_fd, st.st_uid, st.st_gid)
    os.fchmod(target_fd, stat.S_IMODE(st.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        if not name.startswith("trusted.overlay."):
            os.setxattr(target_fd, name, os.getxattr(source, name, follow_symlinks=False))
    os.utime(target_fd, ns=(st.st_atime_ns, st.st_mtime_ns))


def _lstat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _redirect(parents: list[bytes], link: bytes, rest: list[bytes]) -> bytes:
    """Resolve a link inside the view: an absolute link starts at its root, and `..` never leads above the root."""
    stack = [] if link.startswith(b"/") else list(parents)
    for component in [*link.split(b"/"), *rest]:
        if component in {b"", b"."}:
            continue
        if component == b"..":
            del stack[-1:]
        else:
            stack.append(component)
    return b"/".join(stack)

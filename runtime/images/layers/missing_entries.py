"""Add what a layer takes over from lower layers: parents that it does not list, and hard links to files of lower
layers.

Layers are unpacked in parallel. This step runs when the lower layers are in place (image-spec layer.md: a parent that a
layer does not list has the metadata it has in the layers below).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from runtime.images.layers import tarstream
from runtime.images.layers.confined import naming_entry, refuse, text
from runtime.images.layers.layertree import Directory, LayerTree
from runtime.images.layers.lower import LowerView, copy_metadata
from runtime.images.layers.tarstream import Entry


def add_missing_entries(tree: LayerTree, lower: Sequence[str]) -> None:
    """Complete one layer. `lower` holds the unpacked directories below it, topmost first. Raises ImageError,
    OSError."""
    MissingEntries(tree, LowerView(lower)).run()


class MissingEntries:
    """Completes one layer on top of the lower layers."""

    def __init__(self, tree: LayerTree, view: LowerView) -> None:
        self._tree = tree
        self._view = view

    def run(self) -> None:
        done: set[bytes] = set()
        while todo := [path for path in self._tree.implicit if path not in done]:
            for path in todo:  # handling one may create or move others
                done.add(path)
                self._adopt_parent(path)
        for path, target in list(self._tree.links.items()):
            self._link_below(path, target)

    def _hidden_here(self, path: bytes) -> bool:
        """Whether this layer itself hides the lower layers' object at `path`."""
        parts = path.split(b"/")
        return any(b"/".join(parts[:n]) in self._tree.opaque for n in range(len(parts)))

    def _adopt_parent(self, path: bytes) -> None:
        if path not in self._tree.implicit:  # moved with a parent that is a link in a lower layer
            return
        hidden = path in self._tree.opaque or self._hidden_here(path)
        found = None if hidden else self._view.find(path)
        if found is not None and stat.S_ISLNK(found.stat.st_mode):
            target = self._view.resolve(path)
            if target is not None and stat.S_ISDIR(target.stat.st_mode):
                self._relocate(path, target.path)
                return
        if found is None or not stat.S_ISDIR(found.stat.st_mode):
            self._tree.directories[path] = Directory(0o755, 0, 0, 0)
            return
        fd = self._tree.inside.open_for_change(path)
        try:
            copy_metadata(found.real, found.stat, fd)
            os.chmod(fd, 0o700)  # children are still created; `finish_directory` sets the mode
        finally:
            os.close(fd)
        st = found.stat
        self._tree.directories[path] = Directory(
            stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns
        )

    def _relocate(self, path: bytes, target: bytes) -> None:
        """Move what was unpacked in `path` to `target`. If lower layers have `lib → usr/lib`, then `lib/x` belongs in
        usr/lib/x."""
        self._tree.inside.forget()
        entry = Entry(name=path, type=tarstream.DIRECTORY)
        directory, _ = self._tree.parent(entry, target)
        source = self._tree.inside.open_for_change(path)
        try:
            self._merge(entry, source, directory)
        finally:
            os.close(source)
        parent, name = self._tree.existing(entry, path)
        os.rmdir(name, dir_fd=parent)
        self._tree.inside.forget()
        self._move_records(path, target)

    def _merge(self, entry: Entry, source: int, target: int) -> None:
        for name in map(os.fsencode, os.listdir(source)):
            try:
                st = os.stat(name, dir_fd=target, follow_symlinks=False)
            except FileNotFoundError:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
                continue
            if not stat.S_ISDIR(st.st_mode):
                raise refuse(entry, f'a link in a lower layer maps two entries to the name "{text(name)}"')
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner_source = os.open(name, flags, dir_fd=source)
            inner_target = os.open(name, flags, dir_fd=target)
            try:
                self._merge(entry, inner_source, inner_target)
            finally:
                os.close(inner_source)
                os.close(inner_target)
            os.rmdir(name, dir_fd=source)

    def _move_records(self, path: bytes, target: bytes) -> None:
        below = path + b"/"

        def moved(key: bytes) -> bytes:
            return target + b"/" + key[len(below) :] if key.startswith(below) else key

        self._tree.implicit.pop(path, None)
        self._tree.directories = {moved(key): value for key, value in self._tree.directories.items()}
        self._tree.implicit = {moved(key): None for key in self._tree.implicit}
        self._tree.links = {moved(key): value for key, value in self._tree.links.items()}
        self._tree.opaque = {moved(key) for key in self._tree.opaque}

    def _link_below(self, path: bytes, target: bytes) -> None:
        """Create a hard link to a file of a lower layer: copy the file up into this layer, as overlayfs would, and link
        to the copy."""
        entry = Entry(name=path, type=tarstream.HARD_LINK, link=target)
        with naming_entry(entry):
            try:
                source_parent, source = self._tree.existing(entry, target)
            except FileNotFoundError:
                found = None if self._hidden_here(target) else self._view.find(target)
                if found is None or stat.S_ISDIR(found.stat.st_mode):
                    raise refuse(
                        entry, f'it is a hard link to "{text(target)}", which no layer has'
                    ) from None
                source_parent, source = self._copy_up(entry, found.real, found.stat, found.path)
            parent, _ = self._tree.parent(entry, path.rpartition(b"/")[0])
            name = path.rpartition(b"/")[2]
            os.link(source, name, src_dir_fd=source_parent, dst_dir_fd=parent, follow_symlinks=False)

    def _copy_up(self, entry: Entry, real: bytes, st: os.stat_result, path: bytes) -> tuple[int, bytes]:
        directory, _, name = path.rpartition(b"/")
        before = set(self._tree.implicit)
        parent, _ = self._tree.parent(entry, directory)
        for made in [key for key in self._tree.implicit if key not in before]:
            self._adopt_parent(made)
        if stat.S_ISLNK(st.st_mode):
            os.symlink(os.readlink(real), name, dir_fd=parent)
            os.chown(name, st.st_uid, st.st_gid, dir_fd=parent, follow_symlinks=False)
            os.utime(name, ns=(st.st_atime_ns, st.st_mtime_ns), dir_fd=parent, follow_symlinks=False)
            return parent, name
        if not stat.S_ISREG(st.st_mode):
            raise refuse(entry, f'it is a hard link to "{text(path)}", which is neither a file nor a link')
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            with open(real, "rb", buffering=0) as source:
                while os.sendfile(fd, source.fileno(), None, 1 << 30):
                    pass
            copy_metadata(real, st, fd)
        finally:
            os.close(fd)
        return parent, name

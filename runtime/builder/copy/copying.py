"""Write the files of COPY and ADD into a snapshot, with docker's rules.

Everything is written below one descriptor, the snapshot's root, and links cannot lead outside. Of a source directory,
the content is copied, not the directory itself. A target that ends in a slash, or that has several sources, is a
directory.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runtime.builder.copy.context import Found, Tree, attributes_of, walk
from runtime.builder.language.ignore import Ignore
from runtime.builder.overlay import lookup, open_beneath

_SEND = 1 << 30
_MAX_LINKS = 40
_SET_ID = stat.S_ISUID | stat.S_ISGID


class CopyError(ValueError):
    """A failed copy, as a sentence."""


@dataclass(frozen=True, slots=True)
class Owner:
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How to copy. `owner` None: files of a context belong to root, files of a stage keep their owners. `mode`: --chmod
    as a function of a file's mode; None leaves modes unchanged."""

    owner: Owner | None = None
    mode: Callable[[int], int] | None = None
    excluded: Ignore = field(default_factory=Ignore)
    check: Callable[[], None] = lambda: None
    # For a copy to a directory of the host: called with the kind of each thing that is left out, because it would give
    # users of the host privileges or access to a device. None: nothing is left out.
    omitted: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A here-document: a file given by its content."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """One object to copy. `below`: the directories to create it in (--parents)."""

    tree: Tree
    found: Found
    below: str = ""
    whole: bool = False  # copy a directory's own owner and mode too: for an archive that lists its root


def is_directory(root: int, target: str, count: int) -> bool:
    """Whether files are copied into the target rather than to its name."""
    if target.endswith("/") or count > 1 or posixpath.basename(target) in (".", ".."):
        return True
    st = lookup(root, target)
    return st is not None and stat.S_ISDIR(st.st_mode)


def put(root: int, pieces: Sequence[Piece | Text], target: str, options: CopyOptions) -> None:
    """Copy all pieces to `target`, an absolute path. Raises CopyError, OSError."""
    into = is_directory(root, target, len(pieces))
    for piece in pieces:
        options.check()
        if isinstance(piece, Text):
            _put_text(root, piece, posixpath.join(target, piece.name) if into else target, options)
            continue
        base = posixpath.join(target, piece.below) if piece.below else target
        if stat.S_ISDIR(piece.found.stat.st_mode):
            _put_directory(root, piece, base, options)
        else:
            place = posixpath.join(base, piece.found.name) if into or piece.below else base
            _put_file(root, piece, place, options)


def make_directories(root: int, path: str, owner: Owner | None = None, mode: int = 0o755) -> int:
    """Open the directory `path`, and create it and its parents if they are missing. The target of a dangling link is
    created inside the root. Raises CopyError, OSError."""
    done, todo, links = "", _parts(path), 0
    while todo:
        part = todo.pop(0)
        here = posixpath.join(done, part)
        parent = open_beneath(root, done, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if part == ".." or lookup(root, here) is not None:
                done = here
                continue
            try:
                os.mkdir(part, mode, dir_fd=parent)
            except FileExistsError:
                links += 1
                if links > _MAX_LINKS:
                    raise CopyError(f"{path} leads through too many symbolic links") from None
                link = os.readlink(part, dir_fd=parent)
                todo = _parts(link) + todo
                done = "" if link.startswith("/") else done
                continue
            os.chmod(part, mode, dir_fd=parent)
            if owner is not None:
                os.chown(part, owner.uid, owner.gid, dir_fd=parent, follow_symlinks=False)
            done = here
        finally:
            os.close(parent)
    try:
        return open_beneath(root, done, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise CopyError(f"{path} is not a directory") from error
        raise


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _put_text(root: int, text: Text, place: str, options: CopyOptions) -> None:
    parent, name = _parent(root, place, options)
    try:
        _clear(parent, name, place)
        fd = _create(parent, name)
        try:
            _write_all(fd, text.content)
            owner = options.owner or Owner(0, 0)
            os.fchown(fd, owner.uid, owner.gid)
            os.fchmod(fd, options.mode(0o644) if options.mode else 0o644)
        finally:
            os.close(fd)
    finally:
        os.close(parent)


def _parent(root: int, place: str, options: CopyOptions) -> tuple[int, str]:
    directory, name = posixpath.split(place.rstrip("/"))
    if not name:
        raise CopyError(f"{place} is not a file name")
    return make_directories(root, directory, options.owner), name


def _put_file(root: int, piece: Piece, place: str, options: CopyOptions) -> None:
    parent, name = _parent(root, place, options)
    try:
        _clear(parent, name, place)
        source = open_beneath(piece.tree.root, piece.found.path, os.O_PATH)
        try:
            _copy(source, piece.tree, parent, name, options)
        finally:
            os.close(source)
    finally:
        os.close(parent)


def _put_directory(root: int, piece: Piece, target: str, options: CopyOptions) -> None:
    """Copy a directory's content. The target directory itself belongs to root or the owner of --chown, as in docker."""
    known = lookup(root, target)
    if known is not None and not stat.S_ISDIR(known.st_mode):
        raise CopyError(f"cannot copy a directory to {target}, which is a file")
    top = make_directories(root, target, options.owner)
    try:
        if piece.whole:
            _directory_metadata(piece.tree, piece.found.stat, top, options)
        _Merge(piece, top, options).run()
    finally:
        os.close(top)


class _Merge:
    """Merges a directory's content into another. Sets the times of directories last, because creating files would
    change them."""

    def __init__(self, piece: Piece, top: int, options: CopyOptions) -> None:
        self._piece, self._top, self._options = piece, top, options
        self._links: dict[tuple[int, int], str] = {}
        self._times: list[tuple[str, int]] = []

    def run(self) -> None:
        for item in walk(self._piece.tree, self._piece.found.path, self._options.excluded):
            self._options.check()
            parent = self._open(posixpath.dirname(item.path))
            try:
                if stat.S_ISDIR(item.stat.st_mode):
                    self._directory(parent, item.name, item.path, item.stat)
                elif not stat.S_ISSOCK(item.stat.st_mode):
                    self._other(parent, item.parent, item.name, item.path, item.stat)
            finally:
                os.close(parent)
        for path, mtime in reversed(self._times):
            fd = self._open(path)
            try:
                os.utime(fd, ns=(mtime, mtime))
            finally:
                os.close(fd)

    def _open(self, path: str) -> int:
        """Open a directory of the target. A link in its path is followed inside the root."""
        return open_beneath(self._top, path, os.O_RDONLY | os.O_DIRECTORY)

    def _directory(self, parent: int, name: str, path: str, st: os.stat_result) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise CopyError(f"cannot copy the directory {path} over a file") from None
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            _directory_metadata(self._piece.tree, st, fd, self._options)
        finally:
            os.close(fd)
        self._times.append((path, st.st_mtime_ns))

    def _other(self, parent: int, source: int, name: str, path: str, st: os.stat_result) -> None:
        _clear(parent, name, path)
        if self._options.omitted is not None and (stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode)):
            self._options.omitted("devices")
            return
        if st.st_nlink > 1:
            first = self._links.setdefault((st.st_dev, st.st_ino), path)
            if first != path:
                directory = self._open(posixpath.dirname(first))
                try:
                    os.link(posixpath.basename(first), name, src_dir_fd=directory, dst_dir_fd=parent)
                finally:
                    os.close(directory)
                return
        from runtime.syscalls import openat2

        opened = openat2(source, name, os.O_PATH | os.O_NOFOLLOW)
        try:
            _copy(opened, self._piece.tree, parent, name, self._options)
        finally:
            os.close(opened)


def _clear(parent: int, name: str, shown: str) -> None:
    try:
        st = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(st.st_mode):
        raise CopyError(f"cannot copy a file over {shown}, which is a directory")
    os.unlink(name, dir_fd=parent)


def _create(parent: int, name: str) -> int:
    return os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
    )


def _owner(tree: Tree, st: os.stat_result, options: CopyOptions) -> Owner:
    if options.owner is not None:
        return options.owner
    return Owner(st.st_uid, st.st_gid) if tree.owned else Owner(0, 0)


def _mode(st: os.stat_result, options: CopyOptions) -> int:
    mode = stat.S_IMODE(st.st_mode)
    return options.mode(mode) if options.mode is not None else mode


def _file_mode(st: os.stat_result, options: CopyOptions) -> int:
    mode = _mode(st, options)
    if options.omitted is None or not mode & _SET_ID:
        return mode
    options.omitted("set-user-ID and set-group-ID bits")
    return mode & ~_SET_ID


def _directory_metadata(tree: Tree, st: os.stat_result, fd: int, options: CopyOptions) -> None:
    owner = _owner(tree, st, options)
    os.fchown(fd, owner.uid, owner.gid)
    os.fchmod(fd, _mode(st, options))
    os.utime(fd, ns=(st.st_mtime_ns, st.st_mtime_ns))


def _copy(source: int, tree: Tree, parent: int, name: str, options: CopyOptions) -> None:
    """Copy one file, link, device or fifo, given by its O_PATH descriptor."""
    st = os.fstat(source)
    owner = _owner(tree, st, options)
    times = (st.st_mtime_ns, st.st_mtime_ns)
    if stat.S_ISREG(st.st_mode):
        reading = os.open(f"/proc/self/fd/{source}", os.O_RDONLY | os.O_CLOEXEC)
        fd = _create(parent, name)
        try:
            while os.sendfile(fd, reading, None, _SEND):
                options.check()
            os.fchown(fd, owner.uid, owner.gid)  # before the mode, because it clears setuid
            os.fchmod(fd, _file_mode(st, options))
            if tree.owned:
                for key, value in attributes_of(reading).items():
                    if key == "security.capability" and options.omitted is not None:
                        options.omitted("file capabilities")
                    else:
                        os.setxattr(fd, key, value)
            os.utime(fd, ns=times)
        finally:
            os.close(fd)
            os.close(reading)
        return
    if stat.S_ISLNK(st.st_mode):
        os.symlink(os.readlink("", dir_fd=source), name, dir_fd=parent)
    else:
        os.mknod(name, stat.S_IFMT(st.st_mode) | 0o600, st.st_rdev, dir_fd=parent)
        os.chmod(name, _file_mode(st, options), dir_fd=parent)
    os.chown(name, owner.uid, owner.gid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def parse_mode(text: str) -> Callable[[int], int]:
    """Parse --chmod: octal, or symbolic as in chmod(1) (u=rwX,go=rX). Raises CopyError."""
    import re

    if re.fullmatch(r"[0-7]{1,5}", text):
        fixed = int(text, 8)
        return lambda _mode: fixed
    clauses = []
    for clause in text.split(","):
        match = re.fullmatch(r"([ugoa]*)([-+=])([rwxXst]*)", clause)
        if match is None:
            raise CopyError(f'--chmod: "{text}" is not a mode')
        clauses.append((match[1] or "a", match[2], match[3]))

    def apply(mode: int) -> int:
        for who, operator, letters in clauses:
            mode = _clause(mode, who, operator, letters)
        return mode

    return apply


def _clause(mode: int, who: str, operator: str, letters: str) -> int:
    shifts = [shift for letter, shift in (("u", 6), ("g", 3), ("o", 0)) if letter in who or "a" in who]
    bits = mask = 0
    for shift in shifts:
        mask |= 0o7 << shift
        for letter, bit in (("r", 4), ("w", 2), ("x", 1)):
            if letter in letters or (letter == "x" and "X" in letters and mode & 0o111):
                bits |= bit << shift
    if "s" in letters:
        bits |= (0o4000 if 6 in shifts else 0) | (0o2000 if 3 in shifts else 0)
    if "t" in letters:
        bits |= 0o1000
    if operator == "+":
        return mode | bits
    if operator == "-":
        return mode & ~bits
    return (mode & ~mask) | bits

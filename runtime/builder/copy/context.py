"""The trees that COPY reads: the build context, a stage or an image. Resolves sources and computes content digests.

Every file is opened from the tree's root by openat2(RESOLVE_IN_ROOT), so a link in a context cannot lead outside.
"""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from runtime import syscalls
from runtime.builder.known import TRUSTED, Contents
from runtime.builder.language import ignore
from runtime.builder.language.ignore import Ignore
from runtime.builder.overlay import lookup, open_beneath

IGNORE_FILES = (".containerignore", ".dockerignore")
_CHUNK = 1 << 16  # most files are small, and a read allocates its whole buffer
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class UsedFiles:
    """The context files that a build has used, by path, each with its status from before it was read. `whole` is false
    if these records do not cover everything: on a file system without reliable times (`known.py`), or if a link led
    from one place of the context to another."""

    def __init__(self, top: str, root: int) -> None:
        self.top = os.path.abspath(top)
        self.device = os.fstat(root).st_dev
        self.files: dict[str, os.stat_result] = {}
        self.whole = syscalls.fstatfs_type(root) in TRUSTED

    def note(self, path: str, st: os.stat_result) -> None:
        named = os.path.join(self.top, path or ".")
        try:
            same = self.whole and st.st_dev == self.device and os.path.samestat(os.lstat(named), st)
        except OSError:
            same = False
        self.whole = same
        self.files.setdefault(named, st)

    def changed(self, path: str) -> str:
        """The first file at or below `path` that has changed since it was recorded (relative to the context); "" if
        none has. Targets of links are not compared."""
        named = os.path.normpath(os.path.join(self.top, path or "."))
        for file, before in list(self.files.items()):
            file_path = os.path.normpath(file)
            if file_path != named and not file_path.startswith(f"{named}/"):
                continue
            try:
                now = os.lstat(file)
            except OSError:
                now = None
            linked = now is not None and stat.S_ISLNK(now.st_mode) and not stat.S_ISLNK(before.st_mode)
            if now is None or (not linked and _state(now) != _state(before)):
                return os.path.relpath(file, self.top)
        return ""


def _state(st: os.stat_result) -> tuple[int, ...]:
    return (st.st_dev, st.st_ino, st.st_mode, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree below a root descriptor. `owned`: owners and attributes of its files count; those of a context's files do
    not. `known`: digests from earlier builds. `used_files`: records the files that are used."""

    root: int
    ignored: Ignore = field(default_factory=Ignore)
    owned: bool = False
    shown: str = "the build context"
    known: Contents | None = None
    used_files: UsedFiles | None = None

    def note(self, path: str, st: os.stat_result) -> None:
        if self.used_files is not None:
            self.used_files.note(path, st)


@dataclass(frozen=True, slots=True)
class Found:
    """A file or directory that a source matches: `path` in the tree with links followed, and its `name`."""

    path: str
    name: str
    stat: os.stat_result


@dataclass(frozen=True, slots=True)
class Item:
    """An object below a directory: `path` relative to it, and the open `parent` directory that contains it."""

    path: str
    stat: os.stat_result
    parent: int
    name: str


def read_given(context: str, path: str) -> str:
    """Return the text of a file that the user or the Containerfile names. A file in the context is opened beneath the
    context directory, so that the context's author cannot make the builder read another file through a link. Raises
    SyscallError (EXDEV) for such a link, OSError."""
    beneath = os.path.relpath(os.path.abspath(path), os.path.abspath(context))
    if beneath.startswith("../"):
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    root = os.open(context, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = syscalls.openat2(root, beneath, os.O_RDONLY, resolve=syscalls.RESOLVE_BENEATH)
    finally:
        os.close(root)
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def read_ignore(
    context: int, directory: str, containerfile: str, used_files: UsedFiles | None = None
) -> Ignore:
    """Read `<Containerfile>.dockerignore`, else the ignore file of the context (`directory`, open as `context`), and
    record it in `used_files`. Raises PatternError, OSError."""
    beside = f"{containerfile}.dockerignore" if containerfile else ""
    if beside and os.path.isfile(beside):
        return ignore.read(read_given(directory, beside))
    for name in IGNORE_FILES:
        found = lookup(context, name)
        if found is not None and stat.S_ISREG(found.st_mode):
            if used_files is not None:
                used_files.note(name, found)
            with open(open_beneath(context, name, os.O_RDONLY), "rb") as raw:
                return ignore.read(os.fsdecode(raw.read()))
    return Ignore()


def find(tree: Tree, source: str, *, deep: bool = False) -> list[Found]:
    """The files that a source word matches, in order. A pattern (Go's filepath.Match) may match several. `deep`: `**`
    matches any number of directories, as with --parents; otherwise it is a `*`."""
    clean = posixpath.normpath("/" + source).lstrip("/")
    if not ignore.has_glob(clean):
        found = _one(tree, clean)
        return [found] if found is not None else []
    paths = [""]
    for part in clean.split("/"):
        one = _directories if deep and part == "**" else _matching
        paths = [path for parent in paths for path in one(tree, parent, part)]
    paths = list(dict.fromkeys(paths))
    return [found for path in paths if (found := _one(tree, path)) is not None]


def _one(tree: Tree, path: str) -> Found | None:
    if path and tree.ignored.matches(path):
        st = lookup(tree.root, path)
        if st is None or not stat.S_ISDIR(st.st_mode) or not tree.ignored.exceptions:
            return None
    st = lookup(tree.root, path)
    return None if st is None else Found(path, posixpath.basename(path), st)


def _directories(tree: Tree, parent: str, _part: str) -> list[str]:
    """`parent` and every directory below it. Links are not followed."""
    found = [parent]
    st = lookup(tree.root, parent)
    if st is None or not stat.S_ISDIR(st.st_mode):
        return []
    for item in walk(tree, parent, Ignore()):
        if stat.S_ISDIR(item.stat.st_mode):
            found.append(posixpath.join(parent, item.path))
    return found


def _matching(tree: Tree, parent: str, part: str) -> list[str]:
    if not ignore.has_glob(part):
        path = posixpath.join(parent, part)
        return [path] if lookup(tree.root, path) is not None else []
    pattern = ignore.compile_pattern(part)
    try:
        fd = open_beneath(tree.root, parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return []
        raise
    try:
        tree.note(parent, os.fstat(fd))
        names = sorted(os.listdir(fd))
    finally:
        os.close(fd)
    return [posixpath.join(parent, name) for name in names if pattern.fullmatch(name)]


def walk(tree: Tree, path: str, excluded: Ignore) -> Iterator[Item]:
    """Everything below the directory `path` that is not ignored, sorted, parents first. An ignored directory is
    included if it contains an exception to the ignore patterns."""
    fd = open_beneath(tree.root, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        tree.note(path, os.fstat(fd))
        yield from _below(tree, path, fd, "", excluded)
    finally:
        os.close(fd)


def _below(tree: Tree, top: str, fd: int, inside: str, excluded: Ignore) -> Iterator[Item]:
    for name in sorted(os.listdir(fd)):
        relative = f"{inside}/{name}" if inside else name
        whole = f"{top}/{relative}" if top else relative
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if excluded and excluded.matches(relative):
            continue
        hidden = bool(tree.ignored) and tree.ignored.matches(whole)
        if not stat.S_ISDIR(st.st_mode):
            if not hidden:
                tree.note(whole, st)
                yield Item(relative, st, fd, name)
            continue
        if hidden and not tree.ignored.exceptions:
            continue
        child = os.open(name, _DIRECTORY, dir_fd=fd)
        try:
            tree.note(whole, os.fstat(child))
            below = _below(tree, top, child, relative, excluded)
            if hidden:  # only if it contains an exception
                first = next(below, None)
                if first is None:
                    continue
                yield Item(relative, st, fd, name)
                yield first
            else:
                yield Item(relative, st, fd, name)
            yield from below
        finally:
            os.close(child)


def digest(tree: Tree, found: Found, excluded: Ignore, check: Callable[[], None]) -> str:
    """The digest of everything that a copy would carry: names, kinds, modes and contents, and owners and attributes if
    they count. Times do not count, because every checkout sets new ones."""
    total = hashlib.sha256()
    tree.note(found.path, found.stat)
    if stat.S_ISREG(found.stat.st_mode):
        about = _known(tree, found.stat)
        if about is None:
            fd = open_beneath(tree.root, found.path, os.O_RDONLY)
            try:
                about = _file(tree, fd)
            finally:
                os.close(fd)
        total.update(_line(tree, "", found.stat, about))
        return total.hexdigest()
    if not stat.S_ISDIR(found.stat.st_mode):  # a device or a fifo is never opened
        return hashlib.sha256(_line(tree, "", found.stat, b"%d" % found.stat.st_rdev)).hexdigest()
    total.update(_line(tree, "", found.stat, b""))
    for item in walk(tree, found.path, excluded):
        check()
        total.update(_line(tree, item.path, item.stat, _about(tree, item)))
    return total.hexdigest()


def _about(tree: Tree, item: Item) -> bytes:
    if stat.S_ISLNK(item.stat.st_mode):
        return os.fsencode(os.readlink(item.name, dir_fd=item.parent))
    if not stat.S_ISREG(item.stat.st_mode):
        return b"%d" % item.stat.st_rdev
    if (about := _known(tree, item.stat)) is not None:
        return about
    fd = os.open(item.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=item.parent)
    try:
        return _file(tree, fd)
    finally:
        os.close(fd)


def _known(tree: Tree, st: os.stat_result) -> bytes | None:
    return tree.known.get(st) if tree.known is not None and not tree.owned else None


def _file(tree: Tree, fd: int) -> bytes:
    content = _content(fd) if tree.known is None else tree.known.read(fd, _content)
    return content + (repr(attributes_of(fd)).encode() if tree.owned else b"")


def _content(fd: int) -> bytes:
    inner = hashlib.sha256()
    while chunk := os.read(fd, _CHUNK):
        inner.update(chunk)
    return inner.digest()


def _line(tree: Tree, path: str, st: os.stat_result, about: bytes) -> bytes:
    owner = f"{st.st_uid}:{st.st_gid}" if tree.owned else ""
    mode = "" if stat.S_ISLNK(st.st_mode) else f"{st.st_mode:o}"
    head = f"{stat.S_IFMT(st.st_mode):o} {mode} {owner} {len(about)} ".encode()
    return head + os.fsencode(path) + b"\0" + about + b"\n"


def attributes_of(fd: int) -> dict[str, bytes]:
    """The extended attributes that a copy carries."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return {}
    return {
        name: os.getxattr(fd, name)
        for name in sorted(names)
        if not name.startswith(("trusted.overlay.", "security.selinux"))
    }


def excluding(patterns: Sequence[str]) -> Ignore:
    """The patterns of COPY --exclude. Raises PatternError."""
    return ignore.read("\n".join(patterns))

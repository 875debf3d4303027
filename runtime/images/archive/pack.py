"""`image pack`: an image of one layer from programs of this host and the shared libraries they load.

It needs no network and no build tool and takes about a second; `make run` starts with it. Equal input gives equal
bytes: entries are sorted, all owned by root, and times are SOURCE_DATE_EPOCH. For a static busybox, links to its
applets are added, so `sh`, `sleep` and `httpd` work. The file system is usr-merged as in Debian: /bin is a link to
usr/bin, and so on.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import posixpath
import shlex
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from runtime.errors import ImageError
from runtime.images import manifests
from runtime.images import reference as references
from runtime.images.archive import elf
from runtime.images.install import Installer, Report
from runtime.images.layers.streams import CHUNK, Spool
from runtime.images.requests import PackRequest
from runtime.images.store.content import Session
from runtime.images.store.listing import Image, Layer
from runtime.images.store.store import ImageRecord, ImageStore

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "lib32": "usr/lib32"}
_DIRECTORIES = {
    **dict.fromkeys(("dev", "etc", "home", "proc", "run", "sys", "usr", "var"), 0o755),
    **dict.fromkeys(
        ("usr/bin", "usr/sbin", "usr/lib", "usr/local", "usr/local/bin", "var/log", "var/lib"), 0o755
    ),
    "root": 0o700,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
}
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\ntty:x:5:\nwww-data:x:33:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}
_MAX_LINKS = 40


@dataclass(frozen=True, slots=True)
class _Node:
    """One object of the image: a directory, a symbolic link, a host file or literal content."""

    mode: int
    link: str = ""
    source: str = ""
    content: bytes = b""


class _Tree:
    """The image's files, by path without a leading slash."""

    def __init__(self) -> None:
        self.nodes: dict[str, _Node] = {path: _Node(stat.S_IFDIR | m) for path, m in _DIRECTORIES.items()}
        for path, text in _FILES.items():
            self.nodes[path] = _Node(stat.S_IFREG | 0o644, content=text.encode())
        for path in ("bin", "sbin", "lib"):
            self.nodes[path] = _Node(stat.S_IFLNK | 0o777, link=_MERGED[path])
        self.nodes["var/run"] = _Node(stat.S_IFLNK | 0o777, link="../run")

    def add_as_on_host(self, path: str) -> str:
        """Add a host file at the path it has on the host, and every symbolic link on the way. Returns the file's path
        in the image."""
        for _ in range(_MAX_LINKS):
            link = _first_link(path)
            if link is None:
                break
            target = os.readlink(link)
            self._put_link(link, target)
            path = posixpath.normpath(posixpath.join(posixpath.dirname(link), target) + path[len(link) :])
        else:
            raise ImageError(f"too many symbolic links in {path}", reason="InvalidRequest")
        return self.add(path, path)

    def add(self, source: str, path: str) -> str:
        """Add one host file or directory (without its content) at `path`. Returns its path in the image."""
        place = self._place(path)
        mode = os.stat(source).st_mode
        if stat.S_ISDIR(mode):
            self.nodes.setdefault(place, _Node(mode))
        elif stat.S_ISREG(mode):
            self.nodes[place] = _Node(mode, source=source)
        else:
            raise ImageError(f"{source} is neither a file nor a directory", reason="InvalidRequest")
        return place

    def add_tree(self, source: str, path: str) -> None:
        """Add a file, or a directory with its whole content."""
        if not os.path.isdir(source):
            self.add(source, path)
            return
        self.add(source, path)
        for directory, names, files in os.walk(source):
            inside = posixpath.join(path, os.path.relpath(directory, source))
            for name in [*names, *files]:
                host, target = os.path.join(directory, name), posixpath.normpath(posixpath.join(inside, name))
                if os.path.islink(host):
                    self.link(target, os.readlink(host))
                else:
                    self.add(host, target)

    def link(self, path: str, target: str) -> None:
        self.nodes[self._place(path)] = _Node(stat.S_IFLNK | 0o777, link=target)

    def _put_link(self, path: str, target: str) -> None:
        if path.lstrip("/") in _MERGED:
            self.nodes[path.lstrip("/")] = _Node(stat.S_IFLNK | 0o777, link=_MERGED[path.lstrip("/")])
        else:
            self.link(path, target)

    def _place(self, path: str) -> str:
        """Map a path to the usr-merged file system, and create its parent directories."""
        clean = posixpath.normpath("/" + path).lstrip("/")
        first, slash, rest = clean.partition("/")
        if slash and first in _MERGED:
            self.nodes.setdefault(first, _Node(stat.S_IFLNK | 0o777, link=_MERGED[first]))
            clean = f"{_MERGED[first]}/{rest}"
        parent = posixpath.dirname(clean)
        while parent and parent not in self.nodes:
            self.nodes[parent] = _Node(stat.S_IFDIR | 0o755)
            parent = posixpath.dirname(parent)
        return clean


async def pack(store: ImageStore, request: PackRequest, *, report: Report) -> ImageRecord:
    """Build the image and install it under its reference. Raises ImageError."""
    name = references.parse(store.expand(request.reference))
    if not request.programs and not request.files:
        raise ImageError("name at least one program or file to pack", reason="InvalidRequest")
    with Session(store) as session, Installer(session, report) as installer:
        tar_path = session.temporary("pack")
        config_of = await asyncio.to_thread(_write_layer, request, tar_path)
        digest, size = await asyncio.to_thread(_digest, tar_path)
        config = json.dumps(config_of(digest), indent=1).encode()
        layer = Layer(digest, size, manifests.LAYER_TYPE, digest, digest)
        platform = manifests.this_platform()
        about = {"architecture": platform.architecture, "os": "linux"}
        image = Image(manifests.oci_manifest(config, [layer]), config, (layer,), (str(name),), "", about)

        async def fetch(_layer: Layer, spool: Spool, progress: Callable[[int], None]) -> None:
            await asyncio.to_thread(_copy_file, tar_path, spool, progress)

        await installer.install(image, fetch)
    record = store.get(str(name))
    if record is None:
        raise ImageError(f"{name} was removed right after it was packed", retriable=True)
    return record


def _write_layer(request: PackRequest, tar_path: str) -> Callable[[str], dict[str, Any]]:
    """Thread: collect the files and write the layer. Returns a function from the layer's digest to the image's
    config."""
    tree = _Tree()
    command: list[str] = []
    for program in request.programs:
        source, _, target = program.partition(":")
        path = _locate(source)
        place = _add_program(tree, path, target)
        applets = _busybox_applets(path)
        for applet in applets:
            _add_applet(tree, applet, place)
        if not command:
            command = ["sh"] if applets else [target or path]
    for item in request.files:
        source, _, target = item.partition(":")
        if not os.path.exists(source):
            raise ImageError(f"{source} does not exist", reason="InvalidRequest")
        tree.add_tree(source, target or os.path.abspath(source))
    epoch = _epoch()
    with open(tar_path, "xb") as file:
        write_tar(tree.nodes, file, epoch)
    return lambda digest: _config(request, command, digest, epoch)


def write_tar(nodes: dict[str, _Node], file: io.BufferedIOBase, epoch: int) -> None:
    """Write all nodes in sorted order. Equal input gives equal bytes."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(nodes):
            node = nodes[path]
            member = tarfile.TarInfo(path)
            member.mode = stat.S_IMODE(node.mode)
            member.mtime = epoch
            if stat.S_ISDIR(node.mode):
                member.type = tarfile.DIRTYPE
                archive.addfile(member)
            elif stat.S_ISLNK(node.mode):
                member.type, member.linkname = tarfile.SYMTYPE, node.link
                archive.addfile(member)
            elif node.source:
                with open(node.source, "rb") as source:
                    member.size = os.fstat(source.fileno()).st_size
                    archive.addfile(member, source)
            else:
                member.size = len(node.content)
                archive.addfile(member, io.BytesIO(node.content))


def _locate(program: str) -> str:
    path = program if "/" in program else shutil.which(program, path=os.environ.get("PATH") or PATH)
    if path is None or not os.path.isfile(path):
        raise ImageError(f"cannot find the program {program} on this host", reason="InvalidRequest")
    if not os.access(path, os.X_OK):
        raise ImageError(f"{path} is not executable", reason="InvalidRequest")
    return os.path.abspath(path)


def _add_program(tree: _Tree, path: str, target: str) -> str:
    """Add a program (at `target`, or at its path on the host) with its loader and libraries; for a script, also its
    interpreter and what that needs. Returns the program's path in the image."""
    place = tree.add(path, target) if target else tree.add_as_on_host(path)
    seen = {path}
    todo = elf.needed(path)
    while todo:
        needed = todo.pop()
        if needed in seen:
            continue
        seen.add(needed)
        tree.add_as_on_host(needed)
        with open(needed, "rb") as file:
            script = file.read(2) == b"#!"
        library = (
            needed.endswith(".so") or ".so." in needed
        )  # the loader has listed the libraries' own needs already
        if script or not library:
            todo += elf.needed(needed)
    return place


def _busybox_applets(path: str) -> list[str]:
    """The applet paths of a static busybox (`busybox --list-full`); empty for any other program."""
    if os.path.basename(os.path.realpath(path)) != "busybox" or elf.interpreter(path):
        return []
    result = subprocess.run([path, "--list-full"], capture_output=True, text=True, timeout=10, check=False)
    return result.stdout.split() if result.returncode == 0 else []


def _add_applet(tree: _Tree, applet: str, busybox: str) -> None:
    """Add a relative link to busybox, unless the path is taken: an applet must not replace busybox or another
    program."""
    directory, name = posixpath.split(applet)
    target = posixpath.join(_MERGED.get(directory, directory), name)
    if target != busybox and name not in {"busybox", "linuxrc"} and target not in tree.nodes:
        tree.link(target, posixpath.relpath(busybox, posixpath.dirname(target)))


def _config(request: PackRequest, command: list[str], digest: str, epoch: int) -> dict[str, Any]:
    platform = manifests.this_platform()
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    settings: dict[str, Any] = {"Env": [f"PATH={PATH}", *request.env]}
    if request.entrypoint is not None:
        settings["Entrypoint"] = request.entrypoint
    cmd = request.cmd if request.cmd is not None else ([] if request.entrypoint is not None else command)
    if cmd:
        settings["Cmd"] = cmd
    if request.workdir:
        settings["WorkingDir"] = request.workdir
    if request.user:
        settings["User"] = request.user
    about = {"created": created, "architecture": platform.architecture, "os": platform.os}
    words = shlex.join(["kubelite", "image", "pack", *request.programs, *request.files])
    return {
        **about,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "history": [{"created": created, "created_by": words}],
    }


def _first_link(path: str) -> str | None:
    """The shortest prefix of an absolute path that is a symbolic link, or None."""
    parts = path.strip("/").split("/")
    for count in range(1, len(parts) + 1):
        prefix = "/" + "/".join(parts[:count])
        if os.path.islink(prefix):
            return prefix
    return None


def _epoch() -> int:
    """SOURCE_DATE_EPOCH in Unix seconds, default 0 (https://reproducible-builds.org/specs/source-date-epoch/)."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    return int(text) if text.isdigit() else 0


def _digest(path: str) -> tuple[str, int]:
    with open(path, "rb") as file:
        hashing = hashlib.file_digest(file, "sha256")
        return f"sha256:{hashing.hexdigest()}", file.tell()


def _copy_file(path: str, spool: Spool, progress: Callable[[int], None]) -> None:
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            spool.write(chunk)
            progress(spool.received)

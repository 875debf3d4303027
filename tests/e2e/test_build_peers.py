"""Containerfiles that cover the language, each built by `buildah bud` and by kubelite: the same config and files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import pod
from tests.e2e.node import IMAGE, Node, running_node
from tests.kernel.images_support import buildah_environment, need
from tests.programs import BUSYBOX

CASES = Path(__file__).parent / "containerfiles"
pytestmark = pytest.mark.skipif(bool(need("buildah")), reason="needs buildah")
# Known differences: buildah adds a label with its version.
_FIELDS = (
    "Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes", "Labels", "StopSignal", "Healthcheck",
    "OnBuild", "Shell",
)  # fmt: skip


EMPTY = ("0o100755", 0, 0, hashlib.sha256(b"").hexdigest()[:12])
DIRECTORY = ("0o40755", 0, 0, "")


def peer(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """Run buildah or podman. For each RUN they execute a sealed copy of themselves (containers/storage,
    pkg/unshare/unshare.c) and do not repeat fcntl(F_ADD_SEALS), which fails with EBUSY while the kernel holds a page of
    the copy for a moment (mm/memfd.c, memfd_wait_for_pins). Then it is run again."""
    for last in (False, False, False, True):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        if last or done.returncode == 0 or "sealing memfd copy: Device or resource busy" not in done.stderr:
            break
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


@dataclass(slots=True)
class Buildah:
    """buildah with its own storage, which needs no mounts."""

    base: Path

    def __call__(self, *words: str) -> str:
        where = ("--root", f"{self.base}/root", "--runroot", f"{self.base}/run", "--storage-driver", "vfs")
        environment = {"BUILDAH_ISOLATION": "chroot", "BUILDAH_FORMAT": "docker", "TMPDIR": str(self.base)}
        return peer(["buildah", *where, *words], {**os.environ, **environment})


@dataclass(slots=True)
class Both:
    node: Node
    buildah: Buildah


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Both]:
    base = tmp_path_factory.mktemp("peers")
    with running_node(base / "node", images) as node:
        buildah = Buildah(base / "buildah")
        buildah.base.mkdir()
        node.cli("save", IMAGE, "-o", str(base / "base.tar"))
        buildah("pull", f"docker-archive:{base}/base.tar")
        try:
            yield Both(node, buildah)
        finally:
            shutil.rmtree(buildah.base)


def config_of(config: dict[str, Any]) -> dict[str, Any]:
    found = {name: config.get(name) for name in _FIELDS if config.get(name)}
    labels = {k: v for k, v in (found.pop("Labels", None) or {}).items() if k != "io.buildah.version"}
    found["Env"] = sorted(found.get("Env") or ())
    return {**found, **({"Labels": labels} if labels else {})}


def files_of(root: Path) -> dict[str, tuple[Any, ...]]:
    """All files by path: type and mode, owner, content, link target or device, and other hard links."""
    found: dict[str, tuple[Any, ...]] = {}
    inodes: dict[tuple[int, int], list[str]] = {}
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            path = os.path.join(directory, name)
            st = os.lstat(path)
            about: Any = ""
            if stat.S_ISLNK(st.st_mode):
                about = os.readlink(path)
            elif stat.S_ISREG(st.st_mode):
                about = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]
            elif stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode):
                about = st.st_rdev
            found[os.path.relpath(path, root)] = (oct(st.st_mode), st.st_uid, st.st_gid, about)
            if not stat.S_ISDIR(st.st_mode):
                inodes.setdefault((st.st_dev, st.st_ino), []).append(os.path.relpath(path, root))
    for names in inodes.values():
        for path in names if len(names) > 1 else ():
            found[path] = (*found[path], sorted(names))
    return found


def different(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """path → (kubelite's, buildah's) where they differ."""
    paths = sorted(ours.keys() | theirs.keys())
    # chroot isolation leaves its mount points
    places = ("etc/hostname", "etc/hosts", "etc/resolv.conf", "run/secrets")
    left = {p for p in places if p not in ours and theirs.get(p) in (EMPTY, DIRECTORY)}
    return {p: (ours.get(p), theirs.get(p)) for p in paths if ours.get(p) != theirs.get(p) and p not in left}


def built(both: Both, directory: Path, name: str, *more: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(config, files) of kubelite's image and of buildah's."""
    tag = f"localhost/case/{name}:latest"
    both.node.cli("build", "-q", "-t", tag, *more, str(directory))
    # its own limits may be higher than this machine allows
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "--cap-add", "MKNOD")
    both.buildah("bud", "-q", *limits, "-t", tag, *more, str(directory))
    (about,) = json.loads(both.node.cli("image", "inspect", tag).out)
    where = both.node.cli("image", "mount", tag).out.strip()
    try:
        ours = config_of(about["Config"]), files_of(Path(where))
    finally:
        both.node.cli("image", "unmount", where)
    theirs = json.loads(both.buildah("inspect", "--type", "image", tag))["Docker"]
    container = both.buildah("from", "--pull-never", tag)
    try:
        files = files_of(Path(both.buildah("mount", container)))
    finally:
        both.buildah("rm", container)
    return ours, (config_of(theirs["config"]), files)


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_the_image_equals_buildahs(both: Both, case: str, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("s3cret\n")
    more = ("--secret", f"id=token,src={secret}") if case == "mounts" else ()
    ours, theirs = built(both, CASES / case, case, *more)
    assert ours[0] == theirs[0]
    assert different(ours[1], theirs[1]) == {}


@pytest.mark.skipif(bool(need("podman")), reason="needs podman")
def test_an_image_built_by_podman_runs(both: Both, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/sh\nENV WHO=podman\nRUN echo made > /made\n"
        'CMD ["sh", "-c", "read x </made; echo $WHO $x; sleep 1000"]\n'
    )
    shutil.copy(BUSYBOX, tmp_path / "busybox")
    podman = ("podman", "--root", f"{tmp_path}/graph", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs",
              "--cgroup-manager", "cgroupfs", "--events-backend", "none")  # fmt: skip
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
    environment = {**os.environ, **buildah_environment(tmp_path / "podman")}
    archive = f"{tmp_path}/image.tar"
    for words in (
        ("build", "--isolation", "chroot", *limits, "-t", "peer/podman:1", str(tmp_path)),
        ("save", "--format", "docker-archive", "-o", archive, "peer/podman:1"),
    ):
        peer([*podman, *words], environment)
    assert both.node.cli("load", archive, "-i", archive, check=False).code == 2
    loaded = both.node.cli("load", "-i", archive).out
    both.node.apply("p.yaml", pod("p", {"name": "main", "image": loaded.split()[-1]}))
    both.node.wait(lambda: both.node.cli("logs", "p", check=False).out == "podman made\n", "its words")

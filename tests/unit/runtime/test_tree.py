"""A walk through trees that were made to be hard to walk."""

from __future__ import annotations

import contextlib
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubelite.node.storage import claims, mounts, quota, usage, volume_objects
from kubelite.telemetry.sampling import disk_usage
from runtime.removal import remove_tree
from runtime.tree import KEPT, directory_of, make_directories, walk
from tests.unit.runtime.test_removal import nested

DEEP = 3000  # more than Python's recursion limit, and more than any path can name
ROOT = Path(__file__).parents[3]


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """No more than 100 new descriptors can be opened."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Path]:
    """DEEP directories in each other, with 30 files."""
    nested(tmp_path / "deep", DEEP)
    yield tmp_path / "deep"
    remove_tree(str(tmp_path / "deep"))


def below(path: Path) -> list[str]:
    return sorted(name for _, name, _ in walk(str(path)))


@pytest.mark.usefixtures("few_descriptors")
def test_everything_is_found_at_any_depth(deep: Path) -> None:
    before = os.listdir("/proc/self/fd")
    assert below(deep) == ["d"] * DEEP + ["f"] * (DEEP // 100)
    assert os.listdir("/proc/self/fd") == before


def test_each_descriptor_is_that_of_the_entrys_directory(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "link").symlink_to("/etc")
    found = set()
    for fd, name, status in walk(str(tmp_path)):
        path = f"{os.readlink(f'/proc/self/fd/{fd}')}/{name}"
        assert os.lstat(path).st_ino == status.st_ino
        found.add(os.path.relpath(path, tmp_path))
    assert found == {"a", "a/b", "a/b/c", "a/b/file", "a/d", "e", "link"}


def chain(top: Path, levels: int) -> Path:
    """`levels` directories in each other, each with a second one beside the next."""
    here = top
    for _ in range(levels):
        (here / "z").mkdir(parents=True)
        (here / "d").mkdir()
        here /= "d"
    return here


@pytest.mark.parametrize("level", [KEPT - 2, KEPT + 5])
def test_a_directory_that_is_moved_meanwhile_does_not_lead_out(tmp_path: Path, level: int) -> None:
    """Otherwise ".." would continue in the directory to which a container has moved it."""
    chain(tmp_path / "tree", KEPT + 10)
    (tmp_path / "elsewhere/secret").mkdir(parents=True)
    moved = tmp_path / "tree" / "/".join(["d"] * level)
    seen = []
    for fd, name, _ in walk(str(tmp_path / "tree")):
        here = os.readlink(f"/proc/self/fd/{fd}")
        seen.append(name)
        if here.count("/d") == KEPT + 8 and moved.exists():
            moved.rename(tmp_path / "elsewhere/moved")
    assert "secret" not in seen
    assert "moved" not in seen
    assert not moved.exists()


def test_a_mount_is_not_entered(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    code = f"""
import os, subprocess
from runtime import syscalls as sc
from runtime.tree import walk
sc.unshare(sc.CLONE_NEWNS)
sc.mount(None, "/", None, sc.MS_PRIVATE | sc.MS_REC)
os.makedirs({str(tmp_path)!r} + "/plain/inside")
os.mkdir({str(tmp_path)!r} + "/over")
sc.mount({str(tmp_path)!r} + "/plain", {str(tmp_path)!r} + "/over", None, sc.MS_BIND)  # of the same file system
print(sorted(name for _, name, _ in walk({str(tmp_path)!r})))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['inside', 'plain']"


def test_what_is_no_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path / "none", tmp_path / "link"):
        with pytest.raises(OSError):
            below(path)


# -- those who measure and change trees of containers -------------------------------------------------------------


def size_of(path: Path) -> None:
    assert usage.inodes_below(str(path)) == DEEP + DEEP // 100
    for fd, name, _ in walk(str(path)):
        if name == "f":
            with open(os.open(name, os.O_WRONLY, dir_fd=fd), "wb") as file:
                file.write(bytes(10_000))
    assert usage.bytes_below(str(path)) >= 10_000 * (DEEP // 100)
    found = disk_usage.measure(str(path))
    assert found is not None
    assert found.inodes == DEEP + DEEP // 100
    assert found.bytes >= usage.bytes_below(str(path))


def group_of(path: Path) -> None:
    mounts.give_to_group(str(path), os.getgid(), whole_tree=True, fresh=True)
    assert all(status.st_mode & 0o060 == 0o060 for _, _, status in walk(str(path)))


def project_of(path: Path) -> None:
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quota, "_give", lambda name, _project, _fd: seen.append(name))
        quota._give_all(str(path), 1)
    assert len(seen) == DEEP + DEEP // 100


def claim_of(path: Path) -> None:
    claims._remove(str(path))
    assert not path.exists()


def volume_of(path: Path) -> None:
    volume_objects._empty(str(path), remove=False)
    assert list(path.iterdir()) == []


@pytest.mark.parametrize("use", [size_of, group_of, project_of, claim_of, volume_of])
@pytest.mark.usefixtures("few_descriptors")
def test_a_deep_tree_is_measured_changed_and_removed(deep: Path, use: Callable[[Path], None]) -> None:
    limit = sys.getrecursionlimit()
    depth = len(list(_frames()))
    sys.setrecursionlimit(depth + 200)  # as little as 3.11's walks would need for each level
    try:
        use(deep)
    finally:
        sys.setrecursionlimit(limit)


def _frames() -> Iterator[object]:
    frame = sys._getframe()
    while frame is not None:
        yield frame
        with contextlib.suppress(AttributeError):
            frame = frame.f_back  # type: ignore[assignment]


@pytest.fixture
def strict_umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.mark.usefixtures("strict_umask")
def test_made_directories_have_their_modes_under_any_umask(tmp_path: Path) -> None:
    make_directories(f"{tmp_path}/a/b/c", 0o711)
    with directory_of(f"{tmp_path}/logs/pod/main/0.log", create=True):
        pass
    modes = {path: stat.S_IMODE(os.stat(tmp_path / path).st_mode) for path in ("a", "a/b", "a/b/c")}
    assert modes == {"a": 0o755, "a/b": 0o755, "a/b/c": 0o711}
    for path in ("logs", "logs/pod", "logs/pod/main"):
        assert stat.S_IMODE(os.stat(tmp_path / path).st_mode) == 0o755, path
    os.chmod(tmp_path / "a", 0o700)
    make_directories(f"{tmp_path}/a")
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o700, "an existing directory keeps its mode"


def test_directories_are_not_made_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        make_directories(f"{tmp_path}/file/below")

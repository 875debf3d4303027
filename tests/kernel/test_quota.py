"""Project quotas of ext4 and xfs, with the real kernel."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.node.storage import quota
from kubelite.node.storage.quota import FIRST_PROJECT
from tests.disks import KINDS, MIB, projects, with_projects
from tests.waiting import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts")
LESS = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-all")
NOT_KEPT = {"ext4": "loop", "xfs": "pqnoenforce"}  # it counts without enforcing limits


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def disk(kind: str, tmp_path: Path) -> Iterator[Path]:
    with with_projects(kind, tmp_path) as found:
        yield found


def made(place: Path, mode: int = 0o777) -> Path:
    place.mkdir()
    place.chmod(mode)
    return place


def fill(place: Path, size: int) -> int:
    """Write that much, without the capability that exempts root from ext4's quotas. Return the errno, or 0."""
    script = (
        "import os, sys\nfd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        "try:\n  for _ in range(int(sys.argv[2]) >> 16): os.write(fd, bytes(1 << 16))\n  os.fsync(fd)\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    command = [*LESS, sys.executable, "-I", "-c", script, str(place), str(size)]
    return subprocess.run(command, check=False).returncode


def test_a_directory_is_limited_to_its_size(kind: str, disk: Path) -> None:
    data = made(disk / "data")
    (data / "before").mkdir()
    (data / "before/file").write_bytes(bytes(MIB))
    (data / "link").symlink_to("/etc/passwd")
    assert quota.set_quota(str(data), 4 * MIB) == ""
    assert fill(data / "file", 8 * MIB) == {"ext4": errno.EDQUOT, "xfs": errno.ENOSPC}[kind]
    ((project, (size, limit, inodes)),) = projects(kind, disk).items()
    assert (project >= FIRST_PROJECT, limit) == (True, 4 * MIB)
    assert size == pytest.approx(4 * MIB, rel=0.02), "what was there before is counted"
    found = quota.used(str(data))
    assert found is not None
    assert found.bytes == pytest.approx(size, abs=8192)
    assert found.inodes == inodes - 1 == 3, "all but the directory itself, and a link that came before"
    space = os.statvfs(data)
    assert space.f_blocks * space.f_frsize == 4 * MIB
    assert space.f_bavail == pytest.approx(0, abs=64)
    assert quota.set_quota(str(data), 16 * MIB) == ""
    assert fill(data / "file", 8 * MIB) == 0, "the same project, more of it"
    assert list(projects(kind, disk)) == [project]


def test_a_free_project_is_reused(kind: str, disk: Path) -> None:
    places = [made(disk / f"d{number}") for number in range(3)]
    for place in places:
        assert quota.set_quota(str(place), MIB) == ""
    found = projects(kind, disk)
    assert len(found) == 3
    quota.lift(str(places[0]))
    places[0].rmdir()
    until(lambda: len(projects(kind, disk)) == 2, "its inode to go: of an xfs in the background")
    quota.count(str(made(disk / "other")))
    assert len(projects(kind, disk)) == 3


def test_a_project_of_a_parent_directory_is_not_used(kind: str, disk: Path) -> None:
    """All of the node's directory belongs to another project."""
    outer = made(disk / "outer")
    assert quota.set_quota(str(outer), 8 * MIB) == ""
    (of_outer,) = projects(kind, disk)
    inner = made(outer / "inner")
    (outer / "file").write_bytes(bytes(MIB))
    assert quota.used(str(inner)) is None
    quota.lift(str(inner))
    assert projects(kind, disk)[of_outer][1] == 8 * MIB, "it is not ours to be taken away"
    quota.count(str(inner))
    assert quota.used(str(inner)) == (0, 0)
    assert len(projects(kind, disk)) == 2
    assert projects(kind, disk)[of_outer][1] == 8 * MIB, "nobody has touched its limit"


def test_several_directories_are_one_project(kind: str, disk: Path) -> None:
    upper, work = made(disk / "upper"), made(disk / "work")
    stale = quota.set_quota(str(made(disk / "stale")), MIB)
    assert stale == ""
    (disk / "stale").rmdir()
    quota.count(str(upper), str(work))
    (work / "file").write_bytes(bytes(MIB))
    os.rename(work / "file", upper / "file")  # as overlayfs does; EXDEV between projects
    found = quota.used(str(upper), str(work))
    assert found is not None
    assert found.inodes == 1
    assert found.bytes == pytest.approx(MIB, abs=8192)
    assert len([row for row in projects(kind, disk).values() if row[2]]) == 1


def test_a_file_system_that_only_counts(kind: str, tmp_path: Path) -> None:
    with with_projects(kind, tmp_path, NOT_KEPT[kind]) as disk:
        data = made(disk / "data")
        assert "has no project quotas" in quota.set_quota(str(data), MIB)
        quota.count(str(data))
        (data / "file").write_bytes(bytes(MIB))
        found = quota.used(str(data))
        assert found is not None
        assert found.inodes == 1
        assert found.bytes == pytest.approx(MIB, abs=8192)


def test_a_file_system_without_quotas(tmp_path: Path) -> None:
    with with_projects("xfs", tmp_path, "noquota") as disk:
        data = made(disk / "data")
        assert "has no project quotas" in quota.set_quota(str(data), MIB)
        quota.count(str(data))
        assert quota.used(str(data)) is None

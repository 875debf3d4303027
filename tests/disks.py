"""File systems in files, for tests that need what the machine's file system does not have."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 1 << 20
KINDS = ("ext4", "xfs")
NO_QUOTAS = "needs a kernel with loop devices that keeps project quotas"
_SIZES = {"ext4": 256 * MIB, "xfs": 512 * MIB}  # mkfs.xfs needs at least 300
_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"),
    "xfs": ("mkfs.xfs", "-q", "-K"),
}


@contextlib.contextmanager
def with_projects(kind: str, place: Path, options: str = "prjquota") -> Iterator[Path]:
    """A directory on a new file system of this type with project quotas. Skips if that is impossible."""
    for program in (_MAKE[kind][0], "losetup", "repquota"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}")
    image, where = place / f"{kind}.img", place / kind
    where.mkdir()
    with image.open("wb") as file:
        file.truncate(_SIZES[kind])
    subprocess.run([*_MAKE[kind], str(image)], check=True)
    if kind == "ext4":
        subprocess.run(["modprobe", "quota_v2"], check=False, capture_output=True)
    told = subprocess.run(
        ["mount", "-o", f"loop,{options}", str(image), str(where)],
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        pytest.skip(NO_QUOTAS)
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)
        os.unlink(image)


def projects(kind: str, where: Path) -> dict[int, tuple[int, int, int]]:
    """From the file system's own tool: project → bytes, hard limit in bytes, inodes; only projects in use."""
    os.sync()
    if kind == "xfs":
        command = ["xfs_quota", "-x", "-c", "report -pnN -b -i", str(where)]
    else:
        command = ["repquota", "-Pnv", str(where)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in said.splitlines():
        words = [word for word in line.split() if not word.startswith("[")]
        if not line.startswith("#") or not words[0][1:].isdigit():
            continue
        numbers = [int(word) for word in words[1:] if word.lstrip("-").isdigit()]
        found[int(words[0][1:])] = _row(kind, numbers)
    return {project: row for project, row in found.items() if project and any(row)}


def _row(kind: str, numbers: list[int]) -> tuple[int, int, int]:
    """Used, soft, hard (KiB), warnings on xfs, then the same for inodes."""
    return numbers[0] << 10, numbers[2] << 10, numbers[4 if kind == "xfs" else 3]

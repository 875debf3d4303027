"""Volumes of pods: their kinds, atomic updates, host paths and sub-paths."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.model.errors import ConfigError, MountError
from kubelite.node.spec import volume_plans
from kubelite.node.spec.volume_plans import File, Kind, VolumePlan
from kubelite.node.storage import mounts
from tests.unit.node.decide.pod_worlds import UID, make_pod
from tests.unit.node.spec.pod_sources import sources


def plan(volume: dict[str, Any], **pod: Any) -> VolumePlan:
    whole = make_pod("a", volumes=[{"name": "v", **volume}], **pod)
    return volume_plans.plan_volume(whole, whole.spec.volumes[0], sources())


def test_the_kinds_of_volumes() -> None:
    base = f"/var/lib/kubelite/pods/{UID}/volumes"
    assert plan({"emptyDir": {}}) == VolumePlan("v", Kind.DIRECTORY, f"{base}/kubernetes.io~empty-dir/v")
    memory = plan({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    assert (memory.kind, memory.size) == (Kind.MEMORY, 1 << 20)
    assert plan({"hostPath": {"path": "/x", "type": "File"}}) == VolumePlan("v", Kind.HOST, "/x", "File")
    everything = plan({"configMap": {"name": "cm", "defaultMode": 0o400}}).files
    assert everything == {"a": File(b"1", 0o400), "b": File(b"2", 0o400), "raw": File(b"\xff", 0o400)}
    picked = plan({"secret": {"secretName": "s", "items": [{"key": "key", "path": "d/k", "mode": 0o600}]}})
    assert picked.files == {"d/k": File(b"hidden", 0o600)}
    both = plan({"projected": {"sources": [{"configMap": {"name": "cm"}}, {"secret": {"name": "s"}}]}})
    assert set(both.files) == {"a", "b", "raw", "key"}


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        (
            {"configMap": {"name": "none"}},
            'MountVolume.SetUp failed for volume "v" : configmap "none" not found',
        ),
        ({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}, "non-existent config key: z"),
        ({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../z"}]}}, "invalid path"),
    ],
)
def test_invalid_volumes(volume: dict[str, Any], message: str) -> None:
    with pytest.raises(MountError, match=message):
        plan(volume)


def test_updates_are_atomic(tmp_path: Path) -> None:
    path = tmp_path / "v"
    first = VolumePlan("v", Kind.FILES, str(path), files={"a": File(b"1", 0o640), "d/b": File(b"2", 0o644)})
    assert mounts.write_files(first)
    assert not mounts.write_files(first), "nothing changed"
    assert (path / "a").read_bytes() == b"1"
    assert (path / "d/b").read_bytes() == b"2"
    assert stat.S_IMODE((path / "a").stat().st_mode) == 0o640
    private = VolumePlan("v", Kind.FILES, str(path), files={"a": File(b"1", 0o400), "d/b": File(b"2", 0o644)})
    assert mounts.write_files(private), "the mode changed"
    assert stat.S_IMODE((path / "a").stat().st_mode) == 0o400
    grouped = replace(private, fs_group=os.getgid())
    assert mounts.write_files(grouped) and not mounts.write_files(grouped)
    assert stat.S_IMODE((path / "a").stat().st_mode) == 0o440
    old = os.readlink(path / "..data")
    assert mounts.write_files(VolumePlan("v", Kind.FILES, str(path), files={"a": File(b"3", 0o644)}))
    assert (path / "a").read_bytes() == b"3"
    assert not (path / "d").exists()
    assert not (path / old).exists()


def test_an_empty_dir_is_writable_for_everyone(tmp_path: Path) -> None:
    made = VolumePlan("v", Kind.DIRECTORY, str(tmp_path / "pod/volumes/v"), fs_group=os.getgid())
    mounts.set_up(made)
    found = Path(made.path).stat()
    assert stat.S_IMODE(found.st_mode) == 0o2777
    (tmp_path / "pod/volumes/v/kept").write_text("x")
    mounts.set_up(made)
    assert (tmp_path / "pod/volumes/v/kept").exists()


@pytest.mark.parametrize(
    ("kind", "there", "message"),
    [
        ("", None, ""),
        ("", "file", ""),
        ("DirectoryOrCreate", None, ""),
        ("FileOrCreate", None, ""),
        ("Directory", None, "is not a directory"),
        ("Directory", "file", "is not a directory"),
        ("DirectoryOrCreate", "file", "is not a directory"),
        ("File", "directory", "is not a file"),
        ("Socket", "file", "is not a socket file"),
        ("CharDevice", "file", "is not a character device"),
        ("BlockDevice", "directory", "is not a block device"),
    ],
)
def test_host_path_types(tmp_path: Path, kind: str, there: str | None, message: str) -> None:
    path = tmp_path / "x"
    if there == "file":
        path.write_text("")
    elif there == "directory":
        path.mkdir()
    wanted = VolumePlan("v", Kind.HOST, str(path), kind)
    if message:
        with pytest.raises(MountError, match=message):
            mounts.set_up(wanted)
    else:
        mounts.set_up(wanted)
        assert path.is_file() if kind == "FileOrCreate" or there == "file" else path.is_dir()


def test_a_relative_host_path_is_not_resolved_in_the_daemons_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MountError, match=r'volume "v" : hostPath \./x is not absolute'):
        mounts.set_up(VolumePlan("v", Kind.HOST, "./x", "DirectoryOrCreate"))
    assert list(tmp_path.iterdir()) == []


# -- sub-paths --------------------------------------------------------------------------------------------------


def held(volume: Path, sub_path: str) -> str:
    fd = mounts.open_sub_path(str(volume), sub_path)
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_a_sub_path_is_created_in_its_volume(tmp_path: Path) -> None:
    assert held(tmp_path, "a/b") == str(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()
    (tmp_path / "file").write_text("")
    assert held(tmp_path, "file") == str(tmp_path / "file")
    (tmp_path / "link").symlink_to("a")
    assert held(tmp_path, "link/b") == str(tmp_path / "a/b")


@pytest.mark.parametrize("target", ["/etc", "../outside", "a/../../outside"])
def test_a_sub_path_never_leads_out_of_its_volume(tmp_path: Path, target: str) -> None:
    volume = tmp_path / "volume"
    (volume / "a").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (volume / "link").symlink_to(target)
    for path in ("link", "link/passwd", "link/new"):
        with pytest.raises(ConfigError, match="leads out of its volume"):
            mounts.open_sub_path(str(volume), path)
    assert list((tmp_path / "outside").iterdir()) == []
    with pytest.raises(ConfigError, match="must be relative"):
        mounts.open_sub_path(str(volume), "../outside")


def test_the_checked_directory_is_mounted(tmp_path: Path) -> None:
    """After the check the name is replaced by a link to another place: the descriptor still refers to the checked
    directory."""
    fd = mounts.open_sub_path(str(tmp_path), "data")
    try:
        (tmp_path / "data").rename(tmp_path / "moved")
        (tmp_path / "data").symlink_to("/etc")
        assert os.path.samefile(f"/proc/self/fd/{fd}", tmp_path / "moved")
    finally:
        os.close(fd)


def test_the_umask_of_the_daemon_is_not_seen_in_pods(tmp_path: Path) -> None:
    files = VolumePlan("v", Kind.FILES, str(tmp_path / "v"), files={"d/e/b": File(b"2", 0o644)})
    host = VolumePlan("h", Kind.HOST, str(tmp_path / "h/x"), "DirectoryOrCreate")
    file = VolumePlan("f", Kind.HOST, str(tmp_path / "f"), "FileOrCreate")
    before = os.umask(0o077)
    try:
        for one in (files, host, file):
            mounts.set_up(one)
    finally:
        os.umask(before)
    found = {
        name: stat.S_IMODE((tmp_path / name).stat().st_mode)
        for name in ("v", "v/..data/", "v/d", "v/d/e", "v/d/e/b", "h", "h/x", "f")
    }
    expected = dict.fromkeys(found, 0o755) | {"v/d/e/b": 0o644, "f": 0o644}
    assert found == expected

"""The run directory's files: complete or absent, readable by older and newer daemons; and detecting a reused pid."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from runtime.shim import state
from runtime.shim.protocol import VERSION, SandboxRecord


def record(**changes: object) -> SandboxRecord:
    values: dict[str, object] = {
        "version": VERSION,
        "uid": "u",
        "sandbox_id": "s",
        "pid": os.getpid(),
        "pid_start": state.process_start(os.getpid()),
        "created_at": 1.5,
        "cgroup": "/kubelite/podu",
        "hostname": "web",
        "host_network": False,
    }
    return SandboxRecord.from_json(values | changes)


def test_a_record_is_read_as_written(tmp_path: Path) -> None:
    written = record(annotations={"ip": "10.0.0.1"}, containers=[{"id": "c"}])
    state.write_json(str(tmp_path), state.STATE, written.to_json())
    assert state.read_state(str(tmp_path)) == written
    assert os.listdir(tmp_path) == [state.STATE]  # the temporary file was renamed


def test_fields_of_a_newer_shim_are_ignored_and_missing_ones_get_their_default(tmp_path: Path) -> None:
    newer = record().to_json() | {"color": "blue"}
    del newer["annotations"], newer["containers"]
    state.write_json(str(tmp_path), state.STATE, newer)
    assert state.read_state(str(tmp_path)) == record()


def test_an_invalid_record_is_ignored(tmp_path: Path) -> None:
    assert state.read_state(str(tmp_path / "nowhere")) is None
    for content in (b"", b'{"version":1', b"[]", b'{"version":1}', b"\xff\xfe", b"[" * 100_000):
        (tmp_path / state.STATE).write_bytes(content)
        assert state.read_state(str(tmp_path)) is None, content


def test_a_pid_is_only_the_same_process_with_its_start_time() -> None:
    assert state.shim_alive(record())
    assert not state.shim_alive(record(pid_start=1))
    assert not state.shim_alive(record(pid_start=0))
    assert not state.shim_alive(record(pid=2**22 + 1))
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert state.process_start(child) == 0  # a zombie is not a running shim
    os.waitpid(child, 0)


def test_the_socket_works_however_long_the_path_is(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    assert not state.answers(str(deep))
    with state.listen(str(deep)):
        assert state.answers(str(deep)) and state.occupied(str(deep))
        # A half-created init still holds a dead shim's listening socket open: the recorded process decides.
        state.write_json(str(deep), state.STATE, record(pid_start=1).to_json())
        assert state.answers(str(deep)) and not state.occupied(str(deep))
        state.write_json(str(deep), state.STATE, record().to_json())
        assert state.occupied(str(deep))
    assert not state.answers(str(deep))  # the socket file exists, but nobody listens
    state.remove_run_dir(str(deep))
    assert not deep.exists()
    state.remove_run_dir(str(deep))


@pytest.mark.parametrize("damage", ["removed", "truncated", "replaced", "rewritten", "a link"])
def test_a_damaged_file_is_not_intact(tmp_path: Path, damage: str) -> None:
    path = tmp_path / state.STATE
    written = state.write_json(str(tmp_path), state.STATE, {"pid": 1})
    assert state.is_intact(str(tmp_path), state.STATE, written)
    assert not state.is_intact(str(tmp_path), state.STATE, None)
    os.utime(path, ns=(0, path.stat().st_mtime_ns))  # it was read
    assert state.is_intact(str(tmp_path), state.STATE, written)
    content = path.read_text()
    match damage:
        case "removed":
            path.unlink()
        case "truncated":
            os.truncate(path, 3)
        case "replaced":
            (tmp_path / "other").write_text(content)
            os.utime(tmp_path / "other", ns=(0, path.stat().st_mtime_ns))
            (tmp_path / "other").rename(path)
        case "rewritten":
            time.sleep(0.02)  # a file system's times may have the resolution of the kernel's clock tick
            path.write_text(content)
        case _:
            path.rename(tmp_path / "other")
            path.symlink_to(tmp_path / "other")
    assert not state.is_intact(str(tmp_path), state.STATE, written)

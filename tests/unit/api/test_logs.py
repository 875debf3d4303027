"""Logs: partial lines, tails, rotation and restarts during reading, and the choice of the container."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelite.api.kube import logfiles
from kubelite.api.kube.logfiles import LogQuery, LogReader, attempts
from kubelite.api.kube.logs import can_grow, open_log, pick_attempt, pick_container
from kubelite.kube.errors import ApiError
from kubelite.kube.json import Json
from tests.unit.api.fake_node import FakeNode, pod_doc
from tests.waiting import SECONDS

STAMP = "2026-11-24T14:33:0{}.000000000Z"


def line(text: str, *, second: int = 1, stream: str = "stdout", tag: str = "F") -> str:
    return f"{STAMP.format(second)} {stream} {tag} {text}\n"


def lines(*texts: str) -> str:
    return "".join(line(text) for text in texts)


def read(directory: Path, attempt: int = 0, **query: Any) -> str:
    reader = LogReader(str(directory), attempt, LogQuery(**query))
    try:
        out = b""
        while chunk := reader.read_some():
            out += chunk
        return (out + reader.finish()).decode()
    finally:
        reader.close()


def test_parts_are_joined_by_stream(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text(
        line("aa", tag="P")
        + line("err", stream="stderr")
        + line("bb", tag="P")
        + line("cc")
        + line("end", tag="P")
    )
    assert read(tmp_path) == "err\naabbcc\nend"
    assert read(tmp_path, timestamps=True).split("\n")[1] == f"{STAMP.format(1)} aabbcc"


def test_text_keeps_its_blanks(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text(lines("  two  ", "", " "))
    assert read(tmp_path) == "  two  \n\n \n"


@pytest.mark.parametrize("tail", [0, 1, 2, 3, 7, 8, 9, 100])
def test_tail_counts_over_rotated_files(tmp_path: Path, tail: int) -> None:
    whole = [str(n) for n in range(8)]
    (tmp_path / "0.log.20261124-143301").write_text(lines(*whole[:3]))
    (tmp_path / "0.log.20261124-143301-0001").write_text(lines(*whole[3:6]))
    (tmp_path / "0.log").write_text(lines(*whole[6:]))
    assert read(tmp_path).split() == whole
    assert read(tmp_path, tail=tail).split() == whole[max(len(whole) - tail, 0) :]


def test_tail_of_long_and_unfinished_lines(tmp_path: Path) -> None:
    long = "x" * 16384
    (tmp_path / "0.log").write_text(
        lines("first") + line(long, tag="P") * 6 + line("y") + lines("third") + line("no end", tag="P")
    )
    assert read(tmp_path, tail=2) == "third\nno end"
    assert read(tmp_path, tail=3) == long * 6 + "y\nthird\nno end"
    assert read(tmp_path, tail=4).startswith("first\n")


def test_since_and_limit(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text(line("old", second=1) + line("new", second=5))
    at = 1795530783.0  # 2026-11-24T14:33:03Z
    assert time.strftime("%H:%M:%S", time.gmtime(at)) == "14:33:03"
    assert read(tmp_path, since=at) == "new\n"
    assert read(tmp_path, limit=5) == "old\nn"


def test_rotation_while_reading_loses_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text(lines("a"))
    reader = LogReader(str(tmp_path), 0, LogQuery(follow=True))
    assert reader.read_some() == b"a\n"
    with path.open("a") as writer:
        path.rename(tmp_path / "0.log.20261124-143301")
        writer.write(lines("b"))  # the writer still has it open
        writer.flush()
        assert reader.read_some() == b"b\n"  # and the new file does not exist yet
        path.write_text(lines("c"))
        path.rename(tmp_path / "0.log.20261124-143302")
        path.write_text(lines("d"))
    got = b""
    while chunk := reader.read_some():
        got += chunk
    reader.close()
    assert got == b"c\nd\n"


def test_next_attempt_is_read_when_following_only(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text(lines("zero") + line("unfinished", tag="P"))
    (tmp_path / "2.log").write_text(lines("two"))
    assert attempts(str(tmp_path)) == [0, 2]
    assert read(tmp_path) == "zero\nunfinished"
    assert read(tmp_path, follow=True) == "zero\nunfinished\ntwo\n"


# -- whose log -----------------------------------------------------------------------------------------------


def state(pod: Json, **container: Any) -> Json:
    pod["status"]["containerStatuses"][0].update(container)
    return pod


def test_following_continues_when_the_log_of_an_attempt_is_removed(tmp_path: Path) -> None:
    (tmp_path / "0.log").write_text(lines("a"))
    reader = LogReader(
        str(tmp_path), 1, LogQuery(follow=True)
    )  # removed between being chosen and being opened
    assert reader.read_some() == b""
    (tmp_path / "2.log").write_text(lines("c"))
    assert reader.read_some() == b"c\n"
    (tmp_path / "2.log").unlink()
    (tmp_path / "4.log").write_text(lines("e"))
    assert reader.read_some() == b"e\n"
    reader.close()


def test_pick_container() -> None:
    two = pod_doc("web", containers=[{"name": n, "image": "i"} for n in "ab"], initContainers=[{"name": "i"}])
    assert pick_container(pod_doc("web"), "") == "app"
    assert pick_container(two, "i") == "i"
    with pytest.raises(ApiError, match=r"choose one of: \[a b\] or one of the init containers: \[i\]"):
        pick_container(two, "")
    with pytest.raises(ApiError, match="container nix is not valid for pod web"):
        pick_container(two, "nix")


def test_pick_attempt(tmp_path: Path) -> None:
    pod = pod_doc("web")
    with pytest.raises(ApiError, match="is waiting to start: trying and failing to pull image"):
        waiting = state(pod_doc("web"), state={"waiting": {"reason": "ImagePullBackOff"}})
        pick_attempt(str(tmp_path), waiting, "app", previous=False)
    with pytest.raises(ApiError, match='the log of container "app" in pod "web" was removed from') as removed:
        pick_attempt(str(tmp_path), pod, "app", previous=False)
    assert removed.value.code == 404
    (tmp_path / "3.log").write_text("")
    assert pick_attempt(str(tmp_path), pod, "app", previous=False) == 3
    with pytest.raises(ApiError, match='previous terminated container "app" in pod "web" not found'):
        pick_attempt(str(tmp_path), pod, "app", previous=True)
    crashed = state(pod_doc("web"), state={"waiting": {"reason": "CrashLoopBackOff"}})
    assert pick_attempt(str(tmp_path), crashed, "app", previous=True) == 3
    (tmp_path / "4.log").write_text("")
    assert pick_attempt(str(tmp_path), pod, "app", previous=True) == 3


@pytest.mark.parametrize(
    ("policy", "code", "expected"),
    [
        ("Always", 0, True),
        ("Always", 1, True),
        ("OnFailure", 0, False),
        ("OnFailure", 1, True),
        ("Never", 1, False),
    ],
)
def test_following_continues_while_the_container_may_restart(policy: str, code: int, expected: bool) -> None:
    ended = {"terminated": {"exitCode": code}}
    pod = state(pod_doc("web", restartPolicy=policy), state=ended)
    assert can_grow(pod, "app") is expected
    assert can_grow(pod_doc("web", restartPolicy=policy), "app")
    assert not can_grow(None, "app")
    pod["metadata"]["deletionTimestamp"] = "2026-11-24T14:33:00Z"
    assert not can_grow(pod, "app")


def test_following_ends_after_an_init_container_succeeds() -> None:
    pod = pod_doc("web", initContainers=[{"name": "i"}, {"name": "s", "restartPolicy": "Always"}])
    done = {"state": {"terminated": {"exitCode": 0}}}
    pod["status"]["initContainerStatuses"] = [{"name": "i", **done}, {"name": "s", **done}]
    assert not can_grow(pod, "i")
    assert can_grow(pod, "s")


# -- following -----------------------------------------------------------------------------------------------


async def _next(stream: AsyncGenerator[bytes, None]) -> str:
    async with asyncio.timeout(SECONDS):
        return (await anext(stream)).decode()


def test_following_survives_restart_and_rotation_until_the_pod_is_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = FakeNode(tmp_path)
        await node.store.create("Pod", pod_doc("web"))
        record = node.store.get("Pod", "default", "web")
        assert record is not None
        directory = Path(node.container_log_dir(record.doc, "app"))
        directory.mkdir(parents=True)
        log = directory / "0.log"
        log.write_text(lines("one"))
        stream = open_log(node, record.doc, "app", LogQuery(follow=True), previous=False)
        assert await _next(stream) == "one\n"

        waits = asyncio.create_task(_next(stream))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        with log.open("a") as file:
            file.write(lines("two"))
        assert await waits == "two\n"
        assert time.monotonic() - began < 2  # the reader is woken; it does not poll every five seconds

        log.rename(f"{log}.20261124-143301")
        log.write_text(lines("three"))
        assert await _next(stream) == "three\n"

        (directory / "1.log").write_text(lines("restarted"))
        assert await _next(stream) == "restarted\n"

        waits = asyncio.create_task(_next(stream))
        await asyncio.sleep(0.05)
        with (directory / "1.log").open("a") as file:
            file.write(lines("last"))
        await node.store.delete(record.uid)
        assert await waits == "last\n"
        with pytest.raises(StopAsyncIteration):
            await _next(stream)
        await node.store.close()

    asyncio.run(scenario())


def test_an_abandoned_stream_keeps_no_file_open(tmp_path: Path) -> None:
    async def scenario() -> None:
        node = FakeNode(tmp_path)
        await node.store.create("Pod", pod_doc("web"))
        pod = pod_doc("web")
        directory = Path(node.container_log_dir(pod, "app"))
        directory.mkdir(parents=True)
        (directory / "0.log").write_text(lines("one"))
        before = len(os.listdir("/proc/self/fd"))
        stream = open_log(node, pod, "app", LogQuery(follow=True), previous=False)
        assert await _next(stream) == "one\n"
        await stream.aclose()
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == before
        await node.store.close()

    asyncio.run(scenario())


# -- the property ---------------------------------------------------------------------------------------------

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.text("ab ", max_size=5), st.booleans()),
        st.sampled_from([("rotate", "", False), ("restart", "", False), ("read", "", False)]),
    ),
    max_size=40,
)


@given(_STEPS, st.integers(1, 50))
@settings(max_examples=150)
def test_every_line_is_read_once_and_in_order_during_rotation(
    steps: list[tuple[str, str, bool]], chunk: int
) -> None:
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfiles, "CHUNK", chunk)
        attempt, rotations, expected, partial = 0, 0, b"", b""
        writer = open(f"{root}/0.log", "ab", buffering=0)  # noqa: SIM115 - reopened in the loop
        reader = LogReader(root, 0, LogQuery(follow=True))
        got = b""
        for action, text, whole in steps:
            if action == "write":
                writer.write(line(text, tag="F" if whole else "P").encode())
                partial += text.encode()
                if whole:
                    expected, partial = expected + partial + b"\n", b""
            elif action == "read":
                while piece := reader.read_some():
                    got += piece
            else:
                if action == "rotate":
                    rotations += 1
                    os.rename(f"{root}/{attempt}.log", f"{root}/{attempt}.log.20261124-{rotations:06d}")
                else:
                    attempt += 1
                    expected, partial = expected + (partial + b"\n" if partial else b""), b""
                writer.close()
                writer = open(f"{root}/{attempt}.log", "ab", buffering=0)  # noqa: SIM115
        writer.close()
        while piece := reader.read_some():
            got += piece
        got += reader.finish()
        reader.close()
        assert got == expected + partial

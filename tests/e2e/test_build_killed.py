"""Killed builds, and other commands that run at the same time: nothing is left but cache."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runtime import syscalls
from tests.e2e.build_support import FROM, build, check_nothing_left, context, left_over, states
from tests.e2e.node import IMAGE, KUBELITE, REPO, Node, running_node


def started(node: Node, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*KUBELITE, "build", "--progress", "plain", *words],
        cwd=REPO,
        env=node.environ(),
        stderr=subprocess.PIPE,
    )


def until(process: subprocess.Popen[bytes], text: str) -> str:
    """Read its progress up to a line with this text."""
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line.decode()
        if text in said:
            return said
    raise AssertionError(f"it ended without {text!r}: {said}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_build_leaves_nothing_but_cache(builder: Node, tmp_path: Path, number: int) -> None:
    mark = f"{600 + number}.{os.getpid()}"
    where = context(tmp_path / "k", FROM + f"RUN echo {mark} > /m\nRUN echo going; sleep {mark}\n")
    process = started(builder, "-t", "killed:1", where)
    until(process, " going\n")
    held = left_over(builder)
    assert any("build-" in path for path in held)
    process.send_signal(number)
    assert process.wait(30) == (-number if number == signal.SIGKILL else 130)
    assert process.stderr is not None
    process.stderr.close()
    builder.wait(lambda: not sleeping(mark), "the RUN to end")
    builder.wait(lambda: not [p for p in left_over(builder) if "ingest" not in p], "cgroup and lease to go")
    assert builder.cli("image", "inspect", "killed:1", check=False).code == 1
    # the next writer removes what kill -9 leaves of the session
    (tmp_path / "k/Containerfile").write_text(FROM + f"RUN echo {mark} > /m\n")
    assert states(build(builder, "-t", "killed:2", where)[0]) == {f"RUN echo {mark} > /m": "cached"}
    check_nothing_left(builder)


def sleeping(word: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if f"sleep\0{word}\0".encode() in line:
            found.append(pid)
    return found


def family(pid: int) -> list[int]:
    """The pids of a process and its children."""
    with contextlib.suppress(OSError):
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [pid, *(int(word) for task in tasks for word in (task / "children").read_text().split())]
    return [pid]


def cgroups(node: Node) -> list[str]:
    return [path for path in left_over(node) if "/sys/fs/cgroup" in path]


@pytest.mark.parametrize("who", ["the next build", "the next start"])
def test_a_builder_and_its_runner_that_die_together(builder: Node, tmp_path: Path, who: str) -> None:
    where = context(tmp_path / "t", FROM + f"RUN echo going; sleep 601.{os.getpid()}\n")
    process = started(builder, where)
    until(process, " going\n")
    both = family(process.pid)
    assert len(both) == 2
    for pid in both:
        os.kill(pid, signal.SIGKILL)
    process.wait(10)
    assert process.stderr is not None
    process.stderr.close()
    builder.wait(lambda: not sleeping(f"601.{os.getpid()}"), "the RUN to end with its parent")
    if cgroups(builder):
        found = builder.cli("doctor", check=False)
        assert found.code == 1 and "belongs to a build that was killed (processes: none)" in found.out
    if who == "the next start":
        builder.restart(signal.SIGKILL)
        builder.wait(lambda: not cgroups(builder), "the start to sweep")
    context(tmp_path / "t", FROM + "RUN true\n")
    build(builder, where)
    check_nothing_left(builder)
    assert builder.cli("doctor").code == 0


def test_killed_together_at_any_moment(builder: Node, tmp_path: Path) -> None:
    """Before, during and after RUNs and COPYs, at moments from a seed."""
    chance = random.Random(5)
    for number in range(8):
        mark = f"0.{700 + number}{os.getpid()}"
        text = f"RUN sleep {mark} & sleep 0.3; dd if=/dev/zero of=/b bs=1M count=5 2>&1; wait\n"
        text += "COPY Containerfile /\nRUN rm /b\n"
        process = started(builder, "-t", "moment:1", "--no-cache", context(tmp_path / "m", FROM + text))
        time.sleep(chance.uniform(0.1, 3.0))
        everyone = family(process.pid)
        chance.shuffle(everyone)
        for pid in everyone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()
        builder.wait(lambda mark=mark: not sleeping(mark), "what ran to end")  # type: ignore[misc]
        mounts = Path("/proc/self/mountinfo").read_text()
        assert str(builder.root / "images") not in mounts
    build(builder, "--no-cache", context(tmp_path / "m", FROM + "RUN true\n"))
    builder.wait(lambda: left_over(builder) == [], "nothing to be left")
    assert builder.cli("doctor", "--deep").code == 0


def test_pruning_and_other_builds_beside_a_build(builder: Node, tmp_path: Path) -> None:
    base, mark = str(tmp_path / "base.tar"), tmp_path.name
    builder.cli("save", IMAGE, "-o", base)
    where = context(
        tmp_path / "pr",
        FROM + f"RUN echo {mark} > /x\nRUN --mount=type=cache,id={mark},target=/c "
        "touch /c/here; echo going; until test -e /c/stop; do sleep 0.05; done; cat /x > /y\n",
    )
    processes = [started(builder, "-t", f"beside:{number}", where) for number in (1, 2)]
    for process in processes:
        until(process, " going\n")
    builder.cli("image", "prune", "--all", "--build-cache", "--force")
    assert builder.cli("image", "inspect", IMAGE, check=False).code == 1
    (mount,) = [p for p in (builder.root / "images/cache-mounts").iterdir() if (p / "here").exists()]
    (mount / "stop").touch()
    for process in processes:
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert process.wait(30) == 0, said
        process.stderr.close()
    for number in (1, 2):
        root = Path(builder.cli("image", "mount", f"beside:{number}").out.strip())
        assert (root / "y").read_text() == f"{mark}\n" and (root / "bin/busybox").exists()
        builder.cli("image", "unmount", str(root))
    builder.cli("load", base)
    check_nothing_left(builder)


def test_a_disk_that_fills_up_during_a_build(tmp_path: Path, images: Path) -> None:
    """During COPY and during RUN: the error names the line, nothing is left, and the next build has the space."""
    disk = tmp_path / "disk"
    disk.mkdir()
    syscalls.mount("tmpfs", str(disk), "tmpfs", 0, "size=40m")
    try:
        with running_node(disk / "node", images) as node:
            where = context(tmp_path / "c", FROM + "RUN echo one > /one\nCOPY large /large\n")
            with (tmp_path / "c/large").open("wb") as file:
                file.truncate(60 << 20)
            for text, words in (
                (
                    "COPY large /large\n",
                    "Containerfile:3: COPY: no space left on the image store's file system",
                ),
                (
                    "RUN dd if=/dev/zero of=/large bs=1M count=60\n",
                    "Containerfile:3: RUN failed with exit code 1",
                ),
                # there is space for the layer's directory, but not for its tar
                (
                    "RUN dd if=/dev/zero of=/large bs=1M count=20\n",
                    "no space left on the image store's file system",
                ),
            ):
                (tmp_path / "c/Containerfile").write_text(FROM + "RUN echo one > /one\n" + text)
                failed = node.cli("build", "-q", where, check=False, timeout=60)
                assert failed.code == 1 and words in failed.err, failed
                check_nothing_left(node)
                assert node.cli("doctor", "--deep").code == 0
            (tmp_path / "c/Containerfile").write_text(FROM + "RUN echo one > /one\nRUN cat /one\n")
            assert states(build(node, where)[0]) == {"RUN echo one > /one": "cached", "RUN cat /one": "done"}
    finally:
        syscalls.umount2(str(disk))

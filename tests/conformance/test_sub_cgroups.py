"""exec --cgroup: run a process in a cgroup below the container's, in all hierarchies or some."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtime.cgroups import Mode, layout
from tests.conformance.conftest import Bundle, Runtime


def places(bundle: Bundle) -> list[str]:
    """The container's directory in each hierarchy."""
    found = layout()
    points = [*found.hierarchies, *([found.unified] if found.unified else [])]
    return [f"{point}/{bundle.id}" for point in points]


def of_process(out: str) -> dict[str, str]:
    """Controllers → path, of /proc/<pid>/cgroup."""
    lines = (line.split(":", 2) for line in out.splitlines())
    return {controllers: path for _, controllers, path in lines}


def test_one_for_all_controllers(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    for place in places(bundle):
        os.mkdir(f"{place}/sub")
        for file in (f"{place}/sub/cpuset.cpus", f"{place}/sub/cpuset.mems"):
            if os.path.exists(file):  # v1: empty unless the parent says otherwise
                Path(file).write_text(
                    Path(file.replace("/sub/", "/")).read_text(encoding="utf-8"), encoding="utf-8"
                )
    done = runtime("exec", "--cgroup", "sub", bundle.id, "cat", "/proc/self/cgroup", check=True)
    known = layout().v1.keys() | {""}
    mine = {path for of, path in of_process(done.out).items() if known.intersection(of.split(","))}
    assert mine == {f"/{bundle.id}/sub"}
    done = runtime("exec", "--cgroup", "/", bundle.id, "cat", "/proc/self/cgroup", check=True)
    mine = {path for of, path in of_process(done.out).items() if known.intersection(of.split(","))}
    assert mine == {f"/{bundle.id}"}


def test_one_for_some_controllers(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    v1 = layout().v1
    words = ("exec", "--cgroup", "memory:submem", "--cgroup", "cpu,cpuacct:subcpu", bundle.id)
    if layout().mode is Mode.V2:
        assert "unknown controller" in runtime(*words, "true").err
        return
    os.mkdir(f"{v1['memory']}/{bundle.id}/submem")
    for mount in {v1["cpu"], v1["cpuacct"]}:
        os.mkdir(f"{mount}/{bundle.id}/subcpu")
    found = of_process(runtime(*words, "cat", "/proc/self/cgroup", check=True).out)
    by_controller = {one: path for of, path in found.items() for one in of.split(",")}
    assert by_controller["memory"] == f"/{bundle.id}/submem"
    assert by_controller["cpu"] == by_controller["cpuacct"] == f"/{bundle.id}/subcpu"
    assert by_controller["pids"] == f"/{bundle.id}"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["../x"], "sub cgroup path"),
        (["memory:../x"], ""),
        (["nonexistent"], "o such file or directory"),
        (["cpu:nonexistent"], ""),
        (["whaaat:/"], "unknown controller whaaat"),
        (["one", "two"], "(missing <controller>: prefix)"),
    ],
)
def test_invalid_sub_cgroups(runtime: Runtime, bundle: Bundle, asked: list[str], words: str) -> None:
    refused(runtime, bundle, asked, words)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (["cpu,:sub"], "(empty <controller> prefix)"),
        (["cpu:one", "cpu:two"], "controller cpu specified multiple times"),
    ],
)
def test_ambiguous_sub_cgroups(runtime: Runtime, bundle: Bundle, asked: list[str], words: str) -> None:
    refused(runtime, bundle, asked, words)


def refused(runtime: Runtime, bundle: Bundle, asked: list[str], words: str) -> None:
    bundle.start("sleep", "60")
    flags = [word for one in asked for word in ("--cgroup", one)]
    done = runtime("exec", *flags, bundle.id, "true")
    assert done.code != 0
    assert words in done.err

"""`inspect`: what the kernel reports of a process, as far as no container is needed."""

from __future__ import annotations

import os

from kubelite.diagnosis.inspection import arithmetic, mounts, namespaces, process

RESOURCES = {"requests": {"cpu": "250m"}, "limits": {"cpu": "500m", "memory": "64Mi"}}


def test_rates_and_limits_are_computed() -> None:
    assert (
        arithmetic("cpu limit", RESOURCES, v2=True)
        == "limits.cpu 500m = 500/1000 cores x 100000 µs = 50000 µs of every 100000"
    )
    assert (
        arithmetic("cpu request", RESOURCES, v2=False) == "requests.cpu 250m = 250 x 1024/1000 = 256 shares"
    )
    assert arithmetic("cpu request", RESOURCES, v2=True).endswith("= 256 shares = weight 35")
    assert arithmetic("cpu request", {"limits": {"cpu": 1}}, v2=False).startswith("requests.cpu 1 = 1000 x")
    assert arithmetic("memory limit", RESOURCES, v2=True) == "limits.memory 64Mi = 67108864 bytes"
    assert arithmetic("processes", RESOURCES, v2=True) == ""
    assert arithmetic("cpu limit", {}, v2=True) == ""


def test_the_test_process_is_inspected() -> None:
    me = os.getpid()
    found = process(me)
    assert found["uid"] == [str(os.geteuid())]
    soft = next(r["soft"] for r in found["rlimits"] if r["name"] == "Max open files")
    assert soft.isdigit()
    assert any(m["target"] == "/proc" and m["type"] == "proc" for m in mounts(me))
    assert process(2**22 + 1) == {}


def test_namespaces_are_compared_by_inode() -> None:
    me = os.getpid()
    found = namespaces(me, {"myself": me, "nobody": 2**22 + 1})
    assert found["net"]["sharedWith"] == ["myself"]
    assert found["net"]["inode"] == str(os.stat("/proc/self/ns/net").st_ino)

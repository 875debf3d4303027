"""NFS volumes: the mount attempts, and how long a mount may take."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.model.errors import MountError
from kubelite.node.spec import volume_plans
from kubelite.node.spec.volume_plans import Kind, VolumePlan
from kubelite.node.storage import slow_mounts
from kubelite.node.storage.nfs import Share, attempts
from kubelite.node.storage.slow_mounts import SlowMounts
from runtime.errors import SyscallError
from tests.unit.node.decide.pod_worlds import UID, make_pod
from tests.unit.node.spec.pod_sources import sources
from tests.waiting import until_async as until

TO = ("192.0.2.7", "192.0.2.1")
CLIENT = "addr=192.0.2.7,clientaddr=192.0.2.1"


@pytest.mark.parametrize(
    ("options", "tried"),
    [
        (
            (),
            [
                ("nfs4", 0, f"vers=4.2,{CLIENT}"),
                ("nfs4", 0, f"vers=4.1,{CLIENT}"),
                ("nfs4", 0, f"vers=4.0,{CLIENT}"),
                ("nfs", 0, "vers=3,addr=192.0.2.7,mountaddr=192.0.2.7,nolock"),
            ],
        ),
        (("nfsvers=4.1", "hard", "ro"), [("nfs4", 1, f"vers=4.1,{CLIENT},hard")]),
        (("vers=3", "lock"), [("nfs", 0, "vers=3,addr=192.0.2.7,mountaddr=192.0.2.7,lock")]),
        (("vers=4", "noatime"), [("nfs4", 1024, f"vers=4.{n},{CLIENT}") for n in (2, 1, 0)]),
    ],
)
def test_mount_attempts(options: tuple[str, ...], tried: list[tuple[str, int, str]]) -> None:
    assert [tuple(one) for one in attempts(Share("nas", "/export", options), *TO)] == tried


def test_source_and_options_of_the_volume() -> None:
    pod = make_pod("a", volumes=[{"name": "v", "nfs": {"server": "nas", "path": "/e", "readOnly": True}}])
    plan = volume_plans.plan_volume(pod, pod.spec.volumes[0], sources())
    path = f"/var/lib/kubelite/pods/{UID}/volumes/kubernetes.io~nfs/v"
    assert plan == VolumePlan("v", Kind.NFS, path, share=Share("nas", "/e", ("ro",)))
    assert Share("fe80::1", "/e").source == "[fe80::1]:/e"


class Kernel:
    """A fake mount(2)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: int) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers = list(answers)
        self.go = threading.Event()
        self.go.set()
        monkeypatch.setattr("runtime.syscalls.mount", self.mount)

    def mount(self, *arguments: Any, waits: bool) -> None:
        assert waits, "the daemon's other threads go on"
        self.calls.append(arguments)
        assert self.go.wait(60)
        code = self.answers.pop(0) if self.answers else 0
        if code:
            raise SyscallError(code, "mount", str(arguments[0]))


def mounted(tmp_path: Path, server: str = "127.0.0.1") -> str:
    """The error of an attempt to mount, or ""."""
    try:
        asyncio.run(SlowMounts().mount("v", str(tmp_path / "v"), Share(server, "/e")))
    except MountError as error:
        return str(error).rpartition(": ")[2]
    return ""


@pytest.mark.parametrize(
    ("answers", "said", "versions"),
    [
        ((), "", ["vers=4.2"]),
        ((errno.EPROTONOSUPPORT, errno.EINVAL), "", ["vers=4.2", "vers=4.1", "vers=4.0"]),
        ((errno.ENODEV,), "this kernel has no NFS client (modprobe nfs)", ["vers=4.2"]),
        ((errno.EACCES,), "access denied by server", ["vers=4.2"]),
        ((errno.ENOENT,), "No such file or directory", ["vers=4.2"]),
        (
            (errno.EPROTONOSUPPORT,) * 4,
            "the server supports none of the requested versions",
            ["vers=4.2", "vers=4.1", "vers=4.0", "vers=3"],
        ),
    ],
)
def test_versions_and_errors(
    answers: tuple[int, ...],
    said: str,
    versions: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel(monkeypatch, *answers)
    assert mounted(tmp_path) == said
    assert [call[4].partition(",")[0] for call in kernel.calls] == versions
    assert all(call[:2] == ("127.0.0.1:/e", str(tmp_path / "v")) for call in kernel.calls)


def test_only_one_thread_waits_for_an_unreachable_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch)
    kernel.go.clear()
    monkeypatch.setattr(slow_mounts, "WAIT", 0.01)

    async def story() -> None:
        shares, path, share = SlowMounts(), str(tmp_path / "v"), Share("127.0.0.1", "/e")
        for _ in range(3):
            with pytest.raises(MountError, match="the server does not answer; still waiting"):
                await shares.mount("v", path, share)
        await until(lambda: kernel.calls, "the thread to have asked")
        kernel.go.set()
        await until(lambda: not shares._pending, "the answer")
        assert len(kernel.calls) == 1, "one mount for all who asked"

    asyncio.run(story())

"""Pause processes, and containers in their user namespaces: file owners and privileges."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.oci import container as engine
from runtime.shim import pause
from tests.kernel.conftest import Engine, cannot_map_ids, mount
from tests.waiting import SECONDS

BASE = 40 * 65536
MAPS: list[Any] = [{"containerID": 0, "hostID": BASE, "size": 65536}]


@pytest.fixture
def held(no_leaks: Callable[[], None], busybox_rootfs: Path) -> Iterator[pause.Pause]:
    if cannot_map_ids(busybox_rootfs):
        pytest.skip("needs a file system that can be id-mapped")
    found = pause.start(processes=False, id_maps=MAPS)
    yield found
    found.end()


def in_user_namespace(oci: Engine, held: pause.Pause, *args: str, **process: Any) -> dict[str, Any]:
    spec = oci.spec(*args, **process)
    names = {"network": "net", "ipc": "ipc", "uts": "uts", "user": "user"}
    spec["linux"] |= {"uidMappings": MAPS, "gidMappings": MAPS}
    spec["linux"]["namespaces"] = [
        *({"type": kind} for kind in ("pid", "mount", "cgroup")),
        *({"type": kind, "path": f"/proc/{held.pid}/ns/{name}"} for kind, name in names.items()),
    ]
    return spec


def test_root_of_the_pod_is_an_unprivileged_user_outside(
    held: pause.Pause, oci: Engine, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "mine").write_text("root's\n")
    script = (
        "id -u; cat /proc/self/uid_map; stat -c '%u %g' /etc/motd /data/mine /bin/busybox; "
        "echo new > /data/new && echo new > /etc/new && stat -c '%u' /data/new /etc/new; "
        "hostname inside && hostname; busybox mkdir /m; busybox mount -t tmpfs none /m && echo mounted; echo $$; "
        "chown 1000:1001 /data/new && stat -c '%u %g' /data/new; echo x > /proc/sys/kernel/hostname || true"
    )
    spec = in_user_namespace(oci, held, "sh", "-c", script)
    spec["process"]["capabilities"]["effective"] += ["CAP_SYS_ADMIN"]
    spec["process"]["capabilities"]["permitted"] += ["CAP_SYS_ADMIN"]
    spec["process"]["capabilities"]["bounding"] += ["CAP_SYS_ADMIN"]
    spec["mounts"].append(mount("/data", "bind", "rbind", "idmap", source=str(volume)))
    found = oci.run(spec)
    assert found.code == 0, found
    assert found.out.split() == [
        "0", "0", str(BASE), "65536", *["0"] * 6, "0", "0", "inside", "mounted", "1", "1000", "1001",
    ]  # fmt: skip
    assert (volume / "new").stat().st_uid == 1000, "what is id-mapped is as its user says, on the disk"
    upper = next(tmp_path.glob("bundle*/upper"))
    assert (upper / "etc/new").stat().st_uid == BASE, "what it writes to its root is its own"
    assert os.uname().nodename != "inside"


def test_ids_are_mapped_and_exec_joins_the_namespace(held: pause.Pause, oci: Engine) -> None:
    user = {"uid": 1000, "gid": 1001, "additionalGids": [7]}
    made = oci.start(in_user_namespace(oci, held, "sleep", "60", user=user))
    status = Path(f"/proc/{made.pid}/status").read_text()
    assert f"Uid:\t{BASE + 1000}\t" in status
    assert f"Groups:\t{BASE + 7} \n" in status
    assert os.readlink(f"/proc/{made.pid}/ns/user") == os.readlink(f"/proc/{held.pid}/ns/user")
    said = oci.exec(made, "sh", "-c", "id -u; echo $$; cat /proc/1/comm")
    assert said.out.split()[:1] == ["0"]
    assert said.out.split()[2:] == ["sleep"]


def test_standard_output_can_be_opened_again_by_its_user(held: pause.Pause, oci: Engine) -> None:
    read, write = os.pipe()
    null = os.open("/dev/null", os.O_RDONLY)
    spec = in_user_namespace(oci, held, "sh", "-c", "echo by name > /dev/stdout", user={"uid": 9, "gid": 9})
    made = oci.start(spec, stdio=engine.Stdio(null, write, write))
    os.close(write)
    os.close(null)
    assert oci.wait(made).code == 0
    assert os.read(read, 100) == b"by name\n"
    os.close(read)


def test_an_id_outside_the_range_is_reported(held: pause.Pause, oci: Engine) -> None:
    with pytest.raises(Exception, match="id 70000 is not mapped"):
        oci.create(in_user_namespace(oci, held, "true", user={"uid": 70000, "gid": 0}))


def test_a_failure_after_the_second_clone_is_reported_and_leaves_nothing(
    held: pause.Pause, oci: Engine, no_leaks: Callable[[], None]
) -> None:
    spec = in_user_namespace(oci, held, "true")
    spec["mounts"].append(mount("/data", "bind", "rbind", "idmap", source="/proc/self/ns/net"))
    with pytest.raises(Exception, match="id-mapped"):
        oci.create(spec)
    spec["mounts"][-1] = mount("/data", "nosuchfs")
    with pytest.raises(Exception, match="nosuchfs"):
        oci.create(spec)


def test_a_pause_process_has_nothing_to_exploit(no_leaks: Callable[[], None], oci: Engine) -> None:
    held = pause.start(processes=True)
    try:
        until = time.monotonic() + SECONDS
        while "Name:\tpause\n" not in (status := Path(f"/proc/{held.pid}/status").read_text()):
            assert time.monotonic() < until, status  # it sets its name after execve
        assert "CapPrm:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
        assert os.listdir(f"/proc/{held.pid}/root/") == []
        assert os.listdir(f"/proc/{held.pid}/fd") == []
        spec = oci.spec("sh", "-c", "(sleep 0.01 &) ; sleep 0.3; ps -o pid,comm,stat; cat /proc/1/environ")
        spec["linux"]["namespaces"] = [
            {"type": "pid", "path": f"/proc/{held.pid}/ns/pid"},
            *({"type": kind} for kind in ("mount", "ipc", "uts", "cgroup")),
        ]
        found = oci.run(spec)
        assert found.code in (0, 1), found
        lines = found.out.splitlines()
        assert any(line.split()[:2] == ["1", "pause"] for line in lines), found
        assert not any(" Z" in line for line in lines), "orphans are reaped by it"
    finally:
        held.end()

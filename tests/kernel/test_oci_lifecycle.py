"""Create, start, kill, update, delete on a real kernel."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from runtime.cgroups import open_cgroup
from runtime.errors import StateError
from runtime.oci import container as engine
from tests.kernel.conftest import Engine
from tests.waiting import until

pytestmark = pytest.mark.kernel


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(") ", 1)[1][0] not in "ZX"
    except OSError:
        return False


# --- states ---


def test_nothing_runs_before_start(oci: Engine) -> None:
    container = oci.create(oci.spec("sh", "-c", "echo ran > /ran"))
    assert alive(container.pid)
    assert open_cgroup(f"{oci.cgroup}/c0").pids() == [container.pid]
    time.sleep(0.05)
    assert not (oci.tmp / "bundle0/upper/ran").exists()
    container.start()
    assert oci.wait(container).code == 0
    assert (oci.tmp / "bundle0/upper/ran").exists()


def test_start_twice(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    with pytest.raises(StateError, match="not in the state created"):
        container.start()


def test_start_of_a_killed_init(oci: Engine) -> None:
    container = oci.create(oci.spec("true"))
    container.kill(9)
    until(lambda: not alive(container.pid))
    with pytest.raises(StateError):
        container.start()
    with pytest.raises(StateError, match="not running"):
        os.waitpid(container.pid, 0)
        container.kill(15)


def test_delete_of_a_created_container(oci: Engine) -> None:
    container = oci.create(oci.spec("true"))
    container.delete()
    os.waitpid(container.pid, 0)
    assert not open_cgroup(f"{oci.cgroup}/c0").exists()
    container.delete()  # idempotent


def test_delete_ends_a_running_container(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "sleep 60 & sleep 60 & wait")
    spec["linux"]["namespaces"] = [
        {"type": "mount"}
    ]  # the host's pids: the end of the init ends nothing else
    container = oci.start(spec)
    until(lambda: len(container.cgroup.pids()) == 3)
    pids = container.cgroup.pids()
    oci.delete(container)
    assert not [pid for pid in pids if alive(pid)]


def test_a_cgroup_in_use_is_refused(oci: Engine) -> None:
    oci.start(oci.spec("sleep", "60"))
    with pytest.raises(StateError, match="is not empty"):
        engine.create(
            oci.spec("true"),  # type: ignore[arg-type]
            container_id="other", bundle=str(oci.tmp), stdio=None, rootfs=None, cgroup_path=f"{oci.cgroup}/c0",
        )  # fmt: skip


# --- signals ---


def test_kill_reaches_the_init(oci: Engine) -> None:
    container = oci.start(oci.spec("sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"))
    until(lambda: os.fstat(oci.outputs[container.pid][0]).st_size > 0)
    container.kill(signal.SIGTERM)
    assert oci.wait(container).code == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_kill_everything(oci: Engine, number: int) -> None:
    spec = oci.spec("sh", "-c", "sleep 60 & sleep 60 & wait")
    spec["linux"]["namespaces"] = [{"type": "mount"}]
    container = oci.start(spec)
    until(lambda: len(container.cgroup.pids()) == 3)
    container.kill(number, everything=True)
    assert oci.wait(container).code == 128 + number
    until(lambda: container.cgroup.pids() == [])


def test_death_of_the_parent_ends_the_container(oci: Engine) -> None:
    """A killed shim leaves neither a running nor a created container behind."""
    for started in (True, False):
        reader, writer = os.pipe()
        shim = os.fork()
        if shim == 0:
            made = oci.create(oci.spec("sleep", "60", user={"uid": 1000, "gid": 1000}))
            if started:
                made.start()
            os.write(writer, str(made.pid).encode())
            time.sleep(60)
            os._exit(0)
        os.close(writer)
        pid = int(os.read(reader, 20))
        os.close(reader)
        assert alive(pid)
        os.kill(shim, signal.SIGKILL)
        os.waitpid(shim, 0)
        until(lambda pid=pid: not alive(pid), "its death")  # type: ignore[misc]
        open_cgroup(oci.cgroup).remove()


# --- update ---


def test_update_changes_the_limits(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    assert container.update({"pids": {"limit": 23}}) == []
    directory = container.cgroup.directory("pids")
    assert directory is not None
    assert Path(f"{directory}/pids.max").read_text(encoding="ascii") == "23\n"


# --- user namespaces ---


def test_user_namespace_with_mappings(oci: Engine) -> None:
    for directory in (oci.tmp, *oci.tmp.parents[:-2], oci.rootfs):  # root in the container is nobody outside
        directory.chmod(directory.stat().st_mode | 0o555)
    spec = oci.spec(
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; test -c /dev/null && echo x > /dev/null && echo dev; exec sleep 60",
    )
    spec["linux"]["namespaces"] += [
        {"type": "user"},
        {"type": "network"},
    ]  # sysfs needs a network namespace of the same owner
    for key in ("uidMappings", "gidMappings"):
        spec["linux"][key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]
    container = oci.start(spec)
    assert oci.exec(container, "id", "-u").out == "0\n"
    assert os.stat(f"/proc/{container.pid}").st_uid == 100000
    cmdline = Path(f"/proc/{container.pid}/cmdline")
    until(lambda: cmdline.read_bytes().startswith(b"sleep"), "it to have said all")
    container.kill(9)
    lines = oci.wait(container).out.splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", "100000", "65536"]
    assert lines[2] == "dev"

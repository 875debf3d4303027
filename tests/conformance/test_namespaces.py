"""config-linux.md: joined user namespaces, the loopback interface, memory policies, delegated cgroups."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.conftest import Bundle, Runtime, cgroup_file
from tests.conformance.test_process import console_socket, read_terminal
from tests.waiting import until


def reachable(bundle: Bundle) -> None:
    """Make the directory reachable for users of a user namespace."""
    for directory in (bundle.path, *bundle.path.parents):
        if not directory.stat().st_mode & 0o001:
            directory.chmod(0o711)


def with_users(bundle: Bundle) -> None:
    reachable(bundle)
    bundle.namespaces(user="")
    for key in ("uidMappings", "gidMappings"):
        bundle.linux[key] = [{"containerID": 0, "hostID": 300000, "size": 1000}]
    subprocess.run(["chown", "-R", "300000:300000", str(bundle.rootfs)], check=True)


def joining(bundle: Bundle, of: int, **more: str | None) -> Bundle:
    with_users(bundle)  # the same mappings: runc accepts no others together with a path
    bundle.namespaces(user=f"/proc/{of}/ns/user", **more)
    return bundle


def test_existing_user_namespace(
    runtime: Runtime, bundle: Bundle, another: Callable[[], Bundle], tmp_path: Path
) -> None:
    """Together with namespaces of the joined one, with new ones, and with the machine's."""
    with_users(bundle)
    first = bundle.start("sleep", "60")
    second = joining(another(), first, network=f"/proc/{first}/ns/net", ipc=f"/proc/{first}/ns/ipc")
    pid = second.start("sh", "-c", "touch /mine; cat /proc/self/uid_map > /map; sleep 60")
    until((second.rootfs / "map").exists)
    until(lambda: (second.rootfs / "map").read_text() != "")
    for kind in ("user", "net", "ipc"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{first}/ns/{kind}"), kind
    for kind in ("pid", "mnt", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/{first}/ns/{kind}"), kind
    assert (second.rootfs / "map").read_text().split() == ["0", "300000", "1000"]
    assert (second.rootfs / "mine").stat().st_uid == 300000
    done = runtime("exec", second.id, "id", "-u", check=True)
    assert done.out == "0\n"


@pytest.mark.parametrize("held", ["process", "file"])
def test_existing_user_namespace_needs_no_mappings(
    runtime: Runtime, bundle: Bundle, another: Callable[[], Bundle], tmp_path: Path, held: str
) -> None:
    """By the path of a process and by a bind-mounted file that outlives all processes; also with another process and
    user."""
    with_users(bundle)
    first = bundle.start("sleep", "60")
    second = joining(another(), first)
    del second.linux["uidMappings"], second.linux["gidMappings"]
    file = tmp_path / "users"
    if held == "file":
        file.touch()
        subprocess.run(["mount", "--bind", f"/proc/{first}/ns/user", str(file)], check=True)
        runtime("delete", "--force", bundle.id, check=True)
        second.namespaces(user=str(file))
    try:
        pid = second.start(
            "sh", "-c", "touch /mine; cat /proc/self/uid_map > /map.new; mv /map.new /map; sleep 60"
        )
        until((second.rootfs / "map").exists)
        assert (second.rootfs / "map").read_text().split() == ["0", "300000", "1000"]
        assert (second.rootfs / "mine").stat().st_uid == 300000
        done = runtime(
            "exec", "--user", "7:8", second.id, "sh", "-c", "id -u; id -g; cat /proc/self/gid_map", check=True
        )
        assert done.out.split() == ["7", "8", "0", "300000", "1000"]
        if held == "process":
            assert os.readlink(f"/proc/{pid}/ns/user") == os.readlink(f"/proc/{first}/ns/user")
    finally:
        if held == "file":
            runtime("delete", "--force", second.id, check=True)
            subprocess.run(["umount", str(file)], check=True)


def test_a_path_that_is_not_a_user_namespace_is_rejected(runtime: Runtime, bundle: Bundle) -> None:
    """Another type of namespace, another file, a missing file: an error each, and nothing is left."""
    for path in ("/proc/self/ns/net", "/etc/hostname", "/nonexistent"):
        bundle.namespaces(user=path)
        done = bundle.create("true", check=False)
        assert done.code != 0
        assert runtime("state", bundle.id).code != 0


def test_pid_namespace_of_a_joined_user_namespace(bundle: Bundle, another: Callable[[], Bundle]) -> None:
    with_users(bundle)
    first = bundle.start("sleep", "60")
    second = joining(another(), first, pid=f"/proc/{first}/ns/pid")
    pid = second.start("sleep", "61")
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{first}/ns/pid")


def test_new_user_namespace_with_the_machines_network(bundle: Bundle, another: Callable[[], Bundle]) -> None:
    """The network is joined with the runtime's privileges, because those in the new user namespace do not apply to
    it."""
    first = bundle.start("sleep", "60")
    second = another()
    with_users(second)
    second.config["mounts"] = [m for m in second.config["mounts"] if m["destination"] != "/sys"]
    second.namespaces(network=f"/proc/{first}/ns/net")
    pid = second.start("sleep", "60")
    assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink(f"/proc/{first}/ns/net")


def test_joining_a_path_that_is_not_a_user_namespace(runtime: Runtime, bundle: Bundle) -> None:
    with_users(bundle)
    bundle.namespaces(user="/proc/self/ns/uts")
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert done.err
    assert not any(runtime.root.iterdir())


def test_loopback_of_a_new_network_namespace_is_up(bundle: Bundle) -> None:
    done = bundle.run("cat", "/sys/class/net/lo/flags", check=True)
    assert int(done.out, 16) & 1  # IFF_UP


def numa_node() -> bool:
    return os.path.isdir("/sys/devices/system/node/node0") and os.path.exists("/proc/self/numa_maps")


def test_memory_policy(runtime: Runtime, bundle: Bundle) -> None:
    if not numa_node():
        pytest.skip("this kernel has no memory policies")
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}
    bundle.start("sh", "-c", "cat /proc/self/numa_maps > /maps; sleep 60")
    until((bundle.rootfs / "maps").exists)
    until(lambda: "bind=static:0" in (bundle.rootfs / "maps").read_text(), "the policy shows")
    assert "bind=static:0" in runtime("exec", bundle.id, "cat", "/proc/self/numa_maps", check=True).out


def test_invalid_memory_policy(bundle: Bundle) -> None:
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_NOWHERE"}
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert "MPOL_NOWHERE" in done.err


def test_exec_with_an_init_that_has_delegated_its_controllers(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    """As with a service manager in a container: its cgroup has children with controllers and therefore accepts no
    processes."""
    own = cgroup_file(bundle.id, "pids/cgroup.subtree_control", "cgroup.subtree_control")
    if "unified" in str(own) or os.path.isdir("/sys/fs/cgroup/pids"):
        pytest.skip("needs cgroup v2: this machine has v1 controllers")
    bundle.namespaces(cgroup="")
    bundle.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", source="cgroup")
    script = (
        "cd /sys/fs/cgroup; mkdir init; echo 1 > init/cgroup.procs; echo +pids > cgroup.subtree_control; "
    )
    bundle.start("sh", "-c", script + "touch /done; sleep 60")
    until((bundle.rootfs / "done").exists)
    assert own.read_text().split() == ["pids"]
    done = runtime("exec", bundle.id, "cat", "/proc/self/cgroup")
    assert (done.code, done.out) == (0, "0::/init\n"), done.err


@pytest.mark.parametrize(("mode", "owner"), [("rw", 1000), ("ro", 0)])
def test_owner_of_a_delegated_cgroup(runtime: Runtime, bundle: Bundle, mode: str, owner: int) -> None:
    """config-linux.md, "Cgroup ownership": the container's user owns the cgroup if it is writable in the container, but
    never the limits."""
    if os.path.isdir("/sys/fs/cgroup/pids"):
        pytest.skip("needs cgroup v2: this machine has v1 controllers")
    if runtime.name == "crun":
        pytest.skip("crun gives a cgroup only to who asks by an annotation of its own")
    if runtime.name == "runc":
        pytest.skip("runc gives a cgroup away with the systemd driver alone")
    bundle.namespaces(cgroup="")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", mode, source="cgroup")
    bundle.start("sleep", "60")
    own = Path("/sys/fs/cgroup", bundle.id)
    assert [(own / name).stat().st_uid for name in (".", "cgroup.procs", "pids.max")] == [owner, owner, 0]


def test_fields_of_other_platforms_are_reported(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["windows"] = {"layerFolders": ["c:/x"]}
    done = bundle.run("true", check=True)
    if runtime.name != "kubelite-oci":
        pytest.skip("others take no notice")
    assert "windows was not applied" in done.err
    assert json.loads((bundle.path / "config.json").read_text())["windows"]


def test_a_class_of_service_without_resctrl(runtime: Runtime, bundle: Bundle) -> None:
    """config-linux.md "IntelRdt": an error where no resctrl file system is mounted."""
    if " - resctrl " in Path("/proc/self/mountinfo").read_text():
        pytest.skip("needs a machine without resctrl")
    bundle.linux["intelRdt"] = {"closID": "guaranteed", "l3CacheSchema": "L3:0=f"}
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert done.err
    assert not any(runtime.root.iterdir())


@pytest.mark.parametrize("users", [False, True])
def test_time_offsets(runtime: Runtime, bundle: Bundle, users: bool) -> None:
    """config-linux.md, "Offset for Time Namespace"; also with a user namespace, which then owns the time namespace."""
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("this kernel has no time namespaces")
    if users:
        with_users(bundle)
    bundle.namespaces(time="")
    bundle.linux["timeOffsets"] = {
        "monotonic": {"secs": 7881, "nanosecs": 2718281},
        "boottime": {"secs": 1337},
    }
    lines = bundle.run("cat", "/proc/self/timens_offsets", check=True).out.splitlines()
    assert [line.split() for line in lines] == [["monotonic", "7881", "2718281"], ["boottime", "1337", "0"]]


def test_terminal_in_an_existing_user_namespace(
    runtime: Runtime, bundle: Bundle, another: Callable[[], Bundle], tmp_path: Path
) -> None:
    with_users(bundle)
    second = joining(another(), bundle.start("sleep", "60"))
    second.process["terminal"] = True
    with console_socket(tmp_path / "c") as listener:
        flags = ("--console-socket", str(tmp_path / "c"))
        second.start("sh", "-c", "tty; test -c /dev/console && echo console", flags=flags)
        with listener.accept()[0] as channel:
            _, (master,), _, _ = socket.recv_fds(channel, 4096, 1)
    assert read_terminal(master).split() == ["/dev/pts/0", "console"]

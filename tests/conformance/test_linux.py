"""config.md "Mounts" and config-linux.md: namespaces, root file system, devices, resources."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from runtime.cgroups import Mode, layout
from tests.conformance.conftest import Bundle, Runtime, bind_flags, cgroup_file
from tests.conformance.test_namespaces import reachable
from tests.conformance.test_process import console_socket, read_terminal


def test_namespaces_new_joined_and_the_hosts(
    runtime: Runtime, bundle: Bundle, another: Callable[[], Bundle]
) -> None:
    first = bundle.start("sleep", "60")
    second = another()
    second.namespaces(network=f"/proc/{first}/ns/net", ipc=f"/proc/{first}/ns/ipc", uts=None)
    second.config.pop("hostname")
    pid = second.start("sleep", "60")

    def same(kind: str, other: int | str) -> bool:
        return os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{other}/ns/{kind}")

    assert same("net", first)
    assert same("ipc", first)
    assert same("uts", "self")
    assert not same("mnt", first)
    assert not same("pid", first)
    assert not same("mnt", "self")


def test_join_a_pid_namespace(bundle: Bundle, another: Callable[[], Bundle]) -> None:
    first = bundle.start("sleep", "60")
    second = another()
    second.namespaces(pid=f"/proc/{first}/ns/pid")
    pid = second.start("sleep", "61")
    assert os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{first}/ns/pid")


def test_hostname_and_domainname(bundle: Bundle) -> None:
    assert bundle.run("hostname", check=True).out == "conformance\n"


def test_user_namespace(bundle: Bundle) -> None:
    bundle.path.parent.chmod(0o755)
    for directory in bundle.path.parents:
        if not directory.stat().st_mode & 0o001:
            directory.chmod(0o711)
    bundle.namespaces(user="")
    for key in ("uidMappings", "gidMappings"):
        bundle.linux[key] = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    subprocess.run(["chown", "-R", "200000:200000", str(bundle.rootfs)], check=True)
    out = bundle.sh("id -u; cat /proc/self/uid_map; touch /mine; stat -c %u /mine", check=True).out.split()
    assert out == ["0", "0", "200000", "65536", "0"]
    assert (bundle.rootfs / "mine").stat().st_uid == 200000


def test_time_namespace_with_offsets(bundle: Bundle) -> None:
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("this kernel has no time namespaces")
    bundle.namespaces(time="")
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1000000, "nanosecs": 0}}
    up = float(bundle.run("cat", "/proc/uptime", check=True).out.split()[0])
    with open("/proc/uptime", encoding="ascii") as file:
        assert up > float(file.read().split()[0]) + 900000


def test_id_map_option_of_a_bind_mount(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").touch()
    mapping = [{"containerID": 0, "hostID": 5000, "size": 10}]
    bundle.mount("/m", "bind", "bind", source=str(source), uidMappings=mapping, gidMappings=mapping)
    done = bundle.run("stat", "-c", "%u", "/m/file")
    assert (done.code, done.out) == (0, "5000\n"), done.err


@pytest.mark.parametrize("readonly", [True, False])
def test_readonly_root(bundle: Bundle, readonly: bool) -> None:
    bundle.config["root"]["readonly"] = readonly
    done = bundle.run("touch", "/x")
    assert (done.code != 0) == readonly


def test_masked_and_readonly_paths(bundle: Bundle) -> None:
    (bundle.rootfs / "secret").write_text("secret")
    (bundle.rootfs / "hidden").mkdir()
    (bundle.rootfs / "hidden/x").touch()
    (bundle.rootfs / "fixed").mkdir()
    bundle.linux["maskedPaths"] = ["/secret", "/hidden", "/not/there"]
    bundle.linux["readonlyPaths"] = ["/fixed", "/not/there/either", "/proc/sys"]
    script = "cat /secret; ls /hidden; touch /fixed/x; echo 1 > /proc/sys/kernel/ctrl-alt-del; echo done"
    done = bundle.sh(script, check=True)
    assert done.out == "done\n"
    assert done.err.count("Read-only file system") == 2


def test_bind_mounts(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("of the host\n")
    bundle.mount("/ro", "bind", "bind", "ro", source=str(tmp_path / "dir"))
    bundle.mount("/one", "bind", "bind", source=str(tmp_path / "dir/file"))
    done = bundle.sh("cat /ro/file /one; touch /ro/new; echo changed > /one", check=False)
    assert done.out == "of the host\n" * 2
    assert "Read-only" in done.err
    assert (tmp_path / "dir/file").read_text() == "changed\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["rbind", "rprivate"], {"rw", "nosuid", "nodev", "noexec"}),
        (["bind", "ro"], {"ro"}),
        (["bind", "noexec"], {"rw", "noexec"}),
    ],
)
def test_flags_of_a_bind(bundle: Bundle, hardened: Path, options: list[str], expected: set[str]) -> None:
    """A bind with options has only their flags (runc: tests/integration/mounts_sshfs.bats)."""
    assert bind_flags(bundle, hardened, *options) == expected


def test_flags_that_an_option_clears(bundle: Bundle, hardened: Path) -> None:
    assert bind_flags(bundle, hardened, "bind", "rw") == {"rw"}


def test_flags_kept_by_remount(bundle: Bundle, hardened: Path) -> None:
    kept = {"nosuid", "nodev", "noexec"}
    assert bind_flags(bundle, hardened, "bind", "remount", "ro") == {"ro", *kept}


def test_destination_that_begins_with_the_roots_path(bundle: Bundle, tmp_path: Path) -> None:
    """runc removes that prefix. A source below it refers to what is mounted in the container by then."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("of the host\n")
    (bundle.rootfs / "two").mkdir()
    bundle.mount("/one", "bind", "rbind", source=str(tmp_path / "dir"))
    bundle.mount(f"{bundle.rootfs}/two", "bind", "rbind", source=f"{bundle.rootfs}/one")
    bundle.mount(f"{bundle.rootfs}x", "tmpfs")  # another path
    done = bundle.sh(f"cat /two/file; ls -d {bundle.rootfs}x")
    assert done.out == f"of the host\n{bundle.rootfs}x\n", done.err


@pytest.mark.parametrize("users", [False, True])
@pytest.mark.parametrize("idmap", [False, True])
def test_binds_of_earlier_binds(bundle: Bundle, tmp_path: Path, users: bool, idmap: bool) -> None:
    """In the order of config.json, with what is mounted by then; id-mapped, and with sources that only the runtime can
    read."""
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").touch()
    os.chown(tmp_path / "dir/file", 200005, 200005)
    mapping = [{"containerID": 0, "hostID": 200000, "size": 65536}]
    if users:
        reachable(bundle)
        bundle.namespaces(user="")
        bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        subprocess.run(["chown", "-R", "200000:200000", str(bundle.rootfs)], check=True)
    bundle.mount("/one", "bind", "rbind", source=str(tmp_path / "dir"))
    other = [{"containerID": 200005, "hostID": 200007, "size": 1}]
    maps = {"uidMappings": other, "gidMappings": other} if idmap else {}
    bundle.mount("/two", "bind", "bind", source=f"{bundle.rootfs}/one", **maps)
    out = bundle.run("stat", "-c", "%u", "/one/file", "/two/file", check=True).out.split()
    shift = 200000 if users else 0
    assert out == [str(200005 - shift), str((200007 if idmap else 200005) - shift)]


def test_a_bind_of_a_container_path_follows_no_link_out(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the host\n")
    (bundle.rootfs / "link").symlink_to(tmp_path / "secret")
    bundle.mount("/two", "bind", "bind", source=f"{bundle.rootfs}/link")
    assert "of the host" not in bundle.run("cat", "/two").out


def test_tmpfs_with_the_content_it_covers(bundle: Bundle) -> None:
    (bundle.rootfs / "seeded").mkdir()
    (bundle.rootfs / "seeded/file").write_text("seed\n")
    bundle.mount("/seeded", "tmpfs", "tmpcopyup", "size=1m", "nosuid")
    out = bundle.sh("cat /seeded/file; echo x > /seeded/file; grep ' /seeded ' /proc/mounts", check=True).out
    assert out.startswith("seed\ntmpfs")
    assert (bundle.rootfs / "seeded/file").read_text() == "seed\n"


def test_a_link_in_the_image_cannot_leave_the_root(bundle: Bundle, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (bundle.rootfs / "link").symlink_to(outside)
    bundle.mount("/link/made", "tmpfs")
    bundle.run("true")
    assert list(outside.iterdir()) == []


def test_devices(bundle: Bundle) -> None:
    bundle.linux["devices"] = [
        {"type": "c", "path": "/dev/mine", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7}
    ]
    bundle.linux["resources"]["devices"].append(
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}
    )
    every = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done"
    script = f"stat -c '%a %u %t:%T' /dev/mine; {every}; readlink /dev/fd"
    out = bundle.sh(script, check=True).out.splitlines()
    assert out == ["640 7 1:3", "/proc/self/fd"]


def test_other_devices_are_refused(bundle: Bundle) -> None:
    bundle.process["capabilities"]["bounding"] = bundle.process["capabilities"]["effective"] = bundle.process[
        "capabilities"
    ]["permitted"] = ["CAP_MKNOD"]
    done = bundle.sh(
        "busybox mknod /tmp/mem c 1 1; head -c 1 /tmp/mem"
    )  # creating one is harmless and allowed
    assert done.code != 0
    assert "not permitted" in done.err


def test_sysctl(bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "1234"}
    out = bundle.run("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/msgmax", check=True).out
    assert out == "1\n1234\n"


def test_limits_and_update(runtime: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"].update(memory={"limit": 64 << 20}, pids={"limit": 50})
    bundle.start("sleep", "60")
    memory = cgroup_file(bundle.id, "memory/memory.limit_in_bytes", "memory.max")
    pids = cgroup_file(bundle.id, "pids/pids.max", "pids.max")
    assert (memory.read_text().strip(), pids.read_text().strip()) == (str(64 << 20), "50")
    runtime("update", "--memory", "33554432", "--pids-limit", "60", bundle.id, check=True)
    assert (memory.read_text().strip(), pids.read_text().strip()) == (str(32 << 20), "60")
    text = json.dumps({"pids": {"limit": 70}})
    subprocess.run(runtime.command("update", "-r", "-", bundle.id), input=text, text=True, check=True)
    assert pids.read_text().strip() == "70"


def test_statistics(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    event = json.loads(runtime("events", "--stats", bundle.id, check=True).out)
    assert (event["type"], event["id"]) == ("stats", bundle.id)
    assert event["data"]["pids"]["current"] == 1
    assert set(event["data"]) >= {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb"}
    assert event["data"]["intel_rdt"] == {}
    assert event["data"]["network_interfaces"] is None
    memory, cpu = event["data"]["memory"], event["data"]["cpu"]["usage"]
    assert memory["usage"]["usage"] > 0
    assert memory["raw"]["pgfault"] > 0
    if layout().mode is not Mode.V2:
        counters = {"usage", "max", "limit", "failcnt"}
        assert set(memory["kernel"]) == counters
        if Path(layout().v1["memory"], "memory.memsw.usage_in_bytes").exists():
            assert set(memory["swap"]) == counters
        assert len(cpu["percpu"]) == len(cpu["percpu_user"]) == len(cpu["percpu_kernel"]) == os.cpu_count()
        assert event["data"]["cpuset"]["cpus"]


def test_the_cgroup_is_gone_after_delete(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    file = cgroup_file(bundle.id, "pids/cgroup.procs", "cgroup.procs")
    assert file.exists()
    runtime("delete", "--force", bundle.id, check=True)
    assert not file.parent.exists()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("ociVersion", "2.0.0"),
        ("root", {"path": "/klt/nowhere"}),
        ("process", {"args": [], "cwd": "/"}),
        ("process", {"args": ["true"], "cwd": "relative"}),
        ("mounts", [{"destination": "/x", "type": "nofs", "source": "x"}]),
    ],
)
def test_invalid_configurations(runtime: Runtime, bundle: Bundle, place: str, value: object) -> None:
    bundle.config[place] = value
    bundle.path.joinpath("config.json").write_text(json.dumps(bundle.config))
    done = runtime("create", "--bundle", str(bundle.path), bundle.id)
    if runtime.name == "runc" and place == "ociVersion":
        pytest.skip("runc takes any version")
    assert done.code != 0
    assert done.err
    assert not any(runtime.root.iterdir())


def test_unknown_keys_are_ignored(bundle: Bundle) -> None:
    bundle.config["org.example.future"] = {"x": 1}
    bundle.run("true", check=True)


def test_device_in_place_of_another_file(bundle: Bundle) -> None:
    (bundle.rootfs / "node").write_text("a file of the image")
    bundle.linux["devices"] = [{"type": "c", "path": "/node", "major": 1, "minor": 3}]
    done = bundle.run("true")
    assert done.code != 0
    assert "/node" in done.err
    assert (bundle.rootfs / "node").read_text() == "a file of the image"


def test_no_pivot_of_a_private_root(bundle: Bundle) -> None:
    bundle.linux["rootfsPropagation"] = "private"
    bundle.write("true")
    done = bundle.runtime("run", "--no-pivot", "--bundle", str(bundle.path), bundle.id)
    assert done.code != 0
    assert "not safe without pivot_root" in done.err


def test_no_pivot(bundle: Bundle) -> None:
    bundle.write("cat", "/etc/passwd")
    done = bundle.runtime("run", "--no-pivot", "--bundle", str(bundle.path), bundle.id)
    assert (done.code, "/home/web" in done.out) == (0, True)


def test_a_tmpfs_without_a_mode_gets_that_of_the_covered_directory(bundle: Bundle) -> None:
    (bundle.rootfs / "closed").mkdir(mode=0o710)
    (bundle.rootfs / "closed").chmod(0o710)
    bundle.mount("/closed", "tmpfs", "nosuid", source="tmpfs")
    assert bundle.run("stat", "-c", "%a", "/closed").out.split() == ["710"]


def test_a_tmpfs_on_a_new_directory_is_world_writable(bundle: Bundle) -> None:
    """1777 is the kernel's default. Over an existing directory, the tmpfs gets that directory's mode."""
    bundle.mount("/new/made", "tmpfs", "rw")
    assert bundle.sh("stat -c %a /new/made", check=True).out == "1777\n"


@pytest.mark.parametrize("where", ["/dev", "/"])
def test_a_terminal_in_a_read_only_root(runtime: Runtime, bundle: Bundle, tmp_path: Path, where: str) -> None:
    if where == "/":
        bundle.config["root"]["readonly"] = True
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
        (bundle.rootfs / "dev/pts").mkdir()
        (bundle.rootfs / "dev/shm").mkdir()
    else:
        next(m for m in bundle.config["mounts"] if m["destination"] == "/dev")["options"].append("ro")
    bundle.process["terminal"] = True
    with console_socket(tmp_path / "c") as listener:
        flags = ("--console-socket", str(tmp_path / "c"))
        bundle.start("sh", "-c", "tty; touch /dev/new || test -c /dev/console && echo console", flags=flags)
        with listener.accept()[0] as channel:
            _, (master,), _, _ = socket.recv_fds(channel, 4096, 1)
    said = read_terminal(master).split()
    assert (said[0], said[-1]) == ("/dev/pts/0", "console")

"""The container's root on a real kernel: what is mounted, masked, read-only and shared; and images that try to
escape."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from runtime import syscalls as sc
from runtime.errors import RuntimeFault, SpecError, SyscallError
from runtime.oci.container import Container
from runtime.security import paths
from runtime.shim.protocol import RootfsOverlay
from tests.kernel.conftest import Engine, make_rootfs, mount

pytestmark = pytest.mark.kernel


def mountinfo(container: Container) -> dict[str, tuple[set[str], str, list[str]]]:
    """The container's mountinfo: mount point → (options, type, optional fields); the topmost mount wins."""
    found = {}
    with open(f"/proc/{container.pid}/mountinfo", encoding="utf-8") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fields = left.split()
            found[fields[4]] = (set(fields[5].split(",")), right.split()[0], fields[6:])
    return found


def layer(oci: Engine, **links: str) -> str:
    """An image layer with symlinks in place of directories: name (with _ for /) → target."""
    root = oci.tmp / "evil"
    for name, target in links.items():
        path = root / name.replace("_", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    return str(root)


def bare_lower(oci: Engine, *without: str) -> str:
    """A copy of the busybox root without some directories, which another layer replaces with links."""
    root = make_rootfs(_made(oci.tmp / "bare"))
    for name in without:
        (root / name).rmdir()
    return str(root)


def _made(path: Path) -> Path:
    path.mkdir()
    return path


# --- overlay and the root itself ---


def test_writes_go_to_the_upper_layer_only(oci: Engine) -> None:
    result = oci.sh("cat /etc/motd; echo changed > /etc/motd; rm /etc/group; echo new > /new; cat /etc/motd")
    assert result.out == "from the image\nchanged\n"
    assert (oci.rootfs / "etc/motd").read_text() == "from the image\n"
    assert (oci.rootfs / "etc/group").exists()
    assert not (oci.rootfs / "new").exists()
    upper = oci.tmp / "bundle0/upper"
    assert (upper / "new").read_text() == "new\n"
    assert (upper / "etc/motd").read_text() == "changed\n"


def test_layers_topmost_first(oci: Engine) -> None:
    layers = []
    for number in range(12):
        path = oci.tmp / f"layer{number}"
        (path / "etc").mkdir(parents=True)
        (path / "etc/motd").write_text(f"layer {number}\n")
        layers.append(str(path))
    assert oci.run(oci.spec("cat", "/etc/motd"), lower=[*layers, str(oci.rootfs)]).out == "layer 0\n"


def test_overlay_by_mount_for_kernels_without_lowerdir_plus(
    oci: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsconfig(fd: int, command: int, key: str | None = None, *rest: Any, **more: Any) -> None:
        if key == "lowerdir+":
            raise SyscallError(22, "fsconfig", "lowerdir+=…")
        real(fd, command, key, *rest, **more)

    real = sc.fsconfig
    monkeypatch.setattr(sc, "fsconfig", fsconfig)
    assert oci.sh("cat /etc/motd; echo x > /x; cat /x").out == "from the image\nx\n"


def test_the_host_never_sees_the_containers_mounts(oci: Engine) -> None:
    oci.start(oci.spec("sleep", "60"))
    assert str(oci.tmp) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


def test_the_old_root_is_gone(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    points = mountinfo(container)
    assert points["/"][1] == "overlay"
    assert not [point for point in points if not re.match(r"/($|proc|dev|sys)", point)]
    assert oci.exec(container, "ls", "/").out.split() == ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]


def test_readonly_root(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "touch /x || echo no; touch /dev/shm && touch /tmp/data/y && echo yes")
    spec["root"]["readonly"] = True
    spec["mounts"].append(mount("/tmp/data", "tmpfs"))
    result = oci.run(spec)
    assert result.out == "no\nyes\n"
    assert "Read-only file system" in result.err


def test_a_plain_directory_as_root(oci: Engine) -> None:
    root = make_rootfs(_made(oci.tmp / "plain"))
    spec = oci.spec("sh", "-c", "echo x > /made")
    spec["root"]["path"] = str(root)
    assert oci.run(spec, rootfs=None).code == 0
    assert (root / "made").read_text() == "x\n"
    assert str(root) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


# --- /proc, /sys, /dev ---


def test_devices(oci: Engine) -> None:
    script = "stat -c '%n %t:%T %a %F' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty"
    assert oci.sh(script).out.splitlines() == [
        f"/dev/{name} {numbers} 666 character special file"
        for name, numbers in (
            *(("null", "1:3"), ("zero", "1:5"), ("full", "1:7")),
            *(("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0")),
        )
    ]
    assert oci.sh(
        "head -c 4 /dev/urandom | wc -c; echo x > /dev/null; head -c 2 /dev/zero | wc -c"
    ).out.split() == ["4", "2"]


def test_device_links(oci: Engine) -> None:
    links = oci.sh("for f in fd stdin stdout stderr ptmx; do readlink /dev/$f; done").out.splitlines()
    assert links == ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]


def test_further_devices(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "stat -c '%t:%T %a %u:%g' /dev/net/tun /dev/fifo")
    spec["linux"]["devices"] = [
        {
            "type": "c",
            "path": "/dev/net/tun",
            "major": 10,
            "minor": 200,
            "fileMode": 0o640,
            "uid": 5,
            "gid": 6,
        },
        {"type": "p", "path": "/dev/fifo", "fileMode": 0o600},
    ]
    assert oci.run(spec).out == "a:c8 640 5:6\n0:0 600 0:0\n"


def test_masked_and_readonly_paths(oci: Engine) -> None:
    spec = oci.spec("sleep", "60")
    spec["linux"]["maskedPaths"] = [*paths.masked_paths(), "/etc/motd", "/tmp", "/not/there"]
    spec["linux"]["readonlyPaths"] = [*paths.READONLY_PATHS, "/etc", "/not/there"]
    container = oci.start(spec)
    points = mountinfo(container)
    for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/etc"):
        assert "ro" in points[path][0]
    assert points["/proc/interrupts"][1] == "devtmpfs"
    assert (points["/tmp"][1], "ro" in points["/tmp"][0]) == ("tmpfs", True)
    probe = "cat /proc/interrupts /proc/keys | wc -c; ls /tmp /sys/firmware | grep -v :; touch /tmp/x; touch /etc/x"
    said = oci.exec(container, "sh", "-c", f"{probe}; echo 1 > /proc/sys/vm/overcommit_memory").out
    assert said.splitlines()[0] == "0"
    assert said.count("Read-only file system") == 3


def test_cgroup_mount_shows_only_the_containers_own(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "find /sys/fs/cgroup -name cgroup.procs | wc -l; cat /sys/fs/cgroup/*/cgroup.procs"
                    " /sys/fs/cgroup/cgroup.procs 2>/dev/null | sort -u | head -1; mkdir /sys/fs/cgroup/x"
                    " /sys/fs/cgroup/pids/x")  # fmt: skip
    spec["mounts"].append(mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"))
    result = oci.run(spec)
    assert result.out.split()[1] == "1"
    assert result.err.count("Read-only file system") + result.err.count("No such file") >= 2


def test_cgroup_mount_without_a_cgroup_namespace(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "cat /sys/fs/cgroup/pids/cgroup.procs || cat /sys/fs/cgroup/cgroup.procs")
    spec["linux"]["namespaces"] = [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")]
    spec["mounts"].append(mount("/sys/fs/cgroup", "cgroup", "ro"))
    assert oci.run(spec).out.split()[0] == "1"


def test_mqueue_and_shm(oci: Engine) -> None:
    spec = oci.spec(
        "sh", "-c", "touch /dev/mqueue/q && echo ok > /dev/shm/x && cat /dev/shm/x; stat -c %a /dev/shm"
    )
    spec["mounts"] += [
        mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=64m", source="shm"),
        mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
    ]
    assert oci.run(spec).out == "ok\n1777\n"


def test_readonly_tmpfs_takes_mounts_first(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "ls /ro; touch /ro/x || echo no; touch /ro/sub/y && echo yes")
    spec["mounts"] += [mount("/ro", "tmpfs", "ro"), mount("/ro/sub", "tmpfs")]
    assert oci.run(spec).out == "sub\nno\nyes\n"


# --- bind mounts ---


@pytest.fixture
def volume(oci: Engine) -> Path:
    path = oci.tmp / "volume"
    path.mkdir()
    (path / "file").write_text("from the host\n")
    return path


def test_bind_directory_and_file(oci: Engine, volume: Path) -> None:
    spec = oci.spec(
        "sh", "-c", "cat /data/file /etc/one; echo back > /data/reply; echo x > /etc/one || echo no"
    )
    spec["mounts"] += [
        mount("/data", "bind", "rbind", "rw", source=str(volume)),
        mount("/etc/one", "bind", "bind", "ro", source=str(volume / "file")),
    ]
    assert oci.run(spec).out == "from the host\nfrom the host\nno\n"
    assert (volume / "reply").read_text() == "back\n"


def test_bind_flags(oci: Engine, volume: Path) -> None:
    spec = oci.spec("sleep", "60")
    spec["mounts"].append(
        mount("/data", "none", "rbind", "ro", "nosuid", "nodev", "noexec", "noatime", source=str(volume))
    )
    options = mountinfo(oci.start(spec))["/data"][0]
    assert {"ro", "nosuid", "nodev", "noexec", "noatime"} <= options


def test_recursive_readonly(oci: Engine, volume: Path) -> None:
    (volume / "sub").mkdir()
    sc.mount("tmpfs", str(volume / "sub"), "tmpfs")
    try:
        spec = oci.spec(
            "sh", "-c", "touch /plain/sub/x && echo plain; touch /deep/sub/x || echo deep; ls /flat/sub"
        )
        spec["mounts"] += [
            mount("/plain", "bind", "rbind", "ro", source=str(volume)),
            mount("/deep", "bind", "rbind", "rro", source=str(volume)),
            mount("/flat", "bind", "bind", source=str(volume)),
        ]
        assert oci.run(spec).out == "plain\ndeep\n"
    finally:
        sc.umount2(str(volume / "sub"))


@pytest.mark.parametrize(
    ("option", "field"), [("rprivate", []), ("rslave", ["master"]), ("rshared", ["shared"])]
)
def test_propagation(oci: Engine, volume: Path, option: str, field: list[str]) -> None:
    sc.mount("tmpfs", str(volume), "tmpfs")
    try:
        sc.mount(None, str(volume), None, sc.MS_SHARED)
        spec = oci.spec("sleep", "60")
        spec["linux"]["rootfsPropagation"] = "rshared" if option == "rshared" else "rslave"
        spec["mounts"].append(mount("/data", "bind", "rbind", option, source=str(volume)))
        container = oci.start(spec)
        assert [entry.split(":")[0] for entry in mountinfo(container)["/data"][2]] == field
        (volume / "later").mkdir()
        sc.mount("tmpfs", str(volume / "later"), "tmpfs")
        assert ("/data/later" in mountinfo(container)) == (option != "rprivate")
        sc.umount2(str(volume / "later"))
    finally:
        sc.umount2(str(volume), sc.MNT_DETACH)


def test_mount_points_are_made_through_dangling_links(oci: Engine, volume: Path) -> None:
    evil = layer(oci, etc_resolv="../run/resolve/stub", etc_hosts="/nowhere/hosts")
    spec = oci.spec("cat", "/etc/resolv", "/run/resolve/stub", "/nowhere/hosts")
    spec["mounts"] += [
        mount("/etc/resolv", "bind", "bind", source=str(volume / "file")),
        mount("/etc/hosts", "bind", "bind", source=str(volume / "file")),
    ]
    assert oci.run(spec, lower=[evil, str(oci.rootfs)]).out == "from the host\n" * 3


# --- images and configurations that try to get out ---


def test_links_in_the_image_stay_inside(oci: Engine, volume: Path) -> None:
    """As in CVE-2021-30465: a mount target that is a symlink to the host's root."""
    outside = oci.tmp / "outside"
    outside.mkdir()
    evil = layer(oci, data=str(outside), up="../../../../../../../../../.." + str(outside), loop="loop")
    for target in ("/data/in", "/up/in"):
        spec = oci.spec("cat", f"{target}/file")
        spec["mounts"].append(mount(target, "bind", "rbind", source=str(volume)))
        assert oci.run(spec, lower=[evil, str(oci.rootfs)]).out == "from the host\n"
    assert list(outside.iterdir()) == []
    spec = oci.spec("true")
    spec["mounts"].append(mount("/loop/x", "bind", "rbind", source=str(volume)))
    with pytest.raises(SyscallError, match="symbolic links"):
        oci.create(spec, lower=[evil, str(oci.rootfs)])


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("target", ["etc", "/etc", "/tmp/nothing", "/proc/self/cwd", "loop"])
def test_proc_and_sys_that_are_links_are_refused(oci: Engine, name: str, target: str) -> None:
    """CVE-2019-16884, CVE-2019-19921: with /proc at another place, masks would be applied at that place."""
    evil = layer(oci, **{name: target, "loop": "loop"})
    with pytest.raises(RuntimeFault, match=r"ordinary directory|symbolic links"):
        oci.create(oci.spec("true"), lower=[evil, bare_lower(oci, name)])


def test_dev_shm_as_a_link_to_the_root(oci: Engine) -> None:
    spec = oci.spec("sleep", "60")
    spec["mounts"] = [m for m in spec["mounts"] if m["destination"] in ("/proc", "/sys")]
    spec["mounts"].append(mount("/dev/shm", "tmpfs"))
    evil = layer(oci, dev_shm="/../../..", dev_null="/etc/passwd", dev_ptmx="/etc/passwd", dev_core="/")
    lower = [evil, bare_lower(oci, "dev")]
    before = Path("/etc/passwd").read_bytes()
    with pytest.raises((RuntimeFault, AssertionError)):
        container = oci.start(spec, lower=lower)
        assert oci.exec(container, "true").code != 0  # a tmpfs over the whole root: nothing is there to run
    assert Path("/etc/passwd").read_bytes() == before


def test_devices_never_go_through_links(oci: Engine) -> None:
    """As in CVE-2025-31133: the image's /dev/null is a link to something else when masks are applied."""
    evil = layer(oci, dev_null="/proc/sys/kernel/core_pattern", dev_console="/etc/passwd")
    spec = oci.spec(
        "sh", "-c", "stat -c '%F %t:%T' /dev/null; cat /proc/interrupts /proc/sys/kernel/core_pattern"
    )
    spec["mounts"] = [m for m in spec["mounts"] if m["destination"] in ("/proc", "/sys")]
    spec["linux"]["maskedPaths"] = ["/proc/interrupts"]
    result = oci.run(spec, lower=[evil, str(oci.rootfs)])
    pattern = Path("/proc/sys/kernel/core_pattern").read_text(encoding="utf-8")
    assert result.out == "character special file 1:3\n" + pattern


@pytest.mark.parametrize("target", ["/proc/self/attr", "/proc/sys/kernel", "/proc", "/proc/1", "/link/sys"])
def test_nothing_is_bound_inside_proc(oci: Engine, volume: Path, target: str) -> None:
    spec = oci.spec("true")
    spec["mounts"].append(mount(target, "bind", "rbind", source=str(volume)))
    with pytest.raises((SpecError, SyscallError), match=r"inside /proc|link"):
        oci.create(spec, lower=[layer(oci, link="/proc"), str(oci.rootfs)])


def test_a_bind_inside_proc_is_refused_in_one_sentence(oci: Engine, volume: Path) -> None:
    spec = oci.spec("true")
    spec["mounts"].append(mount("/proc/1", "bind", "rbind", source=str(volume)))
    with pytest.raises(SpecError) as refused:
        oci.create(spec)
    sentence = f"rootfs: bind {volume} on /proc/1: it cannot be mounted because it is inside /proc"
    assert str(refused.value).endswith(sentence)
    assert str(refused.value).count("/proc/1") == 1


def test_lxcfs_files_may_cover_proc(oci: Engine, volume: Path) -> None:
    spec = oci.spec("cat", "/proc/meminfo")
    spec["mounts"].append(mount("/proc/meminfo", "bind", "bind", source=str(volume / "file")))
    assert oci.run(spec).out == "from the host\n"


def test_magic_links_are_no_way_out(oci: Engine, volume: Path) -> None:
    spec = oci.spec("true")
    spec["mounts"].append(mount("/way/x", "bind", "rbind", source=str(volume)))
    with pytest.raises(SyscallError, match="symbolic links"):
        oci.create(spec, lower=[layer(oci, way="/proc/self/root"), str(oci.rootfs)])


def test_sysctls_are_written_to_the_true_procfs(oci: Engine, volume: Path) -> None:
    """CVE-2025-52881: the container's /proc/sys is a link. The sysctl is set nevertheless, and nothing else is
    written."""
    spec = oci.spec("cat", "/dev/null")
    spec["mounts"] = [mount("/fakeproc", "tmpfs")]
    spec["linux"]["sysctl"] = {"kernel.msgmax": "4242"}
    before = Path("/proc/sys/kernel/msgmax").read_text(encoding="utf-8")
    container = oci.start(oci.spec("sleep", "60") | {"linux": spec["linux"]})
    assert oci.exec(container, "cat", "/proc/sys/kernel/msgmax").out == "4242\n"
    assert Path("/proc/sys/kernel/msgmax").read_text(encoding="utf-8") == before


def test_missing_source_says_which(oci: Engine) -> None:
    spec = oci.spec("true")
    spec["mounts"].append(mount("/data", "bind", "rbind", source="/not/there"))
    with pytest.raises(SyscallError, match=r"bind /not/there on /data.*No such file"):
        oci.create(spec)


def test_overlay_that_cannot_be_mounted_says_why(oci: Engine) -> None:
    overlay = RootfsOverlay([str(oci.rootfs)], str(oci.tmp / "u"), "/proc/self/w")
    with pytest.raises(RuntimeFault, match="/proc/self/w"):
        oci.create(oci.spec("true"), rootfs=overlay)
    assert not (oci.tmp / "u").exists()
    assert os.listdir(oci.tmp / "bundle0") == []

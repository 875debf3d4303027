"""config-linux.md, "Namespaces": joining a mount namespace by its path, and containers without one.

A runtime can change only mount namespaces that were created for the test.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.conftest import Bundle, Runtime
from tests.waiting import until


def mounts_of(pid: int) -> list[str]:
    """Lines of mountinfo: the machine's own file systems, and everything below this test's bundles. Copies of other
    tests' mounts disappear with their directories."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if _OURS(line.split()[4])]


_OURS = re.compile(r"/$|/(proc|sys|dev)(/|$)|.*/bundle").match


def points_of(pid: int) -> list[str]:
    return [line.split()[4] for line in mounts_of(pid)]


def namespace_of(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/mnt")


class Machines:
    """Sleeping processes, each in its own mount namespace, in place of machines."""

    def __init__(self) -> None:
        self._all: list[subprocess.Popen[bytes]] = []

    def make(self, like: int = 0, *, shared: bool = False) -> int:
        """Create one and return its pid. `like`: its namespace is a copy of that process's namespace, to which shared
        mounts propagate."""
        word = "mount --make-rshared / && " if shared else ""
        script = f"{word}echo ready; exec sleep 600"
        within = ["nsenter", "-t", str(like), "-m", "--"] if like else []
        propagation = "unchanged" if like else "private"
        command = [*within, "unshare", "-m", "--propagation", propagation, "sh", "-c", script]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._all.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        return child.pid

    def end(self) -> None:
        for child in self._all:
            child.kill()
            child.communicate()


@pytest.fixture
def machines() -> Iterator[Machines]:
    made = Machines()
    yield made
    made.end()


@pytest.fixture
def machine(runtime: Runtime, machines: Machines) -> Iterator[int]:
    """The pid of the process whose namespace the runtime runs in, with shared mounts as under systemd."""
    pid = machines.make(shared=True)
    runtime.within = ("nsenter", "-t", str(pid), "-m", "--")
    yield pid
    for container_id in runtime.made:
        runtime("delete", "--force", container_id)
    runtime.within = ()


def with_none(bundle: Bundle) -> Bundle:
    bundle.namespaces(mount=None)
    return bundle


def seen(bundle: Bundle) -> str:
    """The output of the container so far."""
    try:
        return (bundle.rootfs / "seen").read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def test_without_one_the_runtimes_is_used(machine: int, bundle: Bundle) -> None:
    (bundle.rootfs / "mine").write_text("mine\n")
    pid = with_none(bundle).start("sh", "-c", "cat /mine > /seen; ls /proc/self >> /seen; exec sleep 60")
    until(lambda: "mountinfo" in seen(bundle))
    assert seen(bundle).startswith("mine\n")
    assert namespace_of(pid) == namespace_of(machine)
    assert f"{bundle.rootfs}/dev/pts" in points_of(machine)  # visible everywhere
    assert (bundle.rootfs / "dev").is_dir()
    assert not list((bundle.rootfs / "dev").iterdir())


def test_nothing_is_left_without_a_mount_namespace(
    runtime: Runtime, machine: int, machines: Machines, bundle: Bundle
) -> None:
    """Nothing else of the machine changes either: no mount and no propagation, neither here nor in namespaces to which
    mounts propagate."""
    another = machines.make(like=machine)
    before = mounts_of(machine), mounts_of(another)
    (bundle.rootfs / "more").mkdir()
    with_none(bundle).mount("/more", "tmpfs", "size=1m")
    bundle.linux["rootfsPropagation"] = "rshared"
    bundle.start("sleep", "60")
    assert str(bundle.rootfs) in points_of(machine)
    runtime("delete", "--force", bundle.id, check=True)
    assert (mounts_of(machine), mounts_of(another)) == before
    bundle.mount("/sys/no/such", "tmpfs")  # sysfs makes no directories
    assert bundle.create("true", check=False).code != 0
    assert (mounts_of(machine), mounts_of(another)) == before
    bundle.config["mounts"].pop()
    assert bundle.run("true").code == 0
    assert (mounts_of(machine), mounts_of(another)) == before


def test_two_roots_over_each_other(
    runtime: Runtime, machine: int, bundle: Bundle, another: Callable[[], Bundle]
) -> None:
    """The upper root is removed first: the lower one must not be removed under it."""
    before = mounts_of(machine)
    first, second = with_none(bundle).start("sleep", "60"), with_none(another())
    second.config["root"]["path"] = str(bundle.rootfs)
    upper = second.start("sleep", "60")
    assert len({first, upper}) == 2
    assert "mounted over" in runtime("delete", "--force", bundle.id).err
    assert runtime("exec", second.id, "cat", "/proc/self/stat").code == 0
    runtime("delete", "--force", second.id, check=True)
    runtime("delete", "--force", bundle.id, check=True)
    assert mounts_of(machine) == before


def test_the_machines_root_needs_a_mount_namespace(machine: int, bundle: Bundle) -> None:
    """It would be mounted over itself permanently, because no path leads to a mount that covers the root."""
    before = mounts_of(machine)
    with_none(bundle).config["root"]["path"] = "/"
    done = bundle.run("true")
    assert done.code != 0
    assert "root needs a mount namespace" in done.err
    assert mounts_of(machine) == before


def test_exec_without_a_mount_namespace(runtime: Runtime, machine: int, bundle: Bundle) -> None:
    (bundle.rootfs / "mine").write_text("mine\n")
    with_none(bundle).start("sleep", "60")
    done = runtime("exec", bundle.id, "cat", "/mine")
    assert (done.code, done.out) == (0, "mine\n"), done.err


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_paths_are_restricted_only_in_a_new_mount_namespace(machine: int, bundle: Bundle, key: str) -> None:
    before = mounts_of(machine)
    with_none(bundle).linux[key] = ["/proc/kcore"]
    done = bundle.run("true")
    assert done.code != 0
    assert "unable to restrict sys entries without a private MNT namespace" in done.err
    assert mounts_of(machine) == before


def test_a_user_namespace_needs_a_mount_namespace(machine: int, bundle: Bundle) -> None:
    with_none(bundle).namespaces(user="")
    for key in ("uidMappings", "gidMappings"):
        bundle.linux[key] = [{"containerID": 0, "hostID": 300000, "size": 1000}]
    assert bundle.run("true").code != 0


def test_no_pivot_needs_a_mount_namespace(machine: int, bundle: Bundle) -> None:
    """Otherwise the machine's "/" would be covered, and its /proc and /sys unmounted."""
    before = mounts_of(machine)
    with_none(bundle).write("true")
    done = bundle.runtime("run", "--no-pivot", "--bundle", str(bundle.path), bundle.id)
    assert done.code != 0
    assert "--no-pivot needs a mount namespace" in done.err
    assert mounts_of(machine) == before


def test_a_mount_namespace_is_joined_by_its_path(
    runtime: Runtime, machine: int, machines: Machines, bundle: Bundle, tmp_path: Path
) -> None:
    before = mounts_of(machine)
    theirs = machines.make()
    wanted = namespace_of(theirs)
    (bundle.rootfs / "mine").write_text("mine\n")
    bundle.namespaces(mount=f"/proc/{theirs}/ns/mnt")
    (bundle.rootfs / "secret").write_text("secret\n")
    bundle.linux["maskedPaths"] = ["/secret"]
    pid = bundle.start("sh", "-c", "cat /mine > /seen; exec sleep 60")
    assert namespace_of(pid) == wanted
    until(lambda: seen(bundle) == "mine\n")
    done = runtime("exec", bundle.id, "cat", "/mine", "/secret", check=True)
    assert done.out == "mine\n"
    runtime("delete", "--force", bundle.id, check=True)
    assert mounts_of(machine) == before


def test_failures_in_a_joined_mount_namespace(machines: Machines, bundle: Bundle) -> None:
    theirs = machines.make()
    bundle.namespaces(mount=f"/proc/{theirs}/ns/mnt")
    bundle.mount("/sys/no/such", "tmpfs")
    assert bundle.create("true", check=False).code != 0
    assert str(bundle.rootfs) not in points_of(theirs)
    assert Path(f"/proc/{theirs}/root/etc/passwd").exists()


def test_the_machines_mount_namespace_by_its_path(runtime: Runtime, machine: int, bundle: Bundle) -> None:
    """Its root does not change."""
    before = mounts_of(machine)
    bundle.namespaces(mount=f"/proc/{machine}/ns/mnt")
    bundle.start("sleep", "60")
    assert Path(f"/proc/{machine}/root/etc/passwd").exists()
    runtime("delete", "--force", bundle.id, check=True)
    assert mounts_of(machine) == before


def test_process_1_keeps_its_root(runtime: Runtime, bundle: Bundle) -> None:
    """Process 1 of this machine is in another mount namespace than the runtime."""
    bundle.namespaces(mount="/proc/1/ns/mnt")
    bundle.write("true")
    command = runtime.command("run", "--bundle", str(bundle.path), bundle.id)
    script = f'unshare -m "$@"; echo "code $?"; readlink /proc/self/cwd; cat {bundle.path}/config.json'
    first = ["unshare", "-m", "-p", "--fork", "--mount-proc", "sh", "-c", script, "sh", *command]
    done = subprocess.run(first, cwd="/etc", capture_output=True, text=True, check=False)
    assert "cannot join the mount namespace of process 1" in done.stderr
    assert done.stdout.startswith("code 1\n/etc\n{")

"""A container of an ordinary user: one id mapping (the user's own), no cgroup, no helper programs (config-linux.md,
"User namespace mappings"; runc's `spec --rootless`)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.conftest import Bundle, Done, Runtime, alive, bind_flags
from tests.waiting import until

USER = 12345


class Ordinary(Runtime):
    """The same runtime, run by an ordinary user."""

    def command(self, *args: str) -> list[str]:
        identity = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
        return [*identity, *super().command(*args)]


@pytest.fixture
def ordinary(runtime: Runtime, bundle: Bundle) -> Bundle:
    """`bundle` owned by the user, with the config.json of `spec --rootless`."""
    for directory in (bundle.path, *bundle.path.parents):
        if not directory.stat().st_mode & 0o001:
            directory.chmod(0o711)
    identity = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
    if subprocess.run([*identity, "test", "-r", shutil.which(runtime.path) or ""], check=False).returncode:
        pytest.skip("needs a checkout that other users can read")
    for place in (bundle.path, runtime.root):
        subprocess.run(["chown", "-R", f"{USER}:{USER}", str(place)], check=True)
    bundle.runtime = Ordinary(runtime.path, runtime.root, runtime.made)
    bundle.runtime("spec", "--rootless", "--bundle", str(bundle.path), check=True)
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.process["terminal"] = False
    bundle.process["env"] = ["PATH=/bin"]
    bundle.config["root"]["readonly"] = False
    return bundle


def test_run(ordinary: Bundle) -> None:
    script = "id -u; cat /proc/self/uid_map /proc/self/setgroups; hostname; echo x > /mine; stat -c %u /mine; echo $$"
    done = ordinary.sh(script)
    assert done.code == 0, done.err
    name = ordinary.config["hostname"]
    assert done.out.split() == ["0", "0", str(USER), "1", "deny", name, "0", "1"]
    assert (ordinary.rootfs / "mine").stat().st_uid == USER


def test_null_and_the_other_devices(ordinary: Bundle) -> None:
    """Bind-mounted from the machine, because an ordinary user cannot create devices."""
    done = ordinary.sh(
        "echo gone > /dev/null; head -c 4 /dev/zero | wc -c; test -c /dev/full && test -c /dev/tty"
    )
    assert (done.code, done.out) == (0, "4\n"), done.err


def test_lifecycle_and_exec(ordinary: Bundle) -> None:
    runtime = ordinary.runtime
    pid = ordinary.start("sleep", "60")
    assert os.stat(f"/proc/{pid}").st_uid == USER
    assert runtime.status(ordinary.id) == "running"
    done = runtime("exec", ordinary.id, "sh", "-c", "id -u; hostname; exit 3")
    assert (done.code, done.out.split()[0]) == (3, "0"), done.err
    for kind in ("user", "pid", "mnt"):
        assert os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    runtime("kill", ordinary.id, "KILL", check=True)
    until(lambda: not alive(pid))
    runtime("delete", ordinary.id, check=True)


def test_capabilities_are_those_of_the_namespace_and_no_more(ordinary: Bundle) -> None:
    """A process has all capabilities in a new user namespace. Those that the container must not have are dropped."""
    ordinary.process["capabilities"] = {kind: ["CAP_KILL"] for kind in ("bounding", "permitted", "effective")}
    out = ordinary.run("cat", "/proc/self/status", check=True).out
    found = {line.split(":")[0]: line.split()[1] for line in out.splitlines() if line.startswith("Cap")}
    assert {int(found[kind], 16) for kind in ("CapBnd", "CapPrm", "CapEff")} == {1 << 5}


def test_locked_flags_of_a_bind(ordinary: Bundle, hardened: Path) -> None:
    """Flags of the machine's mounts are locked for a user namespace: they stay, unless an option wants them cleared
    (runc: libcontainer/rootfs_linux.go, mountToRootfs)."""
    assert bind_flags(ordinary, hardened, "bind", "ro") == {"ro", "nosuid", "nodev", "noexec"}
    ordinary.config["mounts"][-1]["options"] = ["bind", "exec"]
    done = ordinary.create("true", check=False)
    assert done.code != 0
    assert "/bind: the source is mounted noexec, which a user namespace cannot change" in done.err


def test_limits_need_a_cgroup(ordinary: Bundle) -> None:
    ordinary.linux["resources"] = {"memory": {"limit": 64 << 20}}
    done = ordinary.create("true", check=False)
    assert done.code != 0
    assert "cgroup" in done.err
    assert not any(ordinary.runtime.root.iterdir())


def test_without_a_user_namespace(ordinary: Bundle) -> None:
    ordinary.namespaces(user=None)
    done = ordinary.create("true", check=False)
    assert done.code != 0
    assert "rootless container requires user namespaces" in done.err.lower()


def test_more_ids_than_its_own(ordinary: Bundle) -> None:
    """newuidmap rejects them: this user has no entry in /etc/subuid."""
    for key in ("uidMappings", "gidMappings"):
        ordinary.linux[key] = [
            {"containerID": 0, "hostID": USER, "size": 1},
            {"containerID": 1, "hostID": 500000, "size": 1000},
        ]
    done = ordinary.create("true", check=False)
    assert done.code != 0
    assert done.err
    assert not any(ordinary.runtime.root.iterdir())


def test_root_without_a_cgroup(runtime: Runtime, bundle: Bundle, another: Callable[[], Bundle]) -> None:
    """--cgroup-manager disabled, as in crun."""
    if runtime.name == "runc":
        pytest.skip("runc has no such flag")
    with open("/proc/self/cgroup", encoding="ascii") as file:
        own = file.read()
    bundle.linux["resources"] = {}
    bundle.write("cat", "/proc/self/cgroup")
    done: Done = runtime("--cgroup-manager", "disabled", "run", "--bundle", str(bundle.path), bundle.id)
    assert (done.code, done.out) == (0, own), done.err
    if runtime.name == "crun":
        return  # which bind-mounts what it finds
    bundle.mount("/sys/fs/cgroup", "cgroup", source="cgroup")
    bundle.write("true")
    done = runtime("--cgroup-manager", "disabled", "run", "--bundle", str(bundle.path), bundle.id)
    assert done.code != 0
    assert "cgroup namespace" in done.err

"""The Debian package on a small Debian system with systemd: its files, what it starts, and what is left after removal
and purge."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import programs
from tests.packaging.machine import Machine, machine, missing
from tests.waiting import until

MANIFEST = """\
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  securityContext: {runAsUser: 1000}
  containers:
  - {name: main, image: localhost/busybox, imagePullPolicy: Never, command: [sleep, "1000"]}
"""
GRACE = "terminationGracePeriodSeconds: 1"
# a system is made, on a machine that does much else
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def newer(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same package with a higher version."""
    directory = tmp_path_factory.mktemp("newer")
    tree = directory / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("Version: 1.0-1", "Version: 1.1-1"))
    (meta,) = tree.glob("usr/lib/kubelite/venv/lib/python3.*/site-packages/kubelite-*.dist-info/METADATA")
    meta.write_text(re.sub(r"^Version: .*", "Version: 99.0", meta.read_text(), count=1, flags=re.MULTILINE))
    made = directory / "newer.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, made], check=True, capture_output=True
    )
    shutil.rmtree(tree)
    yield made
    made.unlink()


def control(deb: Path, field: str) -> str:
    return subprocess.run(
        ["dpkg-deb", "-f", deb, field], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def system(deb: Path, newer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if lacking := missing("debootstrap", "unshare", "nsenter") or programs.missing("busybox"):
        pytest.skip(f"needs {lacking}")
    # what it says that it depends on, and nothing more
    needs = [word.split()[0] for word in control(deb, "Depends").split(", ")]
    with machine(tmp_path_factory.mktemp("machine"), needs) as found:
        found.give(deb, "/root/old.deb")
        found.give(newer, "/root/new.deb")
        found.give(Path(programs.BUSYBOX), "/root/busybox")
        yield found


def test_its_files_are_roots_and_compiled(deb: Path) -> None:
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = {member.name.removeprefix("./"): member for member in archive}
    assert {(one.uid, one.gid) for one in members.values()} == {(0, 0)}
    assert not [name for name, one in members.items() if one.mode & 0o022 and not one.issym()]
    wanted = (
        "usr/bin/kubelite", "usr/lib/systemd/system/kubelite.service", "etc/kubelite/config.yaml",
        "etc/kubelite/manifests", "usr/share/doc/kubelite/copyright", "usr/share/doc/kubelite/examples/web.yaml",
        "usr/share/man/man1/kubelite-get.1.gz", "usr/share/man/man5/kubelite-config.yaml.5.gz",
        "usr/share/bash-completion/completions/kubelite", "usr/share/zsh/vendor-completions/_kubelite-oci",
    )  # fmt: skip
    assert set(wanted) <= set(members)
    sources = [name for name in members if re.search(r"/kubelite/(?!_packages/).*(?<!__init__)\.py$", name)]
    for name in sources:
        directory, _, file = name.rpartition("/")
        compiled = f"{directory}/__pycache__/{file.removesuffix('.py')}."
        assert any(other.startswith(compiled) for other in members), name
    assert len(sources) > 100


def test_it_depends_on_this_release(deb: Path) -> None:
    python = subprocess.run(["/usr/bin/python3", "-V"], check=True, capture_output=True, text=True).stdout
    major, minor = (int(number) for number in python.split()[1].split(".")[:2])
    depends = control(deb, "Depends").split(", ")
    assert {f"python3 (>= {major}.{minor}~)", f"python3 (<< {major}.{minor + 1})"} <= set(depends)
    assert any(re.fullmatch(r"libc6 \(>= 2\.\d+\)", one) for one in depends)
    assert control(deb, "Maintainer") == "A Test <test@example.org>"


def test_the_life_cycle_of_the_package(system: Machine) -> None:
    before = system.files()
    _installed(system)
    pid, daemon = _started(system)
    _upgraded(system, pid, daemon)
    _hardened(system, pid)
    _reset(system)
    _removed(system)
    _installed_again(system)
    _purged(system, before)


def _installed(system: Machine) -> None:
    """Installation starts nothing."""
    said = system.run("dpkg", "-i", "/root/old.deb")
    assert "systemctl enable --now kubelite" in said
    assert system.run("systemctl", "is-active", "kubelite", check=False) == "inactive\n"
    assert system.run("systemctl", "is-enabled", "kubelite", check=False) == "disabled\n"
    assert system.run("sh", "-c", "ls /sys/class/net").split() == ["lo"]
    assert system.run("kubelite-oci", "--version").startswith("kubelite-oci version ")
    assert system.run("dpkg", "--verify", "kubelite") == ""


def _started(system: Machine) -> tuple[int, str]:
    """The service runs a pod. Return the pid of its container, and that of the daemon as systemd shows it."""
    system.run("systemctl", "enable", "--now", "kubelite")
    until(lambda: "Server Version" in system.run("kubelite", "version", check=False), "the daemon to answer")
    system.run("kubelite", "image", "pack", "/root/busybox:/bin/busybox", "-t", "localhost/busybox")
    (system.tree / "etc/kubelite/manifests/p.yaml").write_text(MANIFEST)
    until(lambda: _state(system).get("running"), "the pod to run")
    readable = "cat /etc/hosts /etc/resolv.conf >/dev/null && ls -ld /"
    said = system.run("kubelite", "exec", "p", "--", "sh", "-c", readable)
    assert said.startswith("drwxr-xr-x"), "the unit's UMask=0077 has no effect in pods"
    (system.tree / "etc/kubelite/config.yaml").open("a").write("\nmax_pods: 50\n")
    return _pid(system), system.run("systemctl", "show", "-p", "MainPID", "kubelite")


def _upgraded(system: Machine, pid: int, daemon: str) -> None:
    """After an upgrade there is another daemon, with the same pods and the administrator's settings."""
    system.run("dpkg", "-i", "/root/new.deb")
    until(
        lambda: "Server Version: 99.0" in system.run("kubelite", "version", check=False),
        "the new daemon to answer",
    )
    assert system.run("systemctl", "show", "-p", "MainPID", "kubelite") != daemon
    assert _pid(system) == pid
    assert _state(system)["restartCount"] == 0
    assert "max_pods: 50" in (system.tree / "etc/kubelite/config.yaml").read_text()
    assert system.run("kubelite", "exec", "p", "--", "echo", "hello") == "hello\n"
    assert system.run("kubelite", "doctor") == "All is well.\n"


def _hardened(system: Machine, pid: int) -> None:
    """The hardening that the package brings as an example: what runs goes on, and new pods run, with its limits."""
    loose = _exposure(system)
    drop_in = "/etc/systemd/system/kubelite.service.d"
    system.run("mkdir", "-p", drop_in)
    system.run("cp", "/usr/share/doc/kubelite/examples/kubelite-hardening.conf", f"{drop_in}/hardening.conf")
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "restart", "kubelite")
    until(lambda: "Server Version" in system.run("kubelite", "version", check=False), "the daemon to answer")
    assert _exposure(system) < min(8.0, loose)
    assert _pid(system) == pid and _state(system)["restartCount"] == 0
    manifests, short = system.tree / "etc/kubelite/manifests", MANIFEST.replace("spec:", f"spec:\n  {GRACE}")
    (manifests / "q.yaml").write_text(short.replace("name: p}", "name: q}"))
    privileged = "{name: main, securityContext: {privileged: true}"
    (manifests / "r.yaml").write_text(
        short.replace("name: p}", "name: r}").replace("{name: main", privileged)
    )
    until(lambda: _state(system, "q").get("running"), "a new pod to run")
    assert system.run("kubelite", "exec", "q", "--", "echo", "hello") == "hello\n"
    status = system.run("kubelite", "exec", "q", "--", "cat", "/proc/1/status")
    assert "Seccomp_filters:\t" in status and int(status.partition("Seccomp_filters:")[2].split()[0]) > 2
    until(
        lambda: _state(system, "r").get("running"), "a privileged pod to run, without what the daemon has not"
    )
    status = system.run("kubelite", "exec", "r", "--", "cat", "/proc/1/status")
    bounding = int(status.partition("CapBnd:")[2].split()[0], 16)
    assert bounding >> 21 & 1 and not bounding >> 16 & 1, "CAP_SYS_ADMIN, but not CAP_SYS_MODULE"
    assert system.run("kubelite", "doctor") == "All is well.\n"
    for name in ("q", "r"):
        (manifests / f"{name}.yaml").unlink()
    until(lambda: system.run("kubelite", "get", "pods", "-o", "name").split() == ["pod/p"], "them to be gone")
    system.run("rm", "-r", drop_in)
    system.run("systemctl", "daemon-reload")
    system.run("systemctl", "restart", "kubelite")
    until(lambda: "Server Version" in system.run("kubelite", "version", check=False), "the daemon to answer")
    assert _pid(system) == pid


def _reset(system: Machine) -> None:
    """systemd does not restart a service that was reset, which it would after a crash."""
    said = system.run("kubelite", "reset", "--yes", "--now")
    assert "stopped kubelite.service; start it again with: systemctl start kubelite.service" in said
    assert "killed pod default/p" in said
    time.sleep(3.0)  # RestartSec is one second
    assert system.run("systemctl", "is-active", "kubelite", check=False) == "inactive\n"
    system.run("systemctl", "start", "kubelite")
    until(lambda: _state(system).get("running"), "the pod to run after the reset")


def _removed(system: Machine) -> None:
    """Removal ends pods, because nothing would manage them. It retains the files of the administrator."""
    said = system.run("dpkg", "-r", "kubelite")
    assert "ended pod " in said
    assert system.run("sh", "-c", "ls /sys/class/net").split() == ["lo"]
    assert system.run("sh", "-c", "cat /proc/[0-9]*/cmdline").count("kubelite") == 0
    assert not system.run("sh", "-c", "ls -d /sys/fs/cgroup/kubelite*", check=False).startswith("/")
    assert (system.tree / "etc/kubelite/manifests/p.yaml").exists()
    assert (system.tree / "var/lib/kubelite/images").is_dir()
    assert not (system.tree / "usr/lib/kubelite").exists()


def _installed_again(system: Machine) -> None:
    """The service is enabled as before. Again, installation starts nothing."""
    system.run("dpkg", "-i", "/root/new.deb")
    assert system.run("systemctl", "is-enabled", "kubelite", check=False) == "enabled\n"
    assert system.run("systemctl", "is-active", "kubelite", check=False) == "inactive\n"


def _purged(system: Machine, before: set[str]) -> None:
    """A purge, even of a running node, leaves nothing."""
    system.run("systemctl", "start", "kubelite")
    until(lambda: _state(system).get("running"), "the pod to run again")
    system.run("dpkg", "-P", "kubelite")
    assert sorted(system.files() - before) == []
    assert sorted(before - system.files()) == []
    for path in ("run/kubelite", "var/log/pods", "var/log/containers"):
        system.run("test", "!", "-e", f"/{path}")
    assert system.run("sh", "-c", "ls /sys/class/net").split() == ["lo"]
    assert system.run("systemctl", "list-units", "--failed", "--no-legend", "kubelite*") == ""


def _exposure(system: Machine) -> float:
    said = system.run("systemd-analyze", "security", "--no-pager", "kubelite")
    found = re.search(r"Overall exposure level for kubelite\.service: ([0-9.]+)", said)
    assert found is not None, said
    return float(found[1])


def _state(system: Machine, pod: str = "p") -> dict[str, Any]:
    """The pod's container as the API has it, with its state's name as a key; empty before there is one."""
    said = system.run("kubelite", "get", "pod", pod, "-o", "json", check=False)
    if not said.startswith("{"):
        return {}
    (found,) = json.loads(said).get("status", {}).get("containerStatuses") or [{}]
    return {**found, **found.get("state", {})}


def _pid(system: Machine) -> int:
    (found,) = json.loads(system.run("kubelite", "inspect", "default/p"))["containers"]
    return int(found["pid"])

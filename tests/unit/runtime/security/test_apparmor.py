"""The default AppArmor profile: which paths its rules deny, and what is said when the parser does not load it. What the
kernel does with it: tests/e2e/test_apparmor.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runtime.errors import CapabilityError
from runtime.security import apparmor


def denied(path: str, permission: str) -> bool:
    """Whether a `deny` of the profile matches, by the globs of apparmor.d(5)."""
    for line in apparmor.profile("p").splitlines():
        found = re.fullmatch(r" *deny (/\S+) ([rwklx]+),", line)
        if found and permission in found[2] and re.fullmatch(_regex(found[1]), path):
            return True
    return False


def _regex(glob: str) -> str:
    parts = re.split(r"(\*\*|\*|\?|\[\^[^]]*\])", glob)
    special = {"**": ".+", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        special.get(part) or (part if part.startswith("[^") else re.escape(part)) for part in parts
    )


@pytest.mark.parametrize(
    "path",
    [
        "/proc/1/oom_score_adj", "/proc/12345/attr/exec", "/proc/sys/kernel/shmmax", "/proc/sys/kernel/shm_rmid_forced",
        "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids/a/tasks", "/etc/passwd", "/srv/proc/sys/vm/x", "/dev/null",
    ],
)  # fmt: skip
def test_what_a_container_may_write(path: str) -> None:
    assert not denied(path, "w")


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger", "/proc/kcore", "/proc/mtrr", "/proc/s", "/proc/irq/1/smp_affinity", "/proc/acpi/x",
        "/proc/sy/x", "/proc/sysvipc/shm", "/proc/scsi/scsi", "/proc/sys/vm/swappiness", "/proc/sys/net/core/somaxconn",
        "/proc/sys/kernel/hostname", "/proc/sys/kernel/s", "/proc/sys/kernel/sh", "/proc/sys/kernel/sysrq",
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/seccomp/actions_logged",
        "/proc/sys/kernel/sched_domain/x", "/proc/sys/kernelx/y", "/proc/sys/ker/y",
        "/sys/kernel/uevent_helper", "/sys/f/x", "/sys/fsx/y", "/sys/fs/bpf/x", "/sys/fs/cg/x", "/sys/fs/cgroups/x",
        "/sys/fs/c/x", "/sys/firmware/efi/x", "/sys/kernel/security/apparmor/.remove", "/sys/class/net/lo/mtu",
    ],
)  # fmt: skip
def test_what_a_container_must_not_write(path: str) -> None:
    assert denied(path, "w")


def test_what_a_container_must_not_read() -> None:
    for path in (
        "/proc/kcore",
        "/proc/sysrq-trigger",
        "/sys/firmware/acpi/x",
        "/sys/devices/virtual/powercap/x",
    ):
        assert denied(path, "r")
    assert not denied("/proc/cpuinfo", "r") and not denied("/sys/devices/system/cpu/online", "r")


def test_mounts_are_denied_and_processes_outside_are_neither_traced_nor_signalled() -> None:
    rules = [line.strip() for line in apparmor.profile("p").splitlines()]
    assert "deny mount," in rules
    assert not any("trace," in rule and "peer=p" not in rule for rule in rules)
    sends = [rule for rule in rules if rule.startswith("signal (send")]
    assert sends == ["signal (send, receive) peer=p,", 'signal (send, receive) set=("exists"),']


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo no such file >&2; echo at line 3 >&2; exit 2", "apparmor_parser: no such file at line 3"),
        ("exit 2", "apparmor_parser: exit code 2"),
        ("exit 0", "apparmor_parser succeeded, but {list} does not list p"),
        ("exec sleep 60", "apparmor_parser did not end within 0.2 seconds"),
    ],
)
def test_a_parser_that_fails(script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "apparmor_parser").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "apparmor_parser").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(apparmor, "PROFILES", str(tmp_path / "profiles"))
    if "sleep" in script:
        monkeypatch.setattr(apparmor, "PATIENCE", 0.2)
    with pytest.raises(CapabilityError) as error:
        apparmor.load("p")
    assert str(error.value) == said.format(list=tmp_path / "profiles")


def test_the_parser_gets_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = tmp_path / "profiles"
    (tmp_path / "apparmor_parser").write_text(
        f"#!/bin/sh\ncat > {tmp_path}/given; echo 'p (enforce)' > {listed}\n"
    )
    (tmp_path / "apparmor_parser").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(apparmor, "PROFILES", str(listed))
    assert not apparmor.loaded("p")
    apparmor.load("p")
    assert "profile p flags=(attach_disconnected, mediate_deleted) {\n" in (tmp_path / "given").read_text()
    assert apparmor.loaded("p") and not apparmor.loaded("p (enforce)") and not apparmor.loaded("q")


def test_a_machine_without_the_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(CapabilityError, match="apt install apparmor"):
        apparmor.load("p")

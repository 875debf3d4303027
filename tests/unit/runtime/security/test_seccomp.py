"""Seccomp: the conditions of the default profile, and the verdicts of the compiled filter, run by a small classic-BPF
interpreter (struct seccomp_data: nr, arch, instruction pointer, six arguments)."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import SpecError
from runtime.security import capability_names, seccomp, seccomp_default

try:
    import pyseccomp
except (ImportError, RuntimeError) as lacking:
    pytest.skip(f"libseccomp 2 is not there: {lacking}", allow_module_level=True)

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
X86_64, I386 = 0xC000003E, 0x40000003
DOCKER = frozenset(capability_names.DEFAULT_CAPS)


def verdict(code: bytes, name: str | int, *args: int, arch: int = X86_64) -> int:
    number = name if isinstance(name, int) else pyseccomp.resolve_syscall(arch, name)
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, arch, 0, *args, *[0] * (6 - len(args)))
    accumulator, at = 0, 0
    while True:
        op, jt, jf, k = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        match op:
            case 0x20:
                (accumulator,) = struct.unpack_from("=I", data, k)
            case 0x05:
                at += k
            case 0x15:
                at += jt if accumulator == k else jf
            case 0x25:
                at += jt if accumulator > k else jf
            case 0x35:
                at += jt if accumulator >= k else jf
            case 0x54:
                accumulator &= k
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"unexpected instruction {op:#x}")


def x86(caps: frozenset[str] = DOCKER) -> dict[str, Any]:
    return seccomp_default.resolve(caps, machine="x86_64", kernel=(6, 1))


needs_x86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers of x86_64")


@needs_x86
@pytest.mark.parametrize(
    ("call", "args", "answer"),
    [
        ("read", (), ALLOW),
        ("execve", (), ALLOW),
        ("futex_wake", (), ALLOW),
        ("ptrace", (), ALLOW),
        ("socket", (2,), ALLOW),
        ("socket", (38,), EPERM),  # AF_ALG
        ("socket", (39,), ALLOW),
        ("socket", (40,), EPERM),  # AF_VSOCK
        ("socket", (41,), ALLOW),
        ("personality", (0,), ALLOW),
        ("personality", (8,), ALLOW),
        ("personality", (0x20008,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x40000,), EPERM),
        ("clone", (0x11,), ALLOW),  # fork
        ("clone", (0x3D0F00,), ALLOW),  # a thread
        ("clone", (0x10000011,), EPERM),  # CLONE_NEWUSER
        ("clone", (0x20011,), EPERM),  # CLONE_NEWNS
        ("clone3", (), ENOSYS),
        ("unshare", (), EPERM),
        ("mount", (), EPERM),
        ("setns", (), EPERM),
        ("bpf", (), EPERM),
        ("keyctl", (), EPERM),
        ("add_key", (), EPERM),
        ("kexec_load", (), EPERM),
        ("init_module", (), EPERM),
        ("userfaultfd", (), EPERM),
        ("io_uring_setup", (), EPERM),
        ("chroot", (), ALLOW),  # docker's set has CAP_SYS_CHROOT
        ("reboot", (), EPERM),
        (2000, (), ENOSYS),  # a call of the future: libc falls back on ENOSYS, not on EPERM
    ],
)
def test_default_profile(call: str | int, args: tuple[int, ...], answer: int) -> None:
    assert verdict(seccomp.compile(x86()), call, *args) == answer


@needs_x86
@pytest.mark.parametrize(
    ("caps", "call", "answer"),
    [
        ({"CAP_SYS_ADMIN"}, "clone3", ALLOW),
        ({"CAP_SYS_ADMIN"}, "mount", ALLOW),
        ({"CAP_SYS_ADMIN"}, "reboot", EPERM),
        ({"CAP_SYS_BOOT"}, "reboot", ALLOW),
        ({"CAP_SYS_TIME"}, "clock_settime", ALLOW),
        ({"CAP_BPF"}, "bpf", ALLOW),
        (set(), "chroot", EPERM),
    ],
)
def test_capabilities_open_their_groups(caps: set[str], call: str, answer: int) -> None:
    assert verdict(seccomp.compile(x86(frozenset(caps))), call) == answer


@needs_x86
def test_32_bit_programs_are_filtered_by_their_own_numbers() -> None:
    code = seccomp.compile(x86())
    assert verdict(code, "read", arch=I386) == ALLOW
    assert verdict(code, "mount", arch=I386) == EPERM
    assert verdict(code, 2000, arch=I386) == ENOSYS
    assert verdict(code, 0, arch=0xC00000B7) not in (ALLOW, EPERM)  # an aarch64 call on x86: killed


def test_socketcall_can_be_refused() -> None:
    assert verdict(seccomp.compile(x86()), "socketcall", 1, arch=I386) == ALLOW
    profile = seccomp_default.resolve(DOCKER, machine="x86_64", kernel=(6, 1), socketcall=False)
    code = seccomp.compile(profile)
    assert verdict(code, "socketcall", 1, arch=I386) == ENOSYS  # 1: SYS_SOCKET
    assert verdict(code, "socketcall", 3, arch=I386) == ENOSYS  # SYS_CONNECT
    assert verdict(code, 359, 2, arch=I386) == ALLOW  # socket(2) in syscall_32.tbl
    assert verdict(code, 359, 38, arch=I386) == EPERM  # AF_ALG


def test_clone_on_s390_has_its_flags_second() -> None:
    rules = seccomp_default.resolve(DOCKER, machine="s390x", kernel=(6, 1))["syscalls"]
    (clone,) = [rule for rule in rules if "clone" in rule["names"]]
    assert clone["args"][0]["index"] == 1


def test_conditions_on_machine_and_kernel() -> None:
    def names(**world: Any) -> set[str]:
        profile = seccomp_default.resolve(DOCKER, **{"machine": "x86_64", "kernel": (6, 1), **world})
        return {name for rule in profile["syscalls"] for name in rule["names"]}

    assert {"arch_prctl", "modify_ldt"} <= names()
    assert "arch_prctl" not in names(machine="aarch64")
    assert "riscv_flush_icache" in names(machine="riscv64")
    assert "ptrace" not in names(kernel=(4, 4))


def test_unknown_names_are_skipped_and_unknown_actions_are_not() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["of_tomorrow", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }
    code = seccomp.compile(profile)
    assert verdict(code, "mkdir", arch=pyseccomp.system_arch()) == 0x0005000D
    assert verdict(code, 2000, arch=pyseccomp.system_arch()) == ALLOW
    with pytest.raises(SpecError, match="SCMP_ACT_MAYBE"):
        seccomp.compile({"defaultAction": "SCMP_ACT_MAYBE"})
    with pytest.raises(SpecError, match="SCMP_ARCH_PDP11"):
        seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]})


@pytest.mark.parametrize("number", [4095, 38000])
def test_an_invalid_errno(number: int) -> None:
    with pytest.raises(SpecError, match=f"defaultErrnoRet: {number} is not an errno"):
        seccomp.compile({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": number})
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": number}
    with pytest.raises(SpecError, match="libseccomp rejected the rule for mkdir"):
        seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})


@needs_x86
def test_architectures_that_pyseccomp_has_no_name_for() -> None:
    """libseccomp 2.6 can filter loongarch64 (AUDIT_ARCH_LOONGARCH64 of linux/audit.h), but no other byte order."""
    assert "SCMP_ARCH_LOONGARCH64" in seccomp.architectures()
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_LOONGARCH64"],
        "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}],
    }
    if seccomp.library_version() < "2.6":
        with pytest.raises(SpecError, match="cannot filter SCMP_ARCH_LOONGARCH64 on this machine"):
            seccomp.compile(profile)
        return
    assert verdict(seccomp.compile(profile), 34, arch=0xC0000102) == 0x0005000D
    with pytest.raises(SpecError, match="cannot filter SCMP_ARCH_M68K on this machine"):
        seccomp.compile({**profile, "architectures": ["SCMP_ARCH_M68K"]})


@needs_x86
@pytest.mark.parametrize(
    ("op", "value", "two", "argument", "matches"),
    [
        ("SCMP_CMP_NE", 5, 0, 4, True),
        ("SCMP_CMP_NE", 5, 0, 5, False),
        ("SCMP_CMP_LE", 5, 0, 5, True),
        ("SCMP_CMP_GE", 5, 0, 4, False),
        ("SCMP_CMP_GT", 1 << 40, 0, (1 << 40) + 1, True),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x20, 0x2F, True),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x20, 0x3F, False),
    ],
)
def test_operators(op: str, value: int, two: int, argument: int, matches: bool) -> None:
    rule = {
        "names": ["dup"],
        "action": "SCMP_ACT_KILL_PROCESS",
        "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}],
    }
    code = seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    assert verdict(code, "dup", argument) == (0x80000000 if matches else ALLOW)


@needs_x86
def test_conditions_are_combined_unless_on_one_argument() -> None:
    def rule(*args: tuple[int, int]) -> bytes:
        conditions = [{"index": i, "value": v, "op": "SCMP_CMP_EQ"} for i, v in args]
        syscalls = [{"names": ["dup2"], "action": "SCMP_ACT_ERRNO", "args": conditions}]
        return seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls})

    both = rule((0, 1), (1, 2))
    assert [verdict(both, "dup2", *args) for args in ((1, 2), (1, 3))] == [EPERM, ALLOW]
    either = rule((0, 1), (0, 2))
    assert [verdict(either, "dup2", n) for n in (1, 2, 3)] == [EPERM, EPERM, ALLOW]


def test_the_cache_on_disk_is_used_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "seccomp"
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_TRAP"}]}
    monkeypatch.setattr(seccomp, "_memory", [])
    code = seccomp.compile(profile, cache_dir=str(cache))
    (file,) = cache.iterdir()
    assert file.read_bytes() == code
    other = b"\0" * 16
    file.write_bytes(other)
    assert seccomp.compile(profile, cache_dir=str(cache)) == code  # from memory
    monkeypatch.setattr(seccomp, "_memory", [])
    assert seccomp.compile(profile, cache_dir=str(cache)) == other  # from disk
    monkeypatch.setattr(seccomp, "_memory", [])
    file.write_bytes(code[:-3])  # cut short: not a program
    assert seccomp.compile(profile, cache_dir=str(cache)) == code


@pytest.mark.parametrize("trap", ["open to others", "a link", "somebody's"])
def test_a_cache_writable_by_others_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str
) -> None:
    cache = tmp_path / "seccomp"
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_TRAP"}]}
    monkeypatch.setattr(seccomp, "_memory", [])
    code = seccomp.compile(profile, cache_dir=str(cache))
    (file,) = cache.iterdir()
    file.write_bytes(b"\0" * 16)
    if trap == "open to others":
        cache.chmod(0o755)
    elif trap == "a link":
        cache.rename(tmp_path / "real")
        cache.symlink_to(tmp_path / "real")
    else:
        monkeypatch.setattr(os, "geteuid", lambda: cache.stat().st_uid + 1)
    monkeypatch.setattr(seccomp, "_memory", [])
    assert seccomp.compile(profile, cache_dir=str(cache)) == code


def test_the_size_of_the_cache_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "seccomp"
    cache.mkdir(mode=0o700)
    for number in range(seccomp._CACHED):
        (cache / f"{number}.bpf").write_bytes(b"\0" * 8)
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_TRAP"}]}
    monkeypatch.setattr(seccomp, "_memory", [])
    seccomp.compile(profile, cache_dir=str(cache))
    assert not list(cache.iterdir())


def test_a_filter_compiled_in_a_child_is_the_same() -> None:
    profiles = [
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [name], "action": "SCMP_ACT_TRAP"}]}
        for name in ("dup", "dup2")
    ]
    codes = seccomp.compile_apart(profiles)
    assert [seccomp._compile(profile) for profile in profiles] == codes
    with pytest.raises(SpecError, match="unknown action"):
        seccomp.compile_apart([{"defaultAction": "SCMP_ACT_MAYBE"}])


def test_a_process_that_stays_small_compiles_once_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seccomp, "_cache_dir", None)
    monkeypatch.setattr(seccomp, "_memory", [])
    seccomp.compile_in_children(str(tmp_path / "seccomp"))
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["dup"], "action": "SCMP_ACT_TRAP"}]}
    code = seccomp.compile(profile)
    (file,) = (tmp_path / "seccomp").iterdir()
    assert file.read_bytes() == code == seccomp._compile(profile)
    monkeypatch.setattr(seccomp, "_memory", [])
    monkeypatch.setattr(seccomp, "compile_apart", None)
    assert seccomp.compile(profile) == code


def test_an_unwritable_cache_only_costs_time() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["dup3"], "action": "SCMP_ACT_TRAP"}],
    }
    assert seccomp.compile(profile, cache_dir="/proc/nowhere")


def test_flags() -> None:
    assert seccomp.install_flags({}) == 4
    assert seccomp.install_flags({"flags": []}) == 0
    assert seccomp.install_flags({"flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]}) == 3
    with pytest.raises(SpecError):
        seccomp.install_flags({"flags": ["SECCOMP_FILTER_FLAG_NEW"]})


def test_listener_is_needed_only_by_notify() -> None:
    assert not seccomp.needs_listener(x86())
    assert seccomp.needs_listener({"syscalls": [{"names": ["dup"], "action": "SCMP_ACT_NOTIFY"}]})


@pytest.mark.parametrize(
    ("release", "version"), [("6.18.44-fc", (6, 18)), ("5.4", (5, 4)), ("4.19-rc1", (4, 19))]
)
def test_kernel_release(release: str, version: tuple[int, int]) -> None:
    assert seccomp._kernel(release) == version

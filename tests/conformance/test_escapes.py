"""Known ways out of a container, tried on any runtime from outside. docs/escapes.md has the whole table."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from tests.conformance.conftest import Bundle, Runtime


def fingerprint(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def interpreter(runtime: Runtime) -> str:
    """The executable file behind the command."""
    with open(runtime.path, "rb") as file:
        first = file.readline()
    return first[2:].split()[0].decode() if first.startswith(b"#!") else runtime.path


EVIL = "#!/proc/self/exe\nopen('/escaped', 'w')\n"


def plant(bundle: Bundle) -> Path:
    evil = bundle.rootfs / "bin/evil"
    evil.write_text(EVIL)
    evil.chmod(0o755)
    return bundle.rootfs / "escaped"


def test_an_entry_point_that_is_the_runtime(runtime: Runtime, bundle: Bundle) -> None:
    """CVE-2019-5736: `#!/proc/self/exe` makes execve run the runtime's own executable in the container."""
    before = fingerprint(interpreter(runtime))
    escaped = plant(bundle)
    bundle.create("/bin/evil")
    runtime("start", bundle.id)
    runtime.until(bundle.id, "stopped")
    assert not escaped.exists()
    assert fingerprint(interpreter(runtime)) == before


def test_an_exec_that_is_the_runtime(runtime: Runtime, bundle: Bundle) -> None:
    """CVE-2019-5736, by exec; and the same in the foreground."""
    escaped = plant(bundle)
    bundle.start("sleep", "60")
    runtime("exec", bundle.id, "/bin/evil")
    assert not escaped.exists()


def test_the_waiting_init_is_no_file_of_the_host(runtime: Runtime, bundle: Bundle) -> None:
    bundle.create("true")
    assert "memfd" in os.readlink(f"/proc/{runtime.state(bundle.id)['pid']}/exe") or runtime.name == "runc"


@pytest.mark.parametrize("number", range(3, 13))
def test_a_working_directory_behind_a_descriptor(bundle: Bundle, number: int) -> None:
    """CVE-2024-21626: a descriptor of the runtime's that leads out of the root, as cwd."""
    bundle.process["cwd"] = f"/proc/self/fd/{number}"
    assert bundle.run("true").code != 0


def test_a_program_behind_a_descriptor(runtime: Runtime, bundle: Bundle) -> None:
    """CVE-2024-21626, attack 2: /proc/self/fd/N/../../../host/program."""
    bundle.start("sleep", "60")
    for number in range(3, 13):
        assert runtime("exec", bundle.id, f"/proc/self/fd/{number}/../../bin/busybox", "true").code != 0


def test_proc_that_is_a_link(runtime: Runtime, bundle: Bundle) -> None:
    """CVE-2019-19921, CVE-2023-27561: what is masked below /proc would be masked elsewhere."""
    (bundle.rootfs / "proc").rmdir()
    (bundle.rootfs / "proc").symlink_to("tmp")
    assert bundle.create("true", check=False).code != 0
    assert not any(runtime.root.iterdir())


def test_a_mount_over_proc(bundle: Bundle, tmp_path: Path) -> None:
    """CVE-2019-16884: a volume over /proc fakes what labels are written to."""
    (tmp_path / "fake").mkdir()
    bundle.mount("/proc/self", "bind", "bind", source=str(tmp_path / "fake"))
    assert bundle.run("true").code != 0


def test_dev_null_that_is_a_link(bundle: Bundle) -> None:
    """CVE-2025-31133: masking with the image's own /dev/null would show what it links to."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    (bundle.rootfs / "dev/null").symlink_to("/etc/passwd")
    (bundle.rootfs / "secret").write_text("secret\n")
    bundle.linux["maskedPaths"] = ["/secret"]
    done = bundle.run("cat", "/secret")
    assert "web" not in done.out
    assert "secret" not in done.out


def test_a_console_that_is_a_link(bundle: Bundle, tmp_path: Path) -> None:
    """CVE-2025-52565: the bind of the terminal on /dev/console must cover a plain file of ours, nothing else."""
    from tests.conformance.test_process import console_socket

    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    (bundle.rootfs / "dev/pts").mkdir()
    (bundle.rootfs / "dev/console").symlink_to("/proc/sys/kernel/core_pattern")
    bundle.process["terminal"] = True
    with console_socket(tmp_path / "c"):
        done = bundle.create("true", flags=("--console-socket", str(tmp_path / "c")), check=False)
    with open("/proc/mounts", encoding="utf-8") as file:
        assert "core_pattern" not in file.read()
    assert done.code != 0 or bundle.runtime.name == "runc"


def test_release_agent(bundle: Bundle) -> None:
    """CVE-2022-0492: mounting a v1 hierarchy of one's own, or writing to the one that is there."""
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev")
    script = (
        "mkdir /tmp/g; busybox mount -t cgroup -o memory x /tmp/g && echo mounted;"
        "for f in $(busybox find /sys/fs/cgroup -name release_agent); do echo /x > $f && echo wrote; done; true"
    )
    done = bundle.sh(script, check=True)
    assert done.out == ""


def test_exec_gives_no_inheritable_capabilities(runtime: Runtime, bundle: Bundle) -> None:
    """CVE-2022-29162."""
    bundle.start("sleep", "60")
    out = runtime(
        "exec", "--cap", "CAP_NET_RAW", bundle.id, "grep", "CapInh", "/proc/self/status", check=True
    ).out
    assert int(out.split()[1], 16) == 0


def test_a_mount_target_that_leads_out(bundle: Bundle, tmp_path: Path) -> None:
    """CVE-2021-30465, CVE-2024-45310: directories of a mount target are made below the root only."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (bundle.rootfs / "up").symlink_to("../../outside")
    bundle.mount("/up/made/here", "tmpfs")
    bundle.run("true")
    assert list(outside.iterdir()) == []


def test_sysctls_that_are_the_machines(runtime: Runtime, bundle: Bundle) -> None:
    """A sysctl without a namespace of its own changes the host."""
    bundle.linux["sysctl"] = {"kernel.core_pattern": "|/x"}
    before = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii")
    assert bundle.create("true", check=False).code != 0
    assert Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii") == before


def test_the_state_is_not_for_others(runtime: Runtime, bundle: Bundle) -> None:
    bundle.create("true")
    assert json.loads(runtime("state", bundle.id, check=True).out)["id"] == bundle.id
    mode = os.stat(runtime.root / bundle.id).st_mode
    assert mode & 0o066 == 0

"""Known container escapes, tried with any runtime; docs/explanation/security.md lists them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.conftest import Bundle, Runtime, left_below


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
    """CVE-2019-5736 by exec, and in the foreground."""
    escaped = plant(bundle)
    bundle.start("sleep", "60")
    runtime("exec", bundle.id, "/bin/evil")
    assert not escaped.exists()


def test_the_executable_of_the_waiting_init_is_not_a_host_file(runtime: Runtime, bundle: Bundle) -> None:
    bundle.create("true")
    assert "memfd" in os.readlink(f"/proc/{runtime.state(bundle.id)['pid']}/exe") or runtime.name == "runc"


@pytest.mark.parametrize("number", range(3, 13))
def test_a_working_directory_behind_a_descriptor(bundle: Bundle, number: int) -> None:
    """CVE-2024-21626: the working directory is a leaked descriptor of the runtime that leads out of the root."""
    bundle.process["cwd"] = f"/proc/self/fd/{number}"
    assert bundle.run("true").code != 0


def test_a_program_behind_a_descriptor(runtime: Runtime, bundle: Bundle) -> None:
    """CVE-2024-21626, attack 2: /proc/self/fd/N/../../../host/program."""
    bundle.start("sleep", "60")
    for number in range(3, 13):
        assert runtime("exec", bundle.id, f"/proc/self/fd/{number}/../../bin/busybox", "true").code != 0


def test_proc_is_a_link(runtime: Runtime, bundle: Bundle) -> None:
    """CVE-2019-19921, CVE-2023-27561: /proc is a link, so paths below it would be masked in another place."""
    (bundle.rootfs / "proc").rmdir()
    (bundle.rootfs / "proc").symlink_to("tmp")
    assert bundle.create("true", check=False).code != 0
    assert not any(runtime.root.iterdir())


@pytest.mark.parametrize("target", ["tmp/fake", "/tmp/fake", "nowhere", "../proc/tmp", "/"])
def test_cve_2023_28642_proc_is_a_link(runtime: Runtime, bundle: Bundle, target: str) -> None:
    """Through a link, AppArmor and SELinux labels and masked paths would apply to another directory."""
    (bundle.rootfs / "proc").rmdir()
    (bundle.rootfs / "proc").symlink_to(target)
    (bundle.rootfs / "tmp/fake").mkdir()
    bundle.mount("/tmp/fake", "tmpfs")
    bundle.config["mounts"].insert(0, bundle.config["mounts"].pop())  # it exists when proc is mounted
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert "/proc" in done.err
    assert left_below(runtime.root) == []


def test_cve_2023_28642_a_false_proc(runtime: Runtime, bundle: Bundle) -> None:
    """The image brings a false /proc: the runtime must write to the kernel's, and must not accept a label that was
    written to a file of the image."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/proc"]
    below = bundle.rootfs / "proc/self"
    for name in ("oom_score_adj", "attr/exec", "attr/apparmor/exec", "attr/keycreate"):
        (below / name).parent.mkdir(parents=True, exist_ok=True)
        (below / name).write_text("false")
    bundle.process["oomScoreAdj"] = 900
    pid = bundle.start("sleep", "60")
    assert Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii") == "900\n"
    assert {file.read_text() for file in below.rglob("*") if file.is_file()} == {"false"}
    runtime("delete", "--force", bundle.id, check=True)
    bundle.process["apparmorProfile"] = "klt-there-is-no-such"
    assert bundle.create("true", check=False).code != 0
    assert {file.read_text() for file in below.rglob("*") if file.is_file()} == {"false"}


def test_a_mount_over_proc(bundle: Bundle, tmp_path: Path) -> None:
    """CVE-2019-16884: a volume over /proc imitates the files that labels are written to."""
    (tmp_path / "fake").mkdir()
    bundle.mount("/proc/self", "bind", "bind", source=str(tmp_path / "fake"))
    assert bundle.run("true").code != 0


def test_dev_null_is_a_link(bundle: Bundle) -> None:
    """CVE-2025-31133: masking with the image's own /dev/null would show what it links to."""
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    (bundle.rootfs / "dev/null").symlink_to("/etc/passwd")
    (bundle.rootfs / "secret").write_text("secret\n")
    bundle.linux["maskedPaths"] = ["/secret"]
    done = bundle.run("cat", "/secret")
    assert "web" not in done.out
    assert "secret" not in done.out


def test_console_is_a_link(bundle: Bundle, tmp_path: Path) -> None:
    """CVE-2025-52565: the terminal may be bound only over a regular file that the runtime created at /dev/console."""
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
    """CVE-2022-0492: mount a new v1 hierarchy, or write to the existing one."""
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev")
    script = (
        "mkdir /tmp/g; busybox mount -t cgroup -o memory x /tmp/g && echo mounted;"
        "for f in $(busybox find /sys/fs/cgroup -name release_agent); do echo /x > $f && echo wrote; done; true"
    )
    done = bundle.sh(script, check=True)
    assert done.out == ""


def test_cgroups_without_a_namespace_of_their_own_are_not_writable(bundle: Bundle) -> None:
    """CVE-2023-25809: without a cgroup namespace a user namespace showed the host's /sys/fs/cgroup, writable."""
    for directory in bundle.path.parents:
        if not directory.stat().st_mode & 0o001:
            directory.chmod(0o711)
    bundle.namespaces(user="", cgroup=None)
    for key in ("uidMappings", "gidMappings"):
        bundle.linux[key] = [{"containerID": 0, "hostID": 100_000, "size": 65536}]
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev")
    script = (
        "for f in $(busybox find /sys/fs/cgroup -name cgroup.procs -o -name release_agent -o -name notify_on_release);"
        " do echo 1 > $f && echo wrote $f; done 2>/dev/null; echo on"
    )
    done = bundle.sh(script)
    assert "wrote" not in done.out
    assert done.out.split() == ["on"] or bundle.runtime.name == "runc"


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


def test_sysctls_that_are_not_namespaced(runtime: Runtime, bundle: Bundle) -> None:
    """A sysctl that is not namespaced changes the host."""
    bundle.linux["sysctl"] = {"kernel.core_pattern": "|/x"}
    before = Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii")
    assert bundle.create("true", check=False).code != 0
    assert Path("/proc/sys/kernel/core_pattern").read_text(encoding="ascii") == before


def test_the_state_is_private(runtime: Runtime, bundle: Bundle) -> None:
    bundle.create("true")
    assert json.loads(runtime("state", bundle.id, check=True).out)["id"] == bundle.id
    mode = os.stat(runtime.root / bundle.id).st_mode
    assert mode & 0o066 == 0


# --- what a container can see and use while others come in, and of what is shared by all ---

SPY = (
    "while :; do for p in /proc/[1-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || {"
    " cat $p/cmdline; echo; cat $p/environ; echo; ls -l $p/fd; } 2>/dev/null; done; done > /tmp/seen"
)
SECRET = "klt-a-secret-of-the-hosts"


def test_a_joining_process_reveals_nothing(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """CVE-2016-9962 and similar: root in the container, without CAP_SYS_PTRACE, must not see descriptors, environment
    or arguments of a process that joins."""
    (bundle.rootfs / "bin/cat").unlink()
    (bundle.rootfs / "bin/cat").symlink_to("busybox")
    bundle.process["env"] += ["ARGUMENT=x"]
    process = tmp_path / f"{SECRET}.json"
    process.write_text(json.dumps({**bundle.process, "args": ["true"], "env": ["PATH=/bin", "FRIEND=1"]}))
    bundle.start("sh", "-c", SPY)
    seen = bundle.rootfs / "tmp/seen"
    for _ in range(20):
        runtime(
            "exec", "--process", str(process), bundle.id, env={**os.environ, "SECRET": SECRET}, check=True
        )
    runtime("kill", bundle.id, "KILL")
    runtime.until(bundle.id, "stopped")
    text = seen.read_text(errors="replace")
    assert text, "it has looked"
    assert SECRET not in text
    assert str(runtime.root) not in text


def with_python(bundle: Bundle, code: str) -> Bundle:
    """Add the host's Python, read-only, for what a shell cannot do."""
    for place in ("/usr", "/lib", "/lib64"):
        if os.path.isdir(place):
            bundle.mount(place, "bind", "rbind", "ro", source=os.path.realpath(place))
    bundle.process["args"] = ["/usr/bin/python3", "-ISc", code]
    return bundle


TIOCSTI = """
import fcntl, termios, os
for fd in (0, 1, 2):
    try:
        for letter in b"echo escaped\\n":
            fcntl.ioctl(fd, termios.TIOCSTI, bytes([letter]))
        os.write(2, b"pushed\\n")
    except OSError as error:
        os.write(2, f"{error.strerror}\\n".encode())
"""


def test_no_input_is_pushed_into_the_callers_terminal(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    """TIOCSTI on the caller's terminal, which the container has as its stdin."""
    master, slave = os.openpty()
    try:
        with_python(bundle, TIOCSTI)
        done = bundle.run(*bundle.process["args"], stdin=slave)
        assert done.code == 0, done
        assert "pushed" not in done.err
        os.set_blocking(slave, False)
        with pytest.raises(BlockingIOError):
            os.read(slave, 100)
    finally:
        os.close(master)
        os.close(slave)


ADD_KEY, KEYCTL, SESSION = 248, 250, -3
KEYS = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = libc.syscall({KEYCTL}, 10, {SESSION}, b"user", b"{SECRET}", 0)
print("found" if found >= 0 else "none")
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="system call numbers of x86_64")
def test_the_callers_keyring_is_not_inherited(runtime: Runtime, bundle: Bundle) -> None:
    """The session keyring is inherited unless a new one is joined (session-keyring(7))."""
    with_python(bundle, KEYS)
    outside = (
        "import ctypes, os, sys\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"assert libc.syscall({KEYCTL}, 1, b'klt', 0, 0, 0) > 0\n"  # KEYCTL_JOIN_SESSION_KEYRING
        f"assert libc.syscall({ADD_KEY}, b'user', b'{SECRET}', b'x', 1, {SESSION}) > 0\n"
        f"exec({KEYS!r}, {{}})\n"
        "sys.stdout.flush()\nos.execv(sys.argv[1], sys.argv[1:])\n"
    )
    bundle.write()
    command = runtime.command("run", "--bundle", str(bundle.path), bundle.id)
    done = subprocess.run(
        [sys.executable, "-c", outside, *command], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["found", "none"], done


def test_a_full_dev_shm_affects_only_the_container(bundle: Bundle) -> None:
    done = bundle.sh(
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=80 2>&1; wc -c < /dev/shm/x; echo on", check=True
    )
    assert "No space left on device" in done.out
    assert done.out.split()[-2:] == [str(64 << 20), "on"]


def test_more_processes_than_allowed_are_refused(bundle: Bundle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 20}
    done = bundle.sh("for i in $(seq 40); do sleep 5 & done; echo on", timeout=60)
    assert "fork" in done.err


def test_proc_and_sys_are_read_only(bundle: Bundle) -> None:
    """Parts of /proc and /sys that affect the whole machine are read-only or hidden."""
    bundle.linux["readonlyPaths"] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    bundle.linux["maskedPaths"] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
    places = (
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger",
        "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper", "/sys/power/state",
    )  # fmt: skip
    script = "".join(
        f"[ ! -e {place} ] || {{ echo x > {place}; }} 2>/dev/null && echo {place};" for place in places
    )
    done = bundle.sh(
        script.replace("[ ! -e", "[ -e").replace("] ||", "] &&") + " head -c 1 /proc/kcore | wc -c"
    )
    assert done.out.split() == ["0"], "nothing was written, and kcore is empty"


@pytest.mark.parametrize("program", ["true", "nowhere"])
def test_no_file_of_the_container_is_loaded(bundle: Bundle, program: str) -> None:
    """CVE-2019-14271: a helper in the container loads a library for a user name, an encoding or an error message. Here
    the container contains everything that the runtime's own interpreter could look for."""
    asked = [sys.executable, "-I", "-c", "import sys; print(*sys.path, sep='\\n')"]
    places = subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    home = str(Path(interpreter(bundle.runtime)).parent)
    for place in {home, *places, str(Path(__file__).parents[2])}:
        for name in (
            "encodings",
            "encodings/cp1252",
            "importlib",
            "os",
            "pwd",
            "socket",
            "traceback",
            "runtime",
        ):
            trap = bundle.rootfs / place.lstrip("/") / name
            trap.mkdir(parents=True, exist_ok=True)
            (trap / "__init__.py").write_text("open('/escaped', 'w')\n")
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    bundle.process["env"] = ["PATH=/bin", "LANG=de_DE.ISO-8859-15"]
    done = bundle.run(program, env={"PATH": os.environ["PATH"], "LC_ALL": "de_DE.ISO-8859-15"})
    assert (done.code == 0) == (program == "true"), done.err
    assert not (bundle.rootfs / "escaped").exists()

"""The container's process on a real kernel: its user, privileges, limits and place, as /proc and the process show
them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import CapabilityError, SpecError, StartError
from runtime.oci.container import Stdio
from runtime.security import capabilities, seccomp
from tests.kernel.conftest import Engine, mount
from tests.waiting import until

pytestmark = pytest.mark.kernel


def status(text: str) -> dict[str, str]:
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def own_caps(oci: Engine, process: dict[str, Any]) -> dict[str, int]:
    result = oci.run(oci.spec("cat", "/proc/self/status", **process))
    found = status(result.out)
    return {key: int(found[key], 16) for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def test_runs_and_says_its_exit_code(oci: Engine) -> None:
    assert oci.sh("echo out; echo err >&2; exit 42") == oci.sh("echo out; echo err >&2; exit 42")
    result = oci.sh("echo out; echo err >&2; exit 42")
    assert (result.code, result.out, result.err) == (42, "out\n", "err\n")


def test_death_by_signal(oci: Engine) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    container.kill(9)
    assert oci.wait(container).code == 137


def test_is_process_one_and_sees_only_itself(oci: Engine) -> None:
    assert oci.sh("echo $$; ls /proc | grep -c '^[0-9]'").out.split()[0] == "1"


def test_user_and_groups(oci: Engine) -> None:
    user = {"uid": 1000, "gid": 2000, "additionalGids": [7, 3000]}
    found = status(oci.run(oci.spec("cat", "/proc/self/status", user=user)).out)
    assert found["Uid"].split() == ["1000"] * 4
    assert found["Gid"].split() == ["2000"] * 4
    assert set(found["Groups"].split()) == {"7", "3000"}


def test_root_gets_no_group_of_the_callers(oci: Engine) -> None:
    found = status(oci.run(oci.spec("cat", "/proc/self/status")).out)
    assert found["Groups"] == ""


def test_capabilities_are_exactly_the_sets_asked_for(oci: Engine) -> None:
    sets = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],
    }
    # root's exec gains all of the bounding set (capabilities(7)): a user shows the sets themselves
    found = own_caps(oci, {"capabilities": sets})
    assert found["CapBnd"] == capabilities.mask(sets["bounding"])
    assert found["CapInh"] == capabilities.mask(sets["inheritable"])
    assert found["CapPrm"] == capabilities.mask(sets["bounding"])


def test_ambient_capabilities_reach_an_ordinary_user(oci: Engine) -> None:
    names = ["CAP_NET_BIND_SERVICE", "CAP_KILL"]
    sets = {kind: names for kind in ("bounding", "permitted", "effective", "inheritable", "ambient")}
    found = own_caps(oci, {"capabilities": sets, "user": {"uid": 1000, "gid": 1000}})
    assert set(found.values()) == {capabilities.mask(names)}


def test_a_user_without_ambient_has_none(oci: Engine) -> None:
    found = own_caps(oci, {"user": {"uid": 1000, "gid": 1000}})
    assert found["CapEff"] == found["CapPrm"] == found["CapAmb"] == 0
    assert found["CapBnd"] != 0


def test_no_capabilities_at_all(oci: Engine) -> None:
    assert set(own_caps(oci, {"capabilities": {}}).values()) == {0}


def test_what_the_bounding_set_lacks_is_a_warning(oci: Engine) -> None:
    lacking = capabilities.names(~capabilities.bounding() & (1 << capabilities.last_cap() + 1) - 1)
    if not lacking:
        pytest.skip("needs a machine whose bounding set lacks a capability")
    sets = {kind: [lacking[0], "CAP_KILL"] for kind in ("bounding", "permitted", "effective")}
    container = oci.start(oci.spec("true", capabilities=sets))
    assert any(lacking[0] in warning for warning in container.warnings)
    assert oci.wait(container).code == 0


@pytest.mark.parametrize("uid", [0, 1000])
@pytest.mark.parametrize("no_new_privs", [False, True])
def test_seccomp_filters_with_and_without_no_new_privs(oci: Engine, uid: int, no_new_privs: bool) -> None:
    spec = oci.spec("cat", "/proc/self/status", noNewPrivileges=no_new_privs, user={"uid": uid, "gid": uid})
    spec["linux"]["seccomp"] = seccomp.default_profile(frozenset(spec["process"]["capabilities"]["bounding"]))
    found = status(oci.run(spec).out)
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == str(int(no_new_privs))
    # CAP_SYS_ADMIN was borrowed to install the filter, and is gone
    assert int(found["CapPrm"], 16) & capabilities.mask(["CAP_SYS_ADMIN"]) == 0
    assert int(found["CapEff"], 16) == (
        0 if uid else capabilities.mask(spec["process"]["capabilities"]["effective"])
    )


def test_seccomp_denies(oci: Engine) -> None:
    spec = oci.spec("mkdir", "/tmp/x")
    spec["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    result = oci.run(spec)
    assert result.code == 1
    assert "No space left on device" in result.err


def test_no_filter_and_no_new_privs_unless_asked(oci: Engine) -> None:
    found = status(oci.run(oci.spec("cat", "/proc/self/status")).out)
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("0", "0")


def test_rlimits(oci: Engine) -> None:
    limits = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    lines = oci.run(oci.spec("cat", "/proc/self/limits", rlimits=limits)).out.splitlines()
    assert [line.split()[3:5] for line in lines if line.startswith("Max open files")] == [["100", "200"]]
    assert [line.split()[4:6] for line in lines if line.startswith("Max core file")] == [["0", "0"]]


def test_oom_score_adj_and_clamping(oci: Engine) -> None:
    assert oci.run(oci.spec("cat", "/proc/self/oom_score_adj", oomScoreAdj=500)).out == "500\n"
    container = oci.start(oci.spec("cat", "/proc/self/oom_score_adj", oomScoreAdj=-1000))
    said = oci.wait(container).out
    if said != "-1000\n":  # no CAP_SYS_RESOURCE here
        assert any("oom_score_adj" in warning for warning in container.warnings)


def test_environment_is_what_was_given_and_home(oci: Engine) -> None:
    result = oci.run(oci.spec("env", env=["PATH=/bin", "A=1", "A=2", "EMPTY=", "UTF=ä=b"]))
    assert sorted(result.out.splitlines()) == ["A=2", "EMPTY=", "HOME=/root", "PATH=/bin", "UTF=ä=b"]


def test_home_of_a_user(oci: Engine) -> None:
    assert "HOME=/home/web\n" in oci.run(oci.spec("env", user={"uid": 1000, "gid": 1})).out
    assert "HOME=/\n" in oci.run(oci.spec("env", user={"uid": 4242, "gid": 1})).out
    assert "HOME=/x\n" in oci.run(oci.spec("env", env=["PATH=/bin", "HOME=/x"])).out


def test_working_directory_is_made(oci: Engine) -> None:
    result = oci.sh("pwd; stat -c '%a %u' .", cwd="/srv/app/data", user={"uid": 1000, "gid": 1})
    assert result.out == "/srv/app/data\n755 0\n"


def test_personality(oci: Engine) -> None:
    spec = oci.spec("cat", "/proc/self/personality")
    assert oci.run(spec).out == "00000000\n"
    spec["linux"]["personality"] = {"domain": "LINUX32"}
    assert oci.run(spec).out == "00000008\n"


def test_umask(oci: Engine) -> None:
    assert oci.sh("umask").out == "0022\n"
    assert oci.sh("umask", user={"uid": 0, "gid": 0, "umask": 0o77}).out == "0077\n"


def test_hostname_and_sysctl_in_namespaces_of_its_own(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward"
                    " /proc/sys/kernel/msgmax")  # fmt: skip
    spec["hostname"], spec["domainname"] = "box", "example.org"
    spec["linux"]["namespaces"].append({"type": "network"})
    spec["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4096"}
    before = os.uname().nodename
    assert oci.run(spec).out == "box\nexample.org\n1\n4096\n"
    assert os.uname().nodename == before


def test_a_session_and_signals_of_its_own(oci: Engine) -> None:
    found = oci.run(oci.spec("cat", "/proc/self/status", "/proc/1/stat")).out
    masks = status(found)
    assert int(masks["SigBlk"], 16) == 0
    assert int(masks["SigIgn"], 16) == 0  # Python ignores SIGPIPE
    assert found.splitlines()[-1].rsplit(") ", 1)[1].split()[3] == "1"  # session id, in its pid namespace


def test_only_stdio_reaches_the_program(oci: Engine) -> None:
    inheritable = os.open("/etc", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        container = oci.start(oci.spec("sleep", "60"))
        assert sorted(os.listdir(f"/proc/{container.pid}/fd")) == ["0", "1", "2"]
    finally:
        os.close(inheritable)


def test_a_user_may_reopen_its_piped_stdout(oci: Engine) -> None:
    reader, writer = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    owner = os.stat("/dev/null").st_uid
    try:
        spec = oci.spec("sh", "-c", "echo hello > /dev/stdout", user={"uid": 1000, "gid": 1000})
        assert oci.run(spec, stdio=Stdio(null, writer, null)).code == 0
        assert os.read(reader, 100) == b"hello\n"
        assert os.stat("/dev/null").st_uid == owner  # never chowned
    finally:
        for fd in (reader, writer, null):
            os.close(fd)


@pytest.mark.parametrize("kind", ["pid", "mnt", "ipc", "uts", "cgroup", "net"])
def test_namespaces_are_new_only_where_asked(oci: Engine, kind: str) -> None:
    container = oci.start(oci.spec("sleep", "60"))
    theirs, ours = os.readlink(f"/proc/{container.pid}/ns/{kind}"), os.readlink(f"/proc/self/ns/{kind}")
    assert (theirs == ours) == (kind == "net")


def test_joins_namespaces_by_path(oci: Engine) -> None:
    first = oci.start(oci.spec("sleep", "60"))
    spec = oci.spec("sh", "-c", "hostname; sleep 60")
    spec["linux"]["namespaces"] = [
        {"type": "mount"},
        {"type": "pid", "path": f"/proc/{first.pid}/ns/pid"},
        {"type": "ipc", "path": f"/proc/{first.pid}/ns/ipc"},
        {"type": "uts", "path": f"/proc/{first.pid}/ns/uts"},
        {"type": "network", "path": "/proc/self/ns/net"},
    ]
    second = oci.start(spec)
    for kind in ("pid", "ipc", "uts"):
        assert os.readlink(f"/proc/{second.pid}/ns/{kind}") == os.readlink(f"/proc/{first.pid}/ns/{kind}")
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")
    assert "sleep 60" in oci.exec(first, "ps").out


def test_deadline_scheduling_beside_chosen_processors(oci: Engine) -> None:
    """sched_setattr(2) refuses it with EPERM, although no privilege is missing."""
    if os.cpu_count() == 1:
        pytest.skip("needs a second processor")
    spec = oci.spec("true")
    spec["linux"]["resources"] = {"cpu": {"cpus": "0"}}
    spec["process"]["scheduler"] = {
        "policy": "SCHED_DEADLINE", "runtime": 42000, "deadline": 1000000, "period": 1000000,
    }  # fmt: skip
    with pytest.raises(CapabilityError, match="process scheduler can't be used together with AllowedCPUs"):
        oci.create(spec)


@pytest.mark.parametrize("kind", ["network", "user"])
def test_a_path_that_is_no_namespace(oci: Engine, tmp_path: Path, kind: str) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in ("/etc/passwd", str(fifo)):  # open(2) of a FIFO would wait for who writes to it
        spec = oci.spec("true")
        spec["linux"]["namespaces"] = [{"type": "mount"}, {"type": kind, "path": path}]
        with pytest.raises(SpecError, match="is not a namespace"):
            oci.create(spec)


def test_cgroup_is_joined_and_is_the_root_of_its_view(oci: Engine) -> None:
    container = oci.start(oci.spec("sh", "-c", "cat /proc/self/cgroup; exec sleep 60"))
    with open(f"/proc/{container.pid}/cgroup", encoding="ascii") as file:
        assert all(line.rstrip("\n").endswith(f"{oci.cgroup}/c0") for line in file)
    until(lambda: container.cgroup.pids() == [container.pid], "`cat` has ended")
    assert all(
        line.endswith(":/") for line in oci.exec(container, "cat", "/proc/self/cgroup").out.splitlines()
    )


def test_limits_hold_before_the_process_runs(oci: Engine) -> None:
    spec = oci.spec("sh", "-c", "cat /sys/fs/cgroup/pids/pids.max || cat /sys/fs/cgroup/pids.max")
    spec["mounts"].append(mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"))
    spec["linux"]["resources"] = {"pids": {"limit": 17}}
    assert oci.run(spec).out == "17\n"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["nope"], 'exec: "nope": executable file not found in $PATH'),
        (["/nope"], 'exec: "/nope": stat /nope: no such file or directory'),
        (["/etc/passwd/x"], 'exec: "/etc/passwd/x": stat /etc/passwd/x: not a directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 'exec: "/etc": is a directory'),
        (["/bin/bad"], "exec /bin/bad: exec format error"),
        (["bad"], "exec /bin/bad: exec format error"),
        (["noint"], "exec /bin/noint: no such file or directory"),
    ],
)
def test_start_errors_in_the_words_of_runc(oci: Engine, args: list[str], text: str) -> None:
    layer = oci.tmp / "layer"
    (layer / "bin").mkdir(parents=True)
    for name, content in (("bad", b"\x7fELFnot really"), ("noint", b"#!/no/interpreter\n")):
        (layer / "bin" / name).write_bytes(content)
        (layer / "bin" / name).chmod(0o755)
    container = oci.create(oci.spec(*args), lower=[str(layer), str(oci.rootfs)])
    with pytest.raises(StartError) as caught:
        container.start()
    assert str(caught.value) == text
    assert oci.wait(container).code == 1


def test_program_not_executable_for_the_user(oci: Engine) -> None:
    layer = oci.tmp / "layer"
    (layer / "opt").mkdir(parents=True)
    (layer / "opt/tool").write_text("#!/bin/sh\n")
    (layer / "opt/tool").chmod(0o700)
    container = oci.create(
        oci.spec("/opt/tool", user={"uid": 1000, "gid": 1000}, capabilities={}),
        lower=[str(layer), str(oci.rootfs)],
    )
    with pytest.raises(StartError, match="permission denied"):
        container.start()


def test_relative_program_is_found_from_the_working_directory(oci: Engine) -> None:
    assert oci.run(oci.spec("./bin/true")).code == 0


@pytest.mark.parametrize("fd", range(3, 12))
def test_no_descriptor_leads_out_as_working_directory(oci: Engine, fd: int) -> None:
    """CVE-2024-21626."""
    container = None
    with pytest.raises((StartError, SpecError, OSError)):
        container = oci.start(oci.spec("cat", "../../etc/hostname", cwd=f"/proc/self/fd/{fd}"))
    assert container is None


@pytest.mark.parametrize("fd", range(3, 12))
def test_no_descriptor_leads_out_as_program(oci: Engine, fd: int) -> None:
    """CVE-2024-21626, second kind."""
    with pytest.raises(StartError):
        oci.start(oci.spec(f"/proc/self/fd/{fd}/bin/busybox", "true"))

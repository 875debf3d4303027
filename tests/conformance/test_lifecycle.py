"""runtime.md: states, operations in each state, and errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conformance.conftest import Bundle, Runtime, alive, cgroup_file, killed_at_the_end
from tests.programs import missing
from tests.waiting import SECONDS, until


def test_state_after_each_operation(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["annotations"] = {"org.example/key": "value"}
    bundle.create("sleep", "60")
    state = runtime.state(bundle.id)
    assert state["status"] == "created"
    assert state["id"] == bundle.id
    assert state["bundle"] == str(bundle.path)
    assert state["annotations"] == {"org.example/key": "value"}
    assert state["ociVersion"].startswith("1.")
    assert alive(state["pid"])
    runtime("start", bundle.id, check=True)
    running = runtime.state(bundle.id)
    assert (running["status"], running["pid"]) == ("running", state["pid"])
    runtime("kill", bundle.id, "KILL", check=True)
    runtime.until(bundle.id, "stopped")
    runtime("delete", bundle.id, check=True)
    assert runtime("state", bundle.id).code != 0


def test_nothing_of_the_program_runs_before_start(runtime: Runtime, bundle: Bundle) -> None:
    bundle.create("touch", "/ran")
    assert not (bundle.rootfs / "ran").exists()
    runtime("start", bundle.id, check=True)
    runtime.until(bundle.id, "stopped")
    assert (bundle.rootfs / "ran").exists()


def test_the_caller_may_end_after_create(runtime: Runtime, bundle: Bundle) -> None:
    """Then the parent of the container is the process that reaps orphans. Later commands find the container
    nevertheless."""
    bundle.write("sleep", "60")
    subprocess.run(
        ["sh", "-c", '"$@" </dev/null >/dev/null 2>&1; exit $?', "sh",
         *runtime.command("create", "--bundle", str(bundle.path), bundle.id)],
        check=True, start_new_session=True,
    )  # fmt: skip
    assert runtime.status(bundle.id) == "created"
    runtime("start", bundle.id, check=True)
    assert runtime.status(bundle.id) == "running"


def test_changes_of_config_after_create_are_ignored(runtime: Runtime, bundle: Bundle) -> None:
    bundle.create("touch", "/first")
    bundle.write("touch", "/second")
    runtime("start", bundle.id, check=True)
    runtime.until(bundle.id, "stopped")
    assert (bundle.rootfs / "first").exists()
    assert not (bundle.rootfs / "second").exists()


@pytest.mark.parametrize("operation", ["state", "start", "kill", "delete", "pause", "resume"])
def test_operations_on_an_unknown_container(runtime: Runtime, operation: str) -> None:
    done = runtime(operation, "klt-nobody")
    assert done.code != 0
    assert "does not exist" in done.err


def test_delete_force_of_an_unknown_container(runtime: Runtime) -> None:
    assert runtime("delete", "--force", "klt-nobody").code == 0


def test_an_id_is_unique(runtime: Runtime, bundle: Bundle) -> None:
    bundle.create("sleep", "60")
    again = bundle.create("sleep", "60", check=False)
    assert again.code != 0
    assert "exist" in again.err
    assert runtime.status(bundle.id) == "created"


@pytest.mark.parametrize("bad", ["", "a/b", "..", "a b", "ä"])
def test_invalid_ids(runtime: Runtime, bundle: Bundle, bad: str) -> None:
    bundle.write("true")
    done = runtime("create", "--bundle", str(bundle.path), bad)
    assert done.code != 0
    assert not any(runtime.root.iterdir())


def test_start_of_a_running_or_stopped_container(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    again = runtime("start", bundle.id)
    assert again.code != 0
    assert "running" in again.err
    runtime("kill", bundle.id, "9", check=True)
    runtime.until(bundle.id, "stopped")
    ended = runtime("start", bundle.id)
    assert ended.code != 0
    assert "stopped" in ended.err


def test_kill_of_a_stopped_container(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("true")
    runtime.until(bundle.id, "stopped")
    done = runtime("kill", bundle.id, "TERM")
    assert done.code != 0
    assert "not running" in done.err


def test_delete_of_a_running_container(runtime: Runtime, bundle: Bundle) -> None:
    pid = bundle.start("sleep", "60")
    done = runtime("delete", bundle.id)
    assert done.code != 0
    assert "not stopped" in done.err
    assert alive(pid)
    runtime("delete", "--force", bundle.id, check=True)
    assert not alive(pid)


def test_delete_of_a_created_container(runtime: Runtime, bundle: Bundle) -> None:
    """The specification requires an error. runc and crun delete the container, and their callers rely on it."""
    bundle.create("sleep", "60")
    pid = runtime.state(bundle.id)["pid"]
    runtime("delete", bundle.id, check=True)
    until(lambda: not alive(pid))


@pytest.mark.parametrize("name", ["KILL", "TERM", "INT", "HUP"])
def test_kill_before_start(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """The waiting init is process 1 of its pid namespace, which ignores signals without a handler. It must end
    nevertheless."""
    bundle.create("sleep", "60")
    runtime("kill", bundle.id, name, check=True)
    runtime.until(bundle.id, "stopped")
    assert runtime("start", bundle.id).code != 0


def test_signals_of_the_waiting_init_are_not_the_programs(runtime: Runtime, bundle: Bundle) -> None:
    """The signal handling that lets kill end the waiting init is undone at start: no handlers, nothing ignored."""
    pid = bundle.start("sleep", "60")
    held = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines())
    assert {int(held[key].strip(), 16) for key in ("SigBlk", "SigIgn", "SigCgt")} == {0}


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15", "sigterm"])
def test_names_of_signals(runtime: Runtime, bundle: Bundle, name: str) -> None:
    bundle.start("sh", "-c", "trap 'touch /got; exit' TERM; touch /up; while :; do sleep 0.02; done")
    until((bundle.rootfs / "up").exists)
    runtime("kill", bundle.id, name, check=True)
    until((bundle.rootfs / "got").exists)


def test_invalid_signals(runtime: Runtime, bundle: Bundle) -> None:
    pid = bundle.start("sleep", "60")
    done = runtime("kill", bundle.id, "NOPE")
    assert done.code != 0
    assert "unknown signal" in done.err
    assert alive(pid)


def test_kill_all(runtime: Runtime, bundle: Bundle) -> None:
    bundle.namespaces(pid=None)
    bundle.start("sh", "-c", "sleep 61 & sleep 61 & touch /up; wait")
    until((bundle.rootfs / "up").exists)
    pids = json.loads(runtime("ps", "--format", "json", bundle.id, check=True).out)
    assert len(pids) == 3
    runtime("kill", "--all", bundle.id, "KILL", check=True)
    until(lambda: not any(map(alive, pids)))


def test_pause_and_resume(runtime: Runtime, bundle: Bundle) -> None:
    pid = bundle.start("sh", "-c", "i=0; while :; do i=$((i+1)); echo $i > /n; done")
    until((bundle.rootfs / "n").exists)
    runtime("pause", bundle.id, check=True)
    assert runtime.status(bundle.id) == "paused"
    seen = (bundle.rootfs / "n").read_text()
    assert (bundle.rootfs / "n").read_text() == seen
    assert runtime("exec", bundle.id, "true").code != 0
    runtime("resume", bundle.id, check=True)
    assert runtime.status(bundle.id) == "running"
    until(lambda: (bundle.rootfs / "n").read_text() != seen)
    assert alive(pid)


def test_pause_of_a_paused_container(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    runtime("pause", bundle.id, check=True)
    done = runtime("pause", bundle.id)
    assert done.code != 0
    assert "paused" in done.err or "container not running" in done.err
    assert runtime.status(bundle.id) == "paused"


def test_resume_of_a_running_container(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    done = runtime("resume", bundle.id)
    assert done.code != 0
    assert "not paused" in done.err


def test_kill_of_a_paused_container(runtime: Runtime, bundle: Bundle) -> None:
    pid = bundle.start("sleep", "60")
    runtime("pause", bundle.id, check=True)
    runtime("delete", "--force", bundle.id, check=True)
    assert not alive(pid)


def test_run_gives_the_exit_code(bundle: Bundle) -> None:
    assert bundle.sh("echo out; echo err >&2; exit 7").code == 7


def test_run_of_a_program_that_a_signal_ends(bundle: Bundle) -> None:
    assert bundle.sh("kill -9 $$; sleep 60 & kill -9 $!; wait $!; exit $?").code == 137


def test_run_leaves_nothing(runtime: Runtime, bundle: Bundle) -> None:
    bundle.run("true", check=True)
    assert runtime("state", bundle.id).code != 0


def test_run_detached(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.write("sleep", "60")
    pid_file = tmp_path / "pid"
    runtime(
        "run", "--detach", "--pid-file", str(pid_file), "--bundle", str(bundle.path), bundle.id, check=True
    )
    state = runtime.state(bundle.id)
    assert (state["status"], str(state["pid"])) == ("running", pid_file.read_text())


def test_run_forwards_signals(runtime: Runtime, bundle: Bundle) -> None:
    bundle.write("sh", "-c", "trap 'exit 9' TERM; touch /up; while :; do sleep 0.02; done")
    command = runtime.command("run", "--bundle", str(bundle.path), bundle.id)
    with killed_at_the_end(subprocess.Popen(command, stdin=subprocess.DEVNULL)) as child:
        until((bundle.rootfs / "up").exists)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=20) == 9


def test_run_of_a_program_that_cannot_be_executed(runtime: Runtime, bundle: Bundle) -> None:
    """A missing program is noticed before execve, a missing interpreter only by execve."""
    program = bundle.rootfs / "run.sh"
    program.write_text("#!/not/there\n")
    program.chmod(0o755)
    done = bundle.run("/run.sh")
    assert done.code != 0
    assert done.err == "exec /run.sh: no such file or directory\n"
    assert runtime("state", bundle.id).code != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_run_holds_signals_until_the_program_runs(
    runtime: Runtime, bundle: Bundle, tmp_path: Path, number: int
) -> None:
    """A signal that arrives while the container is being created. Hooks do not inherit the runtime's signal
    handling."""
    bundle.namespaces(pid=None)  # process 1 ignores signals without a handler
    here, go = tmp_path / "here", tmp_path / "go"
    wait = f"while ! test -e {go}; do sleep 0.02; done"
    script = f"grep SigBlk /proc/self/status > {here}.new; mv {here}.new {here}; {wait}"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}
    bundle.config["hooks"] = {"createRuntime": [hook]}
    bundle.write("sleep", "60")
    command = runtime.command("run", "--bundle", str(bundle.path), bundle.id)
    with killed_at_the_end(subprocess.Popen(command, stdin=subprocess.DEVNULL)) as child:
        until(here.exists)
        child.send_signal(number)
        go.touch()
        assert child.wait(timeout=SECONDS) == 128 + number
    assert int(here.read_text().split()[1], 16) == 0
    assert runtime("state", bundle.id).code != 0


def test_list(runtime: Runtime, bundle: Bundle, another: Callable[[], Bundle]) -> None:
    bundle.create("sleep", "60")
    second = another()
    second.start("sleep", "60")
    listed = json.loads(runtime("list", "--format", "json", check=True).out)
    assert {entry["id"]: entry["status"] for entry in listed} == {bundle.id: "created", second.id: "running"}
    assert sorted(runtime("list", "-q", check=True).out.split()) == sorted([bundle.id, second.id])
    assert bundle.id in runtime("list", check=True).out


def test_pid_file_is_there_after_create(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.create("sleep", "60", flags=("--pid-file", str(tmp_path / "pid")))
    assert int((tmp_path / "pid").read_text()) == runtime.state(bundle.id)["pid"]


def test_a_failed_create_leaves_nothing(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["mounts"].append(
        {"destination": "/x", "type": "bind", "source": "/klt/nowhere", "options": ["bind"]}
    )
    assert bundle.create("true", check=False).code != 0
    assert not any(runtime.root.iterdir())
    assert not os.path.exists(f"/sys/fs/cgroup/pids/{bundle.id}")
    assert not os.path.exists(f"/sys/fs/cgroup/{bundle.id}")


def test_errors_in_the_log(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    bundle.write("klt-no-such-program")
    command = ("create", "--bundle", str(bundle.path), bundle.id)
    assert runtime("--log", str(log), "--log-format", "json", *command).code != 0
    assert '"level":"error"' in log.read_text()  # formatted as by Go, for callers that search the text
    errors = [entry for entry in map(json.loads, log.read_text().splitlines()) if entry["level"] == "error"]
    assert "executable file not found in $PATH" in errors[-1]["msg"]
    assert {"level", "msg", "time"} <= set(errors[-1])


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/bin/nowhere", "no such file or directory"),
        ("/etc/passwd", "permission denied"),
        ("/etc", "is a directory"),
    ],
)
def test_create_reports_a_program_that_cannot_be_executed(bundle: Bundle, program: str, said: str) -> None:
    done = bundle.create(program, check=False)
    assert done.code != 0
    assert said in done.err or (said == "is a directory" and "permission denied" in done.err)


def test_start_reports_a_program_that_cannot_be_executed(runtime: Runtime, bundle: Bundle) -> None:
    """A file that is executable but not a program: only execve notices."""
    program = bundle.rootfs / "bin/garbage"
    program.write_bytes(b"\x7fELF garbage")
    program.chmod(0o755)
    bundle.create("/bin/garbage")
    done = runtime("start", bundle.id)
    assert done.code != 0
    assert "exec format error" in done.err
    runtime.until(bundle.id, "stopped")


def test_features(runtime: Runtime) -> None:
    said = json.loads(runtime("features", check=True).out)
    assert said["ociVersionMin"].startswith("1.")
    assert {"pid", "mount", "user", "cgroup"} <= set(said["linux"]["namespaces"])
    assert "ro" in said["mountOptions"]
    assert "SCMP_ARCH_X86_64" in said["linux"]["seccomp"]["archs"]
    assert said["annotations"]["io.github.seccomp.libseccomp.version"].startswith("2.")
    if runtime.name == "kubelite-oci":  # runc 1.1 and crun 1.21 write the format of version 1.1
        filters = said["linux"]["seccomp"]
        assert set(filters["supportedFlags"]) <= set(filters["knownFlags"])
        # annotations that a caller must not pass on
        assert "org.systemd.property." in said["potentiallyUnsafeConfigAnnotations"]


def test_spec_makes_a_bundle(runtime: Runtime, tmp_path: Path) -> None:
    runtime("spec", "--bundle", str(tmp_path), check=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["process"]["args"] == ["sh"]
    assert runtime("spec", "--bundle", str(tmp_path)).code != 0  # an existing file is not overwritten


def test_version_names_the_specification(runtime: Runtime) -> None:
    assert "spec: 1." in runtime("--version", check=True).out


def test_the_waiting_init_is_small(runtime: Runtime, bundle: Bundle) -> None:
    """Between create and start the container uses little memory."""
    if runtime.name != "kubelite-oci":
        pytest.skip("how much a runtime's init holds is its own affair")
    bundle.create("sleep", "60")
    status = Path(f"/proc/{runtime.state(bundle.id)['pid']}/status").read_text(encoding="ascii")
    held = {line.split(":")[0]: line.split() for line in status.splitlines()}
    assert int(held["VmRSS"][1]) <= 64  # kB


def test_kill_with_signal_0_checks_for_a_process(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    assert runtime("kill", bundle.id, "0").code == 0
    assert runtime.status(bundle.id) == "running"


def test_flags_after_the_id(runtime: Runtime, bundle: Bundle) -> None:
    bundle.start("sleep", "60")
    assert runtime("update", bundle.id, "--pids-limit", "77").code == 0
    assert runtime("delete", bundle.id, "--force").code == 0


@pytest.mark.skipif(bool(missing("ps")), reason="needs ps")
def test_ps_as_a_table(runtime: Runtime, bundle: Bundle) -> None:
    pid = bundle.start("sleep", "60")
    head, *rows = runtime("ps", bundle.id, check=True).out.splitlines()
    assert [row.split()[head.split().index("PID")] for row in rows] == [str(pid)]
    head, *rows = runtime("ps", bundle.id, "-e", "-o", "pid,comm", check=True).out.splitlines()
    assert [row.split() for row in rows] == [[str(pid), "sleep"]]
    assert runtime("ps", bundle.id, "--klt-no-such-flag").code != 0


@pytest.mark.parametrize("init_first", [False, True])
def test_sigkill_ends_all_processes_of_a_shared_pid_namespace(
    runtime: Runtime, bundle: Bundle, init_first: bool
) -> None:
    """Nothing else would end them when the init has exited (runc since 1.2)."""
    if runtime.name == "runc":
        pytest.skip("runc 1.1 ends the init alone: its own affair")
    bundle.namespaces(pid=None)
    bundle.start("sh", "-c", "sleep 61 & sleep 61 & touch /up; wait")
    until((bundle.rootfs / "up").exists)
    pids = json.loads(runtime("ps", "--format", "json", bundle.id, check=True).out)
    assert len(pids) == 3
    if init_first:
        os.kill(runtime.state(bundle.id)["pid"], signal.SIGKILL)
        runtime.until(bundle.id, "stopped")
        pids.remove(next(pid for pid in pids if not alive(pid)))
    runtime("kill", bundle.id, "KILL", check=True)
    until(lambda: not any(alive(pid) for pid in pids), "all of it is gone")
    assert runtime("kill", bundle.id, "KILL").code != 0


def test_a_cgroup_that_is_in_use(runtime: Runtime, bundle: Bundle, another: Callable[[], Bundle]) -> None:
    bundle.start("sleep", "60")
    second = another()
    second.linux["cgroupsPath"] = bundle.linux["cgroupsPath"]
    done = second.create("true", check=False)
    assert done.code != 0
    assert "container's cgroup is not empty" in done.err


def test_a_cgroup_that_is_frozen(runtime: Runtime, bundle: Bundle) -> None:
    file = cgroup_file(bundle.id, "freezer/freezer.state", "cgroup.freeze")
    file.parent.mkdir()
    try:
        file.write_text("FROZEN" if file.name == "freezer.state" else "1")
        done = bundle.create("true", check=False)
    finally:
        file.parent.rmdir()
    assert done.code != 0
    assert "container's cgroup unexpectedly frozen" in done.err

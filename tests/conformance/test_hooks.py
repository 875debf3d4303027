"""config.md, "POSIX-platform Hooks": namespaces, order, state, and failures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import Bundle, Runtime, cgroup_file, left_below

ORDER = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


def hook(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def test_all_kinds_in_order_with_their_state(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    bundle.mount("/log", "bind", "bind", source=str(tmp_path))
    kinds: dict[str, Any] = {}
    for kind in ORDER:
        where = "/log/log" if kind == "startContainer" else str(log)
        kinds[kind] = [hook(f'echo "{kind} $(cat)" >> {where}', env=["PATH=/bin:/usr/bin"])]
    bundle.config["hooks"] = kinds
    bundle.config["annotations"] = {"k": "v"}
    bundle.create("sleep", "60")
    created = [line.split(" ", 1)[0] for line in log.read_text().splitlines()]
    assert created == ["prestart", "createRuntime", "createContainer"]
    runtime("start", bundle.id, check=True)
    runtime("delete", "--force", bundle.id, check=True)
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert [kind for kind, _ in lines] == list(ORDER)
    states = {kind: json.loads(text) for kind, text in lines}
    assert {state["id"] for state in states.values()} == {bundle.id}
    assert states["createRuntime"]["status"] == "creating"
    assert states["createRuntime"]["pid"] > 1
    assert states["createRuntime"]["bundle"] == str(bundle.path)
    assert states["createRuntime"]["annotations"] == {"k": "v"}
    assert states["startContainer"]["status"] == "created"
    assert states["poststart"]["status"] == "running"
    assert states["poststop"]["status"] == "stopped"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failure_before_start_undoes_create(runtime: Runtime, bundle: Bundle, kind: str) -> None:
    bundle.config["hooks"] = {kind: [hook("echo what is wrong >&2; exit 3")]}
    done = bundle.create("true", check=False)
    assert done.code != 0
    assert "hook" in done.err
    assert not any(runtime.root.iterdir())


def test_a_hook_that_takes_too_long(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"createRuntime": [hook("exec sleep 60", timeout=1)]}
    assert bundle.create("true", check=False).code != 0
    assert not any(runtime.root.iterdir())


def test_create_hooks_run_in_the_runtimes_namespaces(
    runtime: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.config["hooks"] = {
        "createRuntime": [hook(f"readlink /proc/self/ns/net > {tmp_path}/outer", env=["PATH=/bin:/usr/bin"])],
        "createContainer": [
            hook(f"readlink /proc/self/ns/net > {tmp_path}/inner", env=["PATH=/bin:/usr/bin"])
        ],
    }
    bundle.create("sleep", "60")
    outer, inner = (tmp_path / "outer").read_text(), (tmp_path / "inner").read_text()
    assert outer.strip() == os.readlink("/proc/self/ns/net")
    assert inner.strip() == os.readlink(f"/proc/{runtime.state(bundle.id)['pid']}/ns/net")


def test_hooks_have_their_own_environment(bundle: Bundle, tmp_path: Path) -> None:
    bundle.config["hooks"] = {
        "createRuntime": [hook(f"env > {tmp_path}/env", env=["ONLY=this", "PATH=/bin:/usr/bin"])]
    }
    bundle.run("true", check=True)
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert names - {"PWD", "SHLVL", "_"} == {"ONLY", "PATH"}


def test_a_failed_poststart_ends_the_container(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """runtime.md 1.3, "Lifecycle" step 9; before 1.3 a failure was a warning. No hook runs after the first that
    fails."""
    log = tmp_path / "log"
    kinds = [hook("true"), hook("exit 3"), hook(f"echo third >> {log}")]
    bundle.config["hooks"] = {"poststart": kinds}
    done = bundle.create("sleep", "60", check=False)
    if done.code == 0:  # not before start: runc up to 1.4 runs them in create
        done = runtime("start", bundle.id)
    assert done.code != 0
    assert "hook" in done.err
    assert runtime("state", bundle.id).code != 0
    assert left_below(runtime.root) == []
    assert not cgroup_file(bundle.id, "pids/cgroup.procs", "cgroup.procs").exists()
    assert not log.exists()
    assert bundle.run("sleep", "60").code != 0


def test_poststop_follows_a_failed_poststart(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """runtime.md, "Lifecycle" steps 12 and 13."""
    log = tmp_path / "log"
    bundle.config["hooks"] = {
        "poststart": [hook("exit 3")],
        "poststop": [hook(f"cat >> {log}", env=["PATH=/bin:/usr/bin"])],
    }
    assert bundle.run("sleep", "60").code != 0
    assert json.loads(log.read_text())["status"] == "stopped"


def test_a_failed_poststop_does_not_prevent_deletion(runtime: Runtime, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"poststop": [hook("exit 1")]}
    bundle.create("true")
    runtime("delete", "--force", bundle.id, check=True)
    assert runtime("state", bundle.id).code != 0


def test_hooks_without_an_environment_inherit_one(bundle: Bundle, tmp_path: Path) -> None:
    """Hooks inherit the runtime's environment, a startContainer hook the container's (as in runc and crun; the
    specification does not define it)."""
    bundle.config["hooks"] = {
        "createRuntime": [hook(f"env > {tmp_path}/env")],
        "startContainer": [hook("env > /tmp/env")],
    }
    bundle.process["env"] += ["OF=the container"]
    assert bundle.run("true", env={**os.environ, "OF": "the runtime"}).code == 0
    assert "OF=the runtime" in (tmp_path / "env").read_text()
    assert "OF=the container" in (bundle.rootfs / "tmp/env").read_text()


def test_the_working_directory_of_hooks(runtime: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """In the bundle; createContainer hooks in the container's root (as in runc; the specification does not define
    it)."""
    path = ["PATH=/bin:/usr/bin"]
    bundle.config["hooks"] = {
        "createRuntime": [hook(f"pwd > {tmp_path}/outer", env=path)],
        "createContainer": [hook("echo here > ./root/made", env=path)],
    }
    bundle.run("true", check=True)
    assert (tmp_path / "outer").read_text().strip() == str(bundle.path)
    assert (bundle.rootfs / "root/made").read_text() == "here\n"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_start_container_hook_is_filtered(
    runtime: Runtime, bundle: Bundle, no_new_privileges: bool
) -> None:
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL"}],
    }
    bundle.config["hooks"] = {
        "startContainer": [hook("exec mkdir /tmp/made", env=["PATH=/bin"])],
    }
    done = bundle.run("true")
    assert done.code != 0
    assert "startContainer hook" in done.err or runtime.name != "kubelite-oci"
    assert "bad system call" in done.err or runtime.name == "crun"
    assert not (bundle.rootfs / "tmp/made").exists()


def test_a_missing_filtered_hook(bundle: Bundle) -> None:
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}],
    }
    bundle.config["hooks"] = {"startContainer": [{"path": "/klt/nowhere"}]}
    done = bundle.run("true")
    assert done.code != 0
    assert "/klt/nowhere" in done.err or "hook" in done.err

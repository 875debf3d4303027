"""runtimeClassName: pods whose containers are created by runc and crun."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.shim.protocol import ID_RANGE
from tests.e2e.cgroups import cgroup_file
from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import KUBELITE, Node, running_node
from tests.e2e.terminal import on_terminal
from tests.e2e.test_pod_namespaces import id_base
from tests.e2e.test_survival import _state
from tests.kernel.conftest import cannot_map_ids

RUNTIMES = {
    name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") for name in ("runc", "crun")
}
HYBRID = "/sys/fs/cgroup/unified"
CODE = 'echo to stdout; echo to stderr >&2; test "$(hostname)" = {name} && exit 7'
TTY = "tty; stty size; trap 'exit 3' TERM; while :; do sleep 0.1; done"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    there = {name: path for name, path in RUNTIMES.items() if path}
    if not there:
        pytest.skip("needs runc or crun")
    base = tmp_path_factory.mktemp("classes")
    if "crun" in there and os.path.ismount(HYBRID):
        there["crun"] = str(_without_hybrid(base / "crun", there["crun"]))
    entries = [f"{name}={path}" for name, path in there.items()]
    settings = ",".join([*entries, "gone=/nowhere/runtime"])
    with running_node(base / "node", images, runtime_classes=settings) as node:
        yield node


def _without_hybrid(wrapper: Path, crun: str) -> Path:
    """crun rejects a machine that has cgroup2 with controllers beside v1, so it sees only v1."""
    wrapper.write_text(
        f'#!/bin/sh\nexec unshare --mount sh -c \'umount {HYBRID} && exec {crun} "$@"\' crun "$@"\n'
    )
    wrapper.chmod(0o755)
    return wrapper


@pytest.fixture(params=list(RUNTIMES))
def kind(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if RUNTIMES[name] is None:
        pytest.skip(f"needs {name}")
    return name


def remove(node: Node, name: str) -> None:
    (node.manifests / f"{name}.yaml").unlink()
    node.wait_gone(name)


def test_logs_and_the_exit_code(classes: Node, kind: str) -> None:
    name = f"code-{kind}"
    one = container(script=CODE.format(name=name))
    classes.apply(f"{name}.yaml", pod(name, one, runtimeClassName=kind, restartPolicy="Never"))
    classes.wait(lambda: classes.pod(name)["status"].get("phase") == "Failed", "it to end")
    ended = classes.container(name)["state"]["terminated"]
    assert ended["exitCode"] == 7, ended
    assert sorted(classes.cli("logs", name).out.splitlines()) == ["to stderr", "to stdout"]
    remove(classes, name)


def test_exec_resize_and_stop(classes: Node, kind: str) -> None:
    name = f"life-{kind}"
    limits = {"limits": {"memory": "64Mi"}, "requests": {"memory": "64Mi"}}
    probe = {"exec": {"command": ["test", "-e", "/tmp"]}, "periodSeconds": 1}
    manifest = pod(
        name,
        container(resources=limits, readinessProbe=probe),
        container("beside", SLEEP),
        runtimeClassName=kind,
    )
    classes.apply(f"{name}.yaml", manifest)
    classes.wait_status(name, "Running")
    pid = classes.pid(name)
    runtime_state = list(classes.root.glob("pods/*/containers/main/0/runtime/[0-9a-f]*"))
    assert len(runtime_state) == 1, "the runtime itself has the container"
    assert classes.cli("exec", name, "-c", "main", "--", "sh", "-c", "echo in; exit 5", check=False).code == 5
    said = classes.cli("exec", name, "-c", "main", "--", "nowhere", check=False)
    assert said.code != 0
    assert "nowhere" in said.err
    assert classes.cli("exec", name, "-c", "beside", "--", "hostname").out.strip() == name
    inner = [os.readlink(f"/proc/{classes.pid(name, one)}/ns/net") for one in ("main", "beside")]
    assert inner[0] == inner[1]

    changed: dict[str, Any] = yaml.safe_load(manifest)
    changed["spec"]["containers"][0]["resources"] = {
        "limits": {"memory": "96Mi"},
        "requests": {"memory": "96Mi"},
    }
    classes.apply(f"{name}.yaml", yaml.safe_dump(changed))
    memory = ("memory/memory.limit_in_bytes", "memory.max")
    classes.wait(lambda: cgroup_file(pid, *memory) == str(96 << 20), "the new limit")
    assert classes.pid(name) == pid, "in place"

    classes.restart(signal.SIGKILL)  # the daemon; the container keeps running
    classes.wait_status(name, "Running")
    assert classes.pid(name) == pid
    remove(classes, name)  # by the signal, within the grace period: both have a trap
    assert not os.path.exists(f"/proc/{pid}")


def test_a_terminal_for_the_container_and_for_an_exec(classes: Node, kind: str) -> None:
    name = f"tty-{kind}"
    classes.apply(
        f"{name}.yaml", pod(name, container(script=TTY, tty=True, stdin=True), runtimeClassName=kind)
    )
    classes.wait_status(name, "Running")
    classes.wait(lambda: "/dev/pts/0" in classes.logs(name), "the terminal's name in the log")
    environ = classes.environ()
    with on_terminal([*KUBELITE, "exec", "-it", name, "--", "sh"], environ, columns=93, lines=31) as terminal:
        terminal.expect("# ")
        terminal.type("stty size; tty\r")
        terminal.expect(r"31 93\r\n/dev/pts/\d")
        terminal.resize(121, 44)
        terminal.type("until stty size | grep '44 121'; do sleep 0.05; done\r")
        terminal.expect("\n44 121")
        terminal.type("exit 9\r")
        assert terminal.wait() == 9
    remove(classes, name)


def test_a_user_namespace(classes: Node, kind: str, tmp_path: Path) -> None:
    """hostUsers: false: the root file system, volumes and pipes are id-mapped with any runtime."""
    if cannot_map_ids(classes.root):
        pytest.skip("needs a file system that can be id-mapped")
    (tmp_path / "file").write_text("of the host")
    tmp_path.chmod(0o755)
    name = f"users-{kind}"
    volumes: list[dict[str, Any]] = [
        {"name": "empty", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": str(tmp_path)}},
        {"name": "map", "configMap": {"name": f"{name}-map"}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
    mounts.append({"name": "empty", "mountPath": "/sub", "subPath": "a/b"})
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-map"},
        "data": {"k": "v"},
    }
    script = f"echo one > /dev/stdout; echo two > /dev/stderr; {SLEEP}"
    main = container(volumeMounts=mounts)
    other = container("other", script, securityContext={"runAsUser": 1000, "runAsGroup": 1000})
    manifest = pod(name, main, other, hostUsers=False, runtimeClassName=kind, volumes=volumes)
    classes.apply(f"{name}.yaml", f"{yaml.safe_dump(settings)}---\n{manifest}")
    classes.wait_status(name, "Running")
    base = id_base(classes.pid(name))
    assert base >= ID_RANGE
    assert id_base(classes.pid(name, "other")) == base
    assert f"Uid:\t{base + 1000}\t" in Path(f"/proc/{classes.pid(name, 'other')}/status").read_text()
    look = (
        "id -u; stat -c %u:%g / /bin/busybox /etc/hosts /v/host/file /v/empty; cat /v/map/k; echo; "
        "for d in host empty; do echo y > /v/$d/new; stat -c %u /v/$d/new; done; "
        "echo z > /sub/z && ls /v/empty/a/b; echo made > /root-file && stat -c %u /root-file"
    )
    seen = classes.cli("exec", name, "-c", "main", "--", "sh", "-c", look).out.split()
    assert seen == ["0", *["0:0"] * 5, "v", "0", "0", "z", "0"]
    assert (tmp_path / "new").stat().st_uid == 0, "a volume's files belong to whom the container says"
    words = ["one", "started", "two"]
    classes.wait(
        lambda: sorted(classes.cli("logs", name, "-c", "other").out.split()) == words,
        "what it wrote to /dev/stdout and /dev/stderr",
    )
    there = classes.cli("exec", name, "-c", "other", "--", "sh", "-c", "echo hi > /dev/stdout; id -u")
    assert there.out.split() == ["hi", "1000"]
    classes.restart(signal.SIGKILL)
    classes.wait_status(name, "Running")
    assert id_base(classes.pid(name)) == base
    null = os.stat("/dev/null")
    assert (null.st_uid, null.st_gid) == (0, 0), "crun gives its stdio to the container's user"
    remove(classes, name)


def test_a_sub_path_stays_in_its_volume(classes: Node, kind: str, tmp_path: Path) -> None:
    """subPath: the runtime gets a resolved path and follows no link in it."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "f").write_text("in")
    (tmp_path / "out").symlink_to("/etc")
    volumes = [{"name": "v", "hostPath": {"path": str(tmp_path)}}]
    name = f"part-{kind}"
    good = container(volumeMounts=[{"name": "v", "mountPath": "/p", "subPath": "inside"}])
    bad = container("bad", volumeMounts=[{"name": "v", "mountPath": "/p", "subPath": "out"}])
    classes.apply(f"{name}.yaml", pod(name, good, bad, runtimeClassName=kind, volumes=volumes))
    classes.wait(lambda: classes.container(name).get("ready"), "the good one to run")
    assert classes.cli("exec", name, "-c", "main", "--", "cat", "/p/f").out == "in"
    state = classes.container(name, "bad")["state"]
    assert "running" not in state, state
    remove(classes, name)


def test_a_missing_program(classes: Node, kind: str) -> None:
    name = f"none-{kind}"
    one = {**container(), "command": ["/nowhere/program"]}
    classes.apply(f"{name}.yaml", pod(name, one, runtimeClassName=kind, restartPolicy="Never"))
    classes.wait(lambda: classes.pod(name)["status"].get("phase") == "Failed", "it to fail")
    ended = classes.container(name)["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")
    assert f"OCI runtime create failed: {kind}: " in ended["message"]
    remove(classes, name)


def test_the_death_of_the_shim_ends_the_container(classes: Node, kind: str) -> None:
    name = f"shim-{kind}"
    classes.apply(f"{name}.yaml", pod(name, runtimeClassName=kind))
    classes.wait_status(name, "Running")
    pid = classes.pid(name)
    os.kill(int(_state(classes, name)["pid"]), signal.SIGKILL)
    classes.wait(lambda: not os.path.exists(f"/proc/{pid}"), "the container to end")
    classes.wait_status(name, "Running")
    assert classes.pid(name) != pid
    remove(classes, name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch", 'RuntimeClass "nosuch" not found'),
        ("gone", 'no runtime for "gone" is configured: /nowhere/runtime cannot be executed'),
    ],
)
def test_an_unknown_runtime_class(classes: Node, name: str, words: str) -> None:
    classes.apply(f"{name}.yaml", pod(name, runtimeClassName=name))
    said = f"Failed to create pod sandbox: {words}"
    classes.wait(
        lambda: any(said in event["message"] for event in classes.events("FailedCreatePodSandBox")),
        "the event",
    )
    assert classes.pod(name)["status"]["phase"] == "Pending"
    remove(classes, name)

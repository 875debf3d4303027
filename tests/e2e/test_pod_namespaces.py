"""Pid and user namespaces of pods."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import IMAGE, Node
from tests.kernel.conftest import cannot_map_ids

ID_RANGE = 65536


def run(node: Node, name: str, command: str, container_name: str = "main", *, check: bool = True) -> str:
    """The output of a shell command in a container."""
    return node.cli("exec", name, "-c", container_name, "--", "sh", "-c", command, check=check).out


def test_shared_pid_namespace(node: Node) -> None:
    node.apply("s.yaml", pod("s", container("main"), container("other"), shareProcessNamespace=True))
    node.wait_status("s", "Running")
    pids = {name: node.pid("s", name) for name in ("main", "other")}
    spaces = {os.readlink(f"/proc/{pid}/ns/pid") for pid in pids.values()}
    assert len(spaces) == 1
    assert spaces != {os.readlink("/proc/self/ns/pid")}
    seen = run(node, "s", "cat /proc/1/comm; ls /proc/1/root/ 2>&1 | wc -l; (sleep 0.01 &); sleep 0.3; ps")
    assert seen.splitlines()[0] == "pause"
    assert "Z" not in {line.split()[2] for line in seen.splitlines()[2:] if len(line.split()) > 3}
    # a signal from one container to the other's program: only that container ends and restarts
    of_other = [line for line in run(node, "s", "grep NSpid /proc/self/status; ps", "other").splitlines()]
    assert of_other
    inner = Path(f"/proc/{pids['other']}/status").read_text().split("NSpid:")[1].split("\n")[0].split()[-1]
    run(node, "s", f"kill -9 {inner}")
    node.wait(
        lambda: node.container("s", "other").get("restartCount") == 1, "the one that was killed to run again"
    )
    assert node.pid("s") == pids["main"]
    assert node.container("s", "other")["lastState"]["terminated"]["exitCode"] == 137
    pid = node.pid("s", "other")
    node.restart(9)
    node.wait(lambda: node.container("s").get("ready"), "the daemon to have looked")
    assert node.pid("s", "other") == pid, "a daemon that was killed finds them again"
    # a container's leftover processes end with it, although the namespace remains
    run(node, "s", "(sleep 4321 &) ; true", "other")
    inspected = json.loads(node.cli("inspect", "default/s").out)
    pause = inspected["sandbox"]["pause"]
    assert pause
    # without its pause process the sandbox is lost, and recreated
    os.kill(pause, 9)
    node.wait(lambda: node.container("s").get("restartCount") == 1, "a new sandbox")
    node.wait_status("s", "Running")
    (node.manifests / "s.yaml").unlink()
    node.wait_gone("s")


def id_base(pid: int) -> int:
    """The host id of the container's root: the first id of its range."""
    line = Path(f"/proc/{pid}/uid_map").read_text().split()
    assert line[0] == "0"
    assert int(line[2]) == ID_RANGE
    return int(line[1])


def test_a_pod_with_a_user_namespace(node: Node) -> None:
    if cannot_map_ids(node.root):
        pytest.skip("needs a file system that can be id-mapped")
    shared = node.base / "shared"
    shared.mkdir()
    (shared / "file").write_text("x\n")
    volumes: list[dict[str, Any]] = [
        {"name": "empty", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "host", "hostPath": {"path": str(shared)}},
        {"name": "down", "downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]  # fmt: skip
    mounts = [{"name": v["name"], "mountPath": f"/v/{v['name']}"} for v in volumes]
    mounts.append({"name": "empty", "mountPath": "/sub", "subPath": "a/b"})
    main = container(volumeMounts=mounts)
    other = container("other", tty=True, securityContext={"runAsUser": 1000, "runAsGroup": 1000})
    fields: dict[str, Any] = {"hostUsers": False, "volumes": volumes, "securityContext": {"fsGroup": 2000}}
    node.apply("u.yaml", pod("u", main, other, **fields))
    open_proc = container(securityContext={"procMount": "Unmasked"})
    node.apply("w.yaml", pod("w", open_proc, hostUsers=False, shareProcessNamespace=True))
    node.wait_status("u", "Running")
    node.wait_status("w", "Running")

    def base_of(name: str, which: str = "main") -> int:
        return id_base(node.pid(name, which))

    base = base_of("u")
    assert base % ID_RANGE == 0
    assert base >= ID_RANGE
    assert base_of("u", "other") == base
    assert abs(base_of("w") - base) >= ID_RANGE, "no two pods share an id"
    assert f"Uid:\t{base}\t" in Path(f"/proc/{node.pid('u')}/status").read_text()
    assert f"Uid:\t{base + 1000}\t" in Path(f"/proc/{node.pid('u', 'other')}/status").read_text()
    script = (
        "id -u; stat -c '%u %g' / /bin/busybox /etc/hosts /v/host/file /v/memory; cat /v/down/name; "
        "for d in host empty memory; do echo y > /v/$d/new; stat -c %u:%g /v/$d/new; done; "
        "echo z > /sub/z && ls /v/empty/a/b; echo $$"
    )
    lines = run(node, "u", script).split("\n")
    assert lines[:5] == ["0", "0 0", "0 0", "0 0", "0 0"]
    assert lines[5:10] == ["0 2000", "u0:0", "0:2000", "0:2000", "z"]
    assert (shared / "new").stat().st_uid == 0, "a volume's files belong to whom the container says"
    pinged = run(node, "u", "echo hi > /dev/termination-log; ping -c1 -W1 127.0.0.1 >/dev/null; echo $?")
    assert pinged.strip() == "0"
    assert run(node, "w", "cat /proc/1/comm").strip() == "pause"
    masks = "grep -c ' /proc/' /proc/mounts; true"
    assert run(node, "w", masks) == "0\n", "procMount Unmasked"
    assert int(run(node, "u", masks)) > 3
    terminal = run(node, "u", "readlink /proc/1/fd/0; stat -c %u /dev/pts/0 /dev/console", "other")
    assert terminal.split() == ["/dev/pts/0", "1000", "1000"]
    refused = run(node, "u", "cat /proc/sysrq-trigger; echo b > /proc/sys/kernel/core_pattern; true")
    assert refused == ""
    node.restart(9)
    node.wait(lambda: node.container("u").get("ready"), "the daemon to have looked")
    assert base_of("u") == base
    edited = container(volumeMounts=mounts, env=[{"name": "A", "value": "1"}])
    node.apply("u.yaml", pod("u", edited, other, **fields))
    node.wait(lambda: node.container("u").get("restartCount") == 1, "the edited container to run again")
    assert base_of("u") == base


def test_a_user_namespace_with_the_hosts_network_is_rejected(node: Node) -> None:
    node.apply("net.yaml", pod("net", container(), hostUsers=False, hostNetwork=True))
    node.wait_status("net", "CreateContainerConfigError")
    assert "spec.hostUsers" in node.cli("describe", "pod", "net").out


def test_an_image_volume_is_id_mapped(node: Node) -> None:
    volumes: list[dict[str, Any]] = [{"name": "tools", "image": {"reference": IMAGE, "pullPolicy": "Never"}}]
    main = container(volumeMounts=[{"name": "tools", "mountPath": "/tools"}])
    node.apply("i.yaml", pod("i", main, volumes=volumes, hostUsers=False))
    node.wait_status("i", "Running")
    assert run(node, "i", "stat -c '%u %g' /tools/bin/busybox; id -u").split("\n")[:2] == ["0 0", "0"]
    assert "ead-only" in run(node, "i", "touch /tools/x 2>&1; true")
    place = node.root / f"pods/{node.pod('i')['metadata']['uid']}/volumes/kubernetes.io~image"
    assert sorted(entry.name for entry in place.iterdir()) == [".nothing", "tools"], "its layers are let go"
    base = id_base(node.pid("i"))
    assert (place / "tools/bin/busybox").stat().st_uid == base

"""Restarts of all containers or by content, tokens, env files, sysctls and memory limits, end to end."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import Node, running_node
from tests.e2e.test_fields import manifest, run


def test_one_container_restarts_all_of_them(node: Node) -> None:
    rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}
    volumes = [{"name": "v", "emptyDir": {}}]
    mounts = [{"name": "v", "mountPath": "/v"}]
    init = container("init", "echo i >> /v/inits", volumeMounts=mounts)
    watcher = container(
        "watcher", f"echo I order it; test -e /v/twice || {{ touch /v/twice; sleep 0.3; exit 88; }}; {SLEEP}",
        volumeMounts=mounts, restartPolicy="Never", restartPolicyRules=[rule],
    )  # fmt: skip
    main = container(volumeMounts=mounts)
    node.apply(
        "r.yaml", pod("r", main, watcher, initContainers=[init], volumes=volumes, restartPolicy="Never")
    )
    node.wait(lambda: node.container("r").get("restartCount") == 1, "all to begin anew")
    node.wait(
        lambda: node.container("r", "watcher").get("ready") and node.container("r").get("ready"), "both again"
    )
    assert run(node, "r", "cat /v/inits") == "i\ni\n", "init containers ran again, in the same sandbox"
    assert node.container("r", "init")["restartCount"] == 1
    assert node.container("r", "watcher")["lastState"]["terminated"]["exitCode"] == 88
    ids = {c["id"] for c in json.loads(node.cli("inspect", "default/r").out)["containers"]}
    assert len(ids) == 3
    assert node.cli("logs", "-p", "r", "-c", "watcher").out == "I order it\n", "what was said before"
    assert node.cli("logs", "-p", "r").out == "started\n"


@pytest.mark.either_cgroup
def test_content_restarts_annotated_pods_and_env_files(node: Node) -> None:
    node.apply("c.yaml", manifest("ConfigMap", "settings", data={"color": "blue"}))
    reads = container(envFrom=[{"configMapRef": {"name": "settings"}}])
    text = yaml.safe_load(pod("asks", reads, container("other")))
    text["metadata"]["annotations"] = {"kubelite.io/restart-on-change": "true"}
    node.apply("asks.yaml", yaml.safe_dump(text))
    node.apply("plain.yaml", pod("plain", reads))
    script = "printf \"A='from a file'\\nB='x'\\n\" > /d/x.env"
    writer = container("w", script, volumeMounts=[{"name": "d", "mountPath": "/d"}])
    written: dict[str, Any] = {"initContainers": [writer], "volumes": [{"name": "d", "emptyDir": {}}]}
    ref = {"volumeName": "d", "path": "x.env", "key": "A"}
    env = [
        {"name": "A", "valueFrom": {"fileKeyRef": ref}},
        {"name": "NONE", "valueFrom": {"fileKeyRef": {**ref, "key": "C", "optional": True}}},
    ]
    node.apply(
        "f.yaml",
        pod("file", container(env=env), **written),
    )
    lost = [{"name": "A", "valueFrom": {"fileKeyRef": {**ref, "key": "C"}}}]
    node.apply(
        "l.yaml",
        pod("lost", container(env=lost), **written),
    )
    for name in ("asks", "plain", "file"):
        node.wait_status(name, "Running")
    assert run(node, "file", 'echo "$A-$NONE"') == "from a file-\n"
    node.wait_status("lost", "CreateContainerConfigError")
    assert "couldn't find key C" in node.cli("describe", "pod", "lost").out
    pid, other = node.pid("plain"), node.pid("asks", "other")
    node.apply("c.yaml", manifest("ConfigMap", "settings", data={"color": "red"}))
    node.wait(
        lambda: node.container("asks").get("restartCount") == 1, "the container that has it to be restarted"
    )
    node.wait_status("asks", "Running")
    assert run(node, "asks", "echo $color") == "red\n"
    assert node.pid("plain") == pid
    assert node.pid("asks", "other") == other


@pytest.mark.either_cgroup
def test_tokens_sysctls_propagation_and_sub_path_expressions(tmp_path: Path, images: Path) -> None:
    with running_node(tmp_path, images, allowed_unsafe_sysctls="net.core.somaxconn") as node:
        token = {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
        shared = node.base / "shared"
        shared.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(shared)], check=True)
        subprocess.run(["mount", "--make-shared", str(shared)], check=True)
        try:
            volumes: list[dict[str, Any]] = [
                token,
                {"name": "h", "hostPath": {"path": str(shared)}},
                {"name": "e", "emptyDir": {}},
            ]
            main = container(
                env=[{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                volumeMounts=[
                    {"name": "t", "mountPath": "/token"},
                    {"name": "h", "mountPath": "/h", "mountPropagation": "HostToContainer"},
                    {"name": "h", "mountPath": "/none"},
                    {"name": "e", "mountPath": "/sub", "subPathExpr": "of/$(POD)"},
                    {"name": "e", "mountPath": "/e"},
                ],
            )  # fmt: skip
            sysctls = [
                {"name": "net.core.somaxconn", "value": "77"},
                {"name": "net.ipv4.ip_unprivileged_port_start", "value": "80"},
            ]
            node.apply("p.yaml", pod("p", main, volumes=volumes, securityContext={"sysctls": sysctls}))
            bad = {"sysctls": [{"name": "kernel.msgmax", "value": "8192"}]}
            node.apply("bad.yaml", pod("bad", securityContext=bad))
            node.wait_status("p", "Running")
            assert run(node, "p", "ls /token; cat /proc/sys/net/core/somaxconn") == "token\n77\n"
            assert not node.events("Unsupported")
            assert run(node, "p", "touch /sub/x; ls /e/of/p") == "x\n"
            (shared / "inner").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "none", str(shared / "inner")], check=True)
            (shared / "inner/seen").touch()
            assert run(node, "p", "ls /h/inner; ls /none/inner") == "seen\n", "only where it is asked for"
            node.wait_status("bad", "SysctlForbidden")
            assert node.pod("bad")["status"]["reason"] == "SysctlForbidden"
            assert 'forbidden sysctl: "kernel.msgmax" not allowlisted' in node.pod("bad")["status"]["message"]
        finally:
            subprocess.run(["umount", "-R", "-l", str(shared)], check=True)


def test_a_memory_limit_below_the_usage_waits(node: Node) -> None:
    """cgroup v1 rejects such a limit and v2 would kill. The pod keeps running, its status says so, and it gets the
    limit when the memory is free."""

    def shrinks(limit: str) -> str:
        volume = {"name": "memory", "emptyDir": {"medium": "Memory"}}
        mounts = [{"name": "memory", "mountPath": "/memory"}]
        main = container("main", SLEEP, resources={"limits": {"memory": limit}}, volumeMounts=mounts)
        return pod("shrinks", main, volumes=[volume])

    def resizing() -> dict[str, Any]:
        found = node.pod("shrinks")["status"]["conditions"]
        return next((c for c in found if c["type"] == "PodResizeInProgress"), {})

    def limit_now() -> str:
        return str(node.container("shrinks")["resources"]["limits"]["memory"])

    node.apply("shrinks.yaml", shrinks("96Mi"))
    node.wait_status("shrinks", "Running")
    pid = node.pid("shrinks")
    node.cli("exec", "shrinks", "--", "dd", "if=/dev/zero", "of=/memory/held", "bs=1M", "count=64")
    node.apply("shrinks.yaml", shrinks("32Mi"))
    node.wait(lambda: resizing().get("reason") == "Error", "the limit to be refused")
    assert limit_now() == "96Mi"
    assert node.container("shrinks")["restartCount"] == 0 and node.pid("shrinks") == pid

    node.cli("exec", "shrinks", "--", "rm", "/memory/held")
    node.wait(lambda: not resizing() and limit_now() == "32Mi", "the limit to be written")
    assert node.container("shrinks")["restartCount"] == 0 and node.pid("shrinks") == pid
    assert not [e for e in node.events() if e["reason"] in ("OOMKilling", "Killing")]

"""Hostile pods that try to disturb the node."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import Node

DEEP = """
nest() { cd $1; i=0; while [ $i -lt 1500 ]; do mkdir d && cd -P d || exit 1; i=$((i+1)); done; cd /; }
nest /; nest /data; echo nested
"""
HOSTS = (
    "dd if=/dev/zero of=/etc/hosts bs=1 count=1 seek=100G 2>&-; printf '\\377' >> /etc/hosts; echo written;"
)


def test_deeply_nested_directories_are_removed_with_their_pod(node: Node) -> None:
    mounts = [{"name": "data", "mountPath": "/data"}]
    deep = container(script=DEEP + SLEEP, volumeMounts=mounts)
    node.apply("deep.yaml", pod("deep", deep, volumes=[{"name": "data", "emptyDir": {}}]))
    node.wait_status("deep", "Running")
    node.wait(lambda: "nested" in node.logs("deep"), "the directories are there")
    uid = node.pod("deep")["metadata"]["uid"]
    (node.manifests / "deep.yaml").unlink()
    node.wait_gone("deep")
    node.wait(lambda: not Path(f"{node.root}/pods/{uid}").exists(), "the pod's directory is removed")


def test_a_huge_etc_hosts_does_not_stop_the_daemon(node: Node) -> None:
    node.apply("hosts.yaml", pod("hosts", container(script=HOSTS + SLEEP)))
    node.wait_status("hosts", "Running")
    node.wait(lambda: "written" in node.logs("hosts"), "the file is written")
    pid = node.pid("hosts")
    node.restart(signal.SIGKILL)
    node.wait_status("hosts", "Running")
    node.apply("next.yaml", pod("next"))
    node.wait_status("next", "Running")
    assert node.pid("hosts") == pid
    assert node.container("hosts")["restartCount"] == 0

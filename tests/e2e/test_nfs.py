"""NFS volumes: with the kernel's own server, in the node's network namespace."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node
from tests.e2e.test_fields import manifest, run

# nfsdcld reports that there is no client to wait for. Otherwise no file can be opened for 90 seconds.
SERVE = """
mount --make-rprivate / && mkdir -p /var/lib/nfs /run/rpc_pipefs
mount -t tmpfs tmpfs /var/lib/nfs && mkdir -p /var/lib/nfs/rpc_pipefs /var/lib/nfs/nfsdcld
mount -t nfsd nfsd /proc/fs/nfsd && mount -t rpc_pipefs sunrpc /run/rpc_pipefs
mount -t rpc_pipefs sunrpc /var/lib/nfs/rpc_pipefs
exportfs -o rw,no_root_squash,insecure,no_subtree_check,fsid=0 127.0.0.1:$1
nfsdcld && rpc.mountd -N 3 && rpc.nfsd -N 3 -V 4 1 && echo serving
read end; rpc.nfsd 0; echo ended; read end
"""


ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


class Server:
    """Serves `share` at 127.0.0.1:/ of the node's network namespace, only with NFS version 4."""

    def __init__(self, node: Node, share: Path) -> None:
        self.share = share
        self._process = subprocess.Popen(
            node.in_netns(*ALONE, "sh", "-c", SERVE, "sh", str(share)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said("serving")
        self._runs = True

    def _said(self, word: str) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == word

    def stop(self) -> None:
        """Stop responding: clients wait."""
        assert self._process.stdin is not None
        self._process.stdin.write("end\n")
        self._process.stdin.flush()
        self._said("ended")
        self._runs = False

    def close(self) -> None:
        if self._runs:
            self.stop()
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server(node: Node, tmp_path: Path) -> Iterator[Server]:
    if shutil.which("rpc.nfsd") is None:
        pytest.skip("needs rpc.nfsd")
    for module in ("nfsd", "nfsv4"):
        subprocess.run(["modprobe", module], check=False, capture_output=True)
    kinds = Path("/proc/filesystems").read_text().split()
    if not {"nfsd", "nfs4"} <= set(kinds):
        pytest.skip("needs a kernel with an NFS server and a client")
    share = tmp_path / "share"
    share.mkdir()
    share.chmod(0o777)
    found = Server(node, share)
    try:
        yield found
    finally:
        found.close()


def nfs(path: str = "/", **fields: Any) -> dict[str, Any]:
    return {"nfs": {"server": "127.0.0.1", "path": path, **fields}}


def by_hand() -> str:
    """A PersistentVolume and its claim."""
    volume = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "shares",
        "mountOptions": ["nfsvers=4.1", "noatime"],
        **nfs("/part"),
    }
    claim = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "shares",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    kinds = (
        manifest("PersistentVolume", "part", spec=volume),
        manifest("PersistentVolumeClaim", "part", spec=claim),
    )
    return "---\n".join(kinds)


def test_shares_are_mounted_while_pods_have_them(node: Node, server: Server) -> None:
    (server.share / "part").mkdir(mode=0o777)
    (server.share / "greeting").write_text("from the server\n")
    volumes: list[dict[str, Any]] = [
        {"name": "all", **nfs()},
        {"name": "look", **nfs(readOnly=True)},
        {"name": "part", "persistentVolumeClaim": {"claimName": "part"}},
        {"name": "lost", **nfs("/no/such")},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    node.apply("part.yaml", by_hand())
    node.apply("lost.yaml", pod("lost", container(volumeMounts=mounts[3:]), volumes=volumes[3:]))
    node.apply("a.yaml", pod("a", container(volumeMounts=mounts[:3]), volumes=volumes[:3]))
    node.wait_status("a", "Running")
    writes = "cat /look/greeting; echo one > /all/one; echo two > /part/two; touch /look/no 2>&1; true"
    said = run(node, "a", f"{writes}; grep ' nfs4 ' /proc/mounts")
    assert said.startswith("from the server\n")
    assert "Read-only" in said
    assert (server.share / "one").read_text() == "one\n"
    assert (server.share / "part/two").read_text() == "two\n"
    options = {line.split()[1]: line.split()[3].split(",") for line in said.splitlines() if " nfs4 " in line}
    assert {"rw", "vers=4.2"} <= set(options["/all"])
    assert {"ro", "vers=4.2"} <= set(options["/look"])
    assert {"rw", "noatime", "vers=4.1"} <= set(options["/part"])
    words = 'MountVolume.SetUp failed for volume "lost" : mount 127.0.0.1:/no/such: No such file or directory'
    node.wait(lambda: any(words in e["message"] for e in node.events("FailedMount")), "what is not there")
    _a_server_that_goes(node, server, pod("late", container(volumeMounts=mounts[:1]), volumes=volumes[:1]))


def _a_server_that_goes(node: Node, server: Server, late: str) -> None:
    """While the NFS server is stopped, a pod that mounts its share can be deleted, a new pod with the share waits, and
    pods without it start."""
    (node.manifests / "lost.yaml").unlink()
    node.wait_gone("lost")
    server.stop()
    node.apply("late.yaml", late)
    node.apply("other.yaml", pod("other"))
    node.wait_status("other", "Running")
    words = 'MountVolume.SetUp failed for volume "all" : mount 127.0.0.1:/: '

    def told() -> list[str]:
        return [e["message"] for e in node.events("FailedMount") if words in e["message"]]

    node.wait(told, "the event of a server that does not answer")
    for name in ("a", "late", "other"):
        (node.manifests / f"{name}.yaml").unlink()
    for name in ("a", "late", "other"):
        node.wait_gone(name)
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if " nfs4 " in line]

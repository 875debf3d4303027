"""`kubelite tour` in a privileged container: what differs there, and what a node needs there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import REPO
from tests.programs import missing

# runc, since crun refuses cgroup v1 with v2 beside it
PROGRAMS = ("podman", "runc", "busybox", "ip", "nsenter", "nft", "curl")
pytestmark = [
    pytest.mark.skipif(bool(missing(*PROGRAMS)), reason=f"needs {missing(*PROGRAMS)}"),
    pytest.mark.timeout(300),
]
SECONDS = 200  # after which podman ends the container
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
NODE = """
set -u
export PATH={prefix}/bin:/usr/sbin:/usr/bin LANG=C.UTF-8 HOME=/root
started() {{
    KUBELITE_ROOT=$1 kubelite serve >/tmp/serve.log 2>&1 &
    for _ in $(seq 300); do kubelite get nodes >/dev/null 2>&1 && return; sleep 0.1; done
    cat /tmp/serve.log
    exit 3
}}
cd {repo}
ip link set lo up
mkdir -p /etc/kubelite/manifests
started /var/lib/other
kubelite doctor
kubelite tour --check processes
echo "first: $?"
kubelite reset --yes --now >/dev/null
wait
started /var/lib/kubelite
kubelite tour --check processes overlay network
code=$?
echo "second: $code"
[ $code = 0 ] || tail -n 30 /tmp/serve.log
kubelite reset --yes --now >/dev/null
wait
"""


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A root directory that has no more than /usr, which is this machine's."""
    place = tmp_path / "root"
    for name in ("usr", "etc", "tmp", "var/lib/kubelite", "run", "proc", "sys", "dev", "root"):
        (place / name).mkdir(parents=True)
    for name, target in LINKS.items():
        (place / name).symlink_to(target)
    for name in ("passwd", "group", "ld.so.cache"):
        shutil.copy(f"/etc/{name}", place / "etc")
    if Path("/etc/alternatives").is_dir():
        shutil.copytree("/etc/alternatives", place / "etc/alternatives", symlinks=True)
    yield place
    assert str(tmp_path) not in Path("/proc/mounts").read_text(), "a mount is left"


def test_the_tour_in_a_privileged_container(root: Path, tmp_path: Path) -> None:
    """The root directory of a container is an overlay, where a node can run nothing: it needs a volume, and says so."""
    data = tmp_path / "data"
    data.mkdir()
    shared = {"/usr", sys.base_prefix, sys.prefix, str(REPO)}
    command = [
        "podman", "--runtime", "runc", "run", "--rm", "--privileged", "--cgroupns=private",
        "--network=none", "--no-hosts", f"--timeout={SECONDS}", "--volume", f"{data}:/var/lib/kubelite",
        *(word for path in sorted(shared) for word in ("--volume", f"{path}:{path}:ro")),
        "--rootfs", f"{root}:O", "/bin/sh", "-c", NODE.format(prefix=sys.prefix, repo=REPO),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS + 60)
    said = done.stdout
    assert "error: disk: /var/lib/other is on an overlay" in said, (said, done.stderr)
    assert "first: 1\n" in said and "tour cannot run here: /var/lib/other is on an overlay" in done.stderr
    assert "second: 0\n" in said, (said, done.stderr)
    assert "This tour runs in a container (podman)" in said
    assert "✓" in said and "✗" not in said

"""The programs that call an OCI runtime, each with kubelite-oci in place of runc, and all of it in directories, a
network namespace and a cgroup name of the test module's own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.programs import BUSYBOX, missing
from tests.waiting import remove_cgroup, until

RUNTIME = str(Path(sys.executable).with_name("kubelite-oci"))
SECONDS = 60
IMAGE = "localhost/klt:latest"
_APPLETS = (
    "sh cat ls id true false sleep echo mount hostname env ps stat readlink touch grep head tty test kill pwd"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if os.geteuid() != 0 and "callers" in str(item.path):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def need(*programs: str) -> None:
    """Skip, naming what is missing."""
    if not os.path.exists(RUNTIME):
        pytest.skip("needs kubelite-oci beside the interpreter: make setup")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if lacking := missing(*programs):
        pytest.skip(f"needs {lacking}")


@dataclass
class Done:
    code: int
    out: str
    err: str


@dataclass
class Caller:
    """A command line with its global options in front."""

    command: list[str]
    environment: dict[str, str]
    directory: Path | None = (
        None  # where it is run: conmon leaves a file there when something ran out of memory
    )

    def __call__(self, *args: str, code: int | None = 0, input_: str | None = None) -> Done:
        done = subprocess.run(
            [*self.command, *args], capture_output=True, text=True, timeout=SECONDS, check=False,
            env={**os.environ, **self.environment}, input=input_ or "", cwd=self.directory,
        )  # fmt: skip
        found = Done(done.returncode, done.stdout.strip(), done.stderr.strip())
        assert code is None or found.code == code, f"{args}: {found}"
        return found


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root directory with busybox, as a tar."""
    need("busybox")
    base = tmp_path_factory.mktemp("image")
    root = base / "root"
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "data"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in [*_APPLETS.split(), "tail", "wc"]:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nweb:x:1000:\n")
    (root / "data/seed").write_text("from the image\n")
    with tarfile.open(base / "image.tar", "w") as tar:
        tar.add(root, arcname=".")
    return base / "image.tar"


@contextlib.contextmanager
def daemon(command: list[str], log: Path, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """In a network namespace of its own; ended by SIGTERM, and only this one."""
    with open(log, "wb") as output:
        child = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", 'ip link set lo up; echo 1 >/proc/sys/net/ipv4/ip_forward; exec "$@"',
             "sh", *command],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        until(lambda: child.poll() is not None or ready(), f"{command[0]} answers; see {log}")
        assert child.poll() is None, log.read_text(errors="replace")[-2000:]
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(timeout=30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        _unmount_below(log.parent)


def _unmount_below(path: Path) -> None:
    """What a daemon leaves mounted (docker's network namespaces), deepest first."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split()[4] for line in file]
    for point in sorted((p for p in points if p.startswith(f"{path}/")), key=len, reverse=True):
        subprocess.run(["umount", "--lazy", point], check=False)


def wait_dead(pid: int) -> None:
    until(lambda: not os.path.exists(f"/proc/{pid}"), f"process {pid} has ended")


@pytest.fixture(scope="module")
def podman(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    need("podman", "conmon", "unshare", "ip")
    base = tmp_path_factory.mktemp("podman")
    (base / "storage.conf").write_text(
        f'[storage]\ndriver="vfs"\ngraphroot="{base}/root"\nrunroot="{base}/run"\n'
    )
    (base / "containers.conf").write_text('[containers]\npidns="private"\n[engine]\nevents_logger="file"\n')
    command = [
        "podman", "--root", f"{base}/root", "--runroot", f"{base}/run", "--tmpdir", f"{base}/tmp",
        "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--runtime", RUNTIME,
    ]  # fmt: skip
    environment = {
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        "CONTAINERS_CONF": f"{base}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{base}/storage.conf",
    }
    made = Caller(command, environment, base)
    made("import", str(image), IMAGE)
    yield made
    made("rm", "--all", "--force", "--time", "0", code=None)
    made("pod", "rm", "--all", "--force", "--time", "0", code=None)
    _unmount_below(base)


@pytest.fixture(scope="module")
def docker(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    need("dockerd", "docker", "containerd", "unshare", "ip")
    base = tmp_path_factory.mktemp("docker")
    config = {
        "runtimes": {"kubelite": {"path": RUNTIME}},
        "default-runtime": "kubelite",
        "storage-driver": "vfs",
        "iptables": False,
        "ip6tables": False,
        "cgroup-parent": f"/klt-{base.name}",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
    }
    (base / "daemon.json").write_text(json.dumps(config))
    socket = f"{base}/docker.sock"
    command = [
        "dockerd", "--config-file", f"{base}/daemon.json", "--data-root", f"{base}/data", "--exec-root", f"{base}/exec",
        "--pidfile", f"{base}/pid", "--host", f"unix://{socket}",
    ]  # fmt: skip
    made = Caller(["docker", "--host", f"unix://{socket}"], {"DOCKER_CONFIG": f"{base}/client"})
    with daemon(command, base / "log", lambda: made("version", code=None).code == 0):
        made("import", str(image), IMAGE)
        yield made
        for container in made("ps", "--all", "--quiet", code=None).out.split():
            made("rm", "--force", container, code=None)
    remove_cgroup(f"klt-{base.name}")


@pytest.fixture(scope="module")
def ctr(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    need("containerd", "ctr", "podman", "unshare", "ip")
    base = tmp_path_factory.mktemp("containerd")
    (base / "config.toml").write_text(
        f'version = 2\nroot = "{base}/root"\nstate = "{base}/state"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{base}/sock"\n[ttrpc]\naddress = "{base}/ttrpc"\n'
    )
    made = Caller(["ctr", "--address", f"{base}/sock", "--namespace", f"klt-{base.name}"], {})
    with daemon(
        ["containerd", "--config", f"{base}/config.toml"],
        base / "log",
        lambda: made("version", code=None).code == 0,
    ):
        made("images", "import", "--snapshotter", "native", str(_oci_archive(image, base)))
        yield made
        for container in made("containers", "list", "--quiet", code=None).out.split():
            made("tasks", "rm", "--force", container, code=None)
            made("containers", "rm", container, code=None)
    remove_cgroup(f"klt-{base.name}")


def _oci_archive(image: Path, base: Path) -> Path:
    """The image as `docker save` writes one."""
    layer = image.read_bytes()
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "config": {"Env": ["PATH=/bin"]},
         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}
    ).encode()  # fmt: skip
    name = hashlib.sha256(config).hexdigest()
    manifest = json.dumps(
        [{"Config": f"{name}.json", "RepoTags": [IMAGE], "Layers": [f"{digest}/layer.tar"]}]
    ).encode()
    path = base / "image.tar"
    with tarfile.open(path, "w") as tar:
        for member, content in (
            (f"{name}.json", config),
            (f"{digest}/layer.tar", layer),
            ("manifest.json", manifest),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def memory_limit(pid: int) -> int:
    """Bytes that the cgroup of a process may use, by either version of cgroups."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    paths = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    if "memory" in paths:
        return int(Path(f"/sys/fs/cgroup/memory{paths['memory']}/memory.limit_in_bytes").read_text())
    return int(Path(f"/sys/fs/cgroup{paths['']}/memory.max").read_text())

"""A registry in a node's network, with images made by umoci and buildah: fixtures `made` and `registry`."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.api import basic
from tests.e2e.node import Node
from tests.kernel import images_support as support

PORT = 5000
HOST = f"127.0.0.1:{PORT}"
APP = f"{HOST}/app:1"
TOOLS = ("docker-registry", "skopeo", "umoci", "buildah")
WAIT = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
needs_tools = pytest.mark.skipif(
    bool(support.need(*TOOLS)), reason=f"needs {', '.join(support.need(*TOOLS))}"
)

START = """\
trap 'echo stopped by USR1; exit 0' USR1
trap 'echo stopped by TERM; exit 0' TERM
echo "$(id -un) $(id -g) $(pwd) $GREETING $*"
ls -A /data /opaque
while :; do sleep 0.1; done
"""


def base_layer() -> bytes:
    """busybox, accounts, and files that later layers remove."""
    busybox = Path(support.BUSYBOX).read_bytes()
    links = [
        support.member(f"bin/{name}", tarfile.SYMTYPE, linkname="busybox", mode=0o777)
        for name in ("sh", "id", "ls", "cat", "sleep", "echo", "pwd", "true", "stat")
    ]
    passwd = b"root:x:0:0:root:/root:/bin/sh\napp:x:1234:2345:app:/srv:/bin/sh\n"
    return support.tar(
        *(support.directory(name) for name in ("bin", "etc", "data", "opaque", "srv", "tmp", "proc")),
        (support.member("bin/busybox", mode=0o755), busybox),
        *links,
        (support.member("etc/passwd"), passwd),
        (support.member("etc/group"), b"root:x:0:\napp:x:2345:\nextra:x:3456:app\n"),
        (support.member("data/old"), b"old\n"),
        (support.member("data/kept"), b"kept\n"),
        (support.member("opaque/below"), b"below\n"),
        (support.member("srv/start.sh", mode=0o755), START.encode()),
    )


def upper_layer() -> bytes:
    return support.tar(
        support.directory("data"),
        support.directory("opaque"),
        support.member("data/.wh.old"),
        (support.member("data/new"), b"new\n"),
        support.member("opaque/.wh..wh..opq"),
        (support.member("opaque/above"), b"above\n"),
    )


@dataclass(slots=True)
class Images:
    """OCI layouts by name, and the registry's storage with them."""

    layouts: Path
    data: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """app:1 by hand and umoci, built:1 by buildah from it; pushed into a registry's storage with skopeo."""
    path = tmp_path_factory.mktemp("made")
    layout = path / "layouts"
    support.run("umoci", "init", "--layout", str(layout))
    support.run("umoci", "new", "--image", f"{layout}:1")
    for index, layer in enumerate((base_layer(), upper_layer())):
        (path / f"{index}.tar").write_bytes(layer)
        support.run("umoci", "raw", "add-layer", "--image", f"{layout}:1", str(path / f"{index}.tar"))
    support.run(
        "umoci", "config", "--image", f"{layout}:1", "--config.user", "app", "--config.workingdir", "/srv",
        "--config.entrypoint", "/bin/sh", "--config.entrypoint", "/srv/start.sh", "--config.cmd", "one",
        "--config.cmd", "two", "--config.env", "GREETING=hello", "--config.stopsignal", "SIGUSR1",
    )  # fmt: skip
    environment = support.buildah_environment(path / "buildah")

    def buildah(*arguments: str) -> str:
        return support.run("buildah", *arguments, **environment)

    working = buildah("from", f"oci:{layout}:1")
    root = Path(buildah("mount", working))
    assert root.is_relative_to(path), "the build root must be the test's own"
    (root / "data/kept").unlink()
    (root / "data/built").write_text("by buildah\n")
    buildah("umount", working)
    entry = json.dumps(["/bin/sh", "-c", f"cat /data/built; id -u; {WAIT}"])
    settings = ("--entrypoint", entry, "--cmd", "", "--user", "1234", "--stop-signal", "SIGTERM")
    buildah("config", *settings, working)
    buildah("commit", "-q", "--format", "docker", working, "built:1")
    with support.registry(path / "registry") as host:
        support.push(layout, "1", f"{host}/app:1")
        buildah("push", "-q", "--tls-verify=false", "built:1", f"docker://{host}/built:1")
    return Images(layout, path / "registry/data")


@dataclass(slots=True)
class Registry:
    """docker-registry at HOST in a node's network namespace, with a copy of `made`."""

    node: Node
    made: Images
    process: subprocess.Popen[bytes] | None = None
    settings: str = ""  # additional lines of its config
    login: str = ""  # user:password for pushes

    @property
    def directory(self) -> Path:
        return self.node.base / "registry"

    def start(self) -> None:
        if not self.directory.exists():
            self.directory.mkdir()
            shutil.copytree(self.made.data, self.directory / "data")
        config = self.directory / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: info, accesslog: {disabled: false}}\n"
            f"storage: {{filesystem: {{rootdirectory: {self.directory}/data}}}}\nhttp: {{addr: '{HOST}'}}\n"
            f"{self.settings}"
        )
        with (self.directory / "log").open("ab") as log:
            command = self.node.in_netns("docker-registry", "serve", str(config))
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.node.wait(self.answers, "the registry")

    def answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.node.fetch(f"http://{HOST}/v2/", headers=basic(self.login)).status == 200
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(10)
            self.process = None

    def push(self, name: str, layout: Path | None = None, tag: str = "1") -> None:
        """Push an image of the layouts under another name."""
        source = f"oci:{layout or self.made.layouts}:{tag}"
        command = ("skopeo", "copy", "-q", "--dest-tls-verify=false", source, f"docker://{HOST}/{name}")
        support.run(*self.node.in_netns(*command))

    def asked(self, path: str, method: str = "GET") -> int:
        """The number of requests for a path, from the registry's log."""
        return (self.directory / "log").read_text(errors="replace").count(f'"{method} {path} ')


@pytest.fixture
def registry(node: Node, made: Images) -> Iterator[Registry]:
    found = Registry(node, made)
    found.start()
    with contextlib.ExitStack() as undo:
        undo.callback(found.stop)
        yield found

"""Record the main job on a real node: `sudo python -m deploy.docs.record` writes docs/assets/main-job.cast and .svg.

The node runs in its own mount, network and pid namespaces at its usual paths (/etc/kubelite, /var/lib/kubelite,
/run/kubelite), so it does not affect other nodes of the machine and leaves nothing. COMMANDS are typed into a shell on
a terminal; everything else in the recording is real output. The cast has asciinema's format version 2: `asciinema
play`.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from deploy.docs.cast_picture import CAST, SVG, drawn

REPO: Final = Path(__file__).resolve().parents[2]
KUBELITE: Final = Path(sys.executable).with_name("kubelite")
IMAGE: Final = "localhost/kubelite/busybox:latest"
COLUMNS, LINES = 104, 25
PROMPT: Final = "# "
MARK: Final = "\x1b]0;ready\x07"  # sets the title of the window, which is not visible
KEY, THINK, READ = 0.04, 0.5, 1.6  # seconds: between two keys, before a command, after its output
PATIENCE: Final = 60.0

COMMANDS: Final = (
    "cp web.yaml /etc/kubelite/manifests/",
    "kubelite get pods",
    "curl http://127.0.0.1:8080/",
    "sed -i 's/Hello/Good morning/' /etc/kubelite/manifests/web.yaml",
    "kubelite get pods",
    "curl http://127.0.0.1:8080/",
    "sed -i 's/image:/imagee:/' /etc/kubelite/manifests/web.yaml",
    "kubelite get manifests",
    "kubelite rollout undo pod/web",
    "rm /etc/kubelite/manifests/web.yaml",
    "kubelite get pods",
)


class Recorder:
    """A shell on a terminal; records its output with times."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.events: list[tuple[float, str]] = []
        self._began = time.monotonic()
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._until_prompt(1)

    def run(self, command: str) -> None:
        """Type a command and wait for its end."""
        self._pause(THINK)
        for key in command:
            os.write(self._master, key.encode())
            self._pause(KEY)
        self._pause(THINK)
        seen = self._prompts()
        os.write(self._master, b"\n")
        self._until_prompt(seen + 1)
        self._pause(READ)

    def close(self) -> None:
        os.kill(self._pid, signal.SIGHUP)
        os.close(self._master)
        os.waitpid(self._pid, 0)

    def _prompts(self) -> int:
        return sum(text.count(MARK) for _, text in self.events)

    def _until_prompt(self, number: int) -> None:
        until = time.monotonic() + PATIENCE
        while self._prompts() < number:
            if time.monotonic() > until:
                raise TimeoutError(f"no prompt; the terminal shows {self.events[-3:]}")
            self._pause(0.05)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self._master], [], [], left)[0]:
                data = os.read(self._master, 1 << 16).decode("utf-8", "replace")
                self.events.append((time.monotonic() - self._began, data))


def cast(events: list[tuple[float, str]]) -> str:
    """The events in asciinema's format version 2, starting with the first prompt."""
    header = {"version": 2, "width": COLUMNS, "height": LINES, "title": "kubelite: the main job"}
    start = events[0][0]
    lines = [json.dumps(header)]
    for at, text in events:
        if shown := text.replace(MARK, ""):
            lines.append(json.dumps([round(at - start, 3), "o", shown], ensure_ascii=False))
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def node(environment: dict[str, str]) -> Iterator[None]:
    """A daemon with the image of the examples. Everything is removed afterwards."""
    with subprocess.Popen(
        [KUBELITE, "serve"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as daemon:
        try:
            until = time.monotonic() + PATIENCE
            ask = (str(KUBELITE), "get", "pods")
            while subprocess.run(ask, env=environment, capture_output=True, check=False).returncode:
                if daemon.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the node did not start: {daemon.stderr and daemon.stderr.read()}")
                time.sleep(0.1)
            busybox = shutil.which("busybox")
            if busybox is None:
                raise RuntimeError("busybox is needed: apt-get install busybox-static")
            subprocess.run(
                [KUBELITE, "image", "pack", busybox, "-t", IMAGE],
                env=environment,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            yield
        finally:
            subprocess.run(
                [KUBELITE, "reset", "--yes", "--now"],
                env=environment,
                check=False,
                stdout=subprocess.DEVNULL,
            )
            daemon.wait(PATIENCE)


def namespaces(name: str) -> dict[str, str]:
    """Prepare the namespaces for a node at its usual paths. Returns the environment for it and its commands."""
    for place in ("/etc/kubelite", "/var/lib/kubelite", "/run/kubelite"):
        os.makedirs(place, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", f"kubelite-{name}", place], check=True)
    os.makedirs("/etc/kubelite/manifests")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    return {
        "PATH": f"{KUBELITE.parent}:{os.environ.get('PATH', os.defpath)}",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "KUBELITE_CGROUP_PARENT": f"kubelite-{name}-{os.getppid()}",
        "KUBELITE_LOG_DIR": "/run/kubelite/log",
        "KUBELITE_NODE_NAME": "node",
    }


def inside() -> None:
    """Runs in the namespaces: record, and write both files."""
    environment = namespaces("recording") | {"TERM": "xterm-256color", "PS1": f"\\[{MARK}\\]{PROMPT}"}
    with node(environment), tempfile.TemporaryDirectory() as folder:
        shutil.copy(REPO / "manifests" / "examples" / "web.yaml", folder)
        recorder = Recorder(Path(folder), environment)
        try:
            for command in COMMANDS:
                recorder.run(command)
        finally:
            recorder.close()
    CAST.write_text(cast(recorder.events), encoding="utf-8")
    SVG.write_text(drawn(CAST.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="deploy.docs.record", description=__doc__)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().inside:
        inside()
        return 0
    if os.geteuid() != 0:
        print("a node needs root: sudo python -m deploy.docs.record", file=sys.stderr)
        return 1
    apart = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*apart, sys.executable, "-m", "deploy.docs.record", "--inside"]
    return subprocess.run(command, cwd=REPO, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

"""The functions that the tour's stations use: print text, run commands, check claims, wait, and clean up.

A station runs real commands in a shell and prints them as a person would type them. Each claim has a check, which
compares what kubelite says with what the kernel shows.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import click

from kubelite.cli.errors import CliError

T = TypeVar("T")

NAMESPACE = "kubelite-tour"
IMAGES = "localhost/kubelite-tour/"
IMAGE = f"{IMAGES}busybox:1"
MANIFEST = "kubelite-tour.yaml"
SECONDS = 60.0  # deadline of whatever a station waits for
COMMAND_SECONDS = 120.0
LINES = 14  # default number of lines shown of a command's output
WIDTH = 100


class Missing(Exception):
    """A step cannot run on this machine; the message says what it needs."""


class Guide:
    """One run of the tour. Use it as a context manager: its exit removes everything that the tour created, also after
    an error."""

    def __init__(
        self, socket: str, *, waits: bool, markdown: bool = False, kills_daemon: bool = False
    ) -> None:
        self.waits = waits  # wait for Enter between the steps
        self.markdown = markdown  # write a page of Markdown, not for a terminal
        self.passed = 0
        self.failed: list[str] = []
        self.left_out: list[str] = []
        self.kills_daemon = kills_daemon  # show what survives the daemon
        self.directory = ""
        self.environment = {**os.environ, "KUBELITE_SOCKET": socket, "PATH": _path(), "LC_ALL": "C.UTF-8"}
        #: A station registers here how to undo what it creates outside the tour's pods and directory.
        self.undo = contextlib.ExitStack()

    def __enter__(self) -> Guide:
        self.directory = self.undo.enter_context(
            tempfile.TemporaryDirectory(prefix=f"kubelite-tour-{os.getpid()}-")
        )
        for remove in (self._remove_images, self._remove_objects):
            self.undo.callback(remove)
        self._remove_objects()  # left by a tour that was killed
        self._remove_images()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A second signal must not interrupt the removal. Every command in it has a deadline.
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
        try:
            if kind is not None:
                with contextlib.suppress(OSError):  # the terminal may be closed
                    print("tour: removing what it made …", file=sys.stderr, flush=True)
            self.undo.close()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # -- output ---------------------------------------------------------------------------------------------------

    def title(self, text: str) -> None:
        self._head(text, "#", "=")

    def step(self, text: str) -> None:
        """Begin a step. In an interactive tour, first wait for Enter."""
        if self.waits:
            click.prompt(
                click.style("Enter to go on", dim=True), default="", show_default=False, prompt_suffix=" "
            )
        self._head(text, "##", "-")

    def _head(self, text: str, mark: str, line: str) -> None:
        if self.markdown:
            print(f"{mark} {text}\n", flush=True)
        else:
            print(f"\n{click.style(text, bold=True)}\n{line * len(text)}\n", flush=True)

    def say(self, text: str) -> None:
        print(textwrap.fill(" ".join(text.split()), WIDTH, break_on_hyphens=False) + "\n", flush=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.markdown:
            for row in [head, ["---"] * len(head), *rows]:
                print(f"| {' | '.join(row)} |")
            print(flush=True)
            return
        titles = [word.partition(" (")[0].upper() + "".join(word.partition(" (")[1:]) for word in head]
        widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
        for row in [titles, *rows]:
            line = "   ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
            print(line.rstrip())
        print(flush=True)

    def _command(self, command: str, out: str, lines: int) -> None:
        """Print a command's output. Markdown also gets the command, which a terminal shows before it runs."""
        shown = out.splitlines()
        if self.markdown:
            print(f"```console\n$ {command}")
        for line in shown[:lines]:
            print(line.rstrip())
        if len(shown) > lines:
            print(f"… ({len(shown) - lines} more lines)")
        print("```\n" if self.markdown else "", flush=True)

    # -- commands and checks --------------------------------------------------------------------------------------

    def run(self, command: str, *, lines: int = LINES, fails: bool = False) -> str:
        """Run a command line in a shell, print it and its output, and return the output. At most `lines` lines are
        printed. Raises CliError if the command fails, unless `fails`."""
        if not self.markdown:
            print(f"$ {command}", flush=True)
        code, out = self.shell(command)
        self._command(command, out, lines)
        if code and not fails:
            raise CliError(f"tour: `{command}` failed with exit code {code}")
        return out

    def ask(self, command: str) -> str:
        """Run a command without printing it, and return its output. Raises CliError if it fails."""
        code, out = self.shell(command)
        if code:
            raise CliError(f"tour: `{command}` failed with exit code {code}: {out.strip()}")
        return out

    def background(self, command: str) -> None:
        """Print a command that the station itself runs in the background."""
        if not self.markdown:
            print(f"$ {command} &", flush=True)
        self._command(f"{command} &", "", 0)

    def write(self, name: str, text: str) -> None:
        """Write a file in the tour's directory, where commands run."""
        with open(f"{self.directory}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def shell(self, command: str) -> tuple[int, str]:
        """Run a command line in a shell without printing it. Returns its exit code and output."""
        try:
            done = subprocess.run(
                ["sh", "-c", command], env=self.environment, cwd=self.directory or None, text=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=COMMAND_SECONDS, check=False, errors="replace",
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise CliError(f"tour: `{command}` did not end within {COMMAND_SECONDS:g} s") from error
        return done.returncode, done.stdout

    def check(self, claim: str, held: object) -> None:
        """Print whether a claim holds, and count it."""
        if held:
            self.passed += 1
        else:
            self.failed.append(claim)
        mark = f"{'✓' if held else '✗'} {claim}"
        if self.markdown:
            print(f"{mark}\n", flush=True)
        else:
            print(click.style(mark, fg="green" if held else "red", bold=not held) + "\n", flush=True)

    @contextlib.contextmanager
    def optional(self, what: str) -> Any:
        """Enclose a step that not every machine can run. If it raises Missing, the rest is left out, with a message."""
        try:
            yield
        except Missing as missing:
            self.left_out.append(f"{what} {missing}")
            text = f"Left out: {what} {missing}."
            print((text if self.markdown else click.style(text, fg="yellow")) + "\n", flush=True)

    def needs(self, **programs: str) -> None:
        """Raise Missing unless these programs are installed. `programs`: name, with `_` for `-` → Debian's package."""
        for name, package in programs.items():
            program = name.replace("_", "-")
            if shutil.which(program, path=self.environment["PATH"]) is None:
                raise Missing(f"needs {program} (apt install {package})")

    # -- pods -----------------------------------------------------------------------------------------------------

    def apply(self, *pods: Mapping[str, Any]) -> None:
        """Write the pods into the manifest directory, and wait until they run."""
        self.write(MANIFEST, "---\n".join(f"{json.dumps(pod, indent=2)}\n" for pod in pods))
        self.run(f"kubelite apply -f {MANIFEST}")
        for pod in pods:
            name = pod["metadata"]["name"]
            self.until(partial(self._started, name), f"pod {name} to start")

    def delete(self) -> None:
        """Remove the pods of `apply`."""
        self.run(f"kubelite delete -f {MANIFEST}")

    def _started(self, name: str) -> bool:
        return self.phase(name) != "Pending"

    def phase(self, name: str) -> str:
        doc = self.pod(name)
        statuses = doc.get("status", {}).get("containerStatuses", ())
        ready = all("waiting" not in status.get("state", {}) for status in statuses)
        return doc["status"].get("phase", "") if ready and statuses else "Pending"

    def pod(self, name: str) -> Any:
        return json.loads(self.ask(f"kubelite get pod {name} -n {NAMESPACE} -o json"))

    def inspect(self, name: str) -> Any:
        return json.loads(self.ask(f"kubelite inspect {name} -n {NAMESPACE}"))

    def until(self, condition: Callable[[], T], what: str) -> T:
        """Return the condition's value as soon as it is true. Raises CliError after SECONDS."""
        end = time.monotonic() + SECONDS
        while not (found := condition()):
            if time.monotonic() > end:
                raise CliError(f"tour: waited {SECONDS:g} s in vain for {what}")
            time.sleep(0.05)
        return found

    def image(self) -> str:
        """Create the tour's small image from this machine's busybox, and return its name. The image is removed with
        everything else."""
        if IMAGE not in self.ask("kubelite images -o name"):
            busybox = static_busybox()
            if not busybox:
                raise CliError(
                    "tour: needs a busybox without libraries for its containers: apt install busybox-static"
                )
            self.run(f"kubelite image pack -t {IMAGE} {shlex.quote(busybox)}:/usr/bin/busybox")
        return IMAGE

    def _remove_images(self) -> None:
        """Remove the images with the tour's name. Results of build steps stay in the build cache."""
        code, out = self.shell("kubelite images -o name")
        names = [name for name in out.splitlines() if name.startswith(IMAGES)]
        if not code and names:
            self.shell(f"kubelite rmi {' '.join(map(shlex.quote, names))}")

    def _remove_objects(self) -> None:
        """Remove the tour's pods and their manifests."""
        code, out = self.shell(f"kubelite get pods -n {NAMESPACE} -o name")
        names = [line.removeprefix("pod/") for line in out.splitlines() if line.startswith("pod/")]
        if code or not names:
            return
        pods = (json.dumps(pod(name, container("c"))) for name in names)
        self.write("leftovers.json", "\n---\n".join(pods))
        self.shell("kubelite delete --ignore-not-found --now -f leftovers.json")


def _path() -> str:
    """Return PATH with the directory of this kubelite first, and the sbin directories last."""
    beside = os.path.dirname(sys.executable)
    return os.pathsep.join((beside, os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def static_busybox() -> str:
    """Return the path of a busybox that needs no libraries, "" if there is none."""
    for path in (shutil.which("busybox"), f"{sys.prefix}/lib/busybox/busybox"):
        if path and os.access(path, os.X_OK) and not _needs_interpreter(path):
            return path
    return ""


def _needs_interpreter(path: str) -> bool:
    """Whether the ELF file requests a dynamic linker (PT_INTERP, elf(5)). The check only looks for a linker's path."""
    with open(path, "rb") as file:
        return b"/ld-" in file.read(4096)


def pod(name: str, *containers: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """A pod of the tour."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec},
    }


def container(name: str, script: str = "exec sleep 3600", **fields: Any) -> dict[str, Any]:
    """A container that runs a shell script, with the tour's image."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        **fields,
    }

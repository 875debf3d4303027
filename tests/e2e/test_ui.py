"""`kubelite ui` on a terminal of 80×24, with a whole node."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pyte

from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import KUBELITE, Node
from tests.e2e.terminal import TIMEOUT, Terminal, on_terminal


class Seen:
    """The content of the terminal's screen."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.raw = ""
        self.screen = pyte.Screen(80, 24)
        self.stream = pyte.Stream(self.screen)

    def wait(self, condition: Callable[[str], object], what: str) -> str:
        until = time.monotonic() + TIMEOUT
        while True:
            self.terminal.read(0.1)
            self.stream.feed(self.terminal.seen)
            self.raw += self.terminal.seen
            self.terminal.seen = ""
            text = "\n".join(self.screen.display)
            if condition(text):
                return text
            if time.monotonic() > until:
                raise AssertionError(f"waited for {what}; the screen shows\n{text}")


def test_the_screens_of_the_ui(node: Node) -> None:
    busy = "trap 'exit 0' TERM; echo here I am; while :; do :; done"
    node.apply("web.yaml", pod("web", container(script=busy), container("side", script=SLEEP)))
    node.apply("bad.yaml", pod("bad", container(image="localhost/nothing:here")))
    node.wait_status("web", "Running")
    with on_terminal([*KUBELITE, "ui"], {**node.environ(), "TERM": "xterm-256color"}) as terminal:
        seen = Seen(terminal)
        first = seen.wait(
            lambda s: "web" in s and "ErrImageNeverPull" in s and "█" in s, "pods and their use"
        )
        assert "✕ 1 failing" in first and "● 1 running" in first and "/ Filter" in first and "? Keys" in first
        seen.wait(lambda s: "Try: main: imagePullPolicy is Never" in s, "what to do about the first pod")
        assert all(len(line.rstrip()) <= 80 for line in first.splitlines())
        terminal.type("/web\r")
        seen.wait(lambda s: "bad" not in s, "the filter")
        terminal.type("\r")
        seen.wait(lambda s: "side" in s and "CONTAINER" in s, "containers")
        terminal.type("l")
        seen.wait(lambda s: "here I am" in s, "the log")
        terminal.type("\x1b")
        seen.wait(lambda s: "CONTAINER" in s, "containers again")
        terminal.type("\r")
        processes = seen.wait(lambda s: "COMMAND" in s and "sh -c" in s, "processes")
        assert "  1 " in processes.replace("\n", " ") or " 1 " in processes
        terminal.type("\x1b")
        seen.wait(lambda s: "CONTAINER" in s, "containers again")
        terminal.type("x")
        seen.wait(lambda s: "exit leaves it" in s, "a shell")
        terminal.type("echo $((6 * 7)) $(hostname)\r")
        seen.wait(lambda s: "42 web" in s, "the shell's answer")
        seen.screen.reset()  # what was there before the shell is no sign that it has ended
        terminal.type("exit\r")
        seen.wait(lambda s: "CONTAINER" in s and "side" in s, "the screen again")
        terminal.type("q")
        assert terminal.wait() == 0


def test_a_terminal_of_eight_colours_gets_no_others(node: Node) -> None:
    node.apply("web.yaml", pod("web"))
    node.apply("bad.yaml", pod("bad", container(image="localhost/nothing:here")))
    node.wait_status("web", "Running")
    environ = {**node.environ(), "TERM": "linux"}
    environ.pop("COLORTERM", None)
    with on_terminal([*KUBELITE, "ui"], environ) as terminal:
        seen = Seen(terminal)
        seen.wait(lambda s: "ErrImageNeverPull" in s and "Try:" in s and "Running" in s, "pods")
        codes = {
            int(code or 0) for part in re.findall(r"\x1b\[([\d;]*)m", seen.raw) for code in part.split(";")
        }
        assert codes <= {*range(10), *range(22, 30), *range(30, 38), 39, *range(40, 48), 49}, codes
        colours = [char.fg for line in seen.screen.buffer.values() for char in line.values()]
        assert 0 < colours.count("red") < 60, "a mark and a word, not a wall"
        terminal.type("q")
        assert terminal.wait() == 0


def test_without_a_terminal_or_a_daemon_it_reports_an_error(node: Node) -> None:
    done = node.cli("ui", check=False)
    assert done.code == 1 and "needs a terminal" in done.err
    node.stop()
    done = node.cli("ui", check=False)
    assert done.code == 1 and "kubelite is not running" in done.err
    node.start()

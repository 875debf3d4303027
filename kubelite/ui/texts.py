"""Screens of text (a container's log, an explanation, a message, the keys), and the base class of all screens.

Requests to the daemon block, so they run in threads; only their results are handed to the screen.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, RichLog, Static

from kubelite.cli.errors import CliError
from kubelite.cli.names import PODS, path_of
from kubelite.diagnosis.health import LOOKS, Level
from kubelite.kube.json import Json
from kubelite.ui import model
from kubelite.ui.parts import BRAND
from kubelite.ui.session import Session

TAIL = 500  # lines of a log shown at first
KEPT = 5000  # lines of a log that can be scrolled back to


class NodeScreen(Screen[None]):
    """What all screens share: the session with the daemon, the title, and the key that goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,left,backspace", "back", "Back")]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def title_of(self) -> str | Text:
        return ""

    def say(self, text: str | Text, *, trouble: bool = False) -> None:
        """Set the title. An error is marked like a failing pod, so that it is recognisable without colour."""
        with contextlib.suppress(NoMatches):  # the screen is being removed
            title = self.query_one(".title", Static)
            if isinstance(text, str):
                words = f"{LOOKS[Level.FAILING].mark} {text}" if trouble else text
                text = Text.assemble((BRAND, "bold"), "  ", words)
                text.truncate(max(1, self.size.width - 2), overflow="ellipsis")
            title.update(text)
            title.set_class(trouble, "trouble")

    def action_back(self) -> None:
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()


class Log(NodeScreen):
    """Follow a container's log, across restarts of the container."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "hold", "Hold")]

    def __init__(self, session: Session, namespace: str, pod: str, container: str) -> None:
        super().__init__(session)
        self.where = (namespace, pod, container)
        self._left = threading.Event()
        self._said = ""  # the last error
        self._hang_up: Callable[[], None] = lambda: None

    def title_of(self) -> str:
        namespace, pod, container = self.where
        return f"log of {namespace}/{pod}{f' {container}' if container else ''}"

    def compose(self) -> ComposeResult:
        yield Static(classes="title")
        yield RichLog(max_lines=KEPT, min_width=1, wrap=True, markup=False, highlight=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.say(self.title_of())
        self.query_one(RichLog).focus()
        self.follow()

    def on_unmount(self) -> None:
        self._left.set()
        self._hang_up()

    def action_hold(self) -> None:
        log = self.query_one(RichLog)
        log.auto_scroll = not log.auto_scroll
        self.say(self.title_of() + ("" if log.auto_scroll else "  (held: space continues)"))

    @work(thread=True)
    def follow(self) -> None:
        namespace, pod, container = self.where
        query: Json = {"tailLines": TAIL} | ({"container": container} if container else {})
        path = f"{path_of(PODS, namespace, pod)}/log"
        while not self._left.is_set():
            try:
                response, self._hang_up = self.session.streams.stream(path, query={**query, "follow": "true"})
                if self._left.is_set():  # the screen was closed while the stream was opening
                    self._hang_up()
                self._said = ""
                self.app.call_from_thread(self.say, self.title_of())
                lines = model.Lines()
                for chunk in self.session.streams.chunks(response):
                    if self._left.is_set():
                        return
                    self.app.call_from_thread(self._add, lines.feed(chunk))
                if not self._left.is_set():
                    self.app.call_from_thread(self._add, lines.feed(b"", last=True))
            except CliError as error:
                if self._left.is_set():
                    return
                self.app.call_from_thread(self._trouble, str(error))
            query = {**query, "tailLines": 0}
            self._left.wait(1.0)

    def _trouble(self, words: str) -> None:
        """Write an error into the log, because the title is too short for it. A repeated error is written once."""
        self.say(self.title_of(), trouble=True)
        if words != self._said:
            self._said = words
            self._add([words])

    def _add(self, lines: list[str]) -> None:
        with contextlib.suppress(NoMatches):  # the screen is being removed
            log = self.query_one(RichLog)
            for line in lines:
                log.write(Text.from_ansi(line))


class Words(NodeScreen):
    """A screen that shows a text."""

    def __init__(self, session: Session, title: str, text: str = "") -> None:
        super().__init__(session)
        self._title, self._text = title, text

    def title_of(self) -> str:
        return self._title

    def compose(self) -> ComposeResult:
        yield Static(classes="title")
        yield RichLog(min_width=1, wrap=True, markup=False, highlight=False, auto_scroll=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.say(self.title_of())
        log = self.query_one(RichLog)
        log.focus()
        if self._text:
            log.write(self._text)


class Reason(Words):
    """The output of `kubelite why`."""

    def __init__(self, session: Session, namespace: str, pod: str) -> None:
        super().__init__(session, f"why {namespace}/{pod}")
        self.namespace, self.pod = namespace, pod

    def on_mount(self) -> None:
        super().on_mount()
        self.ask()

    @work(thread=True)
    def ask(self) -> None:
        from kubelite.cli.diagnosis.why import why_lines

        try:
            lines = why_lines(self.session.client.get(f"/kubelite/v1/why/{self.namespace}/{self.pod}"))
        except CliError as error:
            self.app.call_from_thread(self.say, str(error), trouble=True)
            return
        self.app.call_from_thread(self.query_one(RichLog).write, "\n".join(lines))


HELP = """\
Enter     open: a pod's containers, a container's processes
Esc ←     go back; drop the filter
↑ ↓ PgUp PgDn   move; Ctrl with Home or End: to the first or last
/         filter: show the rows that contain all the words
l         follow the container's log; space holds it
e         the pod's events
w         why the pod is in its state, and what to do next
x         a shell in the container (kubelite exec -it)
p         pods with problems only, or all
d         workloads with their pods: Deployments, Jobs and the like
s         sort by state, name, CPU, memory, restarts or age
q Ctrl-C  quit
✕ failing  ◐ waiting or not ready  ● running  ○ completed
The line before CPU shows the last seconds. All lines have
one scale, of which a full block is the end: 1, 2 or 5 times
a power of ten, at least a tenth of a core.
"""


class Help(ModalScreen[None]):
    """The keys; any key closes it."""

    def compose(self) -> ComposeResult:
        yield Static(HELP, id="help", markup=False)

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self.dismiss()

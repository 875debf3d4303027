"""The screens: tables of pods, containers, processes, events, looked at again every second; a log, a reason, the keys.

What takes time (the daemon's answer) runs in a thread of its own; only its result touches the screen.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple, cast

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.css.query import NoMatches
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, RichLog, Static

from kubelite.cli.errors import CliError
from kubelite.cli.names import PODS, path_of
from kubelite.kube.json import Json
from kubelite.ui import model
from kubelite.ui.model import Row

if TYPE_CHECKING:
    from kubelite.ui.app import Ui


LINE = 9  # blocks of a sparkline
TAIL = 500  # lines of a log to begin with
KEPT = 5000  # lines of a log that are kept


class Column(NamedTuple):
    name: str
    width: int  # 0: what the others leave


class Viewed(Screen[None]):
    """What all screens share: the title, the way back, the daemon."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,left,backspace", "back", "Back")]

    @property
    def ui(self) -> Ui:
        return cast("Ui", self.app)

    def title_of(self) -> str:
        return ""

    def say(self, text: str, *, trouble: bool = False) -> None:
        with contextlib.suppress(NoMatches):  # the screen is on its way out
            title = self.query_one(".title", Static)
            title.update(Text(text, no_wrap=True, overflow="ellipsis"))
            title.set_class(trouble, "trouble")

    def action_back(self) -> None:
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()


class TableScreen(Viewed):
    """A table that is looked at again and again; `/` filters it."""

    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    # priority: done before the next key is given to whoever has the focus, so that what is typed on is not lost
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", priority=True)
    ]

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Row] = []
        self.shown: list[Row] = []
        self._wide = 0

    def fetch(self) -> list[Row]:
        """In a thread: ask the daemon. Raises CliError."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        yield Static(classes="title")
        yield DataTable(cursor_type="row", cell_padding=0)
        yield Input(placeholder="words to look for; Enter keeps them, Escape drops them", id="filter")
        yield Footer(show_command_palette=False)

    @property
    def table(self) -> DataTable[Text]:
        return cast("DataTable[Text]", self.query_one(DataTable))

    def on_mount(self) -> None:
        self.say(self.title_of())
        self.query_one("#filter", Input).display = False
        self._columns()
        self.table.focus()
        self.set_interval(self.ui.interval, self.look)
        self.look()

    def on_resize(self, _: events.Resize) -> None:
        if self._wide and self.size.width != self._wide:
            self.table.clear(columns=True)
            self.shown = []
            self._columns()
            self.draw()

    def _columns(self) -> None:
        self._wide = self.size.width
        taken = sum(column.width for column in self.COLUMNS)
        for column in self.COLUMNS:
            width = column.width or max(8, self._wide - taken - 1)
            self.table.add_column(column.name, width=width, key=column.name)

    @work(thread=True, exclusive=True)
    def look(self) -> None:
        try:
            rows = self.fetch()
        except CliError as error:
            self.app.call_from_thread(self.say, str(error), trouble=True)
            return
        self.app.call_from_thread(self._looked, rows)

    def _looked(self, rows: list[Row]) -> None:
        self.found = rows
        if self.is_mounted:
            self.say(self.title_of())
            self.draw()

    def draw(self) -> None:
        """Bring the table to what was found; the cursor stays on its row."""
        table = self.table
        rows = model.chosen(self.found, self.query_one("#filter", Input).value)
        if [row.key for row in rows] == [row.key for row in self.shown]:
            for old, new in zip(self.shown, rows, strict=True):
                if old != new:
                    for column, text in zip(self.COLUMNS, self._texts(new), strict=True):
                        table.update_cell(new.key, column.name, text)
        else:
            here = self.selected()
            table.clear()
            for row in rows:
                table.add_row(*self._texts(row), key=row.key)
            keys = [row.key for row in rows]
            if here in keys:
                table.move_cursor(row=keys.index(here), animate=False)
        self.shown = rows

    def _texts(self, row: Row) -> list[Text]:
        style = "bold red" if row.trouble else ""
        widths = [column.width for column in self.COLUMNS]
        return [
            Text(model.cut(c, w - 1) if w else c, style=style) for c, w in zip(row.cells, widths, strict=True)
        ]

    def selected(self) -> str:
        """The key of the row that the cursor is on, "" in an empty table."""
        place = self.table.cursor_row
        return self.shown[place].key if 0 <= place < len(self.shown) else ""

    def on_data_table_row_selected(self, _: DataTable.RowSelected) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Enter."""

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        if field.has_focus:
            field.insert_text_at_cursor("/")
            return
        field.display = True
        self.set_focus(field)  # at once: what is typed on belongs to it

    def on_input_changed(self, _: Input.Changed) -> None:
        self.draw()

    def on_input_submitted(self, _: Input.Submitted) -> None:
        field = self.query_one("#filter", Input)
        field.display = bool(field.value)
        self.set_focus(self.table)

    def action_back(self) -> None:
        field = self.query_one("#filter", Input)
        if field.value or field.has_focus:
            field.value = ""
            field.display = False
            self.set_focus(self.table)
            return
        super().action_back()


class OfPods(TableScreen):
    """The keys that want a pod, and a container of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("l", "logs", "Logs"),
        Binding("e", "events", "Events"),
        Binding("w", "why", "Why"),
        Binding("x", "shell", "Shell"),
    ]

    def place(self) -> tuple[str, str, str] | None:
        """Namespace, pod and container ("" = the pod's first) of the cursor's row."""
        raise NotImplementedError

    def action_logs(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Log(*place))

    def action_events(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Events(*place[:2]))

    def action_why(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Reason(*place[:2]))

    def action_shell(self) -> None:
        """The terminal belongs to the shell until that ends."""
        place = self.place()
        if place is None:
            return
        namespace, pod, container = place
        command = [
            sys.executable,
            "-m",
            "kubelite",
            "--socket",
            self.ui.client.path,
            "exec",
            "-it",
            "-n",
            namespace,
            pod,
        ]
        command += ["-c", container] if container else []
        with self.app.suspend():
            sys.stdout.write(f"A shell in {namespace}/{pod} {container}: exit ends it.\n")
            sys.stdout.flush()
            if subprocess.run([*command, "--", "sh"], check=False).returncode not in (0, 130):
                with contextlib.suppress(EOFError, KeyboardInterrupt):
                    input("Enter goes back: ")
        self.app.refresh(layout=True)


class Pods(OfPods):
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("POD", 0), Column("READY", 6), Column("STATUS", 18), Column("RST", 4), Column("AGE", 7),
        Column("CPU", 7), Column("", LINE + 1), Column("MEM", 8),
    )  # fmt: skip

    def title_of(self) -> str:
        samples = self.ui.samples
        return model.headline(samples.node, len(self.found), samples.line("node", LINE))

    def fetch(self) -> list[Row]:
        self.ui.samples.add(self.ui.client.get("/kubelite/v1/usage"))
        table = self.ui.client.get(path_of(PODS, self.ui.namespace), table=True)
        return model.pod_rows(table, self.ui.samples, width=LINE)

    def place(self) -> tuple[str, str, str] | None:
        namespace, _, name = self.selected().partition("/")
        return (namespace, name, "") if name else None

    def action_open(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Containers(*place[:2]))


class Containers(OfPods):
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("CONTAINER", 16), Column("STATE", 18), Column("RST", 4), Column("AGE", 7), Column("CPU", 7),
        Column("", LINE + 1), Column("MEM", 6), Column("IMAGE", 0),
    )  # fmt: skip

    def __init__(self, namespace: str, pod: str) -> None:
        super().__init__()
        self.namespace, self.pod = namespace, pod

    def title_of(self) -> str:
        return f"pod {self.namespace}/{self.pod}"

    def fetch(self) -> list[Row]:
        self.ui.samples.add(self.ui.client.get("/kubelite/v1/usage"))
        pod = self.ui.client.get(path_of(PODS, self.namespace, self.pod))
        return model.container_rows(pod, self.ui.samples, time.time(), width=LINE)

    def place(self) -> tuple[str, str, str] | None:
        return self.namespace, self.pod, self.selected()

    def action_open(self) -> None:
        if container := self.selected():
            self.app.push_screen(Processes(self.namespace, self.pod, container))


class Processes(TableScreen):
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("PID", 7), Column("OUTSIDE", 9), Column("USER", 7), Column("S", 3), Column("CPU", 7),
        Column("MEM", 7), Column("THR", 5), Column("COMMAND", 0),
    )  # fmt: skip

    def __init__(self, namespace: str, pod: str, container: str) -> None:
        super().__init__()
        self.where = (namespace, pod, container)
        self._before: tuple[float, list[Json]] = (0.0, [])

    def title_of(self) -> str:
        namespace, pod, container = self.where
        count = f"{len(self.found)} process{'' if len(self.found) == 1 else 'es'}"
        return f"pod {namespace}/{pod}  container {container}  {count}"

    def fetch(self) -> list[Row]:
        found = self.ui.client.get("/kubelite/v1/processes/" + "/".join(self.where))["processes"]
        (then, before), now = self._before, time.monotonic()
        self._before = (now, found)
        return model.process_rows(before, found, now - then)


class Events(TableScreen):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "open", "Whole")]
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("AGE", 7), Column("TYPE", 9), Column("REASON", 18), Column("MESSAGE", 0),
    )  # fmt: skip

    def __init__(self, namespace: str, pod: str) -> None:
        super().__init__()
        self.namespace, self.pod = namespace, pod

    def title_of(self) -> str:
        return f"events of pod {self.namespace}/{self.pod}"

    def fetch(self) -> list[Row]:
        about = f"involvedObject.kind=Pod,involvedObject.name={self.pod}"
        path = f"/api/v1/namespaces/{self.namespace}/events"
        items = self.ui.client.get(path, query={"fieldSelector": about})["items"]
        rows = model.event_rows(items, time.time())
        return [Row(row.key, (*row.cells[:3], row.cells[4]), row.trouble) for row in rows]

    def action_open(self) -> None:
        """The whole message: a line of the table seldom has room for it."""
        if row := next((row for row in self.shown if row.key == self.selected()), None):
            self.app.push_screen(Words(f"{row.cells[2]} of pod {self.namespace}/{self.pod}", row.cells[3]))


class Log(Viewed):
    """A container's log, followed. A container that starts again is followed again."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "hold", "Hold")]

    def __init__(self, namespace: str, pod: str, container: str) -> None:
        super().__init__()
        self.where = (namespace, pod, container)
        self._left = threading.Event()
        self._said = ""  # the last trouble
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
        self.say(self.title_of() + ("" if log.auto_scroll else "  (held: space goes on)"))

    @work(thread=True)
    def follow(self) -> None:
        namespace, pod, container = self.where
        query: Json = {"tailLines": TAIL} | ({"container": container} if container else {})
        path = f"{path_of(PODS, namespace, pod)}/log"
        while not self._left.is_set():
            try:
                response, self._hang_up = self.ui.endless.stream(path, query={**query, "follow": "true"})
                if self._left.is_set():  # while it was asked for: nobody was there yet to hang up
                    self._hang_up()
                self._said = ""
                self.app.call_from_thread(self.say, self.title_of())
                lines = model.Lines()
                for chunk in self.ui.endless.chunks(response):
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
        """Say it where there is room, once."""
        self.say(self.title_of(), trouble=True)
        if words != self._said:
            self._said = words
            self._add([words])

    def _add(self, lines: list[str]) -> None:
        with contextlib.suppress(NoMatches):  # the screen is on its way out
            log = self.query_one(RichLog)
            for line in lines:
                log.write(Text.from_ansi(line))


class Words(Viewed):
    """A text, to be read."""

    def __init__(self, title: str, text: str = "") -> None:
        super().__init__()
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
    """What `kubelite why` says."""

    def __init__(self, namespace: str, pod: str) -> None:
        super().__init__(f"why {namespace}/{pod} is as it is")
        self.namespace, self.pod = namespace, pod

    def on_mount(self) -> None:
        super().on_mount()
        self.ask()

    @work(thread=True)
    def ask(self) -> None:
        from kubelite.cli.diagnosis.why import why_lines

        try:
            lines = why_lines(self.ui.client.get(f"/kubelite/v1/why/{self.namespace}/{self.pod}"))
        except CliError as error:
            self.app.call_from_thread(self.say, str(error), trouble=True)
            return
        self.app.call_from_thread(self.query_one(RichLog).write, "\n".join(lines))


HELP = """\
Enter     a pod's containers, a container's processes
Esc ←     back; drop the filter
↑ ↓ PgUp PgDn Home End   move
/         filter: rows that have all of these words
l         log of the container, followed; space holds it
e         events of the pod
w         why the pod is as it is, and what to do next
x         a shell in the container (kubelite exec -it)
q Ctrl-C  quit
Red rows are not as they should be. The line beside CPU is
its last seconds; a full block is its highest, or a tenth
of a core.
"""


class Help(ModalScreen[None]):
    """The keys; any key closes it."""

    def compose(self) -> ComposeResult:
        yield Static(HELP, id="help", markup=False)

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self.dismiss()

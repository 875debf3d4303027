"""Screens of tables: pods, containers, processes and events, each refreshed periodically.

Requests to the daemon block, so they run in threads; only their results are handed to the screen.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import ClassVar, cast

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static

from kubelite.cli.errors import CliError
from kubelite.cli.names import PODS, path_of
from kubelite.cli.output.rates import cores_text
from kubelite.diagnosis.health import LOOKS
from kubelite.kube.json import Json
from kubelite.ui import model
from kubelite.ui.layout import Column, fit, gap_of, placed
from kubelite.ui.model import Row
from kubelite.ui.parts import title, why
from kubelite.ui.reasons import Reasons
from kubelite.ui.session import Session
from kubelite.ui.texts import Log, NodeScreen, Reason, Words

LINE, LONG = 8, 16  # width of a CPU sparkline in characters, on narrow and on wide terminals
LINES = "lines"  # the column of the sparklines; its heading is their scale
WIDE = 120
MARGIN = 3  # characters of a screen line that a table cannot use: its padding and its scrollbar
PANEL = 5  # lines of the panel below the table; half as many more on terminals with more than 40 lines


class TableScreen(NodeScreen):
    """A table that is refreshed periodically; `/` filters its rows."""

    COLUMNS: ClassVar[tuple[Column, ...]] = ()
    # priority: the field has the focus before the next key arrives, so that no typed character is lost
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "filter", "Filter", key_display="/", priority=True)
    ]

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.found: list[Row] = []
        self.shown: list[Row] = []
        self._widths: tuple[int, ...] = ()
        self._heads: tuple[str, ...] = ()

    def fetch(self) -> list[Row]:
        """Ask the daemon; called in a thread. Raises CliError."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        yield Static(classes="title")
        yield DataTable(cursor_type="row", cell_padding=0)
        yield from self.below()
        yield Input(placeholder="filter words; Enter keeps the filter, Escape drops it", id="filter")
        yield Footer(show_command_palette=False)

    def below(self) -> ComposeResult:
        """Yield the widgets between the table and the footer."""
        yield from ()

    @property
    def table(self) -> DataTable[Text]:
        return cast("DataTable[Text]", self.query_one(DataTable))

    def on_mount(self) -> None:
        self.say(self.title_of())
        self.query_one("#filter", Input).display = False
        self.table.focus()
        self.set_interval(self.session.interval, self.refresh_rows)
        self.refresh_rows()

    def on_resize(self, _: events.Resize) -> None:
        if self._widths:
            self.draw()

    @property
    def _gap(self) -> int:
        return gap_of(self.size.width - MARGIN)

    @property
    def line(self) -> int:
        """The width of a CPU sparkline in characters."""
        return LONG if self.size.width >= WIDE else LINE

    @work(thread=True, exclusive=True)
    def refresh_rows(self) -> None:
        try:
            rows = self.fetch()
        except CliError as error:
            self.app.call_from_thread(self.say, str(error), trouble=True)
            return
        self.app.call_from_thread(self._refreshed, rows)

    def _refreshed(self, rows: list[Row]) -> None:
        self.found = rows
        if self.is_mounted:
            self.say(self.title_of())
            self.draw()

    def heads(self) -> tuple[str, ...]:
        """Return the columns' headings; the sparklines' heading is their scale."""
        scale = f"0–{cores_text(self.session.samples.top)}"
        return tuple(scale if one.name == LINES else one.name for one in self.COLUMNS)

    def rows(self) -> list[Row]:
        """Return the rows that match the filter, in order."""
        return model.chosen(self.found, self.query_one("#filter", Input).value)

    def draw(self) -> None:
        """Update the table with the rows found; the cursor stays on its row."""
        table, rows = self.table, self.rows()
        heads = self.heads()
        widths = fit(self.COLUMNS, [heads, *(row.cells for row in rows)], self.size.width - MARGIN)
        if (widths, heads) != (self._widths, self._heads):
            here, self._widths, self._heads = self.selected(), widths, heads
            table.clear(columns=True)
            self.shown = []
            for column, head, width in zip(self.COLUMNS, heads, widths, strict=True):
                if width:
                    shown = Text(placed(head, width, self._gap, right=column.right))
                    table.add_column(shown, width=width, key=column.name)
        else:
            here = self.selected()
        if [row.key for row in rows] == [row.key for row in self.shown]:
            for old, new in zip(self.shown, rows, strict=True):
                if old != new:
                    for (column, _), text in zip(self._columns(), self._texts(new), strict=True):
                        table.update_cell(new.key, column.name, text)
        else:
            table.clear()
            for row in rows:
                table.add_row(*self._texts(row), key=row.key)
            keys = [row.key for row in rows]
            if here in keys:
                table.move_cursor(row=keys.index(here), animate=False)
        self.shown = rows

    def _columns(self) -> list[tuple[Column, int]]:
        """Return the columns that are shown, with their widths."""
        return [(column, width) for column, width in zip(self.COLUMNS, self._widths, strict=True) if width]

    def _texts(self, row: Row) -> list[Text]:
        look = LOOKS[row.level] if row.level else None
        texts = []
        for column, text, width in zip(self.COLUMNS, row.cells, self._widths, strict=True):
            if width:
                style = look.colour if look and column.marked else ""
                texts.append(Text(placed(text, width, self._gap, right=column.right), style=style))
        return texts

    def selected(self) -> str:
        """Return the key of the row under the cursor, or "" if the table is empty."""
        place = self.table.cursor_row
        return self.shown[place].key if 0 <= place < len(self.shown) else ""

    def on_data_table_row_selected(self, _: DataTable.RowSelected) -> None:
        self.action_open()

    def action_open(self) -> None:
        """Open the selected row: Enter."""

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        if field.has_focus:
            field.insert_text_at_cursor("/")
            return
        field.display = True
        self.set_focus(field)  # at once: the next characters typed belong to the field

    def on_input_changed(self, _: Input.Changed) -> None:
        self.draw()
        self.say(self.title_of())

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


class PodTable(TableScreen):
    """A table whose rows are pods or containers, with the keys that act on them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("l", "logs", "Logs"),
        Binding("e", "events", "Events"),
        Binding("w", "why", "Why"),
        Binding("x", "shell", "Shell"),
    ]

    def below(self) -> ComposeResult:
        yield Static(id="why")

    def panel(self, text: Text) -> None:
        """Show a text below the table, if there is room."""
        panel = self.query_one("#why", Static)
        lines = PANEL if self.size.height <= 40 else PANEL * 3 // 2
        panel.styles.height = lines + 1
        panel.display = self.size.height >= 16
        panel.update(text)

    def place(self) -> tuple[str, str, str] | None:
        """Return namespace, pod and container ("": the pod's first) of the row under the cursor."""
        raise NotImplementedError

    def action_logs(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Log(self.session, *place))

    def action_events(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Events(self.session, *place[:2]))

    def action_why(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Reason(self.session, *place[:2]))

    def action_shell(self) -> None:
        """Open a shell, which owns the terminal until it exits."""
        place = self.place()
        if place is None:
            return
        namespace, pod, container = place
        command = [
            sys.executable,
            "-P",  # do not import a package of this name from the current directory
            "-m",
            "kubelite",
            "--socket",
            self.session.client.path,
            "exec",
            "-it",
            "-n",
            namespace,
            pod,
        ]
        command += ["-c", container] if container else []
        with self.app.suspend():
            sys.stdout.write(f"Shell in {namespace}/{pod} {container}; exit leaves it.\n")
            sys.stdout.flush()
            if subprocess.run([*command, "--", "sh"], check=False).returncode not in (0, 130):
                with contextlib.suppress(EOFError, KeyboardInterrupt):
                    input("Press Enter to go back: ")
        self.app.refresh(layout=True)


class Pods(PodTable):
    """All pods, failing ones first. The panel below the table explains the selected pod's state."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,left,backspace", "back", "Back", show=False),  # clears the filter
        Binding("p", "problems", "Problems"),
        Binding("s", "sort", "Sort"),
        Binding("d", "app.workloads", "Workloads", show=False),  # no room at 80 columns; the help names it
    ]
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", marked=True), Column("POD", least=18, shrinks=True), Column("READY"),
        Column("STATUS", marked=True), Column("RST", drop=3, right=True), Column("AGE", drop=4, right=True),
        Column(LINES, drop=6), Column("CPU", drop=1, right=True), Column("MEM", drop=2, right=True),
        Column("MEM%", drop=5, right=True),
        Column("IP", drop=7), Column("WHY", least=30, rest=True),
    )  # fmt: skip

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.reasons = Reasons(session.client.get)
        self.sort = 0
        self.only_problems = False

    def title_of(self) -> Text:
        width = self.size.width
        head = model.headline(self.session.samples, self.found, max(10, min(30, width // 8)))
        return title(head, width - MARGIN + 1, self._view())

    def _view(self) -> str:
        parts = [f"by {model.SORTS[self.sort][0]}"] if self.sort else []
        parts += ["problems only"] if self.only_problems else []
        parts += [f"filter: {word}"] if (word := self.query_one("#filter", Input).value) else []
        return ", ".join(parts)

    def fetch(self) -> list[Row]:
        samples = self.session.samples
        samples.add(self.session.client.get("/kubelite/v1/usage"))
        table = self.session.client.get(path_of(PODS, self.session.namespace), table=True)
        rows = model.pod_rows(table, samples, self.reasons.short, width=self.line)
        self.reasons.refresh(model.in_order(rows, 0), self.selected())
        return model.pod_rows(table, samples, self.reasons.short, width=self.line)

    def rows(self) -> list[Row]:
        rows = [row for row in super().rows() if row.trouble or not self.only_problems]
        return model.in_order(rows, self.sort)

    def draw(self) -> None:
        super().draw()
        self.explain()

    def on_data_table_row_highlighted(self, _: DataTable.RowHighlighted) -> None:
        self.explain()

    def explain(self) -> None:
        """Show below the table why the selected pod is in its state."""
        row = next((row for row in self.shown if row.key == self.selected()), None)
        self.panel(why(row, self.reasons.of(row.key) if row else {}, len(self.found), self.size.width - 2))

    def action_sort(self) -> None:
        self.sort = (self.sort + 1) % len(model.SORTS)
        self._changed()

    def action_problems(self) -> None:
        self.only_problems = not self.only_problems
        self._changed()

    def _changed(self) -> None:
        self.draw()
        self.say(self.title_of())
        self.table.move_cursor(row=0, animate=False)

    def place(self) -> tuple[str, str, str] | None:
        namespace, _, name = self.selected().partition("/")
        return (namespace, name, "") if name else None

    def action_open(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Containers(self.session, *place[:2]))


class Containers(PodTable):
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", marked=True), Column("CONTAINER", least=16, shrinks=True), Column("STATE", marked=True),
        Column("RST", drop=1, right=True), Column("AGE", drop=2, right=True), Column(LINES, drop=6),
        Column("CPU", right=True), Column("MEM", right=True), Column("MEM%", drop=4, right=True),
        Column("PORTS", drop=5),
        Column("IMAGE", least=8, rest=True),
    )  # fmt: skip

    def __init__(self, session: Session, namespace: str, pod: str) -> None:
        super().__init__(session)
        self.namespace, self.pod = namespace, pod
        self._reasons = Reasons(session.client.get)
        self._pod: Row | None = None

    def title_of(self) -> str:
        return f"pod {self.namespace}/{self.pod}"

    def fetch(self) -> list[Row]:
        self.session.samples.add(self.session.client.get("/kubelite/v1/usage"))
        pod = self.session.client.get(path_of(PODS, self.namespace, self.pod))
        self._pod = model.pod_row(pod, time.time())
        self._reasons.refresh([self._pod], self._pod.key)
        return model.container_rows(pod, self.session.samples, time.time(), width=self.line)

    def draw(self) -> None:
        super().draw()
        self.panel(
            why(self._pod, self._reasons.of(self._pod.key) if self._pod else {}, 1, self.size.width - 2)
        )

    def place(self) -> tuple[str, str, str] | None:
        return self.namespace, self.pod, self.selected()

    def action_open(self) -> None:
        if container := self.selected():
            self.app.push_screen(Processes(self.session, self.namespace, self.pod, container))


class Processes(TableScreen):
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("PID", right=True), Column("OUTSIDE", drop=1, right=True), Column("USER", right=True), Column("S"),
        Column("CPU", right=True), Column("MEM", right=True), Column("THR", drop=2, right=True),
        Column("COMMAND", least=8, rest=True),
    )  # fmt: skip

    def __init__(self, session: Session, namespace: str, pod: str, container: str) -> None:
        super().__init__(session)
        self.where = (namespace, pod, container)
        self._before: tuple[float, list[Json]] = (0.0, [])

    def title_of(self) -> str:
        namespace, pod, container = self.where
        count = f"{len(self.found)} process{'' if len(self.found) == 1 else 'es'}"
        return f"pod {namespace}/{pod}  container {container}  {count}"

    def fetch(self) -> list[Row]:
        found = self.session.client.get("/kubelite/v1/processes/" + "/".join(self.where))["processes"]
        (then, before), now = self._before, time.monotonic()
        self._before = (now, found)
        return model.process_rows(before, found, now - then)


class Events(TableScreen):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "open", "Whole")]
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", marked=True), Column("AGE", right=True), Column("REASON", marked=True),
        Column("MESSAGE", least=8, rest=True),
    )  # fmt: skip

    def __init__(self, session: Session, namespace: str, pod: str) -> None:
        super().__init__(session)
        self.namespace, self.pod = namespace, pod

    def title_of(self) -> str:
        return f"events of pod {self.namespace}/{self.pod}"

    def fetch(self) -> list[Row]:
        about = f"involvedObject.kind=Pod,involvedObject.name={self.pod}"
        path = f"/api/v1/namespaces/{self.namespace}/events"
        items = self.session.client.get(path, query={"fieldSelector": about})["items"]
        return model.event_rows(items, time.time())

    def action_open(self) -> None:
        """Show the whole message, which seldom fits a row of the table."""
        if row := next((row for row in self.shown if row.key == self.selected()), None):
            self.app.push_screen(
                Words(self.session, f"{row.cells[2]} of pod {self.namespace}/{self.pod}", row.cells[3])
            )

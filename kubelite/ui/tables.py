"""Screens of tables: pods, containers, processes and events, each refreshed periodically.

Requests to the daemon block, so they run in threads; only their results are handed to the screen.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import ClassVar, NamedTuple, cast

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Input, Static

from kubelite.cli.errors import CliError
from kubelite.cli.names import PODS, path_of
from kubelite.kube.json import Json
from kubelite.ui import model
from kubelite.ui.model import Row
from kubelite.ui.session import Session
from kubelite.ui.texts import Log, NodeScreen, Reason, Words

LINE = 9  # characters of a sparkline


class Column(NamedTuple):
    name: str
    width: int  # 0: the width that the other columns leave


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
        self._wide = 0

    def fetch(self) -> list[Row]:
        """Ask the daemon; called in a thread. Raises CliError."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        yield Static(classes="title")
        yield DataTable(cursor_type="row", cell_padding=0)
        yield Input(placeholder="filter words; Enter keeps the filter, Escape drops it", id="filter")
        yield Footer(show_command_palette=False)

    @property
    def table(self) -> DataTable[Text]:
        return cast("DataTable[Text]", self.query_one(DataTable))

    def on_mount(self) -> None:
        self.say(self.title_of())
        self.query_one("#filter", Input).display = False
        self._columns()
        self.table.focus()
        self.set_interval(self.session.interval, self.refresh_rows)
        self.refresh_rows()

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

    def draw(self) -> None:
        """Update the table with the rows found; the cursor stays on its row."""
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
            "-P",  # not a package of this name in the current directory
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
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("POD", 0), Column("READY", 6), Column("STATUS", 18), Column("RST", 4), Column("AGE", 7),
        Column("CPU", 7), Column("", LINE + 1), Column("MEM", 8),
    )  # fmt: skip

    def title_of(self) -> str:
        samples = self.session.samples
        return model.headline(samples.node, len(self.found), samples.line("node", LINE))

    def fetch(self) -> list[Row]:
        self.session.samples.add(self.session.client.get("/kubelite/v1/usage"))
        table = self.session.client.get(path_of(PODS, self.session.namespace), table=True)
        return model.pod_rows(table, self.session.samples, width=LINE)

    def place(self) -> tuple[str, str, str] | None:
        namespace, _, name = self.selected().partition("/")
        return (namespace, name, "") if name else None

    def action_open(self) -> None:
        if (place := self.place()) is not None:
            self.app.push_screen(Containers(self.session, *place[:2]))


class Containers(PodTable):
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("CONTAINER", 16), Column("STATE", 18), Column("RST", 4), Column("AGE", 7), Column("CPU", 7),
        Column("", LINE + 1), Column("MEM", 6), Column("IMAGE", 0),
    )  # fmt: skip

    def __init__(self, session: Session, namespace: str, pod: str) -> None:
        super().__init__(session)
        self.namespace, self.pod = namespace, pod

    def title_of(self) -> str:
        return f"pod {self.namespace}/{self.pod}"

    def fetch(self) -> list[Row]:
        self.session.samples.add(self.session.client.get("/kubelite/v1/usage"))
        pod = self.session.client.get(path_of(PODS, self.namespace, self.pod))
        return model.container_rows(pod, self.session.samples, time.time(), width=LINE)

    def place(self) -> tuple[str, str, str] | None:
        return self.namespace, self.pod, self.selected()

    def action_open(self) -> None:
        if container := self.selected():
            self.app.push_screen(Processes(self.session, self.namespace, self.pod, container))


class Processes(TableScreen):
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("PID", 7), Column("OUTSIDE", 9), Column("USER", 7), Column("S", 3), Column("CPU", 7),
        Column("MEM", 7), Column("THR", 5), Column("COMMAND", 0),
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
        Column("AGE", 7), Column("TYPE", 9), Column("REASON", 18), Column("MESSAGE", 0),
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
        rows = model.event_rows(items, time.time())
        return [Row(row.key, (*row.cells[:3], row.cells[4]), row.trouble) for row in rows]

    def action_open(self) -> None:
        """Show the whole message, which seldom fits a row of the table."""
        if row := next((row for row in self.shown if row.key == self.selected()), None):
            self.app.push_screen(
                Words(self.session, f"{row.cells[2]} of pod {self.namespace}/{self.pod}", row.cells[3])
            )

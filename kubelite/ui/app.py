"""The application: its style, its global keys, and the first screen."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from kubelite.ui.session import Session
from kubelite.ui.tables import Pods
from kubelite.ui.texts import Help


class Ui(App[None]):
    """`kubelite ui`. Screens are stacked: Enter opens the selected row, Escape goes back."""

    TITLE = "kubelite"
    ENABLE_COMMAND_PALETTE = False
    # Use only the eight ANSI colours and the terminal's own background, so that its theme decides how they look.
    CSS = """
    Screen, Screen:ansi { background: ansi_default; color: ansi_default; }
    .title { height: auto; padding: 0 1; margin-bottom: 1; background: ansi_default; color: ansi_default; }
    .title.trouble { color: ansi_red; }
    DataTable, DataTable:focus { height: 1fr; overflow-x: hidden; scrollbar-size: 1 1; padding: 0 1;
        background: ansi_default; color: ansi_default; background-tint: ansi_default 0%; scrollbar-color: ansi_blue;
        scrollbar-background: ansi_default; scrollbar-color-hover: ansi_blue; scrollbar-color-active: ansi_blue;
        scrollbar-background-hover: ansi_default; scrollbar-background-active: ansi_default; }
    DataTable > .datatable--header, DataTable:focus > .datatable--header { background: ansi_default;
        color: ansi_default; text-style: bold underline; background-tint: ansi_default 0%; }
    DataTable > .datatable--even-row, DataTable > .datatable--odd-row { background: ansi_default; }
    DataTable > .datatable--hover { background: ansi_default; text-style: underline; }
    DataTable > .datatable--cursor, DataTable:focus > .datatable--cursor { background: ansi_blue; color: ansi_white;
        text-style: bold; }
    #why { height: 5; padding: 0 1; border-top: solid ansi_blue; background: ansi_default; color: ansi_default; }
    RichLog, RichLog:focus { height: 1fr; scrollbar-size: 1 1; padding: 0 1; background: ansi_default;
        color: ansi_default; background-tint: ansi_default 0%; scrollbar-color: ansi_blue;
        scrollbar-background: ansi_default; }
    #filter, #filter:focus { dock: bottom; height: 1; border: none; padding: 0 1; background: ansi_default;
        color: ansi_default; background-tint: ansi_default 0%; }
    #filter > .input--cursor { background: ansi_default; color: ansi_default; text-style: reverse; }
    #filter > .input--placeholder { color: ansi_default; text-style: dim; }
    Footer, FooterKey, FooterKey:hover { background: ansi_default; color: ansi_default; }
    FooterKey .footer-key--key, FooterKey .footer-key--description { background: ansi_default; color: ansi_default; }
    FooterKey .footer-key--key { color: ansi_blue; text-style: bold; }
    Help { align: center middle; background: ansi_default; }
    #help { width: 64; height: auto; max-height: 100%; border: round ansi_blue; padding: 0 1;
        background: ansi_default; color: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Keys", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(self, socket: str, *, namespace: str | None, interval: float) -> None:
        super().__init__(ansi_color=True)
        self._session = Session(socket, namespace=namespace, interval=interval)

    def on_mount(self) -> None:
        self.push_screen(Pods(self._session))

    def action_workloads(self) -> None:
        from kubelite.ui.workloads import Workloads  # imported on first use

        self.push_screen(Workloads(self._session))

    def action_help(self) -> None:
        if not isinstance(self.screen, Help):
            self.push_screen(Help())

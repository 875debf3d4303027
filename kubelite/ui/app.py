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
    CSS = """
    Screen { background: $background; }
    .title { height: 1; background: $primary-darken-2; color: $text; padding: 0 1; text-style: bold; }
    .trouble { background: $error; }
    DataTable { height: 1fr; scrollbar-size: 1 1; }
    RichLog { height: 1fr; scrollbar-size: 1 1; padding: 0 1; }
    #filter { dock: bottom; height: 1; border: none; padding: 0 1; }
    Help { align: center middle; }
    #help { width: 62; height: auto; max-height: 100%; border: round $primary; padding: 0 1; background: $surface; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("question_mark", "help", "Keys", key_display="?"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]

    def __init__(self, socket: str, *, namespace: str | None, interval: float) -> None:
        super().__init__()
        self._session = Session(socket, namespace=namespace, interval=interval)

    def on_mount(self) -> None:
        self.push_screen(Pods(self._session))

    def action_help(self) -> None:
        if not isinstance(self.screen, Help):
            self.push_screen(Help())

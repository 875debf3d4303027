"""The application: its style, its connection to the daemon, and the screen it begins with."""

from __future__ import annotations

from typing import ClassVar

from textual.app import App
from textual.binding import Binding, BindingType

from kubelite.cli.transport.client import Client
from kubelite.ui.model import Samples
from kubelite.ui.screens import Help, Pods

TIMEOUT = 10.0  # seconds that an answer may take


class Ui(App[None]):
    """`kubelite ui`. Screens lie on each other: Enter opens what the cursor is on, Escape goes back."""

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
        self.client = Client(socket, timeout=TIMEOUT)
        self.endless = Client(socket)  # for streams, which are quiet as long as they please
        self.namespace = namespace
        self.interval = interval
        self.samples = Samples()

    def on_mount(self) -> None:
        self.push_screen(Pods())

    def action_help(self) -> None:
        if not isinstance(self.screen, Help):
            self.push_screen(Help())

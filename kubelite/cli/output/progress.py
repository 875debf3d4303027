"""Progress bars of a pull, one per layer. Imported only on a terminal (rich takes longer to import than the rest)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from kubelite.kube.json import Json


@contextlib.contextmanager
def bars() -> Iterator[Callable[[Json], None]]:
    """Yield a function that takes each progress event."""
    columns = (
        TextColumn("{task.description:<12}"),
        TextColumn("{task.fields[state]:<11}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def layer(digest: str, total: int) -> TaskID:
            if digest not in tasks:
                short = digest.partition(":")[2][:12]
                tasks[digest] = progress.add_task(short, total=total or None, state="waiting")
            return tasks[digest]

        def show(event: Json) -> None:
            kind = event.get("event")
            if kind == "resolved":
                for entry in event["layers"]:
                    layer(entry["digest"], entry["size"])
            elif kind == "layer":
                total = event.get("total") or 0
                done = total if event["state"] in ("done", "present") else event.get("current", 0)
                progress.update(
                    layer(event["digest"], total), completed=done, total=total or None, state=event["state"]
                )
            elif kind in ("retry", "warning"):
                progress.console.print(f"{kind}: {event['message']}")

        yield show

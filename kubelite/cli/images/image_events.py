"""Responses to image requests: progress events, shown as they arrive. The last event is the result."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kubelite.cli.errors import CliError, ServerError
from kubelite.cli.images.images import size
from kubelite.cli.output.foreign import harmless
from kubelite.cli.output.waiting import waiting

if TYPE_CHECKING:
    from kubelite.kube.json import Json


def encode(document: Json) -> bytes:
    import json

    return json.dumps(document).encode()


def finish(images_: list[Json], verb: str) -> None:
    for image in images_:
        print(f"{verb} {image.get('reference') or image['id']}")


def show(
    events: Iterator[Json],
    *,
    quiet: bool = False,
    output: str | None = None,
    doing: str = "asking the node",
    logged: bool = True,
) -> list[Json]:
    """Show progress as it arrives, and return the images. With output "json" each event is printed as a line; otherwise
    progress is shown as bars on a terminal, and as lines elsewhere if `logged`. `doing` is shown before the first
    event. Raises ServerError if the request failed."""
    if output == "json":
        return _result(_told(events), lambda event: None)
    if quiet:
        return _result(events, lambda event: None)
    if sys.stderr.isatty():
        return _with_bars(events, doing)
    return _result(events, _plain if logged else lambda event: None)


def _with_bars(events: Iterator[Json], doing: str) -> list[Json]:
    """Show a status line until the first event arrives, then a progress bar for each layer."""
    with waiting(doing):
        first = next(events, None)
    if first is None or first.get("event") in ("done", "error"):
        return _result(iter([first] if first is not None else ()), lambda event: None)
    from kubelite.cli.output.progress import bars

    with bars() as show:
        return _result(itertools.chain((first,), events), show)


def _result(events: Iterator[Json], show: Any) -> list[Json]:
    for event in events:
        if event.get("event") == "done":
            found: list[Json] = event.get("images") or []
            return found
        if event.get("event") == "error":
            raise ServerError(event["status"])
        show(event)
    raise CliError("error: kubelite closed the connection before the image was complete")


def _told(events: Iterator[Json]) -> Iterator[Json]:
    import json

    for event in events:
        print(json.dumps(event, separators=(",", ":")), flush=True)
        yield event


def _plain(event: Json) -> None:
    """Print progress for a log file: one line per complete layer."""
    kind = event.get("event")
    if kind == "resolved":
        print(f"{event['reference']}: {len(event['layers'])} layers, {size(event['size'])}", file=sys.stderr)
    elif kind == "layer" and event.get("state") in ("done", "present", "mounted"):
        print(f"{event['digest'].partition(':')[2][:12]}: {event['state']}", file=sys.stderr)
    elif kind in ("retry", "warning"):
        print(f"{kind}: {harmless(event['message'])}", file=sys.stderr)

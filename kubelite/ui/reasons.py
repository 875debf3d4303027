"""The reasons of pods' states. Each refresh requests only a few, even when a hundred pods fail at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kubelite.cli.errors import CliError
from kubelite.kube.json import Json
from kubelite.ui.model import Row, why_text

EACH = 4  # requests per refresh
FRESH = 15.0  # seconds after which an answer is requested again; at once if the pod has changed
SELECTED = 3.0  # the same for the selected pod: the events of its probes do not change the pod


class Reasons:
    """Answers of `kubelite why`, by namespace/name. Used in one thread at a time."""

    def __init__(self, ask: Callable[[str], Json], now: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._now = now
        self._known: dict[str, tuple[float, str, Json]] = {}  # key → when, the pod's version, the answer

    @property
    def short(self) -> dict[str, str]:
        """The last answers in one line each, by namespace/name."""
        return {key: why_text(answer) for key, (_, _, answer) in self._known.items()}

    def of(self, key: str) -> Json:
        """Return the last answer about a pod, or {}."""
        return self._known[key][2] if key in self._known else {}

    def refresh(self, rows: Sequence[Row], selected: str) -> None:
        """Request the reasons of the selected pod, then of pods with problems, unknown and oldest answers first."""
        alive = {row.key for row in rows}
        for gone in self._known.keys() - alive:
            del self._known[gone]
        wanted = [row for row in rows if (row.trouble or row.key == selected) and self._stale(row, selected)]
        wanted.sort(key=lambda row: (row.key != selected, self._known.get(row.key, (0.0,))[0]))
        for row in wanted[:EACH]:
            try:
                answer = self._ask(f"/kubelite/v1/why/{row.key}")
            except CliError:  # the pod or the daemon is gone, which the table shows
                continue
            self._known[row.key] = (self._now(), row.version, answer)

    def _stale(self, row: Row, selected: str) -> bool:
        at, version, _ = self._known.get(row.key, (-FRESH, "", {}))
        return version != row.version or self._now() - at >= (SELECTED if row.key == selected else FRESH)

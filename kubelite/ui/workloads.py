"""The screen of workloads: each with its state, and its pods below it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType

from kubelite.api.kube.printers import pod_cells
from kubelite.cli.diagnosis.why_workload import lines, why_workload
from kubelite.cli.errors import CliError
from kubelite.cli.names import PODS, WORKLOADS, Type, path_of
from kubelite.cli.workloads.changing import Target
from kubelite.diagnosis.health import LOOKS, level
from kubelite.diagnosis.workload_states import Workload, grouped
from kubelite.kube.durations import age_of
from kubelite.kube.json import Json
from kubelite.ui.layout import Column
from kubelite.ui.model import Row
from kubelite.ui.tables import Containers, TableScreen
from kubelite.ui.texts import Reason, Words

INDENT = "  "  # before the name of a pod


def workload_rows(workloads: Sequence[Json], pods: Sequence[Json], now: float) -> list[Row]:
    """Return a row for each workload that nothing controls, what is wrong first, and one for each of its pods below it:
    mark, name, ready, state, age, and what is wrong. The keys are kind/namespace/name. `now`: Unix seconds."""
    cells = {pod["metadata"]["uid"]: [str(cell) for cell in pod_cells(pod, now)] for pod in pods}
    levels = [(pod, level(cells[uid][2], cells[uid][1])) for pod, uid in zip(pods, cells, strict=True)]
    by_uid = {pod["metadata"]["uid"]: found for pod, found in levels}
    rows = []
    for one in grouped(workloads, levels):
        rows.append(_workload_row(one, now))
        for pod in one.pods:
            uid, found = pod["metadata"]["uid"], by_uid[pod["metadata"]["uid"]]
            name, ready, status, _, age = cells[uid][:5]
            texts = (LOOKS[found].mark, INDENT + name, ready, status, age, "")
            rows.append(Row(f"pod/{pod['metadata'].get('namespace', 'default')}/{name}", texts, found))
    return rows


def _workload_row(one: Workload, now: float) -> Row:
    metadata, state = one.doc["metadata"], one.state
    kind, _, name = one.name.partition("/")
    namespace = metadata.get("namespace", "default")
    shown = one.name if namespace == "default" else f"{namespace}/{one.name}"
    age = age_of(metadata.get("creationTimestamp"), now)
    texts = (LOOKS[state.level].mark, shown, state.ready, state.words, age, state.because)
    return Row(f"{kind}/{namespace}/{name}", texts, state.level)


class Workloads(TableScreen):
    """All workloads and their pods. Enter opens a pod, or explains a workload."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("w", "why", "Why"),
    ]
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("", marked=True), Column("WORKLOAD", least=18, shrinks=True), Column("READY", right=True),
        Column("STATE", marked=True), Column("AGE", drop=1, right=True), Column("WHY", least=20, rest=True),
    )  # fmt: skip

    def title_of(self) -> str:
        count = sum(not row.key.startswith("pod/") for row in self.found)
        return f"{count} workload{'' if count == 1 else 's'}"

    def fetch(self) -> list[Row]:
        client, namespace = self.session.client, self.session.namespace
        found = [
            {"kind": kind.kind, **item}
            for kind in WORKLOADS
            for item in client.get(path_of(kind, namespace))["items"]
        ]
        return workload_rows(found, client.get(path_of(PODS, namespace))["items"], time.time())

    def _place(self) -> tuple[str, str, str] | None:
        """Return kind, namespace and name of the row under the cursor."""
        kind, _, rest = self.selected().partition("/")
        namespace, _, name = rest.partition("/")
        return (kind, namespace, name) if name else None

    def action_open(self) -> None:
        place = self._place()
        if place is not None and place[0] == "pod":
            self.app.push_screen(Containers(self.session, *place[1:]))
        else:
            self.action_why()

    def action_why(self) -> None:
        place = self._place()
        if place is None:
            return
        if place[0] == "pod":
            self.app.push_screen(Reason(self.session, *place[1:]))
        else:
            self._explain(*place)

    @work(thread=True, exclusive=True, group="why")
    def _explain(self, word: str, namespace: str, name: str) -> None:
        """Ask in a thread, then show the answer."""
        kind = next(one for one in WORKLOADS if one.kind.lower() == word)
        try:
            text = "\n".join(self._answer(kind, namespace, name))
        except CliError as error:
            text = str(error)
        self.app.call_from_thread(self._explained, f"{word} {namespace}/{name}", text)

    def _answer(self, kind: Type, namespace: str, name: str) -> list[str]:
        client = self.session.client
        doc = client.get(path_of(kind, namespace, name))
        return lines(why_workload(client, Target(kind, doc)))

    def _explained(self, title: str, text: str) -> None:
        if self.is_mounted:
            self.app.push_screen(Words(self.session, title, text))

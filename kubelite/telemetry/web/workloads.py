"""The section of workloads: each with its state and its pods, what is wrong first. A node without workloads does not
import this module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape

from kubelite.diagnosis.health import Level
from kubelite.diagnosis.workload_states import Workload, controller_uid, grouped
from kubelite.kube.durations import age_of
from kubelite.kube.json import Json
from kubelite.telemetry.web import public
from kubelite.telemetry.web.facts import PodFacts, short_image
from kubelite.telemetry.web.frame import advised, mark, table


@dataclass(frozen=True, slots=True)
class WorkloadFacts:
    """A row of the table of workloads. `pods`: the worst first; `images`: of its template, without registries."""

    workload: Workload
    age: str
    images: tuple[str, ...]
    pods: Sequence[PodFacts]

    @property
    def namespace(self) -> str:
        return str(self.workload.doc["metadata"].get("namespace", "default"))


def workload_facts(
    workloads: Sequence[Json], pods: Mapping[str, Json], facts: Iterable[PodFacts], now: float
) -> list[WorkloadFacts]:
    """Return the workloads that nothing controls. `pods`: by uid; `now`: Unix seconds."""
    by_uid = {pod.uid: pod for pod in facts}
    levels = [(doc, by_uid[uid].level) for uid, doc in pods.items() if uid in by_uid and controller_uid(doc)]
    found = []
    for one in grouped(workloads, levels):
        state = one.state._replace(because=public.without_paths(one.state.because))
        metadata = one.doc["metadata"]
        mine = [by_uid[pod["metadata"]["uid"]] for pod in one.pods]
        found.append(
            WorkloadFacts(
                one._replace(state=state),
                age_of(metadata.get("creationTimestamp"), now),
                tuple(dict.fromkeys(short_image(image) for image in _images(one.doc))),
                sorted(mine, key=lambda pod: (list(Level).index(pod.level), pod.name)),
            )
        )
    return found


def with_workloads(pods: Iterable[PodFacts], workloads: Iterable[WorkloadFacts]) -> list[PodFacts]:
    """Return the pods with the names of their workloads."""
    names = {pod.uid: one.workload.name for one in workloads for pod in one.pods}
    return [replace(pod, workload=names.get(pod.uid, "")) for pod in pods]


def _images(doc: Json) -> list[str]:
    spec = doc.get("spec") or {}
    spec = (spec.get("jobTemplate") or {}).get("spec") or spec
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    return [str(container.get("image", "")) for container in containers]


def cards_of(workloads: Iterable[WorkloadFacts]) -> list[str]:
    """Return the cards of workloads that need attention by themselves: those whose failing pods have cards of their own
    are left out."""
    return [
        _card(one)
        for one in workloads
        if one.workload.state.level == Level.FAILING and not any(p.level == Level.FAILING for p in one.pods)
    ]


def _card(one: WorkloadFacts) -> str:
    state, doc = one.workload.state, one.workload.doc
    flag = "" if one.namespace == "default" else f" -n {one.namespace}"
    said = f'<p class="because">{escape(state.because)}</p>' if state.because else ""
    return (
        f'<li id="a-{escape(doc["metadata"]["uid"])}" class="card {state.level}"><h3>{_name(one)}</h3>'
        f"<p>{mark(state.level, state.words)} <small>{escape(state.ready)}, {escape(one.age)} old</small></p>{said}"
        f'<p class="try"><span>Try</span> {advised(f"kubelite why {one.workload.name}{flag}")}</p></li>'
    )


def section(workloads: Sequence[WorkloadFacts]) -> str:
    """Return the section as HTML."""
    columns = (
        ("Workload", "name"),
        ("State", "state"),
        ("Ready", "n"),
        ("Age", "n"),
        ("Pods", "of"),
        ("Image", "image"),
    )
    rows = [
        (
            f' id="w-{escape(one.workload.doc["metadata"]["uid"])}" class="{one.workload.state.level}"',
            _row(one),
        )
        for one in workloads
    ]
    return (
        f'<section id="workloads" aria-labelledby="w-h"><h2 id="w-h">Workloads <small>{len(rows)}</small></h2>'
        f"{table('Workloads', columns, rows)}</section>"
    )


def _row(one: WorkloadFacts) -> list[str]:
    state = one.workload.state
    because = f" <small>{escape(state.because)}</small>" if state.because else ""
    return [
        _name(one), mark(state.level, state.words) + because, escape(state.ready), escape(one.age), _pods(one),
        escape(", ".join(one.images)),
    ]  # fmt: skip


def _name(one: WorkloadFacts) -> str:
    kind, _, name = one.workload.name.partition("/")
    return f"<b>{escape(name)}</b> <small>{escape(kind)} · {escape(one.namespace)}</small>"


def _pods(one: WorkloadFacts) -> str:
    """Return the pods, folded; the fold says how many there are of each level."""
    if not one.pods:
        return ""
    counts: dict[Level, int] = {}
    for pod in one.pods:
        counts[pod.level] = counts.get(pod.level, 0) + 1
    said = " ".join(mark(level, f"{count} {level}") for level, count in counts.items())
    listed = "".join(
        f'<li><a href="{escape(pod.path)}">{escape(pod.name)}</a> {mark(pod.level, pod.status)}</li>'
        for pod in one.pods
    )
    uid = escape(one.workload.doc["metadata"]["uid"])
    return f'<details id="wp-{uid}"><summary>{said}</summary><ul>{listed}</ul></details>'

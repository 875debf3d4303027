"""Collects the data of the web pages from the node. Every document is filtered by `public.py` first."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from kubelite.diagnosis.advice import advice
from kubelite.diagnosis.health import Level
from kubelite.kube.json import Json
from kubelite.kube.objects import WORKLOADS
from kubelite.telemetry.node_view import NodeView
from kubelite.telemetry.sampling.machine import machine
from kubelite.telemetry.sampling.sampler import Sample, Snapshot
from kubelite.telemetry.web import public
from kubelite.telemetry.web.facts import PodFacts, Question, Use, event_facts, pod_facts
from kubelite.telemetry.web.node_page import NodeFacts, node_page
from kubelite.telemetry.web.pod_page import pod_page
from kubelite.telemetry.web.recent import Recent
from state.store import Record

EVENTS = 20  # newest events shown


def node_answer(agent: NodeView, snapshot: Snapshot, recent: Recent, asked: Question) -> str:
    """Return the page of the node."""
    now = time.time()
    docs = [public.pod(record.doc) for record in agent.store.list("Pod")]
    events = [public.event(record.doc) for record in agent.store.list("Event")]
    by_pod = _by_pod(events)
    uses = {sample.target.uid: use_of(sample) for sample in snapshot.pods}
    pods = [_pod(agent, doc, by_pod.get(doc["metadata"]["uid"], []), now=now) for doc in docs]
    pods = [_measured(pod, uses, recent) for pod in pods]
    found = [record.doc for kind in sorted(WORKLOADS) for record in agent.store.list(kind)]
    cards, section = [], ""
    if found:
        from kubelite.telemetry.web import workloads

        by_uid = {doc["metadata"]["uid"]: doc for doc in docs}
        facts = workloads.workload_facts(found, by_uid, pods, now)
        cards, section = workloads.cards_of(facts), workloads.section(facts)
        pods = workloads.with_workloads(pods, facts)
    ready, why = agent.ready()
    node = NodeFacts(
        name=agent.node_name,
        problem="" if ready else public.without_paths(why),
        cores=machine().cores,
        memory=snapshot.root.memory.get("MemTotal", 0),
        points=recent.points(""),
        used=recent.memory(""),
        manifests=_manifests(agent),
        images=_images(agent, docs),
    )
    shown = event_facts(events, now, most=EVENTS)
    return node_page(node, pods, shown, asked, cards=cards, workloads=section)


def pod_answer(
    agent: NodeView, record: Record, snapshot: Snapshot, recent: Recent, rates: Mapping[str, int]
) -> str:
    """Return the page of a pod. `rates`: nanocores by cgroup."""
    now, uid = time.time(), record.uid
    doc = public.pod(record.doc)
    events = [public.event(one.doc) for one in agent.store.list("Event", record.namespace)]
    mine = _by_pod(events).get(uid, [])
    uses = {sample.target.uid: use_of(sample) for sample in snapshot.pods if sample.target.uid == uid}
    by_container = {}
    for sample in snapshot.containers:
        if sample.target.uid == uid:
            rate = rates.get(sample.target.cgroup)
            by_container[sample.target.container] = use_of(sample)._replace(
                cpu=None if rate is None else rate / 1e9
            )
    return pod_page(
        agent.node_name,
        doc,
        _measured(_pod(agent, doc, mine, now=now), uses, recent),
        uses=by_container,
        events=event_facts(mine, now, most=EVENTS),
        steps=agent.tracer.steps(uid),
        now=now,
        logs=bool(agent.settings.web_token_file),
    )


def use_of(sample: Sample) -> Use:
    spec = sample.limits.spec
    cpu = spec.cpu_quota / spec.cpu_period if spec.cpu_quota > 0 and spec.cpu_period else 0.0
    return Use(cpu, sample.stats.memory.limit or 0, sample.stats.memory.working_set)


def _pod(agent: NodeView, doc: Json, events: list[Json], *, now: float) -> PodFacts:
    found = pod_facts(doc, now, events)
    if found.level in (Level.FAILING, Level.WAITING):
        return replace(found, advice=tuple(advice(doc, events, agent.has_image)))
    return found


def _measured(pod: PodFacts, uses: Mapping[str, Use], recent: Recent) -> PodFacts:
    return replace(pod, use=uses.get(pod.uid, Use()), points=tuple(recent.points(pod.uid)))


def _by_pod(events: Iterable[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = {}
    for event in events:
        found.setdefault((event.get("involvedObject") or {}).get("uid", ""), []).append(event)
    return found


def _manifests(agent: NodeView) -> list[tuple[str, str]]:
    """Return the name of each file with an error, and the line and field of its first error. The error's message may
    quote the file, so it is not shown."""
    found = []
    for state in agent.sources.states():
        problem = next((one for one in state.problems if one.kind != "unsupported"), None)
        if problem is not None:
            line = f"line {problem.line}" if problem.line else ""
            found.append((state.file.rpartition("/")[2], ", ".join(filter(None, (line, problem.field)))))
    return found


def _images(agent: NodeView, docs: Iterable[Json]) -> list[tuple[str, int, int]]:
    """Return (name, bytes (0: not on the node), number of pods) of each image that pods name."""
    named = Counter(
        image
        for doc in docs
        for image in {
            str(one.get("image", ""))
            for part in ("initContainers", "containers")
            for one in doc["spec"].get(part) or ()
        }
    )
    sizes: dict[str, int] = {}
    for image in agent.images():
        for name in (image.get("reference", ""), image.get("shortName", "")):
            sizes[name] = image.get("size", 0)
    return [(name, sizes.get(_tagged(name), 0), count) for name, count in sorted(named.items())]


def _tagged(name: str) -> str:
    """Return an image's name as the node records it: with the tag latest if it has neither a tag nor a digest."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"

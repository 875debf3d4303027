"""Converts pods and events into the values that the pages show.

The documents must have been filtered by `public.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kubelite.api.kube.printers import event_object, pod_cells
from kubelite.diagnosis.health import ORDER, Level, level
from kubelite.kube.durations import human_duration
from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.telemetry.web.recent import Point

#: A pod's name in kubelet's messages: name_namespace(uid).
_FULL_NAME = re.compile(r"\b([a-z0-9.-]+)_[a-z0-9-]+\([0-9a-f-]{36}\)")
_STATUSES = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")


class Use(NamedTuple):
    """The limits and usage of a pod or container, in CPUs and bytes. A limit of 0: no limit; usage None: not
    measured."""

    cpu_limit: float = 0.0
    memory_limit: int = 0
    memory: int | None = None
    cpu: float | None = None


NO_USE = Use()


@dataclass(frozen=True, slots=True)
class PodFacts:
    """A row of the table of pods. `created`: Unix seconds; `advice`: the sentences of `kubelite why`; `because`: the
    observed problem, in words; `workload`: what it belongs to, as in `deployment/web`."""

    namespace: str
    name: str
    uid: str
    level: Level
    status: str
    ready: str
    restarts: str
    age: str
    created: float
    ip: str
    ports: tuple[str, ...]
    images: tuple[str, ...]
    advice: tuple[str, ...] = ()
    because: str = ""
    workload: str = ""
    use: Use = NO_USE
    points: tuple[Point, ...] = ()

    @property
    def path(self) -> str:
        return f"/pods/{self.namespace}/{self.name}"

    @property
    def cores(self) -> float:
        """Return the number of CPUs in use; 0 if it is not known."""
        return self.points[-1].cores if self.points else 0.0

    @property
    def words(self) -> str:
        """Return the text in which a search looks for its words, in lower case."""
        parts = (
            self.namespace,
            self.name,
            self.workload,
            self.status,
            self.level,
            self.ip,
            *self.images,
            *self.ports,
        )
        return " ".join(parts).lower()


class EventFacts(NamedTuple):
    at: float
    age: str
    warning: bool
    reason: str
    about: str
    path: str  # path of the pod's page; "" if the event is not about a pod
    message: str
    times: int


class Question(NamedTuple):
    """The query of a request: words to search for, a level, a namespace, a column to sort by, and the direction."""

    words: str = ""
    level: str = ""
    namespace: str = ""
    sort: str = ""
    reverse: bool = False


SORTS = ("state", "name", "restarts", "age", "cpu", "memory")
LONGEST = 100  # maximum characters of a search


def question(query: Mapping[str, str]) -> Question:
    """Parse the parameters of a query string. Unknown values are ignored."""
    sort = query.get("sort", "")
    wanted = query.get("level", "")
    return Question(
        query.get("q", "")[:LONGEST].strip(),
        wanted if wanted in list(Level) else "",
        query.get("ns", "")[:253],
        sort if sort in SORTS else "",
        query.get("desc", "") == "1",
    )


def pod_facts(doc: Json, now: float, events: Sequence[Json]) -> PodFacts:
    """Return the values of a pod without its advice and usage. `now`: Unix seconds; `events`: the pod's events."""
    meta, spec = doc["metadata"], doc.get("spec") or {}
    name, ready, status, restarts, age, ip = (str(cell) for cell in pod_cells(doc, now)[:6])
    containers = spec.get("containers") or ()
    found = Level.FAILING if doc.get("status", {}).get("phase") == "Failed" else level(status, ready)
    return PodFacts(
        namespace=meta.get("namespace", "default"),
        name=name,
        uid=meta["uid"],
        level=found,
        status="Not ready" if status == "Running" and found is Level.WAITING else status,
        ready=ready,
        restarts=restarts,
        age=age,
        created=parse_time(meta.get("creationTimestamp")) or now,
        ip="" if ip == "<none>" else ip,
        ports=tuple(text for one in containers for text in port_texts(one)),
        images=tuple(dict.fromkeys(short_image(str(one.get("image", ""))) for one in containers)),
        because=because(doc, events) if found in (Level.FAILING, Level.WAITING) else "",
    )


def port_texts(container: Json) -> list[str]:
    """Return a container's ports as text: `8080`, `8081→8080` with a host port, `53/UDP`."""
    texts = []
    for port in container.get("ports") or ():
        inner, host, protocol = (
            port.get("containerPort", ""),
            port.get("hostPort"),
            port.get("protocol", "TCP"),
        )
        outer = f"{host}→" if host and host != inner else ""
        texts.append(f"{outer}{inner}{'' if protocol == 'TCP' else '/' + protocol}")
    return texts


def short_image(image: str) -> str:
    """Return an image's name without its registry and path."""
    return image.rpartition("/")[2] or image


def because(doc: Json, events: Sequence[Json]) -> str:
    """Return the observed problem of a pod: a container's error, else the pod's message, else the newest warning."""
    status = doc.get("status") or {}
    found = [one for key in _STATUSES for one in status.get(key) or ()]
    for one in found:
        if text := _trouble(one):
            return f"{one['name']}: {text}" if len(found) > 1 else text
    if status.get("message"):
        return str(status["message"])
    warnings = [e for e in events if e.get("type") == "Warning" and e.get("message")]
    newest = max(warnings, key=lambda e: str(e.get("lastTimestamp")), default={})
    return str(newest.get("message", "")).strip()


def _trouble(status: Json) -> str:
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    if waiting.get("reason") == "CrashLoopBackOff" and ended:
        return ended_text(ended)
    if waiting.get("message"):
        return str(waiting["message"])
    if "terminated" in state and ended.get("exitCode"):
        return ended_text(ended)
    return ""


def ended_text(ended: Json) -> str:
    """Describe how a container ended: `Error, exit code 3`."""
    reason, message = str(ended.get("reason") or "ended"), str(ended.get("message", ""))
    code = f"exit code {ended.get('exitCode', 0)}" if not ended.get("signal") else f"signal {ended['signal']}"
    return f"{reason}, {code}" + (f": {message}" if message else "")


def event_facts(events: Iterable[Json], now: float, *, most: int) -> list[EventFacts]:
    """Return the `most` newest events, the newest first. `now`: Unix seconds."""
    found = []
    for doc in events:
        at = parse_time(doc.get("lastTimestamp")) or parse_time(doc.get("eventTime")) or 0.0
        about = doc.get("involvedObject") or {}
        where = f"/pods/{about.get('namespace', 'default')}/{about.get('name', '')}"
        found.append(
            EventFacts(
                at,
                human_duration(now - at),
                doc.get("type") == "Warning",
                str(doc.get("reason", "")),
                _about(doc, about),
                where if about.get("kind") == "Pod" else "",
                _FULL_NAME.sub(r"\1", str(doc.get("message", "")).strip()),
                int(doc.get("count") or 1),
            )
        )
    return sorted(found, key=lambda one: -one.at)[:most]


def _about(doc: Json, about: Json) -> str:
    """Return the name of an event's object, for a manifest without its directory."""
    if about.get("kind") == "Manifest":
        return str(about.get("name", "")).rpartition("/")[2]
    return str(about.get("name", "")) if about.get("kind") == "Pod" else event_object(doc)


def chosen(pods: Sequence[PodFacts], asked: Question) -> list[PodFacts]:
    """Return the pods that match the query, in its order. By default, pods with problems come first."""
    words = asked.words.lower().split()
    found = [
        pod
        for pod in pods
        if (not asked.level or pod.level == asked.level)
        and (not asked.namespace or pod.namespace == asked.namespace)
        and all(word in pod.words for word in words)
    ]
    found.sort(key=lambda pod: (pod.namespace, pod.name))
    keys = {
        "": lambda pod: ORDER[pod.level],
        "state": lambda pod: ORDER[pod.level],
        "name": lambda pod: (pod.name, pod.namespace),
        "restarts": lambda pod: int(pod.restarts.partition(" ")[0]),
        "age": lambda pod: -pod.created,
        "cpu": lambda pod: pod.cores,
        "memory": lambda pod: pod.use.memory or 0,
    }
    found.sort(key=keys[asked.sort], reverse=asked.reverse)
    return found

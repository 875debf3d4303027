"""The page of one pod: its state and the reasons, its containers, resource usage, events and starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from kubelite.diagnosis.health import Level, level
from kubelite.kube.durations import human_duration
from kubelite.kube.json import Json
from kubelite.kube.times import parse_time
from kubelite.node.model.resources import in_units
from kubelite.telemetry.web.charts import bytes_text, chart, cores_text, top_of
from kubelite.telemetry.web.facts import EventFacts, PodFacts, Use, ended_text, port_texts
from kubelite.telemetry.web.frame import advised, mark, page, table
from kubelite.telemetry.web.node_page import age_and_restarts, events_section, memory_cell
from kubelite.telemetry.web.starts import starts, starts_section
from manifests.types.quantity import Quantity

_KINDS = (
    ("initContainers", "initContainerStatuses", "init"),
    ("containers", "containerStatuses", ""),
    ("ephemeralContainers", "ephemeralContainerStatuses", "debug"),
)


def pod_page(
    node: str,
    doc: Json,
    pod: PodFacts,
    *,
    uses: Mapping[str, Use],
    events: Sequence[EventFacts],
    steps: Sequence[Json],
    now: float,
    logs: bool,
) -> str:
    """Return the page. `doc`: the pod's document, filtered by public.py; `uses`: container → usage; `now`: Unix
    seconds; `logs`: whether to link to the logs."""
    ages = [human_duration(now - start.at) for start in starts(steps)]
    body = (
        f'<div id="live"><nav aria-label="Back"><a href="/">← all pods</a></nav><section class="summary">'
        f'<h1>{escape(pod.name)} <small>{escape(pod.namespace)}</small></h1><p class="said" role="status">'
        f"{mark(pod.level, pod.status)}</p><p>{escape(pod.ready)} ready · {age_and_restarts(pod)}</p>"
        f"{_facts(doc, pod)}</section>{_why(pod)}{_containers(doc, pod, uses, now, logs=logs)}{_use(pod)}"
        f'<div class="below">{events_section(events, whose=False)}{starts_section(steps, ages)}</div></div>'
    )
    return page(f"{pod.status} · {pod.namespace}/{pod.name} · kubelite", node, body)


def _facts(doc: Json, pod: PodFacts) -> str:
    status, spec = doc.get("status") or {}, doc.get("spec") or {}
    facts = [
        ("IP", pod.ip + (" (the node's)" if spec.get("hostNetwork") and pod.ip else "")),
        ("Ports", ", ".join(pod.ports)),
        ("QoS", str(status.get("qosClass", ""))),
        ("Restart policy", str(spec.get("restartPolicy", "Always"))),
        ("Priority", str(spec.get("priorityClassName") or "")),
        ("Volumes", str(len(spec.get("volumes") or ()) or "")),
    ]
    shown = "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in facts if text)
    return f'<dl class="facts">{shown}</dl>'


def _why(pod: PodFacts) -> str:
    if not pod.advice and not pod.because:
        return ""
    said = f'<p class="because">{escape(pod.because)}</p>' if pod.because else ""
    todo = "".join(f'<p class="try"><span>Try</span> {advised(one)}</p>' for one in pod.advice)
    card = f'<div class="card {pod.level}">{said}{todo}</div>'
    return f'<section aria-labelledby="w-h"><h2 id="w-h">Why</h2>{card}</section>'


def _containers(doc: Json, pod: PodFacts, uses: Mapping[str, Use], now: float, *, logs: bool) -> str:
    columns = (
        ("Container", "name"), ("State", "state"), ("Ready", "n"), ("Restarts", "n"), ("CPU", "n"),
        ("Memory", "memory"), ("Ports", "ports"), ("Image", "image"), *((("Log", ""),) if logs else ()),
    )  # fmt: skip
    status, rows = doc.get("status") or {}, []
    for specs, found, kind in _KINDS:
        known = {one["name"]: one for one in status.get(found) or ()}
        for spec in (doc.get("spec") or {}).get(specs) or ():
            one, use = known.get(spec["name"], {}), uses.get(spec["name"], Use())
            use = _limited(use, spec)
            label = f" <small>{kind}</small>" if kind else ""
            cells = [
                f"<b>{escape(spec['name'])}</b>{label}",
                state_cell(one, now, init=kind == "init"),
                "yes" if one.get("ready") else "no",
                str(one.get("restartCount", 0)),
                _cpu_cell(use),
                memory_cell(use.memory, use.memory_limit)
                or _limit(bytes_text(use.memory_limit), use.memory_limit),
                escape(", ".join(port_texts(spec))),
                escape(str(spec.get("image", ""))),
            ]
            if logs:
                where = f"{pod.path}/log/{spec['name']}"
                cells.append(f'<a href="{escape(where)}" aria-label="log of {escape(spec["name"])}">log</a>')
            rows.append(("", cells))
    return (
        f'<section aria-labelledby="c-h"><h2 id="c-h">Containers <small>{len(rows)}</small></h2>'
        f"{table('Containers', columns, rows)}</section>"
    )


def _limited(use: Use, spec: Json) -> Use:
    """Add limits from the manifest, for a container that does not run."""
    limits = (spec.get("resources") or {}).get("limits") or {}
    cpu, memory = (
        in_units(name, Quantity(limits[name])) if name in limits else 0 for name in ("cpu", "memory")
    )
    return use._replace(cpu_limit=use.cpu_limit or cpu / 1000, memory_limit=use.memory_limit or memory)


def _cpu_cell(use: Use) -> str:
    limit = _limit(cores_text(use.cpu_limit), use.cpu_limit)
    return f"{cores_text(use.cpu)} {limit}" if use.cpu is not None else limit


def _limit(text: str, limit: float) -> str:
    return f"<small>of {text}</small>" if limit else ""


def state_cell(status: Json, now: float, *, init: bool = False) -> str:
    """Return a container's state as HTML, for a container that waits to restart with the end of its last instance."""
    state = status.get("state") or {}
    if running := state.get("running"):
        well = status.get("ready") or (init and status.get("started") is not False)
        since = parse_time(running.get("startedAt"))
        age = f" <small>for {human_duration(now - since)}</small>" if since is not None else ""
        return mark(Level.RUNNING if well else Level.WAITING, "Running" if well else "Not ready") + age
    if ended := state.get("terminated"):
        done = not ended.get("exitCode") and not ended.get("signal")
        return mark(Level.COMPLETED if done else Level.FAILING, ended_text(ended))
    waiting = state.get("waiting") or {}
    reason = str(waiting.get("reason") or "Waiting")
    before = (status.get("lastState") or {}).get("terminated")
    last = f" <small>last: {escape(ended_text(before))}</small>" if before else ""
    said = f' <small class="said">{escape(str(waiting["message"]))}</small>' if waiting.get("message") else ""
    return mark(level(reason, "0/1"), reason) + (last or said)


def _use(pod: PodFacts) -> str:
    if pod.use.memory is None:
        return ""
    cores = [(point.at, point.cores) for point in pod.points]
    memory = [(point.at, float(point.memory)) for point in pod.points]
    top_cores = top_of([value for _, value in cores] + [pod.use.cpu_limit], 0.01)
    top_memory = _power(
        max([value for _, value in memory] + [float(pod.use.memory_limit), float(pod.use.memory)])
    )
    return (
        '<section aria-labelledby="u-h"><h2 id="u-h">Use</h2><div class="charts">'
        + chart(
            "CPU", cores, top_cores, pod.use.cpu_limit,
            (cores_text(pod.cores) if cores else "", cores_text(top_cores), cores_text(pod.use.cpu_limit)),
        )
        + chart(
            "Memory", memory, top_memory, float(pod.use.memory_limit),
            (bytes_text(pod.use.memory), bytes_text(top_memory), bytes_text(pod.use.memory_limit)),
        )
        + "</div></section>"
    )  # fmt: skip


def _power(value: float) -> float:
    """Return the end of a scale of bytes: the lowest power of two, from 1 MiB on, that is at least `value`."""
    top = float(1 << 20)
    while top < value:
        top *= 2
    return top

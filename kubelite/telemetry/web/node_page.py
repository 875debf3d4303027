"""The page of the node: problems and their causes, then all pods, then events and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import urlencode

from kubelite.diagnosis.health import LOOKS, Level, counts, sentence
from kubelite.telemetry.web.charts import SHOWN, bar, bytes_text, cores_text, image_size, line, top_of
from kubelite.telemetry.web.facts import EventFacts, PodFacts, Question, chosen
from kubelite.telemetry.web.frame import advised, mark, page, table
from kubelite.telemetry.web.recent import Point

CARDS = 12  # number of problems that are shown at first; the others are folded


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """The node's own data on the page. `problem`: why the node is not ready, or ""; `cores` and `memory` (bytes): those
    of the machine; `used`: bytes of memory in use; `manifests`: (file, position of its error); `images`: (name, bytes,
    number of pods)."""

    name: str
    problem: str
    cores: float
    memory: int
    points: Sequence[Point]
    used: int | None
    manifests: Sequence[tuple[str, str]] = ()
    images: Sequence[tuple[str, int, int]] = ()


def node_page(
    node: NodeFacts,
    pods: Sequence[PodFacts],
    events: Sequence[EventFacts],
    asked: Question,
    *,
    cards: Sequence[str] = (),
    workloads: str = "",
) -> str:
    """`cards`: of workloads that need attention; `workloads`: the section of all workloads. Both are HTML."""
    found = counts(pod.level for pod in pods)
    worst = next((f"{count} {one} · " for one, count in found.items() if count and one == Level.FAILING), "")
    body = (
        f'<div id="live"><section class="summary" aria-label="Summary">{_state(node, found)}{_machine(node)}</section>'
        f"{_attention(node, pods, cards)}{workloads}{_pods(pods, asked, found)}"
        f'<div class="below">{events_section(events)}{_images(node)}</div></div>'
    )
    return page(f"{worst}{node.name} · kubelite", node.name, body)


def _state(node: NodeFacts, found: dict[Level, int]) -> str:
    ready = (
        mark(Level.FAILING, f"not ready: {node.problem}") if node.problem else mark(Level.RUNNING, "ready")
    )
    tiles = "".join(
        f'<li><a class="tile {one}" data-soft href="/?level={one}#pods"><b>{count}</b>'
        f'<span><i aria-hidden="true">{LOOKS[one].mark}</i> {one}</span></a></li>'
        for one, count in found.items()
    )
    return (
        f'<h1>Node {escape(node.name)} <span class="ready">{ready}</span></h1>'
        f'<p class="said" role="status">{escape(sentence(found))}</p><ul class="tiles">{tiles}</ul>'
    )


def _machine(node: NodeFacts) -> str:
    cores = [point.cores for point in node.points]
    lines = []
    if cores:
        said = f"{cores_text(cores[-1])} of {node.cores:g} CPUs"
        lines.append(("CPU", said, line(cores[-SHOWN:], max(node.cores, *cores)), f"0 – {node.cores:g} CPUs"))
    else:
        lines.append(("CPU", f"{node.cores:g} CPUs", "", ""))
    if node.used is not None and node.memory:
        said = f"{bytes_text(node.used)} of {bytes_text(node.memory)}"
        lines.append(("Memory", said, bar(node.used / node.memory, "memory used"), ""))
    shown = "".join(
        f"<div><dt>{name}</dt><dd><b>{escape(said)}</b>{drawn}<small>{scale}</small></dd></div>"
        for name, said, drawn, scale in lines
    )
    return f'<dl class="machine">{shown}</dl>'


def _attention(node: NodeFacts, pods: Sequence[PodFacts], workloads: Sequence[str]) -> str:
    """Show what needs attention: manifests with errors, failing workloads and pods, and waiting pods for which there is
    advice. `workloads`: cards."""
    cards = [
        f'<li id="m-{escape(file)}" class="card failing"><h3>{mark(Level.FAILING, file)}</h3><p>The manifest has an '
        f"error{f' at {escape(where)}' if where else ''}; what it defined before stays as it is.</p>"
        '<p class="try"><span>Try</span> <code>kubelite get manifests</code></p></li>'
        for file, where in node.manifests
    ]
    cards += workloads
    cards += [_card(*same) for same in _alike(chosen(pods, Question())).values()]
    more = ""
    if len(cards) > CARDS:
        hidden = "".join(cards[CARDS:])
        more = f'<summary>{len(cards) - CARDS} more</summary><ul class="cards">{hidden}</ul>'
        more = f'<details id="more">{more}</details>'
    if not cards:
        return '<section id="attention" class="calm" aria-label="Problems"><p>Nothing needs attention.</p></section>'
    return (
        f'<section id="attention" aria-labelledby="a-h"><h2 id="a-h">Needs attention <small>{len(cards)}</small></h2>'
        f'<ul class="cards">{"".join(cards[:CARDS])}</ul>{more}</section>'
    )


def _alike(pods: Sequence[PodFacts]) -> dict[tuple[str, ...], list[PodFacts]]:
    """Return the pods that need attention. Pods of one workload in the same state share a card."""
    found: dict[tuple[str, ...], list[PodFacts]] = {}
    for pod in pods:
        if pod.level == Level.FAILING or (pod.level == Level.WAITING and pod.advice):
            one = (pod.namespace, pod.workload, pod.status) if pod.workload else (pod.uid,)
            found.setdefault(one, []).append(pod)
    return found


def _card(pod: PodFacts, *others: PodFacts) -> str:
    """`others`: pods of the same workload in the same state."""
    more = f"<p><small>{_and_more(len(others))} of {escape(pod.workload)}</small></p>" if others else ""
    name = f'<a href="{escape(pod.path)}">{escape(pod.name)}</a> <small>{escape(pod.namespace)}</small>'
    new = pod.because and not any(pod.because.rstrip(".") in one for one in pod.advice)
    said = f'<p class="because">{escape(pod.because)}</p>' if new else ""
    todo = "".join(f'<p class="try"><span>Try</span> {advised(one)}</p>' for one in pod.advice[:1])
    return (
        f'<li id="a-{escape(pod.uid)}" class="card {pod.level}"><h3>{name}</h3>'
        f"<p>{mark(pod.level, pod.status)} <small>{age_and_restarts(pod)}</small></p>{more}{said}{todo}</li>"
    )


def _and_more(count: int) -> str:
    return f"and {count} more {'pod' if count == 1 else 'pods'}"


def _pods(pods: Sequence[PodFacts], asked: Question, found: dict[Level, int]) -> str:
    shown = chosen(pods, asked)
    cpu_top = top_of([p.cores for pod in shown for p in pod.points[-SHOWN:]], 0.1)
    columns = (
        (_head("Pod", "name", asked), "name"),
        (_head("State", "state", asked), "state"),
        ("Ready", "n"),
        (_head("Restarts", "restarts", asked), "n"),
        (_head("Age", "age", asked), "n"),
        (f"{_head('CPU', 'cpu', asked)} <small>0 – {cores_text(cpu_top)}</small>", "cpu"),
        (_head("Memory", "memory", asked), "memory"),
        ("IP", "ip"),
        ("Ports", "ports"),
        ("Image", "image"),
    )
    rows = [(f' id="p-{escape(pod.uid)}" class="{pod.level}"', _row(pod, cpu_top)) for pod in shown]
    if not pods:
        listed = '<p class="none">No pods yet. Start one: <code>kubelite apply -f FILE</code></p>'
    elif not shown:
        listed = '<p class="none">No pod matches. <a data-soft href="/#pods">Show all</a></p>'
    else:
        listed = table("Pods", columns, rows)
    count = f"{len(shown)} of {len(pods)}" if len(shown) != len(pods) else str(len(pods))
    return (
        f'<section id="pods" aria-labelledby="p-h"><h2 id="p-h">Pods <small>{count}</small></h2>'
        f"{_tools(pods, asked, found)}{listed}</section>"
    )


def _row(pod: PodFacts, cpu_top: float) -> list[str]:
    name = f'<a href="{escape(pod.path)}">{escape(pod.name)}</a> <small>{escape(pod.namespace)}</small>'
    cpu = line([point.cores for point in pod.points[-SHOWN:]], cpu_top)
    if pod.points:
        cpu += f"<span>{cores_text(pod.cores)}{_of(cores_text(pod.use.cpu_limit) if pod.use.cpu_limit else '')}</span>"
    return [
        name, mark(pod.level, pod.status), escape(pod.ready), _restarts(pod.restarts), escape(pod.age), cpu,
        memory_cell(pod.use.memory, pod.use.memory_limit), escape(pod.ip), escape(", ".join(pod.ports)),
        escape(", ".join(pod.images)),
    ]  # fmt: skip


def age_and_restarts(pod: PodFacts) -> str:
    """Return the age of a pod and the number of its container restarts, as HTML."""
    count, _, last = pod.restarts.partition(" ")
    times = "restart" if count == "1" else "restarts"
    ago = f", the last {escape(last.strip('()'))}" if last else ""
    return f"{escape(pod.age)} old" + (f" · {escape(count)} {times}{ago}" if count != "0" else "")


def _restarts(text: str) -> str:
    """Return a number of restarts such as `2 (3s ago)` as HTML."""
    count, _, last = text.partition(" ")
    return f"{escape(count)} <small>{escape(last.strip('()'))}</small>" if last else escape(count)


def memory_cell(used: int | None, limit: int) -> str:
    if used is None:
        return ""
    drawn = bar(used / limit, "memory of the limit") if limit else ""
    return f"{drawn}<span>{bytes_text(used)}{_of(bytes_text(limit) if limit else '')}</span>"


def _of(limit: str) -> str:
    return f" <small>of {limit}</small>" if limit else ""


def _address(asked: Question) -> str:
    """Return the address of the page with the result of a query."""
    pairs = {
        "q": asked.words, "level": asked.level, "ns": asked.namespace, "sort": asked.sort,
        "desc": "1" if asked.reverse else "",
    }  # fmt: skip
    query = urlencode({key: value for key, value in pairs.items() if value})
    return f"/?{escape(query)}#pods" if query else "/#pods"


def _head(text: str, key: str, asked: Question) -> str:
    """Return a column's heading: a link that sorts by the column. Restarts, CPU and memory are sorted in descending
    order at first."""
    here = asked.sort == key or (key == "state" and not asked.sort)
    reverse = not asked.reverse if here else key in ("restarts", "cpu", "memory")
    direction = ("descending" if asked.reverse else "ascending") if here else ""
    return (
        f'<a data-soft class="{direction}" href="{_address(asked._replace(sort=key, reverse=reverse))}">{text}'
        f"{f'<i aria-hidden=true>{chr(8595) if asked.reverse else chr(8593)}</i>' if here else ''}</a>"
    )


def _tools(pods: Sequence[PodFacts], asked: Question, found: dict[Level, int]) -> str:
    levels = [("", f"All {len(pods)}")]
    levels += [(str(one), f"{LOOKS[one].mark} {one} {count}") for one, count in found.items() if count]
    chips = "".join(
        f'<a data-soft class="chip {value}" href="{_address(asked._replace(level=value))}"'
        f"{' aria-current=true' if asked.level == value else ''}>{text}</a>"
        for value, text in levels
    )
    namespaces = sorted({pod.namespace for pod in pods} | ({asked.namespace} if asked.namespace else set()))
    options = "".join(
        f'<option value="{escape(one)}"{" selected" if one == asked.namespace else ""}>'
        f"{escape(one) or 'all namespaces'}</option>"
        for one in ("", *namespaces)
    )
    hidden = "".join(
        f'<input type="hidden" name="{name}" value="{escape(value)}">'
        for name, value in (
            ("level", asked.level),
            ("sort", asked.sort),
            ("desc", "1" if asked.reverse else ""),
        )
        if value
    )
    return (
        f'<div class="tools"><form role="search" action="/" method="get"><input id="q" type="search" name="q" '
        f'value="{escape(asked.words)}" placeholder="Search name, workload, image, IP, state" aria-label="Search pods" '
        f'autocomplete="off" spellcheck="false" aria-keyshortcuts="Control+K"><select id="ns" name="ns" '
        f'aria-label="Namespace">{options}</select>{hidden}<button>Show</button></form>'
        f'<nav aria-label="Filter by state">{chips}</nav></div>'
    )


def events_section(events: Sequence[EventFacts], *, whose: bool = True) -> str:
    """Return the section of the newest events. `whose`: whether to name each event's object."""
    if not events:
        return '<section id="events"><h2>Events</h2><p class="none">No events.</p></section>'
    lines = []
    for one in events:
        about = (
            f'<a href="{escape(one.path)}">{escape(one.about)}</a> ' if one.path else f"{escape(one.about)} "
        )
        kind = mark(Level.WAITING, one.reason) if one.warning else f"<span>{escape(one.reason)}</span>"
        times = f" <small>×{one.times}</small>" if one.times > 1 else ""
        lines.append(
            f'<li class="{"warning" if one.warning else "normal"}"><time>{escape(one.age)}</time>'
            f"<p><b>{about if whose else ''}{kind}</b>{times} {escape(one.message)}</p></li>"
        )
    return (
        f'<section id="events" aria-labelledby="e-h"><h2 id="e-h">Events <small>newest {len(events)}</small></h2>'
        f'<ol class="events">{"".join(lines)}</ol></section>'
    )


def _images(node: NodeFacts) -> str:
    if not node.images:
        return ""
    columns = (("Image", "name"), ("Pods", "n"), ("Size", "n"))
    rows = [
        ("", (escape(name), str(pods), image_size(size) if size else "not on the node"))
        for name, size, pods in node.images
    ]
    return (
        f'<section id="images" aria-labelledby="i-h"><h2 id="i-h">Images in use <small>{len(rows)}</small></h2>'
        f"{table('Images', columns, rows)}</section>"
    )

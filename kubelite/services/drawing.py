"""Pure: the picture of the node's network as text, and as SVG."""

from __future__ import annotations

from html import escape

from kubelite.services.families import with_port
from kubelite.services.picture import HOST, READY, TERMINATING, DrawnPod, DrawnService, Picture, Place

_ROW, _TOP, _SPACE = 22, 64, 24  # pixels: a line of text, the head of the picture, what is between boxes
_NARROWEST, _LETTER, _GAP, _EDGE = 240, 8, 260, 20  # of a box, a letter, between the columns, at the edges
_COLOURS = {READY: "#2e7d32", TERMINATING: "#b26a00"}
_OTHER = "#c62828"  # not ready
_STYLE = (
    "svg{background:#fff}text{font:13px ui-sans-serif,system-ui,sans-serif;fill:#1f2328}"
    ".b{font-weight:600}.s{fill:#59636e}"
    "rect{fill:#f6f8fa;stroke:#8c959f}path{fill:none;stroke-width:1.5}.dash{stroke-dasharray:5 4}"
)


def as_text(found: Picture) -> str:
    """Return the lines of the picture: each Service with what it leads to, then the pods, and what restricts them."""
    lines = [f"Node {found.node}, pod network {found.network}", ""]
    for one in found.services:
        lines.append(" ".join((one.name, one.kind, *one.addresses)))
        for front in one.fronts:
            places = [
                f"{with_port(place.address, place.port)}  {place.pod or 'outside'}  {place.state}"
                for place in front.places
            ]
            lines += [f"  {front.port} → {places[0]}"] if places else [f"  {front.port} → nothing"]
            lines += [f"  {'':{len(front.port)}} → {place}" for place in places[1:]]
    lines += [""] if found.services else []
    width = max((len(pod.address) for pod in found.pods), default=0)
    led = _led_to(found)
    for pod in found.pods:
        more = [f"behind {', '.join(led[pod.name])}"] if pod.name in led else []
        more += [f"host ports {', '.join(pod.ports)}"] if pod.ports else []
        more += _policies(pod)
        lines.append(f"{pod.address or 'no address yet':{width}}  {'; '.join((pod.name, *more))}")
    return "\n".join(lines).rstrip()


def _led_to(found: Picture) -> dict[str, list[str]]:
    """Return the Services of each pod that has any, by its name."""
    led: dict[str, dict[str, None]] = {}
    for service in found.services:
        for place in (place for front in service.fronts for place in front.places if place.pod):
            led.setdefault(place.pod, {})[service.name] = None
    return {name: list(services) for name, services in led.items()}


def as_svg(found: Picture) -> str:
    """Return an SVG document: Services on the left, pods and other addresses on the right, and a line for each way."""
    outside = dict.fromkeys(
        place.address
        for one in found.services
        for front in one.fronts
        for place in front.places
        if not place.pod
    )
    right = {pod.name: _pod_lines(pod) for pod in found.pods} | {name: (name, "outside") for name in outside}
    left = [_service_lines(service) for service in found.services]
    longest = max((len(line) for lines in (*left, *right.values()) for line in lines), default=0)
    box = max(_NARROWEST, _LETTER * longest + 20)
    parts, ends, below = list[str](), dict[str, int](), _TOP
    for name, lines in right.items():
        ends[name] = below + _ROW
        parts.append(_box(_EDGE + box + _GAP, below, box, lines))
        below += _ROW * len(lines) + _SPACE
    top = _TOP
    for service, lines in zip(found.services, left, strict=True):
        parts.append(_box(_EDGE, top, box, lines))
        for number, front in enumerate(service.fronts):
            start = top + _ROW * (len(lines) - len(service.fronts) + number) + 16
            known = (place for place in front.places if (place.pod or place.address) in ends)
            parts += [_way(_EDGE + box, start, ends[place.pod or place.address], place) for place in known]
        top += _ROW * len(lines) + _SPACE
    title = f"Node {found.node}, pod network {found.network}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * (_EDGE + box) + _GAP} {max(top, below) + _EDGE}" '
        f'role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<text class="b" x="{_EDGE}" y="24">{escape(title)}</text>'
        f'<text class="s" x="{_EDGE}" y="46">Services</text>'
        f'<text class="s" x="{_EDGE + box + _GAP}" y="46">Pods</text>{"".join(parts)}</svg>'
    )


def _service_lines(service: DrawnService) -> tuple[str, ...]:
    addresses = " ".join((service.kind, *service.addresses))
    return (service.name, addresses, *(front.port for front in service.fronts))


def _pod_lines(pod: DrawnPod) -> tuple[str, ...]:
    address = pod.address if pod.address != HOST else "on the host's network"
    ports = (f"host ports {', '.join(pod.ports)}",) if pod.ports else ()
    return (pod.name, address or "no address yet", *ports, *_policies(pod))


def _policies(pod: DrawnPod) -> list[str]:
    return [f"{direction} restricted by {', '.join(names)}" for direction, names in pod.policies.items()]


def _box(x: int, y: int, width: int, lines: tuple[str, ...]) -> str:
    height = _ROW * len(lines) + 10
    texts = [
        f'<text class="{"s" if number else "b"}" x="{x + 10}" y="{y + _ROW * (number + 1) - 2}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    ]
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4"/>{"".join(texts)}'


def _way(begin: int, start: int, end: int, place: Place) -> str:
    """A curve from a port of a Service, at the right edge of its box, to a box on the right."""
    middle, stop = begin + _GAP // 2, begin + _GAP
    colour, dash = _COLOURS.get(place.state, _OTHER), "" if place.state == READY else ' class="dash"'
    said = escape(f"{with_port(place.address, place.port)} {place.state}")
    curve = f"M{begin} {start}C{middle} {start} {middle} {end} {stop} {end}"
    return f'<path{dash} stroke="{colour}" d="{curve}"><title>{said}</title></path>'

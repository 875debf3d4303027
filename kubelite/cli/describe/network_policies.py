"""Format the text of `describe` for NetworkPolicies. Pure.

Layout and wording are kubectl's (kubectl pkg/describe/describe.go: describeNetworkPolicy).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kubelite.cli.describe.parts import annotation_lines, date, label_lines, tabbed
from kubelite.kube.label_selectors import selector_text

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_EVERY_POD = "<none> (Allowing the specific traffic to all pods in this namespace)"
_INDENT = "    "


def describe_network_policy(doc: Json, _events: object, _now: float) -> str:
    """kubectl shows no events of a NetworkPolicy."""
    metadata, spec = doc["metadata"], doc["spec"]
    head = [
        f"Name:\t{metadata['name']}",
        f"Namespace:\t{metadata.get('namespace', '')}",
        f"Created on:\t{_created(metadata.get('creationTimestamp'))}",
        *label_lines("Labels", metadata.get("labels") or {}),
        *annotation_lines(metadata.get("annotations") or {}),
    ]
    selector, types = selector_text(spec.get("podSelector") or {}), spec.get("policyTypes") or ()
    lines = ["Spec:", f"  PodSelector:     {selector or _EVERY_POD}"]
    for direction, alias, word in (("ingress", "from", "source"), ("egress", "to", "destination")):
        if direction.capitalize() in types:
            lines.append(f"  Allowing {direction} traffic:")
            lines += _rules(spec.get(direction) or (), direction, alias, word)
        else:
            lines.append(f"  Not affecting {direction} traffic")
    lines.append(f"  Policy Types: {', '.join(types)}")
    return tabbed(head) + "".join(f"{line}\n" for line in lines)


def _created(text: str | None) -> str:
    """kubectl prints Go's form of the time, in UTC here."""
    return f"{text[:10]} {text[11:19]} +0000 UTC" if text else date(text)


def _rules(rules: Sequence[Json], direction: str, alias: str, word: str) -> Iterator[str]:
    if not rules:
        yield f"{_INDENT}<none> (Selected pods are isolated for {direction} connectivity)"
    for index, rule in enumerate(rules):
        yield from _ports(rule.get("ports") or ())
        yield from _peers(rule.get(alias) or (), alias.capitalize(), word)
        if index < len(rules) - 1:
            yield f"{_INDENT}----------"


def _ports(ports: Sequence[Json]) -> Iterator[str]:
    if not ports:
        yield f"{_INDENT}To Port: <any> (traffic allowed to all ports)"
    for port in ports:
        protocol = port.get("protocol") or "TCP"
        if port.get("endPort"):
            yield f"{_INDENT}To Port Range: {port['port']}-{port['endPort']}/{protocol}"
        else:
            yield f"{_INDENT}To Port: {port.get('port', '<nil>')}/{protocol}"


def _peers(peers: Sequence[Json], title: str, word: str) -> Iterator[str]:
    if not peers:
        yield f"{_INDENT}{title}: <any> (traffic not restricted by {word})"
    for peer in peers:
        yield f"{_INDENT}{title}:"
        if (block := peer.get("ipBlock")) is not None:
            yield f"{_INDENT}  IPBlock:"
            yield f"{_INDENT}    CIDR: {block['cidr']}"
            yield f"{_INDENT}    Except: {', '.join(block.get('except') or ())}"
            continue
        for alias, name in (("namespaceSelector", "NamespaceSelector"), ("podSelector", "PodSelector")):
            if alias in peer:
                yield f"{_INDENT}  {name}: {selector_text(peer[alias] or {}) or '<none>'}"

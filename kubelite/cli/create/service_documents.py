"""The Services that `kubelite create service` and `kubelite expose` make: those of kubectl's generators. Pure.

Source: kubectl pkg/cmd/create/create_service.go and pkg/cmd/expose/expose.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kubelite.cli.create.documents import filled, named
from kubelite.cli.errors import CliError

if TYPE_CHECKING:
    from kubelite.kube.json import Json

TYPES = {"clusterip": "ClusterIP", "nodeport": "NodePort", "loadbalancer": "LoadBalancer"}


def tcp_ports(given: Iterable[str], node_port: int) -> list[Json]:
    """Parse `--tcp=PORT[:TARGET]`. Raises CliError."""
    ports = []
    for text in given:
        number, colon, target = text.partition(":")
        port: Json = {"name": text.replace(":", "-"), "port": _number(text, number), "protocol": "TCP"}
        target = target if colon else number
        port["targetPort"] = int(target) if target.isdecimal() else target
        if node_port:
            port["nodePort"] = node_port
        ports.append(port)
    return ports


def service(name: str, namespace: str | None, kind: str, ports: Sequence[Json], cluster_ip: str = "") -> Json:
    """Return a Service of `kubelite create service`: it selects pods with the label app=NAME."""
    document = named("Service", name, namespace)
    document["metadata"]["labels"] = {"app": name}
    spec = {"type": TYPES[kind], "clusterIP": cluster_ip, "selector": {"app": name}, "ports": list(ports)}
    document["spec"] = filled(spec)
    return document


def external_name(name: str, namespace: str | None, target: str, ports: Sequence[Json]) -> Json:
    document = named("Service", name, namespace)
    document["metadata"]["labels"] = {"app": name}
    spec = {
        "type": "ExternalName",
        "externalName": target,
        "selector": {"app": name},
        "ports": list(ports),
    }
    document["spec"] = filled(spec)
    return document


def exposed(doc: Json, namespace: str | None, options: Json) -> Json:
    """Return the Service for an object that has pods. Raises CliError if it names no port, or selects no pods."""
    metadata, kind = doc["metadata"], doc["kind"].lower()
    selector = options["selector"] or selector_of(doc)
    if not selector:
        raise CliError(
            f"error: couldn't retrieve selectors via --selector flag: {kind} {metadata['name']} has none"
        )
    name = options["name"] or metadata["name"][:63]
    document = named("Service", name, namespace)
    labels = options["labels"] or metadata.get("labels") or {}
    document["metadata"] |= filled({"labels": labels})
    spec: Json = {"type": options["type"] or "", "selector": selector, "ports": _ports(doc, options)}
    spec |= {"clusterIP": options["cluster_ip"], "sessionAffinity": options["session_affinity"]}
    spec["externalIPs"] = [options["external_ip"]] if options["external_ip"] else []
    document["spec"] = filled(spec)
    return document


def selector_of(doc: Json) -> Json:
    """Return the labels by which a Service selects an object's pods. Raises CliError for a selector that a Service
    cannot have."""
    if doc["kind"] == "Pod":
        return dict(doc["metadata"].get("labels") or {})
    selector = (doc.get("spec") or {}).get("selector") or {}
    if doc["kind"] in ("Service", "ReplicationController"):
        return dict(selector)
    if selector.get("matchExpressions"):
        raise CliError(
            f'error: couldn\'t convert expressions - "{selector["matchExpressions"]}" to map-based selector format'
        )
    return dict(selector.get("matchLabels") or {})


def _ports(doc: Json, options: Json) -> list[Json]:
    protocol, target = options["protocol"] or "TCP", options["target_port"]
    if options["port"]:
        given = [(number.strip(), protocol) for number in options["port"].split(",")]
    else:
        given = [(str(number), own) for number, own in container_ports(doc)]
    if not given:
        raise CliError("error: couldn't find port via --port flag or introspection")
    ports = []
    for index, (number, own) in enumerate(given, start=1):
        port: Json = {"port": _number(number, number), "protocol": own}
        chosen = target or number
        port["targetPort"] = int(chosen) if chosen.isdecimal() else chosen
        ports.append({"name": f"port-{index}", **port} if len(given) > 1 else port)
    return ports


def container_ports(doc: Json) -> list[tuple[int, str]]:
    """Return number and protocol of the ports that an object's containers, or a Service, name."""
    spec = doc.get("spec") or {}
    if doc["kind"] == "Service":
        return [(port["port"], port.get("protocol", "TCP")) for port in spec.get("ports") or ()]
    pod = spec if doc["kind"] == "Pod" else (spec.get("template") or {}).get("spec") or {}
    return [
        (port["containerPort"], port.get("protocol", "TCP"))
        for container in pod.get("containers") or ()
        for port in container.get("ports") or ()
    ]


def _number(text: str, number: str) -> int:
    if not number.isdecimal() or not 0 < int(number) < 65536:
        raise CliError(f'error: invalid port "{text}": use PORT or PORT:TARGET, from 1 to 65535', code=2)
    return int(number)

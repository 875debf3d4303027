"""The ports of a pod behind those of a Service, for `port-forward service/NAME`. Pure.

Source: kubectl pkg/cmd/portforward/portforward.go (translateServicePortToTargetPort, convertPodNamedPortToNumber).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kubelite.cli.errors import CliError
from kubelite.services.backends import backend

if TYPE_CHECKING:
    from kubelite.kube.json import Json


def pod_ports(given: Sequence[str], service: Json, pod: Json) -> tuple[str, ...]:
    """Return `LOCAL:REMOTE` with the pod's ports for those of a Service, which are given by number or name. Raises
    CliError if the Service has no such port, or the pod none behind it."""
    return tuple(_translated(text, service, pod) for text in given)


def _translated(text: str, service: Json, pod: Json) -> str:
    local, colon, remote = text.rpartition(":")
    name = service["metadata"]["name"]
    ports = service["spec"].get("ports") or ()
    found = next((one for one in ports if remote in (one.get("name"), str(one["port"]))), None)
    if found is None:
        raise CliError(f"error: Service {name} does not have a service port {remote}")
    if found.get("protocol", "TCP") != "TCP":
        raise CliError(
            f"error: port {remote} of service {name} is {found['protocol']}: only TCP can be forwarded"
        )
    alone = {**service, "spec": {**service["spec"], "ports": [found]}}
    behind = backend(alone, pod)
    if behind is None or not behind.ports:
        target = found.get("targetPort", found["port"])
        raise CliError(f"error: pod {pod['metadata']['name']} has no port named {target}")
    port = str(found["port"]) if service["spec"].get("clusterIP") == "None" else str(behind.ports[0].port)
    return f"{local if colon else found['port']}:{port}"

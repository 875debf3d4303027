"""Pure: the pod in which haproxy runs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from kubelite.ingress.haproxy import CONFIG, HTTP_PORT, HTTPS_PORT
from kubelite.ingress.model import NAMESPACE, POD
from kubelite.kube.json import Json

CONTAINER = "haproxy"
USER = 99  # user and group of haproxy, as in its image of the Docker library
SPEC_ANNOTATION = "kubelite.io/ingress-spec"  # a digest of the settings for which a pod was made
SOCKET = "master.sock"
_CONFIG_DIR, _RUN_DIR = "/etc/kubelite-ingress", "/run/kubelite-ingress"


@dataclass(frozen=True, slots=True)
class PodOptions:
    """`node`: its name; `image`: of haproxy; the ports are the host's; `directory`: on the host, of the configuration
    and the socket; `ipv6`: pods have an IPv6 address."""

    node: str
    image: str
    http_port: int
    https_port: int
    directory: str
    ipv6: bool = False


def check_command(generation: str) -> list[str]:
    """Return the command that checks a configuration, in the container."""
    return ["haproxy", "-c", "-q", "-f", f"{_CONFIG_DIR}/{generation}/{CONFIG}"]


def proxy_pod(options: PodOptions) -> Json:
    """Return the pod. It has no more rights than a web server needs, and its files are the host's."""
    mounts = [
        {"name": "config", "mountPath": _CONFIG_DIR, "readOnly": True},
        {"name": "run", "mountPath": _RUN_DIR},
    ]
    container: Json = {
        "name": CONTAINER,
        "image": options.image,
        "command": ["haproxy", "-W", "-db", "-S", f"{_RUN_DIR}/{SOCKET},mode,600"],
        "args": ["-f", f"{_CONFIG_DIR}/current/{CONFIG}"],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "hostPort": options.http_port, "protocol": "TCP"},
            {"name": "https", "containerPort": HTTPS_PORT, "hostPort": options.https_port, "protocol": "TCP"},
        ],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": mounts,
    }
    spec: Json = {
        "automountServiceAccountToken": False,
        "containers": [container],
        "dnsPolicy": "Default",
        "enableServiceLinks": False,
        "priorityClassName": "system-node-critical",
        "securityContext": {"runAsUser": USER, "runAsGroup": USER, "runAsNonRoot": True},
        "volumes": [
            {"name": name, "hostPath": {"path": f"{options.directory}/{name}", "type": "Directory"}}
            for name in ("config", "run")
        ],
    }
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]
    metadata = {
        "name": POD,
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/name": POD, "app.kubernetes.io/managed-by": "kubelite"},
        "annotations": {SPEC_ANNOTATION: digest},
        "ownerReferences": [_node_reference(options.node)],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _node_reference(name: str) -> Json:
    """Return the reference to the node as the controller, as kubelet's mirror pods have it
    (pkg/kubelet/pod/mirror_client.go: CreateMirrorPod): clients that drain the node may evict the pod, because it comes
    back."""
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": name, "controller": True}


def is_current(pod: Json, wanted: Json, *, ipv6: bool) -> bool:
    """Whether a pod was made for the same settings. `ipv6`: pods have an IPv6 address, which a pod gets only when it is
    created."""
    own = (doc["metadata"].get("annotations") or {} for doc in (pod, wanted))
    if len({one.get(SPEC_ANNOTATION) for one in own}) > 1:
        return False
    addresses = [one["ip"] for one in (pod.get("status") or {}).get("podIPs") or ()]
    return not (ipv6 and addresses) or any(":" in address for address in addresses)


def owned_as(pod: Json, wanted: Json) -> Json | None:
    """Return a pod with the owners of `wanted`, None if it has them. An earlier version made pods without an owner."""
    owners = wanted["metadata"]["ownerReferences"]
    if pod["metadata"].get("ownerReferences") == owners:
        return None
    return {**pod, "metadata": {**pod["metadata"], "ownerReferences": owners}}


def container_id(pod: Json) -> str:
    """Return the id of the pod's running container, "" if it does not run."""
    for one in (pod.get("status") or {}).get("containerStatuses") or ():
        if one.get("name") == CONTAINER and "running" in (one.get("state") or {}):
            return str(one.get("containerID", "")).rpartition("/")[2]
    return ""

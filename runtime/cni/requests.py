"""What a plugin is given: its configuration on stdin, and its environment. Pure.

The specification, sections 2 (environment) and 3 (deriving the configuration from that of the network). The values of a
pod are those of CONVENTIONS.md in the CNI project (dynamic plugin fields), under the names of the capabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.cni.conflist import Network, asked
from runtime.network.plan import Bandwidth, PortMapping

BURST = (1 << 31) - 1  # bits: no limit of bursts, as in kubelet (pkg/kubelet/dockershim/network/cni/cni.go)


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What plugins may ask of a pod. `ips` and `mac` are empty unless the pod asks for them."""

    namespace: str = ""
    name: str = ""
    cgroup: str = ""
    ips: tuple[str, ...] = ()
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod's attachment as plugins are told of it. `container_id` is new for each attachment; `values`: capability →
    value."""

    uid: str
    container_id: str
    netns: str
    ifname: str
    namespace: str = ""
    name: str = ""
    values: Mapping[str, Any] | None = None


def values_of(facts: PodFacts, ports: Sequence[PortMapping], limit: Bandwidth) -> dict[str, Any]:
    """The values of a pod by the capabilities that ask for them; none that are empty."""
    found: dict[str, Any] = {
        "portMappings": [
            {
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol.lower(),
                "hostIP": port.host_ip,
            }
            for port in ports
        ],
        "bandwidth": _bandwidth(limit),
        "ips": list(facts.ips),
        "mac": facts.mac,
        "cgroupPath": facts.cgroup,
    }
    return {name: value for name, value in found.items() if value}


def _bandwidth(limit: Bandwidth) -> dict[str, int]:
    found: dict[str, int] = {}
    for direction, rate in (("ingress", limit.ingress), ("egress", limit.egress)):
        if rate:
            found |= {f"{direction}Rate": rate, f"{direction}Burst": BURST}
    return found


def plugin_config(
    network: Network,
    plugin: Mapping[str, Any],
    version: str,
    *,
    values: Mapping[str, Any] | None = None,
    previous: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The configuration of one plugin. `values`: those of the pod, of which it gets what it asks for; `previous`: the
    result so far; `more`: further fields."""
    found = {key: value for key, value in plugin.items() if key not in ("capabilities", "runtimeConfig")}
    found |= {"cniVersion": version, "name": network.name}
    if given := {name: values[name] for name in asked(plugin) if values and name in values}:
        found["runtimeConfig"] = given
    if previous is not None:
        found["prevResult"] = dict(previous)
    return found | dict(more or {})


def environment(command: str, pod: Pod | None, paths: Sequence[str]) -> dict[str, str]:
    """The variables of a plugin, without those of the daemon. `pod` None: the command concerns none."""
    found = {"CNI_COMMAND": command, "CNI_PATH": ":".join(paths)}
    if pod is None:
        return found
    return found | {
        "CNI_CONTAINERID": pod.container_id,
        "CNI_NETNS": pod.netns,
        "CNI_IFNAME": pod.ifname,
        "CNI_ARGS": cni_args(pod),
    }


def cni_args(pod: Pod) -> str:
    """The arguments that container runtimes of Kubernetes pass, in containerd's order (pkg/cri: cniNamespaceOpts)."""
    known = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": pod.container_id,
        "K8S_POD_UID": pod.uid if pod.name else "",
    }
    return ";".join(f"{key}={value}" for key, value in known.items() if value)

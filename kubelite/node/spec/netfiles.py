"""A pod's host name and the contents of its /etc/hostname, /etc/hosts and /etc/resolv.conf, as kubelet makes them
(docs/explanation/pod-semantics.md, "Host name and DNS"; Kubernetes pkg/kubelet/kubelet_pods.go, network/dns/dns.go).

Callers read the host's files and write the results. Containers get them as bind mounts, so that a change of host
aliases or DNS takes effect in place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubelite.node.model.errors import CreateError
from kubelite.node.model.node_config import NodeConfig
from manifests.types.core import Pod

HOSTNAME_MAX = 63
UTS_MAX = 64  # sethostname(2)
MAX_NAMESERVERS, MAX_SEARCHES, MAX_SEARCH_CHARS, MAX_SEARCH = 3, 32, 2048, 253
_LOCAL = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "fe00::0\tip6-mcastprefix",
    "fe00::1\tip6-allnodes",
    "fe00::2\tip6-allrouters",
)


def pod_hostname(pod: Pod) -> str:
    """spec.hostname or the pod's name, cut to 63 characters without a trailing - or . at the cut."""
    name = pod.spec.hostname_override or pod.spec.hostname or pod.metadata.name or ""
    return name if len(name) <= HOSTNAME_MAX else name[:HOSTNAME_MAX].rstrip("-.")


def pod_fqdn(pod: Pod, domain: str) -> str:
    """hostname.subdomain.namespace.svc.domain; "" for a pod without a subdomain."""
    if not pod.spec.subdomain or pod.spec.hostname_override:
        return ""
    return f"{pod_hostname(pod)}.{pod.spec.subdomain}.{pod.metadata.namespace or 'default'}.svc.{domain}"


def uts_hostname(pod: Pod, config: NodeConfig) -> str:
    """The host name in the pod's UTS namespace. Pods with hostNetwork keep the host's name. Raises CreateError if the
    name is too long for the kernel."""
    fqdn = pod_fqdn(pod, config.cluster_domain) if pod.spec.set_hostname_as_fqdn else ""
    if len(fqdn) > UTS_MAX and not pod.spec.host_network:
        numbers = f"({UTS_MAX} characters is the max, {len(fqdn)} characters requested)"
        failed = "failed to construct FQDN from pod hostname and cluster domain"
        raise CreateError(f"{failed}, FQDN {fqdn} is too long {numbers}")
    return fqdn or pod_hostname(pod)


def hosts_file(pod: Pod, ips: Sequence[str], config: NodeConfig, host_file: str = "") -> str:
    """The content of /etc/hosts. `host_file` is that of the host, which pods with hostNetwork get a copy of."""
    if pod.spec.host_network:
        lines = ["# Kubernetes-managed hosts file (host network).", *host_file.splitlines()]
    else:
        lines = ["# Kubernetes-managed hosts file.", *_LOCAL]
        fqdn = pod_fqdn(pod, config.cluster_domain)
        names = f"{fqdn}\t{pod_hostname(pod)}" if fqdn else pod_hostname(pod)
        lines += [f"{ip}\t{names}" for ip in ips]
    if pod.spec.host_aliases:
        lines += ["", "# Entries added by HostAliases."]
        lines += ["\t".join([alias.ip, *alias.hostnames]) for alias in pod.spec.host_aliases]
    return "\n".join(lines) + "\n"


def hostname_file(pod: Pod) -> str:
    return pod_hostname(pod) + "\n"


def _asked_policy(pod: Pod) -> str:
    policy = pod.spec.dns_policy or "ClusterFirst"
    if policy == "ClusterFirstWithHostNet":
        return "ClusterFirst"
    return "Default" if policy == "ClusterFirst" and pod.spec.host_network else policy


def resolv_conf(pod: Pod, config: NodeConfig, host_file: str) -> str:
    """The content of /etc/resolv.conf, by dnsPolicy and dnsConfig. `host_file` is that of the host."""
    servers, searches, options = _parse(host_file)
    policy = _asked_policy(pod)
    if policy == "ClusterFirst" and config.cluster_dns:
        domain, namespace = config.cluster_domain, pod.metadata.namespace or "default"
        servers = list(config.cluster_dns)
        searches = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain, *searches]
        options = ["ndots:5"]
    elif policy == "None":
        servers, searches, options = [], [], []
    if (extra := pod.spec.dns_config) is not None:
        servers += extra.nameservers
        searches += extra.searches
        added = [f"{o.name}:{o.value}" if o.value else str(o.name) for o in extra.options]
        changed = {option.partition(":")[0] for option in added}
        options = [option for option in options if option.partition(":")[0] not in changed] + added
    lines = [f"search {' '.join(fit)}"] if (fit := _fit_searches(searches)) else []
    lines += [f"nameserver {server}" for server in _unique(servers)[:MAX_NAMESERVERS]]
    lines += [f"options {' '.join(_unique(options))}"] if options else []
    return "\n".join(lines) + "\n" if lines else ""


def reachable_resolv_conf(host_file: str, resolved_file: str) -> str:
    """The resolv.conf for pods: the host's own, unless all its servers are loopback addresses, which a pod cannot
    reach. systemd-resolved's stub (127.0.0.53, as on Ubuntu) is such a server. Then the file with its upstream servers
    is used (systemd-resolved.service(8)), as in docker and kubeadm."""
    behind = _parse(resolved_file)[0]
    return resolved_file if _only_loopback(_parse(host_file)[0]) and behind else host_file


def unreachable_servers(pod: Pod, text: str) -> str:
    """Why no name can be resolved in the pod with this resolv.conf; "" if names may be resolved."""
    servers = _parse(text)[0]
    if pod.spec.host_network or not _only_loopback(servers):
        return ""
    return (
        f"the node's resolv.conf names only {', '.join(servers)}, which in a pod is the pod's own loopback: "
        "set dnsConfig.nameservers, or set resolv_conf in the node's settings to a file with other servers"
    )


def nameservers(text: str) -> list[str]:
    """The servers that a resolv.conf names."""
    return _parse(text)[0]


def _only_loopback(servers: list[str]) -> bool:
    return bool(servers) and all(server.startswith("127.") or server == "::1" for server in servers)


def _parse(text: str) -> tuple[list[str], list[str], list[str]]:
    """The nameservers, the last search (or domain), and all options (resolv.conf(5))."""
    servers: list[str] = []
    searches: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] in ("search", "domain"):
            searches = [word.rstrip(".") or "." for word in words[1:]]
        elif words[0] == "options":
            options = words[1:]
    return servers, searches, options


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _fit_searches(searches: list[str]) -> list[str]:
    """The searches that fit the resolver's limits: 32 of at most 253 characters each, 2048 characters in total."""
    kept = [search for search in _unique(searches) if len(search) <= MAX_SEARCH][:MAX_SEARCHES]
    while kept and len(" ".join(kept)) > MAX_SEARCH_CHARS:
        kept.pop()
    return kept

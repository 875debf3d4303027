"""Write a pod's hostname, resolv.conf and hosts files. `spec/netfiles.py` determines the content from the pod and from
the host's files."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os

from kubelite.node.model.node_config import NodeConfig
from kubelite.node.spec import netfiles
from manifests.types.core import Pod
from runtime.files import read_bytes, write_all

NET_FILES = "net-files.json"  # digests of hosts, hostname and resolv.conf as they were last written


def write_net_files(
    pod: Pod, config: NodeConfig, ips: tuple[str, ...] | None, cache: dict[str, dict[str, str]]
) -> None:
    """Write hostname, resolv.conf and hosts if they differ from what was written last; `ips` None: hosts is not written
    yet. The files are rewritten in place, not replaced by rename, because running containers have them mounted.
    `cache`: uid → file → digest of what was written."""
    uid = pod.metadata.uid or ""
    wanted = {
        "hostname": netfiles.hostname_file(pod),
        "resolv.conf": netfiles.resolv_conf(pod, config, _host_resolv_conf(pod, config)),
    }
    if ips is not None:
        host_hosts = _read(config.host_hosts) if pod.spec.host_network else ""
        wanted["etc-hosts"] = netfiles.hosts_file(pod, ips, config, host_hosts)
    directory = config.pod_dir(uid)
    record = f"{directory}/{NET_FILES}"
    written = cache.get(uid)
    if written is None or not os.path.exists(f"{directory}/hostname"):  # the directory may have been removed
        os.makedirs(directory, mode=0o750, exist_ok=True)
        written = cache[uid] = _recorded(record)
    changed = False
    for name, content in wanted.items():
        digest = hashlib.sha256(content.encode()).hexdigest()
        if written.get(name) != digest or not os.path.exists(f"{directory}/{name}"):
            _rewrite(f"{directory}/{name}", content)
            written[name], changed = digest, True
    if changed and ips is not None:
        _rewrite(record, json.dumps(written))


def dns_trouble(pod: Pod, config: NodeConfig) -> str:
    """Return why DNS cannot work in the pod, or ""."""
    if config.resolv_conf and not os.access(config.resolv_conf, os.R_OK):
        return f"{config.resolv_conf}, which resolv_conf in the node's settings names, cannot be read"
    return netfiles.unreachable_servers(
        pod, netfiles.resolv_conf(pod, config, _host_resolv_conf(pod, config))
    )


def _host_resolv_conf(pod: Pod, config: NodeConfig) -> str:
    if config.resolv_conf:
        return _read(config.resolv_conf)
    own = _read(config.host_resolv_conf)
    return own if pod.spec.host_network else netfiles.reachable_resolv_conf(own, _read(config.resolved_conf))


def _recorded(path: str) -> dict[str, str]:
    """Return what an earlier daemon wrote. A container may have changed the files since; such changes are left
    alone."""
    try:
        found = json.loads(_read(path) or "{}")
    except ValueError:
        return {}
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, dict) else {}


def _read(path: str) -> str:
    with contextlib.suppress(OSError):
        return read_bytes(path).decode(errors="replace")
    return ""


def _rewrite(path: str, content: str) -> None:
    wanted = content.encode()
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        # read no more than needed to compare: a container may have made the file a terabyte long
        if os.pread(fd, len(wanted) + 1, 0) != wanted:
            # write before truncating: on a full disk the old content stays, instead of an empty file
            write_all(fd, wanted)
            os.ftruncate(fd, len(wanted))
        os.fchmod(fd, 0o644)
    finally:
        os.close(fd)

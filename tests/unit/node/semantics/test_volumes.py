"""The rules of network files and volumes in docs/explanation/pod-semantics.md, a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.model.cri import ObservedImage
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.schedule import Port
from kubelite.node.scheduling.ledger import Ledger, reservation_of
from kubelite.node.spec import netfiles
from kubelite.node.spec.container_spec import Prepared, Source, container_spec
from kubelite.node.spec.env import Sources
from kubelite.node.spec.users import ResolvedUser
from kubelite.node.spec.volume_plans import File, Kind, VolumePlan, plan_volume
from kubelite.node.storage import mounts
from manifests.types.defaults import default_pod
from tests.unit.node.decide.pod_worlds import CONFIG, container, make_pod
from tests.unit.node.semantics.pod_rows import NONE, SANDBOX, Row

# -- network files, volumes ---------------------------------------------------------------------------------------


def _conflict(mine: str, theirs: str, protocol: str = "TCP") -> bool:
    book = Ledger()
    ports = [{"containerPort": 80, "hostPort": 80, "hostIP": theirs}]
    other = make_pod(container("app", ports=ports))
    other.metadata.uid = "other"
    book.add(reservation_of(other))
    return book.holder(Port(80, protocol, mine)) is not None


def _resolv(**spec: Any) -> list[str]:
    config = NodeConfig("node", "192.0.2.1", "/r", "/l", cluster_dns=("10.96.0.10",))
    return netfiles.resolv_conf(
        make_pod("app", **spec), config, "search corp\nnameserver 192.0.2.53\n"
    ).splitlines()


def _volume(source: dict[str, Any]) -> VolumePlan:
    pod = make_pod("app", volumes=[{"name": "v", **source}])
    return plan_volume(default_pod(pod), default_pod(pod).spec.volumes[0], NONE)


def _mode() -> object:
    document = {"metadata": {"name": "c"}, "data": {"k": "v"}}
    pod = default_pod(make_pod("app", volumes=[{"name": "v", "configMap": {"name": "c"}}]))
    made = plan_volume(pod, pod.spec.volumes[0], Sources(lambda *_: document, CONFIG, ()))
    return {path: oct(file.mode) for path, file in made.files.items()}


HOST_FILES = "127.0.0.1 localhost\n"


def _aliases() -> list[str]:
    pod = make_pod("app", hostAliases=[{"ip": "192.0.2.7", "hostnames": ["db", "db.local"]}])
    return netfiles.hosts_file(pod, [], CONFIG).splitlines()[-2:]


def _own_hosts() -> list[str]:
    """What is mounted at /etc/hosts if the container has a volume there."""
    pod = make_pod(
        container("app", volumeMounts=[{"name": "v", "mountPath": "/etc/hosts"}]),
        volumes=[{"name": "v", "hostPath": {"path": "/x"}}],
    )
    image = ObservedImage("sha256:1", "app", config={"Cmd": ["x"]})
    volumes = {"/etc/hosts": Source("/x")}
    prepared = Prepared(image, SANDBOX, "c", ResolvedUser(), volumes=volumes, hosts="/etc-hosts")
    made = container_spec(pod, pod.spec.containers[0], prepared, CONFIG)["mounts"]
    return [mount["source"] for mount in made if mount["destination"] == "/etc/hosts"]


def _dns(**config: Any) -> list[str]:
    return _resolv(dnsPolicy="None", dnsConfig=config)


def _empty_dir_mode() -> str:
    with tempfile.TemporaryDirectory() as name:
        mounts.set_up(VolumePlan("v", Kind.DIRECTORY, f"{name}/v"))
        return oct(os.stat(f"{name}/v").st_mode & 0o7777)


def _swapped() -> object:
    """The entries of a volume, the target of its file's link, whether a change uses a new directory, and the content
    afterwards."""
    with tempfile.TemporaryDirectory() as name:
        path = f"{name}/v"
        first, second = (VolumePlan("v", Kind.FILES, path, files={"k": File(c, 0o644)}) for c in (b"1", b"2"))
        mounts.write_files(first)
        names = sorted({"..data", "k"} & set(os.listdir(path)))
        before = os.readlink(f"{path}/..data")
        mounts.write_files(second)
        other = os.readlink(f"{path}/..data") != before
        return names, os.readlink(f"{path}/k"), other, Path(path, "k").read_bytes()


def _sub_path() -> list[str]:
    pod = make_pod(
        container("app", volumeMounts=[{"name": "v", "mountPath": "/m", "subPath": "k"}]),
        volumes=[{"name": "v", "emptyDir": {}}],
    )
    image = ObservedImage("sha256:1", "app", config={"Cmd": ["x"]})
    prepared = Prepared(image, SANDBOX, "c", ResolvedUser(), volumes={"/m": Source("v", "k")})
    made = container_spec(pod, pod.spec.containers[0], prepared, CONFIG)["mounts"]
    return [m["source"] for m in made if "x-beneath=v" in m["options"]]


NETWORK_FILES = [
    Row(
        "network files",
        "the hosts file",
        lambda: netfiles.hosts_file(make_pod("app"), ["10.88.0.2"], CONFIG).splitlines()[0],
        "# Kubernetes-managed hosts file.",
    ),
    Row(
        "network files",
        "a pod's line",
        lambda: netfiles.hosts_file(make_pod("app", subdomain="s"), ["10.88.0.2"], CONFIG).splitlines()[-1],
        "10.88.0.2\tweb.s.default.svc.cluster.local\tweb",
    ),
    Row(
        "network files",
        "hostname: 63 characters, none of -. at the end",
        lambda: netfiles.pod_hostname(make_pod("app", hostname="x" * 62 + "-y")),
        "x" * 62,
    ),
    Row(
        "network files",
        "ClusterFirst",
        _resolv,
        [
            "search default.svc.cluster.local svc.cluster.local cluster.local corp",
            "nameserver 10.96.0.10",
            "options ndots:5",
        ],
    ),
    Row(
        "network files",
        "Default is the host's",
        lambda: _resolv(dnsPolicy="Default"),
        ["search corp", "nameserver 192.0.2.53"],
    ),
    Row(
        "network files",
        "host ports: the same address, or either everywhere",
        lambda: [_conflict(*pair) for pair in (("", "10.0.0.1"), ("10.0.0.1", ""), ("10.0.0.1", "10.0.0.2"))],
        [True, True, False],
    ),
    Row("network files", "another protocol is another port", lambda: _conflict("", "", "UDP"), False),
    Row(
        "network files",
        "with hostNetwork a container's port is the host's",
        lambda: (
            reservation_of(make_pod(container("app", ports=[{"containerPort": 80}]), hostNetwork=True)).ports
        ),
        (Port(80),),
    ),
    Row(
        "network files",
        "localhost and the six names of IPv6, then the pod",
        lambda: netfiles.hosts_file(make_pod("app"), ["10.88.0.2"], CONFIG).splitlines()[1:],
        [
            "127.0.0.1\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
            "fe00::0\tip6-localnet",
            "fe00::0\tip6-mcastprefix",
            "fe00::1\tip6-allnodes",
            "fe00::2\tip6-allrouters",
            "10.88.0.2\tweb",
        ],
    ),
    Row(
        "network files",
        "hostAliases",
        _aliases,
        ["# Entries added by HostAliases.", "192.0.2.7\tdb\tdb.local"],
    ),
    Row(
        "network files",
        "with hostNetwork a copy of the host's",
        lambda: netfiles.hosts_file(make_pod("app", hostNetwork=True), [], CONFIG, HOST_FILES).splitlines()[
            1:
        ],
        ["127.0.0.1 localhost"],
    ),
    Row("network files", "none where the manifest mounts its own", _own_hosts, ["/x"]),
    Row(
        "network files",
        "ClusterFirst with hostNetwork is Default; ClusterFirstWithHostNet is not",
        lambda: [
            _resolv(hostNetwork=True, dnsPolicy=policy)[1]
            for policy in ("ClusterFirst", "ClusterFirstWithHostNet")
        ],
        ["nameserver 192.0.2.53", "nameserver 10.96.0.10"],
    ),
    Row(
        "network files",
        "None: dnsConfig alone",
        lambda: _dns(nameservers=["192.0.2.9"], searches=["a.b"], options=[{"name": "ndots", "value": "2"}]),
        ["search a.b", "nameserver 192.0.2.9", "options ndots:2"],
    ),
    Row(
        "network files",
        "dnsConfig is appended, without doubles; its options win",
        lambda: _resolv(
            dnsConfig={
                "nameservers": ["10.96.0.10", "192.0.2.9"],
                "searches": ["corp", "more"],
                "options": [{"name": "ndots", "value": "1"}],
            }
        ),
        [
            "search default.svc.cluster.local svc.cluster.local cluster.local corp more",
            "nameserver 10.96.0.10",
            "nameserver 192.0.2.9",
            "options ndots:1",
        ],
    ),
    Row(
        "network files",
        "three servers, 32 searches of 253 characters, 2048 together",
        lambda: (
            len(_dns(nameservers=[f"192.0.2.{n}" for n in range(9)])),
            len(_dns(searches=[f"s{n}" for n in range(40)])[0].split()) - 1,
            _dns(searches=["x" * 254, "ok"]),
            len(_dns(searches=[f"{n:0200}" for n in range(20)])[0].removeprefix("search ")) <= 2048,
        ),
        (3, 32, ["search ok"], True),
    ),
    Row(
        "network files",
        "no cluster DNS: as Default",
        lambda: netfiles.resolv_conf(make_pod("app"), CONFIG, "nameserver 192.0.2.53\n").splitlines(),
        ["nameserver 192.0.2.53"],
    ),
]
VOLUMES = [
    Row(
        "volumes",
        "emptyDir on disk, or in memory",
        lambda: [str(_volume({"emptyDir": e}).kind) for e in ({}, {"medium": "Memory"})],
        ["directory", "memory"],
    ),
    Row(
        "volumes",
        "sizeLimit is a tmpfs' size",
        lambda: _volume({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}).size,
        1 << 20,
    ),
    Row("volumes", "files of a ConfigMap are 0644", _mode, {"k": "0o644"}),
    Row("volumes", "an emptyDir is 0777", _empty_dir_mode, "0o777"),
    Row(
        "volumes",
        "files change together, behind one link",
        _swapped,
        (["..data", "k"], "..data/k", True, b"2"),
    ),
    Row(
        "volumes",
        "a sub-path is opened in its volume, so that what is swapped in does not reach it",
        _sub_path,
        ["v/k"],
    ),
]

ROWS = [*NETWORK_FILES, *VOLUMES]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted


def test_every_rule_has_a_row() -> None:
    assert list(dict.fromkeys(row.rule for row in ROWS)) == ["network files", "volumes"]

"""Users, environment, network files and termination messages of containers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kubelite.kube.expansion import expand
from kubelite.node.model.cri import ContainerState, ObservedContainer, ObservedPod
from kubelite.node.model.errors import ConfigError, CreateError
from kubelite.node.model.node_config import NodeConfig, pod_log_name
from kubelite.node.spec import env, netfiles
from kubelite.node.spec.users import ResolvedUser, resolve_user
from kubelite.node.worker import netfiles_disk
from kubelite.node.worker.image_accounts import image_accounts, read_in_layers
from kubelite.node.worker.termination import log_tail, with_messages
from tests.unit.node.decide.pod_worlds import CONFIG, container, make_pod
from tests.unit.node.spec.pod_sources import sources

# -- environment ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)z", "x1y$(C)z"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NO)", "$(NO)"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("a$", "a$"),
        ("$A", "$A"),
        ("$()", "$()"),
        ("", ""),
    ],
)
def test_expansion_is_one_pass(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "$(C)", "C": "no"}) == expected


def test_a_sub_path_expression_names_what_has_a_value() -> None:
    assert env.expand_all("$(A)/$$(A)/$(", {"A": "$(B)"}) == "$(B)/$(A)/$("
    with pytest.raises(ConfigError, match=r'failed to expand subPathExpr ".*": missing value for A, B$'):
        env.expand_all("$(B)$(A)$(C)", {"A": "", "C": "x"})


def variables(*entries: dict[str, Any], **more: Any) -> dict[str, str]:
    pod = make_pod(container("a", env=list(entries), **more), serviceAccountName="robot")
    pod.metadata.labels["app"] = "x"
    return env.container_env(pod, pod.spec.containers[0], sources())


def ref(kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": "V", "valueFrom": {kind: fields}}


def test_later_variables_win_and_may_reference_earlier_ones() -> None:
    made = variables(
        {"name": "a", "value": "own"},
        {"name": "X", "value": "$(P_b)-$(LATER)"},
        {"name": "LATER", "value": "z"},
        envFrom=[{"configMapRef": {"name": "cm"}}, {"configMapRef": {"name": "cm"}, "prefix": "P_"}],
    )
    assert made["a"] == "own"
    assert made["X"] == "2-$(LATER)"


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (ref("configMapKeyRef", name="cm", key="a"), "1"),
        (ref("secretKeyRef", name="s", key="key"), "hidden"),
        (ref("fieldRef", fieldPath="metadata.name"), "web"),
        (ref("fieldRef", fieldPath="metadata.labels['app']"), "x"),
        (ref("fieldRef", fieldPath="metadata.annotations['none']"), ""),
        (ref("fieldRef", fieldPath="spec.nodeName"), "node"),
        (ref("fieldRef", fieldPath="spec.serviceAccountName"), "robot"),
        (ref("fieldRef", fieldPath="status.podIP"), "10.88.0.2"),
        (ref("fieldRef", fieldPath="status.hostIP"), "192.0.2.1"),
        (ref("resourceFieldRef", resource="limits.cpu"), "4"),
        (ref("resourceFieldRef", resource="limits.memory", divisor="1Mi"), "8192"),
    ],
)
def test_values_from_other_sources(entry: dict[str, Any], value: str) -> None:
    assert variables(entry)["V"] == value


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (ref("configMapKeyRef", name="none", key="a"), 'configmap "none" not found'),
        (ref("configMapKeyRef", name="cm", key="z"), "couldn't find key z in ConfigMap default/cm"),
        (ref("secretKeyRef", name="none", key="a"), 'secret "none" not found'),
        (ref("fieldRef", fieldPath="spec.nope"), "unsupported fieldPath"),
    ],
)
def test_a_missing_source_is_named(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        variables(entry)


def test_a_missing_optional_source_is_left_out() -> None:
    assert variables(ref("configMapKeyRef", name="none", key="a", optional=True)) == {}
    assert variables(envFrom=[{"secretRef": {"name": "none", "optional": True}}]) == {}


# -- users ------------------------------------------------------------------------------------------------------


@pytest.fixture
def layers(tmp_path: Path) -> list[str]:
    """Three layers: the top one replaces passwd and deletes /etc/secret; the middle one has a link that leads out of
    the image."""
    top, middle, base = (tmp_path / name for name in ("top", "middle", "base"))
    for layer in (top, middle, base):
        (layer / "etc").mkdir(parents=True)
    (top / "etc/passwd").write_text("root:x:0:0::/:\nweb:x:101:102::/:\n")
    (middle / "etc/group").symlink_to("../usr/group")
    (base / "etc/group").write_text("wrong:x:999:\n")
    (base / "usr").mkdir()
    (base / "usr/group").write_text("www:x:102:\nextra:x:7:web,other\nroot:x:0:\nadm:x:4:root\n")
    (base / "etc/passwd").write_text("web:x:1:1::/:\n")
    (middle / "etc/out").symlink_to("/../../../../../../etc/hostname")
    return [str(top), str(middle), str(base)]


def who(layers: list[str], image: str = "", own: dict[str, Any] | None = None, **shared: Any) -> ResolvedUser:
    pod = make_pod(container("a", securityContext=own or {}), securityContext=shared)
    return resolve_user(pod, pod.spec.containers[0], image, image_accounts(tuple(layers)))


@pytest.mark.parametrize(
    ("image", "own", "shared", "expected"),
    [
        ("", {}, {}, ResolvedUser(0, 0, (4,))),
        ("web", {}, {}, ResolvedUser(101, 102, (7,))),
        ("web:www", {}, {}, ResolvedUser(101, 102, ())),
        ("web:5", {}, {}, ResolvedUser(101, 5, ())),
        ("101", {}, {}, ResolvedUser(101, 102, (7,))),
        ("4242", {}, {}, ResolvedUser(4242, 0, ())),
        ("web", {"runAsUser": 0}, {}, ResolvedUser(0, 0, (4,))),
        ("", {"runAsUser": 101, "runAsGroup": 9}, {}, ResolvedUser(101, 9, (7,))),
        (
            "",
            {},
            {"runAsUser": 5, "fsGroup": 30, "supplementalGroups": [20, 10]},
            ResolvedUser(5, 0, (10, 20, 30)),
        ),
        ("", {"runAsUser": 6}, {"runAsUser": 5}, ResolvedUser(6, 0, ())),
    ],
)
def test_users(
    layers: list[str], image: str, own: dict[str, Any], shared: dict[str, Any], expected: ResolvedUser
) -> None:
    assert who(layers, image, own, **shared) == expected


def test_an_unknown_user_name(layers: list[str]) -> None:
    with pytest.raises(CreateError, match="unable to find user nobody: no matching entries in passwd file"):
        who(layers, "nobody")
    with pytest.raises(CreateError, match="unable to find group nogroup"):
        who(layers, "web:nogroup")


@pytest.mark.parametrize(
    ("image", "own", "message"),
    [
        ("", {}, "container has runAsNonRoot and image will run as root"),
        ("0:5", {}, "container has runAsNonRoot and image will run as root"),
        ("web", {}, r"image has non-numeric user \(web\), cannot verify user is non-root"),
        ("web", {"runAsUser": 0}, "container's runAsUser breaks non-root policy"),
    ],
)
def test_run_as_non_root(layers: list[str], image: str, own: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        who(layers, image, {**own, "runAsNonRoot": True})
    assert who(layers, "101", {"runAsNonRoot": True}).uid == 101
    assert who(layers, image, {**own, "runAsNonRoot": False}) is not None


@pytest.mark.parametrize("image", ["2147483648", "99999999999999999999", "web:2147483648", "4294967296"])
def test_digits_are_never_a_name(layers: list[str], image: str) -> None:
    """An image could have a user with uid 0 whose name is a number out of range."""
    lines = "".join(f"{name}:x:0:0::/:\n" for name in ("web", *image.split(":")))
    Path(layers[0], "etc/passwd").write_text(lines)
    for own in ({}, {"runAsNonRoot": True}):
        with pytest.raises(
            (CreateError, ConfigError), match=r"must be in range 0-2147483647|non-numeric user"
        ):
            who(layers, image, own)


def test_digits_of_other_scripts_are_a_name(layers: list[str]) -> None:
    with pytest.raises(CreateError, match="unable to find user ²"):
        who(layers, "²")
    with pytest.raises(ConfigError, match="non-numeric user"):
        who(layers, "²", {"runAsNonRoot": True})


def test_lookups_stay_in_the_image(layers: list[str]) -> None:
    assert read_in_layers(layers, "etc/out") == b"", "an absolute link with .. leads to the image's own root"
    Path(layers[2], "etc/hostname").write_text("inside")
    assert read_in_layers(layers, "etc/out") == b"inside"
    loop = Path(layers[0], "etc/loop")
    loop.symlink_to("loop")
    assert read_in_layers(layers, "etc/loop") == b""


# -- network files ----------------------------------------------------------------------------------------------


def test_hosts_file() -> None:
    pod = make_pod("a", subdomain="svc", hostAliases=[{"ip": "192.0.2.7", "hostnames": ["db", "db.local"]}])
    assert netfiles.hosts_file(pod, ["10.88.0.2"], CONFIG).splitlines() == [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        "fe00::0\tip6-localnet",
        "fe00::0\tip6-mcastprefix",
        "fe00::1\tip6-allnodes",
        "fe00::2\tip6-allrouters",
        "10.88.0.2\tweb.svc.default.svc.cluster.local\tweb",
        "",
        "# Entries added by HostAliases.",
        "192.0.2.7\tdb\tdb.local",
    ]


def test_hosts_file_with_the_hosts_network_is_a_copy() -> None:
    text = netfiles.hosts_file(
        make_pod("a", hostNetwork=True), [], CONFIG, "127.0.0.1 localhost\n192.0.2.1 me\n"
    )
    assert text == "# Kubernetes-managed hosts file (host network).\n127.0.0.1 localhost\n192.0.2.1 me\n"


@pytest.mark.parametrize(
    ("name", "expected"), [("short", "short"), ("x" * 70, "x" * 63), ("x" * 62 + "-y", "x" * 62), ("", "web")]
)
def test_hostname(name: str, expected: str) -> None:
    assert netfiles.pod_hostname(make_pod("a", hostname=name)) == expected


HOST = "# mine\nsearch corp.example\nnameserver 192.0.2.53\nnameserver 192.0.2.54\noptions timeout:1\n"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"dnsPolicy": "Default"},
            ["search corp.example", "nameserver 192.0.2.53", "nameserver 192.0.2.54", "options timeout:1"],
        ),
        (
            {"dnsPolicy": "ClusterFirst"},
            [
                "search default.svc.cluster.local svc.cluster.local cluster.local corp.example",
                "nameserver 10.96.0.10",
                "options ndots:5",
            ],
        ),
        (
            {"dnsPolicy": "ClusterFirst", "hostNetwork": True},
            ["search corp.example", "nameserver 192.0.2.53", "nameserver 192.0.2.54", "options timeout:1"],
        ),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {
                    "nameservers": ["192.0.2.1", "192.0.2.1"],
                    "searches": ["a.example"],
                    "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
                },
            },
            ["search a.example", "nameserver 192.0.2.1", "options ndots:2 edns0"],
        ),
        (
            {"dnsPolicy": "ClusterFirst", "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]}},
            [
                "search default.svc.cluster.local svc.cluster.local cluster.local corp.example",
                "nameserver 10.96.0.10",
                "options ndots:1",
            ],
        ),
    ],
)
def test_resolv_conf(spec: dict[str, Any], expected: list[str]) -> None:
    config = NodeConfig("node", "192.0.2.1", "/r", "/l", cluster_dns=("10.96.0.10",))
    assert netfiles.resolv_conf(make_pod("a", **spec), config, HOST).splitlines() == expected


def test_without_cluster_dns_cluster_first_means_the_hosts_dns() -> None:
    assert "nameserver 192.0.2.53" in netfiles.resolv_conf(make_pod("a"), CONFIG, HOST)


STUB, BEHIND = (
    "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n",
    "nameserver 192.0.2.53\nsearch lan\n",
)


@pytest.mark.parametrize(
    ("host", "resolved", "expected"),
    [
        (STUB, BEHIND, BEHIND),
        (STUB, "", STUB),
        (STUB, "search lan\n", STUB),
        (
            "nameserver 127.0.0.53\nnameserver 192.0.2.1\n",
            BEHIND,
            "nameserver 127.0.0.53\nnameserver 192.0.2.1\n",
        ),
        ("nameserver ::1\n", BEHIND, BEHIND),
        ("", BEHIND, ""),
        (HOST, BEHIND, HOST),
    ],
)
def test_a_loopback_stub_is_replaced_by_its_upstream_servers(host: str, resolved: str, expected: str) -> None:
    assert netfiles.reachable_resolv_conf(host, resolved) == expected


def test_the_resolv_conf_with_reachable_servers_is_read(tmp_path: Path) -> None:
    own, behind, chosen = tmp_path / "own", tmp_path / "behind", tmp_path / "chosen"
    own.write_text(STUB)
    config = replace(CONFIG, host_resolv_conf=str(own), resolved_conf=str(behind))
    assert "names only 127.0.0.53" in netfiles_disk.dns_trouble(make_pod("a"), config)
    assert not netfiles_disk.dns_trouble(make_pod("a", hostNetwork=True), config)
    assert not netfiles_disk.dns_trouble(
        make_pod("a", dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.9"]}), config
    )
    behind.write_text(BEHIND)
    assert not netfiles_disk.dns_trouble(make_pod("a"), config)
    config = replace(config, resolv_conf=str(chosen))
    assert "cannot be read" in netfiles_disk.dns_trouble(make_pod("a"), config)
    chosen.write_text("nameserver 127.0.0.1\n")
    assert "names only 127.0.0.1" in netfiles_disk.dns_trouble(make_pod("a"), config)


# -- last words -------------------------------------------------------------------------------------------------


def test_fallback_to_logs_on_error(tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    head = "2026-01-01T00:00:00.000000000Z stdout"
    log.write_text("".join(f"{head} F line {n}\n" for n in range(100)) + f"{head} P half\n")
    tail = log_tail(str(log))
    assert tail.splitlines()[0] == "line 21"
    assert tail.endswith("line 99\nhalf")
    log.write_text(f"{head} F {'x' * 3000}\n")
    assert len(log_tail(str(log))) == 2048
    pod = make_pod(container("a", terminationMessagePolicy="FallbackToLogsOnError"), "b")
    ended = [
        ObservedContainer(
            name, name, 0, ContainerState.EXITED, exit_code=code, log_path=str(log), message=message
        )
        for name, code, message in (("a", 1, ""), ("a", 0, ""), ("a", 1, "own"), ("b", 1, ""))
    ]
    found = [c.message[:3] for c in with_messages(pod, ObservedPod("u", None, tuple(ended))).containers]
    assert found == ["xxx", "", "own", ""]


def test_the_hostname_override_wins() -> None:
    pod = make_pod("a", hostname="box", subdomain="inner", hostnameOverride="own.example")
    assert netfiles.pod_hostname(pod) == "own.example"
    assert netfiles.pod_fqdn(pod, "cluster.local") == ""
    long = make_pod("a", hostnameOverride="a" * 62 + ".b")
    assert netfiles.pod_hostname(long) == "a" * 62, "cut to what the kernel takes, and not at a dot"
    fqdn = make_pod("a", hostname="box", subdomain="inner", setHostnameAsFQDN=True)
    assert netfiles.uts_hostname(fqdn, CONFIG) == "box.inner.default.svc.cluster.local"
    names = {"hostname": "h" * 20, "subdomain": "s" * 20, "setHostnameAsFQDN": True}
    with pytest.raises(
        CreateError, match=r"is too long \(64 characters is the max, 67 characters requested\)"
    ):
        netfiles.uts_hostname(make_pod("a", **names), CONFIG)
    assert netfiles.uts_hostname(make_pod("a", **names, hostNetwork=True), CONFIG), (
        "the host's name is left alone"
    )


def test_the_longest_log_directory_is_a_valid_file_name() -> None:
    uid = "1f8aaa33-34fa-87f6-ac7b-1c4600000015"
    long = pod_log_name("n" * 63, "p" * 253, uid)
    assert len(long) == 255
    assert long.startswith("n" * 63 + "_ppp") and long.endswith(f"p_{uid}")
    assert pod_log_name("default", "web", uid) == f"default_web_{uid}"

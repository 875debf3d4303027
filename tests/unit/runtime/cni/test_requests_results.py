"""What plugins are given, and how their answers are read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.cni.conflist import from_json
from runtime.cni.requests import Pod, PodFacts, environment, plugin_config, values_of
from runtime.cni.results import addresses, failure, parse_result, parse_versions
from runtime.errors import NetworkError
from runtime.network.plan import UNLIMITED, Bandwidth, PortMapping

PLUGIN = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True, "mac": False}}
NETWORK = from_json({"cniVersion": "1.0.0", "name": "pods", "plugins": [PLUGIN]})
POD = Pod("uid-1", "c0ffee", "/proc/7/ns/net", "eth0", "shop", "web-0")


def test_a_plugin_gets_the_values_that_it_asks_for() -> None:
    facts = PodFacts("shop", "web-0", "/kubelite/pod1", ("10.1.0.9/24",), "02:00:00:00:00:01")
    values = values_of(facts, [PortMapping(8080, 80, "UDP")], Bandwidth(1000, 0))
    assert values["bandwidth"] == {"ingressRate": 1000, "ingressBurst": 2**31 - 1}
    assert (values["ips"], values["mac"]) == (["10.1.0.9/24"], "02:00:00:00:00:01")
    config = plugin_config(NETWORK, PLUGIN, "1.0.0", values=values, previous={"ips": []})
    mapping = {"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": ""}
    assert config == {
        "type": "portmap",
        "snat": True,
        "cniVersion": "1.0.0",
        "name": "pods",
        "runtimeConfig": {"portMappings": [mapping]},
        "prevResult": {"ips": []},
    }
    assert "runtimeConfig" not in plugin_config(
        NETWORK, PLUGIN, "1.0.0", values=values_of(PodFacts(), [], UNLIMITED)
    )


def test_a_plugin_is_told_of_the_pod_as_container_runtimes_do() -> None:
    found = environment("ADD", POD, ["/opt/cni/bin", "/usr/lib/cni"])
    assert found["CNI_ARGS"] == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=uid-1"
    )
    assert (found["CNI_PATH"], found["CNI_IFNAME"]) == ("/opt/cni/bin:/usr/lib/cni", "eth0")
    assert environment("STATUS", None, ["/x"]) == {"CNI_COMMAND": "STATUS", "CNI_PATH": "/x"}


RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "cni0", "mac": "02:00:00:00:00:02"},
        {"name": "eth0", "mac": "02:00:00:00:00:03", "sandbox": "/proc/7/ns/net"},
    ],
    "ips": [
        {"address": "10.9.9.9/24", "interface": 0},
        {"address": "fd00::5/64", "gateway": "fd00::1", "interface": 1},
        {"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 1},
    ],
}


def test_the_addresses_of_the_pods_interface_in_order() -> None:
    found = addresses(RESULT, "eth0")
    assert found is not None
    assert (found.ip, found.prefix, found.gateway, found.mac) == (
        "fd00::5",
        64,
        "fd00::1",
        "02:00:00:00:00:03",
    )
    assert found.ip6 == "10.1.0.5"
    plain = addresses({"ips": [{"version": "4", "address": "10.1.0.5/24"}]}, "eth0")
    assert plain is not None and (plain.ip, plain.gateway, plain.ip6) == ("10.1.0.5", "", "")
    assert addresses({"ips": []}, "eth0") is None


@pytest.mark.parametrize("ips", [[{}], [{"address": "x"}], "text", [7]])
def test_a_malformed_result_is_an_error(ips: Any) -> None:
    with pytest.raises(NetworkError, match="malformed"):
        addresses({"ips": ips}, "eth0")


DEEP = b"[" * 200_000


@pytest.mark.parametrize("output", [b"", b"garbage", b"[]", b'{"cniVersion": "0.4.0"}', b"\xff", DEEP])
def test_an_unexpected_answer_is_refused(output: bytes) -> None:
    with pytest.raises(ValueError):
        parse_result(output, "1.0.0")


def test_versions() -> None:
    assert parse_versions(b'{"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0"]}') == {
        "0.4.0",
        "1.0.0",
    }
    with pytest.raises(ValueError, match="no supportedVersions"):
        parse_versions(b"{}")
    with pytest.raises(ValueError, match="recursion"):
        parse_versions(DEEP)


@pytest.mark.parametrize(
    ("code", "output", "errors", "words", "number"),
    [
        (1, json.dumps({"code": 11, "msg": "try later", "details": "full"}), "", "try later; full", 11),
        (1, "", "boom\n", "netplugin failed: boom", 0),
        (3, "", "", "netplugin failed with no error message: exit status 3", 0),
        (-9, "", "", "netplugin failed with no error message: signal 9", 0),
        (1, "panic", "", 'netplugin failed but error parsing its diagnostic message "panic"', 0),
        (1, '{"msg": "m", "code": 1e999}', "", "netplugin failed but error parsing", 0),
        pytest.param(1, DEEP.decode(), "", "netplugin failed but error parsing", 0, id="deep"),
    ],
)
def test_failures_are_told_in_libcnis_words(
    code: int, output: str, errors: str, words: str, number: int
) -> None:
    said, found = failure(code, output.encode(), errors.encode())
    assert said.startswith(words) and found == number

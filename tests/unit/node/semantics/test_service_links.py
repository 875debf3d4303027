"""Variables that name Services. Rows follow Kubernetes 1.36: pkg/kubelet/envvars/envvars_test.go and
pkg/kubelet/kubelet_pods_test.go (TestMakeEnvironmentVariables)."""

from __future__ import annotations

from kubelite.node.spec.service_links import service_links
from tests.unit.services.docs import Doc, service


def test_the_variables_of_a_service() -> None:
    doc = service(
        "my-db",
        {"port": 8081, "protocol": "TCP", "name": "u-d"},
        {"port": 8081, "protocol": "UDP", "name": "q"},
    )
    assert service_links([doc], "default", enabled=True) == {
        "MY_DB_SERVICE_HOST": "10.96.0.7",
        "MY_DB_SERVICE_PORT": "8081",
        "MY_DB_SERVICE_PORT_U_D": "8081",
        "MY_DB_SERVICE_PORT_Q": "8081",
        "MY_DB_PORT": "tcp://10.96.0.7:8081",
        "MY_DB_PORT_8081_TCP": "tcp://10.96.0.7:8081",
        "MY_DB_PORT_8081_TCP_PROTO": "tcp",
        "MY_DB_PORT_8081_TCP_PORT": "8081",
        "MY_DB_PORT_8081_TCP_ADDR": "10.96.0.7",
        "MY_DB_PORT_8081_UDP": "udp://10.96.0.7:8081",
        "MY_DB_PORT_8081_UDP_PROTO": "udp",
        "MY_DB_PORT_8081_UDP_PORT": "8081",
        "MY_DB_PORT_8081_UDP_ADDR": "10.96.0.7",
    }


def test_an_ipv6_address_is_in_brackets_before_a_port() -> None:
    found = service_links([service(clusterIP="fd00:96::7")], "default", enabled=True)
    assert found["WEB_SERVICE_HOST"] == found["WEB_PORT_80_TCP_ADDR"] == "fd00:96::7"
    assert found["WEB_PORT"] == found["WEB_PORT_80_TCP"] == "tcp://[fd00:96::7]:80"


def test_which_services_are_named() -> None:
    def hosts(*docs: Doc, enabled: bool = True) -> set[str]:
        return {key for key in service_links(docs, "default", enabled=enabled) if key.endswith("_HOST")}

    other = service("other")
    other["metadata"]["namespace"] = "elsewhere"
    headless, master = service("none", clusterIP="None"), service("kubernetes")
    assert hosts(service(), other, headless, master) == {"WEB_SERVICE_HOST", "KUBERNETES_SERVICE_HOST"}
    assert hosts(service(), other, headless, master, enabled=False) == {"KUBERNETES_SERVICE_HOST"}

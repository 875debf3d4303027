"""The names that a Service gives: a row for each part of Kubernetes' DNS specification 1.1
(https://github.com/kubernetes/dns/blob/master/docs/specification.md)."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.services.dns_records import Names, service_names
from runtime.dns.zone import Entry, Srv

NAME = "web.shop.svc.cluster.local"
META = {"name": "web", "namespace": "shop"}


def _names(spec: dict[str, Any], *slices: dict[str, Any]) -> Names:
    return service_names({"metadata": META, "spec": spec}, slices, "cluster.local")


def _slice(*endpoints: dict[str, Any], ports: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"endpoints": list(endpoints), "ports": list(ports)}


def _endpoint(address: str, hostname: str = "", **conditions: bool) -> dict[str, Any]:
    named = {"hostname": hostname} if hostname else {}
    return {"addresses": [address], **named, **({"conditions": conditions} if conditions else {})}


HTTP = {"name": "http", "protocol": "TCP", "port": 80}


@pytest.mark.parametrize(
    ("spec", "slices", "names", "pointers"),
    [
        pytest.param(
            {"clusterIP": "10.89.0.5", "clusterIPs": ["10.89.0.5"], "ports": [{**HTTP}, {"port": 81}]},
            (_slice(_endpoint("10.88.0.2", "a")),),
            {NAME: Entry(a=("10.89.0.5",)), f"_http._tcp.{NAME}": Entry(srv=(Srv(80, NAME),))},
            {"10.89.0.5": NAME},
            id="2.3 a cluster IP; a port without a name has no SRV",
        ),
        pytest.param(
            {"clusterIPs": ["10.89.0.5", "fd00::5"]},
            (),
            {NAME: Entry(a=("10.89.0.5",), aaaa=("fd00::5",))},
            {"10.89.0.5": NAME, "fd00::5": NAME},
            id="both families",
        ),
        pytest.param(
            {"clusterIPs": ["FD00::0:5"]},
            (),
            {NAME: Entry(aaaa=("fd00::5",))},
            {"fd00::5": NAME},
            id="IPv6 alone",
        ),
        pytest.param(
            {"clusterIP": "None", "ports": [HTTP]},
            (
                _slice(_endpoint("10.88.0.2", "db-0"), ports=(HTTP,)),
                _slice(_endpoint("fd00:88::2", "db-0"), _endpoint("FD00:88::3"), ports=(HTTP,)),
            ),
            {
                NAME: Entry(a=("10.88.0.2",), aaaa=("fd00:88::2", "fd00:88::3")),
                f"db-0.{NAME}": Entry(a=("10.88.0.2",), aaaa=("fd00:88::2",)),
                f"fd00-88--3.{NAME}": Entry(aaaa=("fd00:88::3",)),
                f"_http._tcp.{NAME}": Entry(
                    srv=(Srv(80, f"db-0.{NAME}", weight=50), Srv(80, f"fd00-88--3.{NAME}", weight=50))
                ),
            },
            {
                "10.88.0.2": f"db-0.{NAME}",
                "fd00:88::2": f"db-0.{NAME}",
                "fd00:88::3": f"fd00-88--3.{NAME}",
            },
            id="headless, of both families: one SRV record for a host name",
        ),
        pytest.param(
            {"clusterIP": "None"},
            ({**_slice(_endpoint("db.example.org")), "addressType": "FQDN"},),
            {NAME: Entry()},
            {},
            id="endpoints that are names",
        ),
        pytest.param({"ports": [HTTP]}, (), {}, {}, id="an address that is not allocated yet"),
        pytest.param(
            {"type": "ExternalName", "externalName": "Mail.Example.COM."},
            (),
            {NAME: Entry(cname="mail.example.com")},
            {},
            id="2.5 an external name",
        ),
        pytest.param({"clusterIP": "None"}, (), {NAME: Entry()}, {}, id="headless, without endpoints"),
        pytest.param(
            {"clusterIP": "None", "ports": [HTTP]},
            (
                _slice(
                    _endpoint("10.88.0.2", "web-0"), _endpoint("10.88.0.3"), ports=({**HTTP, "port": 8080},)
                ),
            ),
            {
                NAME: Entry(a=("10.88.0.2", "10.88.0.3")),
                f"web-0.{NAME}": Entry(a=("10.88.0.2",)),
                f"10-88-0-3.{NAME}": Entry(a=("10.88.0.3",)),
                f"_http._tcp.{NAME}": Entry(
                    srv=(Srv(8080, f"web-0.{NAME}", weight=50), Srv(8080, f"10-88-0-3.{NAME}", weight=50))
                ),
            },
            {"10.88.0.2": f"web-0.{NAME}", "10.88.0.3": f"10-88-0-3.{NAME}"},
            id="2.4 headless: host names, or addresses with dashes",
        ),
        pytest.param(
            {"clusterIP": "None"},
            (
                _slice(
                    _endpoint("10.88.0.2", "a", ready=False, serving=True, terminating=True),
                    _endpoint("10.88.0.3", "b", ready=True),
                ),
                _slice(_endpoint("10.88.0.4", "c")),
            ),
            {
                NAME: Entry(a=("10.88.0.3", "10.88.0.4")),
                f"b.{NAME}": Entry(a=("10.88.0.3",)),
                f"c.{NAME}": Entry(a=("10.88.0.4",)),
            },
            {"10.88.0.3": f"b.{NAME}", "10.88.0.4": f"c.{NAME}"},
            id="only ready endpoints, of every slice; an unset condition means ready",
        ),
        pytest.param(
            {"clusterIP": "None"},
            (_slice(_endpoint("10.88.0.2", "a")), _slice(_endpoint("10.88.0.2", "a"))),
            {NAME: Entry(a=("10.88.0.2",)), f"a.{NAME}": Entry(a=("10.88.0.2",))},
            {"10.88.0.2": f"a.{NAME}"},
            id="an endpoint in two slices",
        ),
    ],
)
def test_names(
    spec: dict[str, Any],
    slices: tuple[dict[str, Any], ...],
    names: dict[str, Entry],
    pointers: dict[str, str],
) -> None:
    assert _names(spec, *slices) == Names(names, pointers)


def test_an_address_of_a_family_that_the_node_no_longer_serves_is_left_out() -> None:
    """A client would try it first, and wait."""
    service = {"metadata": META, "spec": {"clusterIPs": ["10.89.0.5", "fd00::5"]}}
    found = service_names(service, (), "cluster.local", ("IPv4",))
    assert found == Names({NAME: Entry(a=("10.89.0.5",))}, {"10.89.0.5": NAME})

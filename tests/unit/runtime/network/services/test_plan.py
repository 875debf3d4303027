"""Ports of Services as data: their JSON form."""

import json

from runtime.network.services.plan import Endpoint, ServicePort


def test_a_port_survives_json() -> None:
    port = ServicePort(
        name="default/web:http/TCP",
        protocol="TCP",
        port=80,
        addresses=("10.96.0.10",),
        external=("192.0.2.1",),
        node_port=30080,
        endpoints=(Endpoint("10.88.0.2", 8080), Endpoint("10.88.0.3", 8080)),
        external_endpoints=(Endpoint("10.88.0.2", 8080),),
        affinity=10800,
        preserve_source=True,
        sources=("192.0.2.0/24",),
    )
    assert ServicePort.from_json(json.loads(json.dumps(port.to_json()))) == port

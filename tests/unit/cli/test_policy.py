"""`kubelite policy trace` on pods with addresses of two families."""

from __future__ import annotations

import json

from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import kubelite, server
from tests.unit.network_policies.kit import policy

__all__ = ["server"]

ONLY_IPV4 = "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.88.0.0/16}}]}]}"


def _put(served: Served, name: str, *addresses: str) -> None:
    doc = pod_doc(name)
    status = {**doc.get("status", {}), "podIP": addresses[0], "podIPs": [{"ip": ip} for ip in addresses]}
    served.run(served.node.store.create("Pod", {**doc, "status": status}))


def test_each_family_is_judged_and_named_if_they_differ(server: Served) -> None:
    _put(server, "one", "10.88.0.2", "fd00:88::2")
    _put(server, "two", "10.88.0.3", "fd00:88::3")
    _put(server, "six", "fd00:88::4")
    wanted = policy("default/in", ONLY_IPV4)
    metadata = {**wanted["metadata"], "uid": "in"}
    server.run(server.node.store.create("NetworkPolicy", {**wanted, "metadata": metadata}))
    found = kubelite(server, "policy", "trace", "one", "two:80")
    assert found.returncode == 3
    head, *reasons = found.stdout.splitlines()
    assert head == ("pod default/one → pod default/two, port 80/TCP: allowed over IPv4, dropped over IPv6")
    assert reasons[-1] == "  - IPv6: pod default/two (ingress): dropped, no rule of default/in allows it"
    document = json.loads(kubelite(server, "policy", "trace", "one", "two:80", "-o", "json").stdout)
    assert document["allowed"] is False and len(document["reasons"]) == 4
    assert kubelite(server, "policy", "trace", "10.88.0.2", "two:80").returncode == 0
    apart = kubelite(server, "policy", "trace", "six", "10.88.0.3:80")
    assert apart.returncode == 1 and "no addresses of the same family" in apart.stderr

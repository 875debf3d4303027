"""Services of both IP families on one node, as programs in pods and on the host reach them."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node, running_node
from tests.e2e.test_network import needs_nat
from tests.e2e.test_workloads import items

pytestmark = [
    needs_nat,
    pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="needs IPv6 in this kernel"),
]
PODS, SERVICES = "10.77.0.0/24,fd00:77::/64", "10.96.0.0/16,fd00:96::/112"
HOST4, HOST6 = "192.0.2.10", "2001:db8::10"
SERVE = "mkdir -p /tmp/w; hostname >/tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Node]:
    base = tmp_path_factory.mktemp("dual")
    with running_node(base, images, pod_cidr=PODS, service_cidr=SERVICES) as found:
        for command in (
            ("link", "add", "outside", "type", "veth", "peer", "name", "others"),
            ("link", "set", "others", "up"),
            ("addr", "add", f"{HOST4}/24", "dev", "outside"),
            ("addr", "add", f"{HOST6}/64", "dev", "outside", "nodad"),
            ("link", "set", "outside", "up"),
            ("route", "add", "default", "dev", "outside"),
            ("-6", "route", "add", "default", "dev", "outside"),
        ):
            subprocess.run(found.in_netns("ip", *command), check=True)
        main = container(script=SERVE, ports=[{"name": "http", "containerPort": 8080}])
        found.apply("server.yaml", pod("server", main, labels={"app": "web"}))
        found.apply("client.yaml", pod("client"))
        for name in ("server", "client"):
            found.wait_status(name, "Running")
        yield found


def service(name: str = "web", **spec: Any) -> str:
    given = {
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        **spec,
    }
    given = {key: value for key, value in given.items() if value is not None}
    doc = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": given}
    return yaml.safe_dump(doc, sort_keys=False)


def found(node: Node, name: str = "web") -> dict[str, Any]:
    code, body = node.ask(f"/api/v1/namespaces/default/services/{name}")
    assert code == 200, body
    doc: dict[str, Any] = json.loads(body)
    return doc


def slices(node: Node, name: str = "web") -> dict[str, list[str]]:
    """The addresses in the EndpointSlices of a Service, by their type."""
    code, body = node.ask("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices")
    assert code == 200, body
    return {
        one["addressType"]: [ip for end in one["endpoints"] for ip in end["addresses"]]
        for one in json.loads(body)["items"]
        if one["metadata"]["labels"]["kubernetes.io/service-name"] == name
    }


def from_host(node: Node, address: str, port: int = 80) -> str:
    host = f"[{address}]" if ":" in address else address
    with contextlib.suppress(OSError, http.client.HTTPException):
        return node.fetch(f"http://{host}:{port}/", timeout=3.0).body.decode().strip()
    return ""


def from_pod(node: Node, address: str, port: int = 80) -> str:
    host = f"[{address}]" if ":" in address else address
    command = "wget", "-T", "3", "-qO-", f"http://{host}:{port}/"
    return node.cli("exec", "client", "--", *command, check=False).out.strip()


def answers(node: Node, address: str, port: int = 80) -> bool:
    return from_pod(node, address, port) == "server"


def test_a_service_of_both_families(node: Node) -> None:
    node.apply("web.yaml", service(type="NodePort", ipFamilyPolicy="PreferDualStack"))
    server = [one["ip"] for one in node.pod("server")["status"]["podIPs"]]
    node.wait(lambda: slices(node) == {"IPv4": server[:1], "IPv6": server[1:]}, "a slice of each family")
    spec = found(node)["spec"]
    four, six = spec["clusterIPs"]
    assert spec["clusterIP"] == four and six.startswith("fd00:96::")
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    port = spec["ports"][0]["nodePort"]

    def reachable() -> None:
        for address in (four, six):
            node.wait(partial(answers, node, address), f"{address} from a pod")
            assert from_host(node, address) == "server"
        for address in (HOST4, HOST6, "10.77.0.1"):
            assert from_host(node, address, port) == "server", f"node port at {address} from the host"
            assert from_pod(node, address, port) == "server", f"node port at {address} from a pod"

    reachable()
    described = node.cli("describe", "service", "web").out
    assert "IPv4,IPv6" in described and f"{four},{six}" in described and f"[{server[1]}]:8080" in described
    node.kill()
    assert from_host(node, six) == "server", "while the daemon is down"
    node.start()
    assert found(node)["spec"] == spec
    reachable()
    assert not node.doctor()


def test_upgrade_and_downgrade(node: Node) -> None:
    node.apply("grown.yaml", service("grown"))
    node.wait(lambda: node.ask("/api/v1/namespaces/default/services/grown")[0] == 200, "the Service")
    (four,) = found(node, "grown")["spec"]["clusterIPs"]
    node.apply("grown.yaml", service("grown", ipFamilyPolicy="RequireDualStack"))
    node.wait(lambda: len(found(node, "grown")["spec"]["clusterIPs"]) == 2, "a second address")
    kept, six = found(node, "grown")["spec"]["clusterIPs"]
    assert kept == four
    node.wait(lambda: from_pod(node, six) == "server", "the second address")
    node.apply("grown.yaml", service("grown", ipFamilyPolicy="SingleStack"))
    node.wait(lambda: found(node, "grown")["spec"]["clusterIPs"] == [four], "one address")
    node.wait(lambda: set(slices(node, "grown")) == {"IPv4"}, "one slice")
    node.wait(lambda: from_host(node, six) == "", "the second address to be refused")
    assert from_pod(node, four) == "server"


def test_a_load_balancer_and_a_service_of_ipv6_alone(node: Node) -> None:
    ports = [{"name": "http", "port": 8088, "targetPort": "http"}]
    node.apply("lb.yaml", service("lb", type="LoadBalancer", ports=ports, ipFamilyPolicy="RequireDualStack"))
    node.apply("six.yaml", service("six", ipFamilies=["IPv6"]))

    def addresses() -> list[str]:
        if node.ask("/api/v1/namespaces/default/services/lb")[0] != 200:
            return []
        return [
            one["ip"]
            for one in (found(node, "lb").get("status") or {}).get("loadBalancer", {}).get("ingress") or ()
        ]

    node.wait(lambda: addresses() == [HOST4, HOST6], "the node's addresses")
    for address in (HOST4, HOST6):
        node.wait(partial(answers, node, address, 8088), f"the load balancer at {address}")
    (only,) = found(node, "six")["spec"]["clusterIPs"]
    assert only.startswith("fd00:96::")
    node.wait(lambda: from_pod(node, only) == "server", "a Service of IPv6 alone")
    (subset,) = json.loads(node.ask("/api/v1/namespaces/default/endpoints/six")[1])["subsets"]
    assert [one["ip"] for one in subset["addresses"]] == [node.pod("server")["status"]["podIPs"][1]["ip"]]


def test_slices_of_a_manifest_and_policies(node: Node) -> None:
    """A Service without a selector leads to the addresses of its EndpointSlices; a policy restricts where packets go,
    not the Service through which they went."""
    server = [one["ip"] for one in node.pod("server")["status"]["podIPs"]]
    custom = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "own-6", "labels": {"kubernetes.io/service-name": "own"}},
        "addressType": "IPv6",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [server[1].upper()]}],
    }
    docs = yaml.safe_load(service("own", selector=None, ipFamilyPolicy="RequireDualStack")), custom
    node.apply("own.yaml", yaml.safe_dump_all(docs))
    node.wait(lambda: node.ask("/api/v1/namespaces/default/services/own")[0] == 200, "the Service")
    four, six = found(node, "own")["spec"]["clusterIPs"]
    node.wait(partial(answers, node, six), "the endpoint of IPv6")
    assert from_pod(node, four) == "", "no endpoint of IPv4"

    everything = {"cidr": "::/0", "except": [f"{server[1]}/128"]}
    rules = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": everything}]}]}
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "out"},
        "spec": rules,
    }
    node.apply("policy.yaml", yaml.safe_dump(policy))
    node.wait(lambda: not answers(node, six), "the policy to apply")
    rules["egress"] = [{"to": [{"ipBlock": {"cidr": f"{server[1]}/128"}}]}]
    node.apply("policy.yaml", yaml.safe_dump(policy))
    node.wait(partial(answers, node, six), "the policy to allow the endpoint's address")
    (node.manifests / "policy.yaml").unlink()
    node.wait(lambda: not items(node, "/apis/networking.k8s.io/v1/networkpolicies"), "the policy to go")


@pytest.mark.skipif(shutil.which("dig") is None, reason="needs dig")
def test_names(node: Node) -> None:
    """A, AAAA, SRV and PTR of a name of both families; the other families of a name of one have no data."""
    node.apply("named.yaml", service("named", ipFamilyPolicy="RequireDualStack"))
    node.apply("four.yaml", service("four"))
    node.apply("pods.yaml", service("pods", clusterIP="None", ipFamilyPolicy="RequireDualStack"))
    name = "named.default.svc.cluster.local"
    node.wait(lambda: dig(node, name, "AAAA")[1], "the name")
    four, six = found(node, "named")["spec"]["clusterIPs"]
    assert dig(node, name, "A") == ("NOERROR", [four]) and dig(node, name, "AAAA") == ("NOERROR", [six])
    assert dig(node, f"_http._tcp.{name}", "SRV") == ("NOERROR", [f"0 100 80 {name}."])
    for address in (four, six):
        assert dig(node, address, "-x") == ("NOERROR", [f"{name}."])
    assert dig(node, "fd00:96::dead", "-x")[0] == "NXDOMAIN"
    assert dig(node, "four.default.svc.cluster.local", "AAAA") == ("NOERROR", [])
    own = [one["ip"] for one in node.pod("server")["status"]["podIPs"]]
    pods = "pods.default.svc.cluster.local"
    node.wait(lambda: dig(node, pods, "AAAA")[1] == own[1:], "the pod's address")
    assert dig(node, pods, "A")[1] == own[:1]
    code, answers = dig(node, f"_http._tcp.{pods}", "SRV")
    assert code == "NOERROR" and len(answers) == 2, "one record a family: the endpoint has no host name"


def dig(node: Node, name: str, kind: str) -> tuple[str, list[str]]:
    """Response code and answers of the node's DNS server. `kind` -x: of an address."""
    asked = ["-x", name] if kind == "-x" else [name, kind]
    done = subprocess.run(
        node.in_netns("dig", "@10.77.0.1", "+tries=1", "+time=3", "+noall", "+comments", "+answer", *asked),
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    status = next(
        (line.partition("status: ")[2].partition(",")[0] for line in lines if "status: " in line), ""
    )
    return status, [line.split(maxsplit=4)[4] for line in lines if line and not line.startswith(";")]


def test_a_node_with_one_family_refuses_the_other(tmp_path: Path, images: Path) -> None:
    """Before anything is written, and in Kubernetes' words; PreferDualStack means one address there."""
    manifest = tmp_path / "web.yaml"
    with running_node(tmp_path, images) as node:
        for spec, words in (
            (
                {"ipFamilyPolicy": "RequireDualStack"},
                "this cluster is not configured for dual-stack services",
            ),
            ({"ipFamilies": ["IPv6"]}, 'Invalid value: "IPv6": not configured on this cluster'),
            ({"clusterIP": "fd00:96::5"}, "IPv6 is not configured on this cluster"),
        ):
            manifest.write_text(service(**spec))
            for command in (("apply", "-f"), ("apply", "--dry-run=server", "-f"), ("diff", "-f")):
                done = node.cli(*command, str(manifest), check=False)
                assert words in done.out + done.err, (command, spec)
            assert not list(node.manifests.iterdir())
        manifest.write_text(service(ipFamilyPolicy="PreferDualStack"))
        node.cli("apply", "-f", str(manifest))
        node.wait(lambda: node.ask("/api/v1/namespaces/default/services/web")[0] == 200, "the Service")
        spec = found(node)["spec"]
        assert spec["ipFamilies"] == ["IPv4"] and len(spec["clusterIPs"]) == 1

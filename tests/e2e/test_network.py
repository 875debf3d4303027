"""Pods reach each other, hosts reach pods through published ports, and nothing is left afterwards."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.manifests import SLEEP, container, pod
from tests.e2e.node import Node, running_node

SERVE = """
    trap 'exit 0' TERM
    mkdir -p /www; echo hello from $HOSTNAME > /www/index.html
    httpd -p 80 -h /www
    while :; do sleep 0.1; done
"""


def nat_is_missing() -> str:
    """Why this kernel cannot publish ports, or ""."""
    if shutil.which("nft") is None:
        return "nft"
    rules = "table ip kubelite-probe { chain c { type nat hook postrouting priority 100; masquerade; }; }"
    probe = subprocess.run(["unshare", "--net", "nft", rules], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "IPv4 nftables NAT in this kernel"


needs_nat = pytest.mark.skipif(bool(nat_is_missing()), reason=f"needs {nat_is_missing()}")


def fetch(node: Node, url: str) -> str:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return node.fetch(url, timeout=2.0).body.decode()
    return ""


def test_pods_reach_each_other_and_share_localhost(node: Node) -> None:
    node.apply("web.yaml", pod("web", container("httpd", SERVE), container("beside", SLEEP)))
    node.apply("client.yaml", pod("client"))
    node.wait_status("web", "Running")
    node.wait_status("client", "Running")
    address = node.pod("web")["status"]["podIP"]
    node.wait(lambda: "hello from web" in fetch(node, f"http://{address}/"), "the web server, from the host")
    got = node.cli("exec", "client", "--", "wget", "-qO-", f"http://{address}/").out
    assert got == "hello from web\n"
    got = node.cli("exec", "web", "-c", "beside", "--", "wget", "-qO-", "http://127.0.0.1/").out
    assert got == "hello from web\n"
    hosts = node.cli("exec", "web", "-c", "beside", "--", "cat", "/etc/hosts").out
    assert f"{address}\tweb" in hosts and hosts.startswith("# Kubernetes-managed hosts file.")


def _qdiscs(node: Node, tc: str) -> str:
    return subprocess.run(node.in_netns(tc, "qdisc"), capture_output=True, text=True, check=True).stdout


def test_limits_of_bandwidth(node: Node) -> None:
    limit = "kubernetes.io/egress-bandwidth"
    file = node.apply("limited.yaml", pod("limited", annotations={limit: "fast"}))
    said = f"the annotation {limit} is 'fast'"
    node.wait(lambda: said in node.cli("why", "limited").out, "why to name the annotation")
    node.apply("limited.yaml", pod("limited", annotations={limit: "20M"}))
    node.wait_status("limited", "Running")
    if tc := shutil.which("tc"):
        listed = _qdiscs(node, tc)
        assert "qdisc tbf" in listed and "rate 20Mbit" in listed and "qdisc ingress" in listed
        before = node.pid("limited")
        node.apply("limited.yaml", pod("limited", annotations={limit: "30M"}))
        node.wait(lambda: "rate 30Mbit" in _qdiscs(node, tc), "the new limit")
        node.apply("limited.yaml", pod("limited", annotations={limit: "slow"}))
        node.wait(lambda: "is 'slow'" in node.cli("why", "limited").out, "why to name the value")
        assert "rate 30Mbit" in _qdiscs(node, tc)
        assert node.pid("limited") == before
    file.unlink()
    node.wait_gone("limited")
    assert node.doctor() == []


@needs_nat
def test_host_ports(node: Node) -> None:
    ports = [{"containerPort": 80, "hostPort": 8080}]
    path = node.apply("web.yaml", pod("web", container("httpd", SERVE, ports=ports)))
    node.wait_status("web", "Running")
    node.wait(lambda: "hello" in fetch(node, "http://127.0.0.1:8080/"), "the port on loopback")
    node.apply("second.yaml", pod("second", container("httpd", SERVE, ports=ports)))
    node.wait(
        lambda: "8080" in node.cli("describe", "pod", "second", check=False).out, "the conflict to be named"
    )
    assert node.status_of("second") != "Running"
    path.unlink()
    node.wait_gone("web")
    node.wait_status("second", "Running")
    node.wait(
        lambda: "hello from second" in fetch(node, "http://127.0.0.1:8080/"), "the port with its new holder"
    )


ECHO = """
import socket
server = socket.socket(type=socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 5000))
print("bound", flush=True)
while True:
    data, sender = server.recvfrom(100)
    server.sendto(b"got " + data, sender)
"""
ASK = """
import socket
client = socket.socket(type=socket.SOCK_DGRAM)
client.settimeout(2)
client.sendto(b"hi", ("127.0.0.1", 5000))
print(client.recv(100).decode())
"""


@needs_nat
def test_udp_host_port(node: Node) -> None:
    ports = [{"containerPort": 5000, "hostPort": 5000, "protocol": "UDP"}]
    node.apply("udp.yaml", pod("udp", container(ports=ports)))
    node.wait_status("udp", "Running")
    inside = ["nsenter", f"--net=/proc/{node.pid('udp')}/ns/net", sys.executable, "-c", ECHO]
    with subprocess.Popen(inside, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == b"bound\n"
            asked = subprocess.run(
                node.in_netns(sys.executable, "-c", ASK), capture_output=True, text=True, check=True
            )
        finally:
            server.kill()
    assert asked.stdout == "got hi\n"


def test_host_network(node: Node) -> None:
    node.apply("hn.yaml", pod("hn", hostNetwork=True))
    node.wait_status("hn", "Running")
    assert node.holder is not None
    ours = Path(f"/proc/{node.holder.pid}/ns/net").readlink()
    assert Path(f"/proc/{node.pid('hn')}/ns/net").readlink() == ours


def test_addresses_are_reused(node: Node) -> None:
    """One after the other, more pods than the pool has addresses."""
    for turn in range(4):
        for index in range(3):
            node.apply(f"p{index}.yaml", pod(f"p{turn}-{index}"))
        for index in range(3):
            node.wait_status(f"p{turn}-{index}", "Running")
    for path in node.manifests.glob("*.yaml"):
        path.unlink()
    node.wait(lambda: "No resources" in (r := node.cli("get", "pods")).out + r.err, "all to go")
    asked = node.in_netns(sys.executable, "-c", "import socket; print(*dict(socket.if_nameindex()).values())")
    links = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    assert set(links.split()) <= {"lo", node.bridge}


SHOW = "echo $IP; echo $IPS; echo $HOST; trap 'exit 0' TERM; while :; do sleep 0.1; done"


@needs_nat
@pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="needs IPv6 in this kernel")
def test_pods_with_an_ipv6_address(tmp_path: Path, images: Path) -> None:
    fields = {"IP": "status.podIP", "IPS": "status.podIPs", "HOST": "status.hostIPs"}
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    with running_node(tmp_path, images, pod_cidr="10.77.0.0/24, fd00:77::/64") as node:
        node.apply("web.yaml", pod("web", container("httpd", SERVE)))
        node.apply("client.yaml", pod("client", container("main", SHOW, env=env)))
        node.wait_status("web", "Running")
        node.wait_status("client", "Running")
        addresses = [one["ip"] for one in node.pod("web")["status"]["podIPs"]]
        assert addresses[0] == node.pod("web")["status"]["podIP"] and addresses[1].startswith("fd00:77::a4d:")
        hosts = node.cli("exec", "web", "--", "cat", "/etc/hosts").out
        assert all(f"{address}\tweb\n" in hosts for address in addresses)
        got = node.cli("exec", "client", "--", "wget", "-qO-", f"http://[{addresses[1]}]/").out
        assert got == "hello from web\n"
        own = [one["ip"] for one in node.pod("client")["status"]["podIPs"]]
        node.wait(lambda: "127.0.0.1" in node.cli("logs", "client").out, "the variables")
        assert node.cli("logs", "client").out.split() == [own[0], ",".join(own), "127.0.0.1"]
        described = node.cli("describe", "node").out
        assert "10.77.0.0/24,fd00:77::/64" in described
        node.kill()
        node.start()
        assert [one["ip"] for one in node.pod("web")["status"]["podIPs"]] == addresses
        assert node.cli("exec", "client", "--", "wget", "-qO-", f"http://[{addresses[1]}]/").out == got

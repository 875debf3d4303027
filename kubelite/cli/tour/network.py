"""Station 5: the bridge, both ends of a veth pair, routes, masquerade and port map, and the path of a packet."""

from __future__ import annotations

import json
import re
from typing import Any

from kubelite.cli.tour.guide import NAMESPACE, Guide, Missing, container, pod

INTRODUCTION = """
A pod's network is a namespace with one end of a veth pair, whose other end is a port of a bridge, as with Docker's
docker0. What leaves the node is masqueraded, and a host port is an element of an nftables map, which one rule looks
up. Docker adds rules for each port and starts a proxy process; here neither exists, and the addresses survive the
daemon.
"""
PORT = 18087
SERVE = "mkdir -p /www; echo hello from the tour > /www/index.html; exec httpd -f -p 80 -h /www"


def visit(guide: Guide) -> None:
    guide.image()
    web = container("httpd", SERVE, ports=[{"containerPort": 80, "hostPort": PORT}])
    guide.apply(pod("server", web), pod("client", container("app")))
    server, client = (guide.inspect(name)["sandbox"] for name in ("server", "client"))
    guide.until(lambda: _fetches(guide, server["ip"]), "the web server to answer")
    _pair(guide, server)
    _routes(guide, server)
    with guide.optional("the node's rules"):
        _rules(guide, server)
        _senders(guide, server)
    _packet(guide, server, client)
    guide.delete()
    names = {link["ifname"] for link in json.loads(guide.ask("ip -j link"))}
    guide.check("with the pods their interfaces are gone", server["veth"]["host"]["name"] not in names)


def _fetches(guide: Guide, address: str) -> bool:
    command = f"kubelite exec client -n {NAMESPACE} -- wget -q -O - http://{address}/"
    return "hello" in guide.shell(command)[1]


def _pair(guide: Guide, server: Any) -> None:
    guide.step("The bridge, and both ends of a veth pair")
    host, inside = server["veth"]["host"], server["veth"]["container"]
    shim, bridge = server["pid"], host["bridge"]
    guide.run(f"ip -br -4 address show {bridge}")
    guide.run(f"ip -br link show master {bridge}")
    guide.run(f"nsenter -t {shim} -n ip -br address show eth0")
    guide.say("Each end knows the interface index of the other: the number after @if, and the file iflink.")
    there = guide.run(f"nsenter -t {shim} -n ip -o link show eth0")
    here = guide.run(f"ip -o link show {host['name']}")
    guide.check("eth0's peer is the index of the end on the bridge", f"eth0@if{host['ifindex']}:" in there)
    guide.check("the peer of that end is the index of eth0", f"@if{inside['ifindex']}:" in here)
    guide.check("the end on the host is a port of the bridge", f"master {bridge}" in here)


def _routes(guide: Guide, server: Any) -> None:
    guide.step("Routes")
    gateway = server["network"]["gateway"]
    found = guide.run(f"nsenter -t {server['pid']} -n ip route")
    guide.run(f"kubelite exec server -n {NAMESPACE} -- ip route")
    guide.say(
        "What is not in the pods' subnet goes to the gateway, which is the bridge's own address on the host."
    )
    guide.check("the default route leads to the bridge", f"default via {gateway} dev eth0" in found)
    bridge = guide.ask(f"ip -o -4 address show {server['veth']['host']['bridge']}")
    guide.check("the gateway is the bridge's address", f" {gateway}/" in bridge)


def _rules(guide: Guide, server: Any) -> None:
    guide.needs(nft="nftables")
    guide.step("Masquerade and the port map, read aloud")
    bridge, address = server["veth"]["host"]["bridge"], server["ip"]
    rules = guide.shell("nft list ruleset")[1]
    tables = re.findall(r"^table ip (\S+) \{\n(.*?)^\}", rules, re.DOTALL | re.MULTILINE)
    own = next((name for name, text in tables if f'"{bridge}"' in text), "")
    if not own:
        raise Missing("needs nftables NAT in the kernel, which the node did not find")
    guide.run(f"nft list table ip {own} | grep -E 'masquerade|dport map|elements|map ports'")
    guide.say(
        f"Masquerade: what comes from the pods' subnet and leaves by another interface than {bridge} gets the host's "
        f"address. Port map: a packet to an address of this host is looked up by protocol and port; port {PORT} leads "
        f"to {address}, port 80. Replies are translated back by conntrack."
    )
    text = guide.ask(f"nft list table ip {own}")
    # nft takes the names of protocols from /etc/protocols, which a small container does not have.
    entry = rf"(tcp|6) \. {PORT} : {re.escape(address)} \. 80"
    guide.check("the map has the pod's port", re.search(entry, text))
    guide.check("the subnet is masqueraded", re.search(rf'oifname != "{bridge}" .*masquerade', text))
    guide.needs(curl="curl")
    local = guide.ask("ip -o -4 address show scope global | awk '{print $4}' | cut -d / -f 1").split()
    fetched = guide.run(f"curl -s --max-time 5 http://{local[0]}:{PORT}/")
    guide.check("the host port answers", fetched == "hello from the tour\n")


def _senders(guide: Guide, server: Any) -> None:
    guide.step("A pod sends from its own address only")
    port, mac, address = server["veth"]["host"]["name"], server["network"]["mac"], server["ip"]
    rules = guide.run(f"nft list ruleset | grep -E '{port}|@senders accept|@ports drop'")
    guide.say(
        "Only ARP and IPv4 with the pod's own hardware and IP address pass. All else is dropped where it comes out of "
        "the veth, before the bridge learns from it. So a container with CAP_NET_RAW can neither read packets for its "
        "neighbours nor send in their name."
    )
    guide.check("the set of senders has the pod's three names", f'"{port}" . {mac} . {address}' in rules)
    guide.check("what is in no set is dropped", "iifname @ports drop" in rules)


def _packet(guide: Guide, server: Any, client: Any) -> None:
    guide.step("A packet, followed by counters")
    guide.say(
        "The client's shell fetches a page of the server: through eth0, the veth pair, the bridge, and the other pair."
    )
    names = [client["veth"]["host"]["name"], server["veth"]["host"]["name"]]
    before = [_received(guide, name) for name in names]
    guide.run(f"kubelite exec client -n {NAMESPACE} -- wget -q -O - http://{server['ip']}/")
    after = [_received(guide, name) for name in names]
    rows = [
        (who, name, str(old), str(new), str(new - old))
        for who, name, old, new in zip(("client", "server"), names, before, after, strict=True)
    ]
    guide.table(("pod", "its end on the bridge", "packets before", "after", "sent by the pod"), rows)
    guide.check(
        "each pod sent packets through its veth pair",
        all(new > old for old, new in zip(before, after, strict=True)),
    )
    guide.run(f"nsenter -t {client['pid']} -n ip neigh show {server['ip']}")
    table = guide.ask(f"nsenter -t {client['pid']} -n ip neigh show {server['ip']}")
    guide.check(
        "the client's neighbour table has the server's hardware address", server["network"]["mac"] in table
    )


def _received(guide: Guide, interface: str) -> int:
    """Packets that came out of the pod: the host's end receives what the pod sends."""
    [link] = json.loads(guide.ask(f"ip -s -j link show {interface}"))
    return int(link["stats64"]["rx"]["packets"])

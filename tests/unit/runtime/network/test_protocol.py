"""The wire formats: netlink and nftables messages, and the helper's JSON lines. Needs neither root nor the kernel."""

from __future__ import annotations

import errno
import socket
import struct
import subprocess
import sys

import pytest

from runtime import errors
from runtime.network import nat, netlink, nft_messages
from runtime.network.client import _rebuilt_error
from runtime.network.helper import _grouped, describe
from runtime.network.netlink import NetlinkError
from runtime.network.plan import PortMapping, Subnet


def test_neighbouring_deletes_are_one_group_and_order_is_kept() -> None:
    ops = ["add", "delete", "delete", "add", "delete", "list", "delete", "delete"]
    groups = [
        [request["id"] for request in group]
        for group in _grouped([{"id": n, "op": op} for n, op in enumerate(ops)])
    ]
    assert groups == [[0], [1, 2], [3], [4], [5], [6, 7]]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.NetworkError("full", reason="AddressPoolExhausted"), errors.NetworkError),
        (errors.SpecError("wrong"), errors.SpecError),
        (errors.NotFoundError("none"), errors.NotFoundError),
        (errors.CapabilityError("lacking"), errors.CapabilityError),
        (NetlinkError(errno.EBUSY, "create veth x", "try later"), errors.NetworkError),
        (errors.SyscallError(errno.EPERM, "setns"), errors.NetworkError),
        (PermissionError(errno.EACCES, "no"), errors.NetworkError),
    ],
)
def test_errors_cross_the_socket_with_class_reason_and_sentence(
    error: Exception, kind: type[Exception]
) -> None:
    revived = _rebuilt_error(describe(error))
    assert type(revived) is kind and str(revived) == str(error)
    assert revived.reason == getattr(error, "reason", "NetworkNotReady")
    assert revived.retriable == getattr(error, "retriable", True)


def test_a_published_port_is_one_element_of_whole_registers() -> None:
    assert nat.element(PortMapping(8080, 80), "10.1.0.2") == (
        "ports",
        b"\x06\0\0\0\x1f\x90\0\0",
        b"\x0a\x01\0\x02\0\x50\0\0",
    )
    item = nat.element(PortMapping(53, 5353, "UDP", "127.0.0.1"), "10.1.0.2")
    assert item == ("ports-addr", b"\x7f\0\0\x01\x11\0\0\0\0\x35\0\0", b"\x0a\x01\0\x02\x14\xe9\0\0")
    assert nat.describe(item) == "UDP 127.0.0.1:53 → 10.1.0.2:5353"
    assert nat.describe(nat.element(PortMapping(8080, 80), "10.1.0.2")) == "TCP 0.0.0.0:8080 → 10.1.0.2:80"


def test_attributes_are_read_as_they_are_written() -> None:
    data = (
        nft_messages.number(1, 7)
        + nft_messages.text(2, "name")
        + nft_messages.nested(3, nft_messages.number(1, -100))
    )
    parts = netlink.attributes(data)
    assert parts[1] == b"\0\0\0\x07" and parts[2] == b"name\0"
    assert struct.unpack(">i", netlink.attributes(parts[3])[1]) == (-100,)
    assert len(data) % 4 == 0
    assert netlink.attributes(b"\x02\0\x01\0") == {}  # an impossible length must not cause an endless loop


def test_each_chain_has_its_hook() -> None:
    found = {
        c.name: (c.type, c.hook, c.priority, len(c.rules))
        for c in nat.chains("br0", Subnet.parse("10.1.0.0/24"))
    }
    assert found == {
        "guard": ("filter", 0, -300, 1),
        "forward": ("filter", 2, 0, 1),
        "prerouting": ("nat", 0, -100, 2),
        "output": ("nat", 3, -100, 2),
        "postrouting": ("nat", 4, 100, 3),
    }


def test_an_error_has_the_kernels_message() -> None:
    request = struct.pack("=IHHII", 32, 16, 5, 1, 0)
    text = b"Device is busy\0"
    attribute = struct.pack("=HH", 4 + len(text), 1) + text + b"\0"
    capped = struct.pack("=i", -errno.EBUSY) + request + attribute
    assert netlink._error(netlink.NLM_F_CAPPED | netlink.NLM_F_ACK_TLVS, capped) == (
        errno.EBUSY,
        "Device is busy",
    )
    whole = struct.pack("=i", -errno.EBUSY) + request + bytes(16) + attribute
    assert netlink._error(netlink.NLM_F_ACK_TLVS, whole) == (errno.EBUSY, "Device is busy")
    assert netlink._error(0, struct.pack("=i", 0) + request) == (0, "")
    error = NetlinkError(errno.EBUSY, "create veth x", "Device is busy")
    assert (
        str(error) == "create veth x: Device or resource busy (Device is busy)" and error.errno == errno.EBUSY
    )


def test_reading_the_machine_needs_no_root() -> None:
    with netlink.NetlinkSocket() as sock:
        lo = next(link for link in netlink.links(sock) if link.name == "lo")
        assert lo.index == socket.if_nametoindex("lo") == netlink.interface_index("lo")
        assert netlink.interface_index("no-such-link", missing_ok=True) == 0
        with pytest.raises(NetlinkError, match="no-such-link"):
            netlink.interface_index("no-such-link")


def test_the_helper_loads_neither_asyncio_nor_all_of_pyroute2() -> None:
    """The helper's memory counts for the node (see netlink.py). A later import of pyroute2 still loads all of it."""
    code = (
        "import sys, runtime.network.helper\n"
        "assert 'asyncio' not in sys.modules and 'pyroute2' not in sys.modules\n"
        "assert 'pyroute2.netlink.rtnl.ifinfmsg' in sys.modules\n"
        "from pyroute2 import IPRoute\n"
        "import runtime.network.netlink as ours\n"
        "from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg\n"
        "assert ours.IfInfo is ifinfmsg\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)

"""Notices when another program changes the tables of NetworkPolicies: the kernel says so at once, by netlink, while an
audit would look only seconds later."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection

from runtime.network.netlink import NETLINK_NETFILTER, SOL_NETLINK, attributes
from runtime.network.nft_messages import NFNL_SUBSYS_NFTABLES

NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES = 1, 7
TABLE_NAME = 1  # the attribute with the name of the table, in messages of all kinds
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_BODY = _HEADER.size + 4  # behind struct nfgenmsg


class RulesetWatch:
    """The changes of the tables of one name. `fd` is readable when the ruleset has changed, by whomever."""

    def __init__(self, table: str, *, ours: Collection[int]) -> None:
        """`ours`: the ports of the netlink sockets whose changes are not looked for. Raises OSError."""
        self._table = table.encode() + b"\0"
        self._ours = ours
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
        self._socket.bind((0, 0))
        self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        self.fd = self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def changed(self) -> bool:
        """Read all that has arrived: whether somebody else has changed the tables, or may have, because the kernel had
        to drop messages."""
        found = False
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    found = True
                    continue
                if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK):
                    return found
                raise
            found = self._concerns(data) or found

    def _concerns(self, data: bytes) -> bool:
        offset = 0
        while offset + _BODY <= len(data):
            size, kind, _, _, port = _HEADER.unpack_from(
                data, offset
            )  # port: of the socket that asked for it
            if kind >> 8 == NFNL_SUBSYS_NFTABLES and port not in self._ours:
                found = attributes(data[offset + _BODY : offset + size])
                if found.get(TABLE_NAME) == self._table:
                    return True
            offset += (size + 3) & ~3
        return False

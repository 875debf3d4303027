"""The bytes of an answer: as long as the client takes, with its addresses in several orders.

An answer that is too long for UDP has the records that fit, and the flag TC. Resolvers ask again over TCP; those that
cannot (musl before 1.2.4, busybox nslookup) have some addresses rather than none, as from CoreDNS.
"""

from __future__ import annotations

import dns.exception
import dns.flags
import dns.message
import dns.rdata
import dns.rdatatype
import dns.rrset

ROTATIONS = 8
_LONGEST = 65535  # bytes of a message
_SHORTEST = 12  # bytes of a record: a name that stands elsewhere, type, class, TTL, length (RFC 1035, 4.1.3)


def rotations(response: dns.message.Message, limit: int) -> list[bytes]:
    """The response's bytes, at most `limit`, with each of up to ROTATIONS orders of the addresses of its last name."""
    if not response.answer:
        return [_bytes(response, limit)]
    last = response.answer[-1]
    records = list(last)
    turns = min(len(records), ROTATIONS) if last.rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA) else 1
    kept = len(records)
    if kept > limit // _SHORTEST or len(whole := _bytes(response, _LONGEST)) > limit:
        kept = _fitting(response, limit)
    elif turns == 1:
        return [whole]
    if kept == 0:
        return [_bytes(response, limit)]
    wires = []
    for turn in range(turns):
        start = turn * len(records) // turns
        response.answer[-1] = _first(last, [*records[start:], *records[:start]], kept)
        wires.append(_bytes(response, limit))
    return wires


def _fitting(response: dns.message.Message, limit: int) -> int:
    """The number of records of the last name that fit. The response is marked as cut, and has nothing but an answer."""
    response.flags |= dns.flags.TC
    response.authority, response.additional = [], []
    last = response.answer[-1]
    records = list(last)
    fits, too_many = 0, min(len(records), limit // _SHORTEST) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        response.answer[-1] = _first(last, records, middle)
        if len(_bytes(response, _LONGEST)) <= limit:
            fits = middle
        else:
            too_many = middle
    response.answer[-1] = last
    return fits


def _first(rrset: dns.rrset.RRset, records: list[dns.rdata.Rdata], number: int) -> dns.rrset.RRset:
    return dns.rrset.from_rdata_list(rrset.name, rrset.ttl, records[:number])


def _bytes(response: dns.message.Message, limit: int) -> bytes:
    """The records have the order of the response (dnspython would shuffle them)."""
    return response.to_wire(max_size=limit, prefer_truncation=True, want_shuffle=False)

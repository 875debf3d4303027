"""The bytes of answers: what fits, in which order, and how much of them is kept."""

from __future__ import annotations

import os
from pathlib import Path

import dns.flags
import dns.message
import dns.rrset
import pytest

from runtime.dns import server
from runtime.dns.server import Kept, Server
from runtime.dns.wire import ROTATIONS, rotations

ADDRESSES = [f"10.88.{number // 250}.{number % 250 + 1}" for number in range(600)]


def response(*rrsets: dns.rrset.RRset) -> dns.message.Message:
    made = dns.message.make_response(dns.message.make_query("many.example", "A"))
    made.answer.extend(rrsets)
    return made


def addresses(count: int, name: str = "many.example.") -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, 5, "IN", "A", ADDRESSES[:count])


@pytest.mark.parametrize(
    ("count", "limit", "kept"), [(29, 512, 29), (30, 512, 30), (31, 512, 30), (600, 1232, 75)]
)
def test_what_fits_is_there(count: int, limit: int, kept: int) -> None:
    wires = rotations(response(addresses(count)), limit)
    assert len(wires) == ROTATIONS and all(len(wire) <= limit for wire in wires)
    messages = [dns.message.from_wire(wire) for wire in wires]
    assert {len(one.answer[0]) for one in messages} == {kept}
    assert {bool(one.flags & dns.flags.TC) for one in messages} == {kept < count}
    seen = {str(rdata) for one in messages for rdata in one.answer[0]}
    assert len(seen) == min(count, ROTATIONS * kept), "the turns are spread over all addresses"


def test_an_alias_stays_when_its_addresses_are_cut() -> None:
    alias = dns.rrset.from_text("many.example.", 5, "IN", "CNAME", "other.example.")
    (first, *_) = rotations(response(alias, addresses(100, "other.example.")), 512)
    message = dns.message.from_wire(first)
    assert [len(rrset) for rrset in message.answer] == [1, 28] and message.flags & dns.flags.TC


def test_one_record_that_does_not_fit_leaves_an_empty_answer() -> None:
    long = dns.rrset.from_text("many.example.", 5, "IN", "TXT", " ".join([f'"{"x" * 250}"'] * 4))
    (wire,) = rotations(response(long), 512)
    message = dns.message.from_wire(wire)
    assert not message.answer and message.flags & dns.flags.TC


def test_kept_answers_have_a_limit_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEPT_BYTES", 10_000)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        one = Server(directory)
        for number in range(100):
            one._keep(str(number).encode(), Kept(1.0, [bytes(1000)], ("A", "NOERROR")))
            assert sum(len(wire) for kept in one._kept.values() for wire in kept.wires) <= 10_000
        assert one._kept
    finally:
        os.close(directory)

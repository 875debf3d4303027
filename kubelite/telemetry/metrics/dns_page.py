"""The metrics of the node's DNS server, with CoreDNS' names (https://coredns.io/plugins/metrics/), for
dashboards and alerts that know CoreDNS. A node whose DNS server does not run has none of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kubelite.telemetry.metrics.exposition import Page, counter, gauge, histogram, labels, number


def write_dns(page: Page, status: dict[str, Any], server: str) -> None:
    """Write the page of a server's status (runtime.dns.server). `server`: its address."""
    where = {"server": f"dns://{server}:53", "zone": ".", "view": ""}
    counts, forward = status["counts"], status["forward"]
    requests = "".join(
        _sample("coredns_dns_requests_total", value, **where, proto=proto, family="1", type=kind)
        for proto, kind, value in counts["requests"]
    )
    page.family(
        counter("coredns_dns_requests_total", "Counter of DNS requests made per zone, protocol and family."),
        requests,
    )
    codes: Counter[str] = Counter()
    for _, code, value in counts["responses"]:
        codes[code] += value
    page.family(
        counter("coredns_dns_responses_total", "Counter of response status codes."),
        "".join(_sample("coredns_dns_responses_total", codes[code], **where, rcode=code) for code in codes),
    )
    _durations(page, where, counts)
    zones = {"server": where["server"], "zones": ".", "view": ""}
    for name, value, text in (
        ("coredns_cache_hits_total", forward["hits"], "The count of cache hits."),
        ("coredns_cache_misses_total", forward["misses"], "The count of cache misses."),
        ("coredns_cache_evictions_total", forward["evicted"], "The count of cache evictions."),
    ):
        page.family(counter(name, text), _sample(name, value, **zones))
    page.family(
        gauge("coredns_cache_entries", "The number of elements in the cache."),
        _sample("coredns_cache_entries", forward["kept"], **zones),
    )
    for name, value, text in (
        (
            "coredns_forward_max_concurrent_rejects_total",
            forward["rejected"],
            "Counter of the number of queries rejected because the concurrent queries were at maximum.",
        ),
        (
            "kubelite_dns_forwarded_total",
            forward["forwarded"],
            "Queries sent to the servers of the host, or of a stub domain.",
        ),
        ("kubelite_dns_forward_failures_total", forward["failed"], "Queries that no such server answered."),
        (
            "kubelite_dns_forward_mismatches_total",
            forward["mismatched"],
            "Datagrams of such servers that were no answer to the query, and were dropped.",
        ),
    ):
        page.family(counter(name, text), _sample(name, value))
    page.family(
        gauge("kubelite_dns_loop", "1 while the servers of the host ask this node's DNS server."),
        _sample("kubelite_dns_loop", int(status["looped"])),
    )


def _durations(page: Page, where: dict[str, str], counts: dict[str, Any]) -> None:
    name, lines, running = "coredns_dns_request_duration_seconds", [], 0
    for bound, count in zip((*counts["bounds"], None), counts["durations"], strict=True):
        running += count
        le = "+Inf" if bound is None else number(bound)
        lines.append(_sample(f"{name}_bucket", running, **where, le=le))
    lines.append(_sample(f"{name}_sum", counts["seconds"], **where))
    lines.append(_sample(f"{name}_count", running, **where))
    text = "Histogram of the time (in seconds) each request took per zone."
    page.family(histogram(name, text), "".join(lines))


def _sample(name: str, value: float, **pairs: str) -> str:
    braced = f"{{{labels(pairs)}}}" if pairs else ""
    return f"{name}{braced} {number(value)}\n"

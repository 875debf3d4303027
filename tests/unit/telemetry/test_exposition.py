"""Metrics pages as text: both formats, read by prometheus-client's parsers."""

from __future__ import annotations

import gzip
import math
import threading
from collections.abc import Iterable

import prometheus_client.openmetrics.parser as openmetrics_parser
import pytest
from prometheus_client import Metric, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families as parse_text

from kubelite.telemetry.metrics.exposition import (
    Page,
    counter,
    gauge,
    labels,
    number,
    prefers_openmetrics,
    render,
)
from kubelite.telemetry.metrics.meters import Counts, Histogram, Meters
from kubelite.telemetry.metrics.own_process import write_process
from kubelite.telemetry.metrics.probe_meter import ProbeMeter
from kubelite.telemetry.tracing.trace import Tracer
from kubelite.telemetry.web.scrape import accepts_gzip

ODD = 'a "quoted" \\ back\nslash'


def parse_openmetrics(text: str) -> Iterable[Metric]:
    found: Iterable[Metric] = openmetrics_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    return found


def page(write: object, *, openmetrics: bool = False) -> str:
    return render(write, openmetrics=openmetrics, compressed=False).decode()  # type: ignore[arg-type]


def write_some(page: Page) -> None:
    page.one(gauge("g", 'A "gauge" with \\ and\nmore.'), 1.5, a=ODD)
    page.column(counter("c_total", "A counter."), ['{x="1"', '{x="2"'], ',y="z"} ', ["3", "4"])
    page.one(counter("old_failcnt", "A counter by another name."), 7)
    page.family(gauge("nothing", "Without a sample."), "")


def test_text_is_parsed_correctly() -> None:
    families = {f.name: f for f in parse_text(page(write_some))}
    assert families["g"].samples[0].labels == {"a": ODD}
    assert families["g"].documentation == 'A "gauge" with \\ and\nmore.'
    assert [(s.name, s.labels, s.value) for s in families["c"].samples] == [
        ("c_total", {"x": "1", "y": "z"}, 3.0),
        ("c_total", {"x": "2", "y": "z"}, 4.0),
    ]
    assert families["c"].type == "counter"
    assert "nothing" not in families


def test_openmetrics_is_parsed_and_terminated() -> None:
    text = page(write_some, openmetrics=True)
    assert text.endswith("# EOF\n")
    families = {f.name: f for f in parse_openmetrics(text)}
    assert families["g"].samples[0].labels == {"a": ODD}
    assert families["c"].type == "counter"
    assert families["old_failcnt"].type == "unknown"  # the name of a counter must end in _total


def test_compressed_is_the_same_text() -> None:
    packed = render(write_some, openmetrics=False, compressed=True)
    assert gzip.decompress(packed).decode() == page(write_some)


def test_numbers_are_exact_and_short() -> None:
    for value, text in ((0, "0"), (3.0, "3"), (0.1, "0.1"), (2**53 + 1, "9007199254740993"), (1e20, "1e+20")):
        assert number(value) == text
        assert math.isclose(float(text), value)


def test_labels_are_escaped() -> None:
    assert labels({"a": ODD, "b": "plain"}) == 'a="a \\"quoted\\" \\\\ back\\nslash",b="plain"'


def test_accept() -> None:
    prometheus = (
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
        "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.3"
    )
    assert prefers_openmetrics(prometheus)
    assert prefers_openmetrics("application/openmetrics-text")
    for accept in ("", "*/*", "text/plain", "application/openmetrics-text;q=0.1,text/plain;q=0.9"):
        assert not prefers_openmetrics(accept)
    assert not prefers_openmetrics("application/openmetrics-text;version=0.0.1")
    assert not prefers_openmetrics("application/openmetrics-text;q=zero")


def test_accept_encoding() -> None:
    assert accepts_gzip("gzip, deflate, br")
    assert accepts_gzip("deflate, gzip;q=0.5")
    for header in ("", "identity", "gzip;q=0", "gzip; q=0.0", "x-gzip"):
        assert not accepts_gzip(header)


def test_histogram_buckets_are_cumulative() -> None:
    times = Histogram("h_seconds", "Times.", (0.1, 1))
    for value in (0.05, 0.1, 0.5, 7):
        times.observe(value, 'op="a"')
    for openmetrics, parse in ((False, parse_text), (True, parse_openmetrics)):
        (family,) = parse(page(times.write, openmetrics=openmetrics))
        buckets = [s.value for s in family.samples if s.name == "h_seconds_bucket"]
        assert buckets == [2, 3, 4]
        assert next(s.value for s in family.samples if s.name == "h_seconds_count") == 4
        assert math.isclose(next(s.value for s in family.samples if s.name == "h_seconds_sum"), 7.65)


def test_the_newest_sample_of_a_bucket_is_its_exemplar() -> None:
    times = Histogram("h_seconds", "Times.", (0.1, 1))
    times.observe(0.5, exemplar='trace_id="a"', at=1.0)
    times.observe(0.6, exemplar='trace_id="b"', at=2.5)
    times.observe(0.7)
    (family,) = parse_openmetrics(page(times.write, openmetrics=True))
    found = {s.labels["le"]: s.exemplar for s in family.samples if s.name == "h_seconds_bucket"}
    assert found["0.1"] is found["+Inf"] is None
    newest = found["1.0"]
    assert newest is not None
    assert newest.timestamp is not None
    assert (newest.labels, newest.value, float(newest.timestamp)) == ({"trace_id": "b"}, 0.6, 2.5)
    assert "#" not in page(times.write).replace("# HELP", "").replace("# TYPE", ""), (
        "the text format has none"
    )


def test_a_start_has_its_trace_as_exemplar() -> None:
    meters, uid = Meters(clock=lambda: 10.0), "a-uid"
    meters.pod_seen(uid)
    running = {"spec": {}, "status": {"phase": "Running"}}
    meters.pod_changed(uid, running, {uid: "f" * 32}.__getitem__)
    text = page(meters.start.write, openmetrics=True)
    assert f'le="0.005"}} 1 # {{trace_id="{"f" * 32}",pod_uid="a-uid"}} 0 10.000\n' in text
    assert text.count(" # {") == 1


def test_label_sets_are_bounded() -> None:
    counts = Counts("c_total", "Counts.")
    for place in range(1000):
        counts.add(f'x="{place}"')
    assert page(counts.write).count("\nc_total{") == 64


def test_a_start_is_measured_once() -> None:
    now = [100.0]
    meters = Meters(clock=lambda: now[0])
    doc = {"spec": {}, "status": {"phase": "Pending"}}
    meters.pod_seen("u")
    meters.pod_changed("u", doc)
    now[0] = 100.4
    running = {"spec": {}, "status": {"phase": "Running"}}
    meters.pod_changed("u", running)
    now[0] = 500.0
    meters.pod_changed("u", running)
    text = page(meters.start.write)
    assert "kubelet_pod_start_duration_seconds_count 1\n" in text
    assert 'kubelet_pod_start_duration_seconds_bucket{le="0.5"} 1\n' in text
    assert 'kubelet_pod_start_duration_seconds_bucket{le="0.25"} 0\n' in text


def test_steps_of_the_trace_are_operations() -> None:
    meters = Meters()
    tracer = Tracer(meters.step)
    with tracer.step("u", "shim"):
        pass
    try:
        with tracer.step("u", "start", container="c"):
            raise OSError("no such program")
    except OSError:
        pass
    text = page(meters.write)
    assert 'kubelet_runtime_operations_total{operation_type="run_podsandbox"} 1\n' in text
    assert 'kubelet_runtime_operations_errors_total{operation_type="start_container"} 1\n' in text
    assert "kubelet_started_containers_errors_total" in text


async def test_rounds_are_timed_by_kind() -> None:
    meters = Meters()

    async def work(_uid: str) -> float | None:
        return 5.0

    look = meters.timed(work)
    assert [await look("u"), await look("u")] == [5.0, 5.0]
    text = page(meters.work.write)
    assert 'kubelet_pod_worker_duration_seconds_count{operation_type="create"} 1\n' in text
    assert 'kubelet_pod_worker_duration_seconds_count{operation_type="sync"} 1\n' in text


def test_probes() -> None:
    meter = ProbeMeter()
    for result in ("successful", "successful", "failed"):
        meter.observe("u", "default", "web", container="app", kind="Liveness", result=result, seconds=0.02)
    assert list(parse_openmetrics(page(meter.write, openmetrics=True)))
    text = page(meter.write)
    row = 'probe_type="Liveness",container="app",pod="web",namespace="default",pod_uid="u"'
    assert f'prober_probe_total{{{row},result="successful"}} 2\n' in text
    assert f'prober_probe_total{{{row},result="failed"}} 1\n' in text
    assert 'namespace="default",le="0.025"} 3\n' in text
    meter.forget("u")
    assert page(meter.write) == ""


def test_metrics_of_the_daemon_itself() -> None:
    """Compared with prometheus-client's collector at nearly the same time."""
    text = render(write_process, openmetrics=False, compressed=False).decode()
    ours = {family.name: family.samples[0].value for family in parse_text(text)}
    theirs = {family.name: family.samples[0].value for family in ProcessCollector(registry=None).collect()}
    assert ours.keys() == theirs.keys()
    assert ours["process_max_fds"] == theirs["process_max_fds"]
    assert ours["process_start_time_seconds"] == pytest.approx(theirs["process_start_time_seconds"], abs=0.02)
    assert abs(ours["process_open_fds"] - theirs["process_open_fds"]) <= 2
    for name in ("process_resident_memory_bytes", "process_virtual_memory_bytes", "process_cpu_seconds"):
        assert ours[name] == pytest.approx(theirs[name], rel=0.1, abs=0.1)


def test_a_failing_page_leaves_no_thread() -> None:
    def broken(page: Page) -> None:
        page.one(gauge("a", "b"), 1)
        raise OSError("gone")

    before = threading.active_count()
    with pytest.raises(OSError, match="gone"):
        render(broken, openmetrics=False, compressed=True)
    assert threading.active_count() == before

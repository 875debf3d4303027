"""Metrics of the agent's own work."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.telemetry.metrics.exposition import Page
from kubelite.telemetry.metrics.meters import Meters, container_type
from kubelite.telemetry.tracing.trace import Step, Tracer


def lines(meters: Meters, family: str) -> dict[str, float]:
    """The samples of a family without buckets: labels → value, by the end of the name."""
    parts: list[bytes] = []
    meters.write(Page(parts.append))  # type: ignore[arg-type]  # without a shelf: bytes
    found = {}
    for line in b"".join(parts).decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(family) and not name.startswith(f"{family}_bucket"):
            found[name.removeprefix(family)] = float(value)
    return found


def test_cgroup_operations() -> None:
    meters = Meters()
    tracer = Tracer(meters.step)
    with tracer.count("cgroup update"):
        pass
    tracer.counted("cgroup create", 0.25)
    tracer.counted("cgroup destroy", 0.0)  # by a shim that does not report it
    found = lines(meters, "kubelet_cgroup_manager_duration_seconds")
    assert found['_sum{operation_type="create"}'] == 0.25
    assert found['_count{operation_type="update"}'] == 1
    assert '_count{operation_type="destroy"}' not in found
    assert not lines(meters, "kubelet_runtime_operations_total").keys() - {""}


def test_counted_steps_are_not_in_the_trace() -> None:
    meters = Meters()
    tracer = Tracer(meters.step)
    with pytest.raises(OSError, match="gone"), tracer.count("stop"):
        raise OSError("gone")
    with tracer.step("u", "create", container="c"):
        pass
    assert [step["step"] for step in tracer.steps("u")] == ["create"]
    assert not tracer.steps("")
    assert lines(meters, "kubelet_runtime_operations_errors_total") == {
        '{operation_type="stop_container"}': 1
    }


@pytest.mark.parametrize(
    ("size", "word"),
    [(0, "0-10MB"), (10 << 20, "10MB-100MB"), ((1 << 30) - 1, "500MB-1GB"), (200 << 30, "GT100GB")],
)
def test_pulls_by_the_size_of_the_image(size: int, word: str) -> None:
    meters = Meters()
    Tracer(meters.step).counted("pulled", 2.0, detail=str(size))
    found = lines(meters, "kubelet_image_pull_duration_seconds")
    assert found[f'_sum{{image_size_in_bytes="{word}"}}'] == 2.0


def test_the_time_of_a_pull_is_not_part_of_the_sli() -> None:
    now = 100.0
    meters = Meters(clock=lambda: now)
    meters.pod_seen("u")
    meters.step("u", Step(100.0, "pull", 3.0))
    now = 104.0
    meters.pod_changed("u", {"spec": {}, "status": {"phase": "Running"}})
    meters.step("u", Step(200.0, "pull", 9.0))  # of a later image, after the start
    assert lines(meters, "kubelet_pod_start_duration_seconds")["_sum"] == 4.0
    assert lines(meters, "kubelet_pod_start_total_duration_seconds")["_sum"] == 4.0
    assert lines(meters, "kubelet_pod_start_sli_duration_seconds")["_sum"] == 1.0


def test_containers_by_type() -> None:
    doc: dict[str, Any] = {
        "spec": {
            "containers": [{"name": "main"}],
            "initContainers": [{"name": "first"}],
            "ephemeralContainers": [{"name": "look"}],
        }
    }
    meters = Meters(lambda _uid, name: container_type(doc, name))
    for name, error in (("main", ""), ("first", ""), ("first", "no such file"), ("look", "")):
        meters.step("u", Step(1.0, "start", 0.1, name, error=error))
    assert lines(meters, "kubelet_started_containers_total") == {
        '{container_type="container"}': 1,
        '{container_type="init_container"}': 2,
        '{container_type="ephemeral_container"}': 1,
    }
    assert lines(meters, "kubelet_started_containers_errors_total") == {
        '{container_type="init_container",code="StartError"}': 1
    }


def test_volumes_preemptions_and_statuses() -> None:
    meters = Meters()
    meters.mounted("configmap", 0.5, True)
    meters.mounted("configmap", 0.25, False)
    meters.preempted("cpu")
    meters.status_written(0.125)
    labels = (
        'migrated="false",operation_name="volume_mount",status="{}",volume_plugin="kubernetes.io/configmap"'
    )
    found = lines(meters, "storage_operation_duration_seconds")
    assert found[f"_sum{{{labels.format('success')}}}"] == 0.5
    assert found[f"_sum{{{labels.format('fail-unknown')}}}"] == 0.25
    assert lines(meters, "kubelet_preemptions") == {'{preemption_signal="cpu"}': 1}
    assert lines(meters, "kubelet_pod_status_sync_duration_seconds")["_sum"] == 0.125

"""Metrics that the daemon counts while it works, with kubelet's names (pkg/kubelet/metrics/metrics.go).

They are derived from the steps of the start trace, from events and from changes in the store. An observation costs
about a microsecond. As in kubelet, counters start at zero when the daemon starts.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from typing import Any

from kubelite.node.model.observer import Observer
from kubelite.node.model.probe_results import Kind, Outcome
from kubelite.telemetry.metrics.exposition import Family, Page, counter, escape, histogram, number
from kubelite.telemetry.metrics.probe_meter import ProbeMeter
from kubelite.telemetry.tracing.trace import Step
from manifests.types.core import Pod

DEFAULT = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
START = (
    *(
        0.005,
        0.01,
        0.025,
        0.05,
        0.1,
        0.25,
    ),  # kubelet's buckets begin at half a second, but most starts here take less
    *(
        0.5,
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        10,
        20,
        30,
        45,
        60,
        120,
        180,
        240,
        300,
        360,
        480,
        600,
        900,
        1200,
        1800,
        2700,
        3600,
    ),
)
OPERATIONS = tuple(round(0.005 * 2.5**n, 6) for n in range(14))
CGROUPS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, *DEFAULT)
STORAGE = (0.0001, 0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600)
LAGS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
PULLS = (1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600)
#: Maximum number of label sets of a family; further ones are not counted. No label contains text from a manifest.
MOST = 64


def container_type(doc: dict[str, Any], name: str) -> str:
    """Return kubelet's name for the type of a pod's container."""
    for field, kind in (
        ("initContainers", "init_container"),
        ("ephemeralContainers", "ephemeral_container"),
    ):
        if any(c["name"] == name for c in doc["spec"].get(field) or ()):
            return kind
    return "container"


class Counts:
    """A counter with labels, which are text without braces."""

    def __init__(self, name: str, text: str, *, empty: bool = True) -> None:
        """`empty`: write a series with the value 0 and without labels until something is counted."""
        self.family, self._empty = counter(name, text), empty
        self._values: dict[str, float] = {}

    def add(self, labels: str = "", amount: float = 1) -> None:
        if labels not in self._values and len(self._values) >= MOST:
            return
        self._values[labels] = self._values.get(labels, 0) + amount

    def write(self, page: Page) -> None:
        # Copy in one step, because the event loop's thread continues to count.
        values = list(self._values.items()) or [("", 0.0)] * self._empty
        lines = [f"{self.family.name}{_braced(k)} {number(v)}\n" for k, v in values]
        page.family(self.family, "".join(lines))


class Histogram:
    """A histogram with labels. Each bucket has the newest exemplar, if any. OpenMetrics 1.0 limits the labels of an
    exemplar to 128 characters; the text format has no exemplars."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...] = DEFAULT) -> None:
        self.family: Family = histogram(name, text)
        self._bounds = bounds
        self._values: dict[str, tuple[list[int], list[float]]] = {}
        self._exemplars: dict[tuple[str, int], str] = {}

    def observe(self, value: float, labels: str = "", *, exemplar: str = "", at: float = 0.0) -> None:
        """Count a value. `exemplar`: labels of this observation, without braces; `at`: its time in Unix seconds."""
        found = self._values.get(labels)
        if found is None:
            if len(self._values) >= MOST:
                return
            found = self._values[labels] = ([0] * (len(self._bounds) + 1), [0.0])
        place = bisect_left(self._bounds, value)
        found[0][place] += 1
        found[1][0] += value
        if exemplar:
            self._exemplars[labels, place] = f" # {{{exemplar}}} {number(value)} {at:.3f}"

    def write(self, page: Page) -> None:
        name, lines = self.family.name, []
        for labels, (counts, total) in list(self._values.items()):
            running = 0
            before = f"{labels}," if labels else ""
            for place, (bound, count) in enumerate(zip((*self._bounds, None), counts, strict=True)):
                running += count
                exemplar = self._exemplars.get((labels, place), "") if page.openmetrics else ""
                le = "+Inf" if bound is None else repr(float(bound)) if page.openmetrics else number(bound)
                lines.append(f'{name}_bucket{{{before}le="{le}"}} {running}{exemplar}\n')
            lines.append(f"{name}_sum{_braced(labels)} {number(total[0])}\n")
            lines.append(f"{name}_count{_braced(labels)} {running}\n")
        page.family(self.family, "".join(lines))


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


#: Step of the start trace → kubelet's name of the operation.
_OPERATIONS = {
    "shim": "run_podsandbox",
    "stop sandbox": "stop_podsandbox",
    "create": "create_container",
    "start": "start_container",
    "update": "update_container",
    "stop": "stop_container",
    "remove": "remove_container",
    "pull": "pull_image",
}
_MIB = 1 << 20
#: (minimum bytes, label) of each size class, largest first (kubelet's imageSizeBuckets).
_SIZES = (
    (100 << 30, "GT100GB"),
    (60 << 30, "60GB-100GB"),
    (40 << 30, "40GB-60GB"),
    (30 << 30, "30GB-40GB"),
    (20 << 30, "20GB-30GB"),
    (10 << 30, "10GB-20GB"),
    (5 << 30, "5GB-10GB"),
    (1 << 30, "1GB-5GB"),
    (500 * _MIB, "500MB-1GB"),
    (100 * _MIB, "100MB-500MB"),
    (10 * _MIB, "10MB-100MB"),
    (0, "0-10MB"),
)


class Meters(Observer):
    """All meters. The event loop's thread updates them; another thread may read them at the same time, and may miss the
    newest observation. `kind_of`: (pod's uid, container's name) → the container's type."""

    def __init__(
        self,
        kind_of: Callable[[str, str], str] = lambda _uid, _name: "container",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._kind_of = kind_of
        self._first_seen: dict[str, float] = {}  # uid of a starting pod → Unix seconds when it was first seen
        self._known: set[str] = set()  # pods that a worker has synced
        self.last_relist = 0.0
        self.mirror_pods = 0  # on the API server of the cluster that the node has joined
        self._pulling: dict[str, float] = {}  # uid of a starting pod → seconds of its image pulls
        self.probes = ProbeMeter()
        self._pods()
        self._runtime()
        self._node()

    def _pods(self) -> None:
        """Create the meters of pod starts and workers."""
        self.start = Histogram(
            "kubelet_pod_start_duration_seconds",
            "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
            START,
        )
        self.start_sli = Histogram(
            "kubelet_pod_start_sli_duration_seconds",
            "Duration in seconds to start a pod, excluding time to pull images and run init containers, measured "
            "from pod creation timestamp to when all its containers are reported as started and observed via watch",
            START,
        )
        self.start_total = Histogram(
            "kubelet_pod_start_total_duration_seconds",
            "Duration in seconds to start a pod since creation, including time to pull images and run init containers, "
            "measured from pod creation timestamp to when all its containers are reported as started and observed via "
            "watch",
            START,
        )
        self.status = Histogram(
            "kubelet_pod_status_sync_duration_seconds",
            "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status "
            "until the API is successfully updated for that pod.",
            (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 20, 30, 45, 60),
        )
        self.work = Histogram(
            "kubelet_pod_worker_duration_seconds",
            "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
        )
        self.work_start = Histogram(
            "kubelet_pod_worker_start_duration_seconds",
            "Duration in seconds from kubelet seeing a pod to starting a worker.",
        )
        self.relist = Histogram(
            "kubelet_pleg_relist_duration_seconds", "Duration in seconds for relisting pods in PLEG."
        )
        self.relist_interval = Histogram(
            "kubelet_pleg_relist_interval_seconds",
            "Interval in seconds between relisting in PLEG.",
            (*DEFAULT, 20, 30, 60),
        )

    def _runtime(self) -> None:
        """Create the meters of the container engine's operations."""
        self.operations = Counts(
            "kubelet_runtime_operations_total", "Cumulative number of runtime operations by operation type."
        )
        self.operation_errors = Counts(
            "kubelet_runtime_operations_errors_total",
            "Cumulative number of runtime operation errors by operation type.",
        )
        self.operation_time = Histogram(
            "kubelet_runtime_operations_duration_seconds",
            "Duration in seconds of runtime operations. Broken down by operation type.",
            OPERATIONS,
        )
        self.sandbox_time = Histogram(
            "kubelet_run_podsandbox_duration_seconds",
            "Duration in seconds of the run_podsandbox operations. Broken down by RuntimeClass.Handler.",
        )
        self.sandbox_errors = Counts(
            "kubelet_run_podsandbox_errors_total",
            "Cumulative number of the run_podsandbox operation errors by RuntimeClass.Handler.",
        )
        self.started_pods = Counts("kubelet_started_pods_total", "Cumulative number of pods started")
        self.started_pods_errors = Counts(
            "kubelet_started_pods_errors_total", "Cumulative number of errors when starting pods"
        )
        self.started = Counts("kubelet_started_containers_total", "Cumulative number of containers started")
        self.started_errors = Counts(
            "kubelet_started_containers_errors_total", "Cumulative number of errors when starting containers"
        )

    def _node(self) -> None:
        """Create the meters that are not about a single pod."""
        self.loop_lag = Histogram(
            "kubelite_event_loop_lag_seconds",
            "Seconds by which the daemon's event loop ran late, measured once a second.",
            LAGS,
        )
        self.pulls = Histogram(
            "kubelet_image_pull_duration_seconds", "Duration in seconds to pull an image.", PULLS
        )
        self.cgroups = Histogram(
            "kubelet_cgroup_manager_duration_seconds",
            "Duration in seconds for cgroup manager operations. Broken down by method.",
            CGROUPS,
        )
        self.storage = Histogram("storage_operation_duration_seconds", "Storage operation duration", STORAGE)
        self.preemptions = Counts(
            "kubelet_preemptions", "Cumulative number of pod preemptions by preemption resource", empty=False
        )
        self.orphans = Counts(
            "kubelet_orphaned_runtime_pods_total",
            "Number of pods that have been detected in the container runtime without being already known to the pod "
            "worker.",
        )
        self.collected = Counts(
            "kubelet_image_garbage_collected_total",
            "Total number of images garbage collected by the kubelet, whether through disk usage or image age.",
            empty=False,
        )
        self.stats_age = Histogram(
            "kubelet_eviction_stats_age_seconds",
            "Time between when stats are collected, and when pod is evicted based on those stats by eviction signal",
        )
        self.evictions = Counts(
            "kubelet_evictions", "Cumulative number of pod evictions by eviction signal", empty=False
        )

    def write(self, page: Page) -> None:
        for value in vars(self).values():
            if isinstance(value, (Counts, Histogram)):
                value.write(page)

    # -- observations ---------------------------------------------------------------------------------------------

    def step(self, uid: str, step: Step) -> None:
        """Observe the end of a step of a start trace, or of a step that is only measured (`Tracer.count`)."""
        if step.step.startswith("cgroup "):
            if step.took:  # 0: from a shim of an older version, which does not report it
                self.cgroups.observe(step.took, f'operation_type="{step.step.partition(" ")[2]}"')
        elif step.step == "pulled":
            size = next(word for least, word in _SIZES if int(step.detail) >= least)
            self.pulls.observe(step.took, f'image_size_in_bytes="{size}"')
        operation = _OPERATIONS.get(step.step)
        if operation is None:
            return
        labels = f'operation_type="{operation}"'
        self.operations.add(labels)
        self.operation_time.observe(step.took, labels)
        if step.error:
            self.operation_errors.add(labels)
        if step.step == "shim":
            self._sandbox(step)
        elif step.step == "start":
            kind = f'container_type="{self._kind_of(uid, step.container)}"'
            self.started.add(kind)
            if step.error:
                self.started_errors.add(f'{kind},code="StartError"')
        elif step.step == "pull" and uid in self._first_seen:
            self._pulling[uid] = self._pulling.get(uid, 0.0) + step.took

    def _sandbox(self, step: Step) -> None:
        self.sandbox_time.observe(step.took, 'runtime_handler=""')
        self.started_pods.add()
        if step.error:
            self.sandbox_errors.add('runtime_handler=""')
            self.started_pods_errors.add()

    def pod_seen(self, uid: str) -> None:
        """Observe a new pod."""
        self._first_seen[uid] = self._clock()

    def pod_changed(
        self, uid: str, doc: dict[str, Any], trace_of: Callable[[str], str] = lambda _uid: ""
    ) -> None:
        """Observe a changed status. A pod's start ends when the pod leaves the phase Pending. `trace_of`: uid → id of
        the trace of that start."""
        since = self._first_seen.get(uid)
        phase = doc.get("status", {}).get("phase")
        if since is None or phase in (None, "Pending"):
            return
        del self._first_seen[uid]
        now, trace = self._clock(), trace_of(uid)
        took, pulled = now - since, self._pulling.pop(uid, 0.0)
        exemplar = f'trace_id="{trace}",pod_uid="{escape(uid)}"' if trace and len(uid) < 64 else ""
        for whole in (self.start, self.start_total):  # equal, because a pod is seen when it is created
            whole.observe(took, exemplar=exemplar, at=now)
        if not doc["spec"].get("initContainers"):
            self.start_sli.observe(max(0.0, took - pulled), exemplar=exemplar, at=now)

    def pod_gone(self, uid: str) -> None:
        self._first_seen.pop(uid, None)
        self._pulling.pop(uid, None)
        self._known.discard(uid)
        self.probes.forget(uid)

    def mounted(self, plugin: str, took: float, done: bool) -> None:
        result = "success" if done else "fail-unknown"
        self.storage.observe(
            took,
            f'migrated="false",operation_name="volume_mount",status="{result}",volume_plugin="kubernetes.io/{plugin}"',
        )

    def preempted(self, short_of: str) -> None:
        self.preemptions.add(f'preemption_signal="{escape(short_of)}"')

    def status_written(self, took: float) -> None:
        self.status.observe(took)

    def probed(self, pod: Pod, container: str, kind: Kind, outcome: Outcome, took: float) -> None:
        self.probes.tried(pod, container, kind, outcome, took)

    def relisted(self, took: float) -> None:
        now = self._clock()
        self.relist.observe(took)
        if self.last_relist:
            self.relist_interval.observe(now - self.last_relist)
        self.last_relist = now

    def timed(
        self, work: Callable[[str], Awaitable[float | None]]
    ) -> Callable[[str], Awaitable[float | None]]:
        """Return `work`, the worker's sync of a pod, with a measurement of its duration."""

        async def look(uid: str) -> float | None:
            began = time.perf_counter()
            kind = "sync" if uid in self._known else "create"
            if kind == "create":
                self._known.add(uid)
                if (since := self._first_seen.get(uid)) is not None:
                    self.work_start.observe(max(0.0, self._clock() - since))
            try:
                return await work(uid)
            finally:
                self.work.observe(time.perf_counter() - began, f'operation_type="{kind}"')

        return look

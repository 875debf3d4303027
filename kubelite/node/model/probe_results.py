"""Pure: the meaning of probe results: thresholds over successive outcomes, and the resulting health of a container.

The rules are kubelet's (Kubernetes pkg/kubelet/prober/worker.go). A result counts after as many equal outcomes in a row
as its threshold requires. An instance is not ready until its readiness probe has succeeded. Liveness and readiness
probes wait for the startup probe. A probe that could not be performed does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from kubelite.kube.expansion import expand
from kubelite.node.model.errors import ConfigError
from manifests.types.core import Container, ContainerStatus, Probe


class Kind(StrEnum):
    STARTUP = "startup"
    LIVENESS = "liveness"
    READINESS = "readiness"


class Outcome(StrEnum):
    SUCCESS = "success"
    WARNING = "warning"  # a success with a warning
    FAILURE = "failure"
    UNKNOWN = "unknown"  # it could not be performed and does not count


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of one try, and its message."""

    outcome: Outcome
    text: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """The outcomes of one probe so far. `good` is the result that counts (None = none yet), `last` the last outcome,
    and `run` the number of equal outcomes in a row until they count."""

    good: bool | None = None
    last: bool | None = None
    run: int = 0


def fold(tally: Tally, outcome: Outcome, probe: Probe) -> Tally:
    """The tally with one more outcome."""
    if outcome is Outcome.UNKNOWN:
        return tally
    good = outcome is not Outcome.FAILURE
    if good is tally.last and good is tally.good:
        return tally  # the same result counts already
    run = tally.run + 1 if good is tally.last else 1
    needed = (probe.success_threshold or 1) if good else (probe.failure_threshold or 3)
    return Tally(good if run >= needed else tally.good, good, run)


@dataclass(frozen=True, slots=True)
class Health:
    """The health of one instance of a container according to its probes."""

    started: bool = True
    ready: bool = True
    failed: Kind | None = None  # the probe that requires it to be killed


def health(container: Container, tallies: Mapping[Kind, Tally]) -> Health:
    """The health of a running instance. A probe without a tally has not been tried."""
    startup = tallies.get(Kind.STARTUP, Tally()).good
    started = container.startup_probe is None or startup is True
    ready = started and (
        container.readiness_probe is None or tallies.get(Kind.READINESS, Tally()).good is True
    )
    if container.startup_probe is not None and startup is False:
        return Health(started=False, ready=False, failed=Kind.STARTUP)
    if container.liveness_probe is not None and tallies.get(Kind.LIVENESS, Tally()).good is False:
        return Health(started, ready, Kind.LIVENESS)
    return Health(started, ready)


def remembered(recorded: ContainerStatus | None, container_id: str) -> dict[Kind, Tally]:
    """The results that an earlier daemon recorded for this instance. They count until a probe changes them. Failures
    are counted from zero, so that a restart of the daemon never causes the restart of a container."""
    if recorded is None or recorded.container_id != f"kubelite://{container_id}":
        return {}
    tallies = {}
    if recorded.started:
        tallies[Kind.STARTUP] = Tally(good=True)
    if recorded.ready:
        tallies[Kind.READINESS] = Tally(good=True)
    return tallies


def probes(container: Container) -> Iterator[tuple[Kind, Probe]]:
    for kind, probe in (
        (Kind.STARTUP, container.startup_probe),
        (Kind.LIVENESS, container.liveness_probe),
        (Kind.READINESS, container.readiness_probe),
    ):
        if probe is not None:
            yield kind, probe


def kill_message(container: str, failed: Kind, *, restarts: bool) -> str:
    """The message of the Killing event (Kubernetes kuberuntime_manager.go, computePodActions)."""
    return f"Container {container} failed {failed} probe" + ", will be restarted" * restarts


def kill_grace(container: Container, failed: Kind, grace: float) -> float:
    """The probe's own terminationGracePeriodSeconds, else the pod's."""
    probe = container.startup_probe if failed is Kind.STARTUP else container.liveness_probe
    own = probe.termination_grace_period_seconds if probe is not None else None
    return float(max(1, own)) if own is not None else grace


def slot(started_at: float, probe: Probe, now: float) -> float:
    """When the probe is tried next: initialDelay, initialDelay + period, … after the start of the instance."""
    first, period = started_at + (probe.initial_delay_seconds or 0), float(probe.period_seconds or 10)
    if now <= first:
        # the clock may have been set back
        return min(first, now + (probe.initial_delay_seconds or 0) + period)
    return first + period * -(-(now - first) // period)


def exec_command(container: Container, command: list[str]) -> list[str]:
    """The command with $(VAR) replaced by static values of the manifest. Values from other sources are unknown here
    (Kubernetes pkg/kubelet/prober/prober.go)."""
    static = {variable.name: variable.value or "" for variable in container.env if not variable.value_from}
    return [expand(part, static) for part in command]


def port_number(container: Container, port: int | str) -> int:
    """A port by its number or by its name in the container's `ports`."""
    if isinstance(port, str) and not port.isdigit():
        named = [p.container_port for p in container.ports if p.name == port]
        if not named:
            raise ConfigError(f"couldn't find port: {port} in container {container.name}")
        return named[0]
    number = int(port)
    if not 0 < number < 65536:
        raise ConfigError(f"invalid port number: {number}")
    return number

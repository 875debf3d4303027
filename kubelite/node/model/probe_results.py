"""PURE: what probes mean (C4): thresholds as a fold over outcomes, and what they say of a container's instance.

kubelet's rules (K prober/worker.go): a result counts once as many like it came in a row as its threshold says; an
instance is not ready before its readiness probe succeeded, and is not asked about anything else before its startup
probe did; a probe that could not be made counts for nothing.
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
    WARNING = "warning"  # a success that somebody should hear of
    FAILURE = "failure"
    UNKNOWN = "unknown"  # it could not be tried: counts for nothing


@dataclass(frozen=True, slots=True)
class Result:
    """What one try gave, and the words for it."""

    outcome: Outcome
    text: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """The outcomes of one probe so far: what counts (`good`, None: nothing yet), how many like the last in a row."""

    good: bool | None = None
    last: bool | None = None
    run: int = 0


def fold(tally: Tally, outcome: Outcome, probe: Probe) -> Tally:
    """The tally with one more outcome."""
    if outcome is Outcome.UNKNOWN:
        return tally
    good = outcome is not Outcome.FAILURE
    if good is tally.last and good is tally.good:
        return tally  # it counts already: one more changes nothing
    run = tally.run + 1 if good is tally.last else 1
    needed = (probe.success_threshold or 1) if good else (probe.failure_threshold or 3)
    return Tally(good if run >= needed else tally.good, good, run)


@dataclass(frozen=True, slots=True)
class Health:
    """What its probes say of one instance of a container."""

    started: bool = True
    ready: bool = True
    failed: Kind | None = None  # the probe for which it has to be killed


def health(container: Container, tallies: Mapping[Kind, Tally]) -> Health:
    """Of a running instance; a probe without a tally has not been tried."""
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
    """What an earlier daemon had written down of this very instance: it stays so until a probe says otherwise. Failures
    are counted anew: a restart of the daemon never leads to one of a container."""
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
    """Of the Killing event (K kuberuntime_manager.go computePodActions)."""
    return f"Container {container} failed {failed} probe" + ", will be restarted" * restarts


def kill_grace(container: Container, failed: Kind, grace: float) -> float:
    """The probe's own terminationGracePeriodSeconds, else the pod's."""
    probe = container.startup_probe if failed is Kind.STARTUP else container.liveness_probe
    own = probe.termination_grace_period_seconds if probe is not None else None
    return float(max(1, own)) if own is not None else grace


def slot(started_at: float, probe: Probe, now: float) -> float:
    """When it is tried next: one of initialDelay, initialDelay + period, … after the instance's start."""
    first, period = started_at + (probe.initial_delay_seconds or 0), float(probe.period_seconds or 10)
    if now <= first:
        return min(
            first, now + (probe.initial_delay_seconds or 0) + period
        )  # the clock may have been set back
    return first + period * -(-(now - first) // period)


def exec_command(container: Container, command: list[str]) -> list[str]:
    """$(VAR) of values that the manifest gives as they are; those from elsewhere are not known here (K prober.go)."""
    static = {variable.name: variable.value or "" for variable in container.env if not variable.value_from}
    return [expand(part, static) for part in command]


def port_number(container: Container, port: int | str) -> int:
    """A port by number or by the name it has in the container's `ports`."""
    if isinstance(port, str) and not port.isdigit():
        named = [p.container_port for p in container.ports if p.name == port]
        if not named:
            raise ConfigError(f"couldn't find port: {port} in container {container.name}")
        return named[0]
    number = int(port)
    if not 0 < number < 65536:
        raise ConfigError(f"invalid port number: {number}")
    return number

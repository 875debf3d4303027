"""The API server's checks of probes and hooks, after defaulting (pkg/apis/core/validation, Kubernetes 1.36)."""

import re
from collections.abc import Iterator

from manifests.problems import Path, Problem, forbidden, invalid, required
from manifests.types.core import Container, HTTPGetAction, Lifecycle, LifecycleHandler, PodSpec, Probe
from manifests.validation.rules import not_negative, one_of, port_in_range, port_or_name

_SIGNALS = frozenset(
    [
        "SIGABRT",
        "SIGALRM",
        "SIGBUS",
        "SIGCHLD",
        "SIGCLD",
        "SIGCONT",
        "SIGFPE",
        "SIGHUP",
        "SIGILL",
        "SIGINT",
        "SIGIO",
        "SIGIOT",
        "SIGKILL",
        "SIGPIPE",
        "SIGPOLL",
        "SIGPROF",
        "SIGPWR",
        "SIGQUIT",
        "SIGSEGV",
        "SIGSTKFLT",
        "SIGSTOP",
        "SIGSYS",
        "SIGTERM",
        "SIGTRAP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGUSR1",
        "SIGUSR2",
        "SIGVTALRM",
        "SIGWINCH",
        "SIGXCPU",
        "SIGXFSZ",
    ]
) | {
    "SIGRTMIN",
    "SIGRTMAX",
    *(f"SIGRTMIN+{n}" for n in range(1, 16)),
    *(f"SIGRTMAX-{n}" for n in range(1, 15)),
}


def validate_probes(container: Container, path: Path) -> Iterator[Problem]:
    """Check a container's three probes (validateLivenessProbe, validateStartupProbe, validateReadinessProbe)."""
    if container.liveness_probe is not None:
        yield from _probe(container.liveness_probe, (*path, "livenessProbe"), once=True)
    if container.startup_probe is not None:
        yield from _probe(container.startup_probe, (*path, "startupProbe"), once=True)
    probe = container.readiness_probe
    if probe is not None:
        yield from _probe(probe, (*path, "readinessProbe"), once=False)
        if probe.termination_grace_period_seconds is not None:
            here = (*path, "readinessProbe", "terminationGracePeriodSeconds")
            yield invalid(here, probe.termination_grace_period_seconds, "must not be set for readinessProbes")


def _probe(probe: Probe, path: Path, *, once: bool) -> Iterator[Problem]:
    """Check one probe. `once`: a liveness or startup probe, whose success threshold can only be 1."""
    given = {"exec": probe.exec, "httpGet": probe.http_get, "tcpSocket": probe.tcp_socket, "grpc": probe.grpc}
    yield from _one_handler([alias for alias, handler in given.items() if handler is not None], path)
    if probe.exec is not None and not probe.exec.command:
        yield required((*path, "exec", "command"))
    if probe.http_get is not None:
        yield from _http_get(probe.http_get, (*path, "httpGet"))
    if probe.tcp_socket is not None:
        yield from port_or_name((*path, "tcpSocket", "port"), probe.tcp_socket.port)
    if probe.grpc is not None:
        yield from port_in_range((*path, "grpc", "port"), probe.grpc.port)
    yield from not_negative((*path, "initialDelaySeconds"), probe.initial_delay_seconds)
    yield from not_negative((*path, "timeoutSeconds"), probe.timeout_seconds)
    yield from not_negative((*path, "periodSeconds"), probe.period_seconds)
    yield from not_negative((*path, "successThreshold"), probe.success_threshold)
    yield from not_negative((*path, "failureThreshold"), probe.failure_threshold)
    if once and probe.success_threshold not in (None, 1):
        yield invalid((*path, "successThreshold"), probe.success_threshold, "must be 1")
    grace = probe.termination_grace_period_seconds
    if grace is not None and grace <= 0:
        yield invalid((*path, "terminationGracePeriodSeconds"), grace, "must be greater than 0")


def _one_handler(given: list[str], path: Path) -> Iterator[Problem]:
    if not given:
        yield required(path, "must specify a handler type")
    for alias in given[1:]:
        yield forbidden((*path, alias), "may not specify more than 1 handler type")


def _http_get(action: HTTPGetAction, path: Path) -> Iterator[Problem]:
    if not action.path:
        yield required((*path, "path"))
    yield from port_or_name((*path, "port"), action.port)
    yield from one_of((*path, "scheme"), action.scheme, ("HTTP", "HTTPS"))
    for index, header in enumerate(action.http_headers):
        if not re.fullmatch("[-A-Za-z0-9]+", header.name):
            sentence = (
                "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', "
                "regex used for validation is '[-A-Za-z0-9]+')"
            )
            yield invalid((*path, "httpHeaders", index), header.name, sentence)


def validate_lifecycle(lifecycle: Lifecycle, path: Path, spec: PodSpec) -> Iterator[Problem]:
    """Check a container's hooks and stop signal (validateLifecycle)."""
    for alias, hook in (("postStart", lifecycle.post_start), ("preStop", lifecycle.pre_stop)):
        if hook is not None:
            yield from _hook(hook, (*path, alias), spec)
    signal = lifecycle.stop_signal
    if signal is None:
        return
    yield from one_of((*path, "stopSignal"), signal, _SIGNALS)
    if spec.os is None or not spec.os.name:
        yield forbidden((*path, "stopSignal"), "may not be set for containers with empty `spec.os.name`")


def _hook(hook: LifecycleHandler, path: Path, spec: PodSpec) -> Iterator[Problem]:
    given = {"exec": hook.exec, "httpGet": hook.http_get, "tcpSocket": hook.tcp_socket, "sleep": hook.sleep}
    yield from _one_handler([alias for alias, handler in given.items() if handler is not None], path)
    if hook.exec is not None and not hook.exec.command:
        yield required((*path, "exec", "command"))
    if hook.http_get is not None:
        yield from _http_get(hook.http_get, (*path, "httpGet"))
    if hook.tcp_socket is not None:
        yield from port_or_name((*path, "tcpSocket", "port"), hook.tcp_socket.port)
    if hook.sleep is not None:
        grace = spec.termination_grace_period_seconds or 0
        if not 0 <= hook.sleep.seconds <= grace:
            sentence = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            yield invalid((*path, "sleep"), hook.sleep.seconds, sentence)

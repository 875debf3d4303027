"""Runs probes on schedule inside the daemon. `health` returns the results that node/model/probe_results.py evaluates.

The prober follows every running instance that has probes, from the first sync that observes it. HTTP, TCP and gRPC
probes connect from the node to the pod's address; exec probes run through the pod's shim, some at a time (turns.py).
Most probes are plain HTTP or TCP to an address: these need only a few callbacks on the event loop, with data that is
prepared once. All others run as a short task. Probes that fall due within the same `TICK` start together. If a probe
still runs when the next is due, the next follows immediately, as with kubelet's tickers. Nothing is stored: a new
daemon starts from what the pod's status says about this instance.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from kubelite.node.model import probe_results
from kubelite.node.model.cri import ContainerState, Cri, ObservedContainer, ObservedPod
from kubelite.node.model.node_config import NodeConfig
from kubelite.node.model.observer import Observer
from kubelite.node.model.pod_view import in_sandbox, statuses
from kubelite.node.model.probe_results import Health, Kind, Outcome, Result, Tally
from kubelite.node.model.recorder import WARNING, PodEvents, Recorder
from kubelite.node.probing import exchange as wire
from kubelite.node.probing import grpc_health
from kubelite.node.probing.http_get import (
    Get,
    Response,
    failed,
    fetch,
    is_complete,
    parse,
    redirect,
    request_of,
)
from kubelite.node.probing.turns import turns_of_this_machine
from manifests.types.core import Container, HTTPGetAction, Pod, Probe
from runtime.errors import RuntimeFault

log = logging.getLogger(__name__)
TRIES = 3  # of a probe that could not be performed (Kubernetes prober.go, maxProbeRetries)
EAGER = 1.0  # seconds between the extra probes of a container that is not ready
TICK = 0.05  # seconds: probes that fall due within one tick start together at its end
SUCCEEDED = Result(Outcome.SUCCESS)


@dataclass(frozen=True, slots=True)
class _Plain:
    """What a plain HTTP or TCP probe needs, prepared once and used for each try."""

    ip: str
    port: int
    request: bytes  # empty for TCP
    complete: Callable[[bytearray], bool]
    done: Callable[[bytearray, wire.WireError | None], None]
    get: Get | None


@dataclass(slots=True)
class _Watch:
    """One probe of one instance."""

    kind: Kind
    probe: Probe
    tally: Tally = field(default_factory=Tally)
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None
    exchange: wire.Exchange | None = None
    plain: _Plain | None = None
    tried_at: float = 0.0
    began: float = 0.0  # the same in time.perf_counter seconds
    owed: bool = False  # the next try fell due while this one was running

    @property
    def settled(self) -> bool:
        """Whether this instance needs no more tries of the probe (Kubernetes pkg/kubelet/prober/worker.go, onHold)."""
        if self.kind is Kind.STARTUP:
            return self.tally.good is not None
        return self.kind is Kind.LIVENESS and self.tally.good is False

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.task is not None:
            self.task.cancel()
        if self.exchange is not None:
            self.exchange.close()
        self.timer = self.task = self.exchange = None


@dataclass(slots=True)
class _Followed:
    """One instance of a container, and the values that its probes need."""

    pod: Pod
    container: Container
    observed: ObservedContainer
    host: str
    events: PodEvents
    watches: dict[Kind, _Watch] = field(default_factory=dict)
    health: Health = field(default_factory=Health)  # as of the last `weigh`

    def weigh(self) -> None:
        """Recompute `health`, after a tally's result or the set of probes has changed."""
        self.health = probe_results.health(
            self.container, {kind: watch.tally for kind, watch in self.watches.items()}
        )

    def stop(self) -> None:
        for watch in self.watches.values():
            watch.stop()


class Prober:
    """Runs the probes of all pods. `wake(uid)` is called when a pod's health changes."""

    def __init__(
        self,
        cri: Cri,
        config: NodeConfig,
        recorder: Recorder,
        *,
        clock: Callable[[], float],
        wake: Callable[[str], None],
        observer: Observer,
    ) -> None:
        self._cri = cri
        self._config = config
        self._recorder = recorder
        self._clock = clock
        self._wake = wake
        self._observer = observer
        self._turns = turns_of_this_machine(time.monotonic)
        self._pods: dict[str, dict[str, _Followed]] = {}  # uid → container id → instance
        #: A heap of the times when exchanges expire; it may contain ended ones.
        self._limits: list[tuple[float, int, wire.Exchange]] = []
        self._order = itertools.count()
        self._limiter: asyncio.TimerHandle | None = None  # for the earliest expiry

    # -- which instances are followed ---------------------------------------------------------------------------

    def follow(self, pod: Pod, observed: ObservedPod) -> dict[str, Health]:
        """Start, continue and stop probes to match the pod and its running instances. Return the health by container
        id."""
        uid, specs = pod.metadata.uid or "", {}
        for container in [*pod.spec.init_containers, *pod.spec.containers]:
            if container.startup_probe or container.liveness_probe or container.readiness_probe:
                specs[container.name] = container
        followed = self._pods.get(uid)
        if not specs and not followed:
            return {}
        followed = self._pods.setdefault(uid, {})
        running = {
            c.id: c
            for c in observed.containers
            if c.state is ContainerState.RUNNING and c.name in specs and in_sandbox(observed, c)
            if c.post_start != "pending"  # until then the container does not count as running
        }
        for gone in followed.keys() - running.keys():
            followed.pop(gone).stop()
        for identity, instance in running.items():
            self._follow(pod, specs[instance.name], instance, observed, followed.get(identity))
        return self.health(uid)

    def health(self, uid: str) -> dict[str, Health]:
        """The present health by container id."""
        return {identity: one.health for identity, one in self._pods.get(uid, {}).items()}

    def forget(self, uid: str) -> None:
        for one in self._pods.pop(uid, {}).values():
            one.stop()

    async def close(self) -> None:
        tasks = [w.task for pod in self._pods.values() for one in pod.values() for w in one.watches.values()]
        for uid in list(self._pods):
            self.forget(uid)
        if self._limiter is not None:
            self._limiter.cancel()
        await asyncio.gather(*(task for task in tasks if task is not None), return_exceptions=True)

    def _follow(
        self,
        pod: Pod,
        container: Container,
        instance: ObservedContainer,
        observed: ObservedPod,
        known: _Followed | None,
    ) -> None:
        sandbox = observed.sandbox
        host = self._config.host_ip if pod.spec.host_network else sandbox.ip if sandbox is not None else ""
        if known is None:
            known = _Followed(pod, container, instance, host, PodEvents(self._recorder, pod))
            self._pods[pod.metadata.uid or ""][instance.id] = known
            recorded = next((s for s in statuses(pod.status) if s.name == container.name), None)
            tallies = probe_results.remembered(recorded, instance.id)
        else:
            if known.container is not container or known.host != host:
                for each in known.watches.values():
                    each.plain = None
            known.pod, known.container, known.observed, known.host = pod, container, instance, host
            tallies = {}
        # when termination begins, liveness and startup probes end and readiness probes continue
        ending = bool(pod.metadata.deletion_timestamp) or instance.stop_deadline > 0
        wanted = {k: p for k, p in probe_results.probes(container) if not ending or k is Kind.READINESS}
        for kind in known.watches.keys() - wanted.keys():
            known.watches[kind].stop()
            if not ending:
                del known.watches[kind]
        asked = None
        for kind, probe in wanted.items():
            watch = known.watches.get(kind)
            if watch is None:
                watch = _Watch(kind, probe, tallies.get(kind, Tally()), tried_at=self._clock())
                known.watches[kind] = watch
                self._plan(known, watch)
            elif watch.probe != probe:  # edited in place: the next try uses the new probe
                watch.probe, watch.plain = probe, None
                self._plan(known, watch)
            elif kind is Kind.READINESS:
                asked = watch
        known.weigh()
        if asked is not None and self._eager(known, asked):
            self._begin(known, asked)

    # -- when ---------------------------------------------------------------------------------------------------

    def _plan(self, one: _Followed, watch: _Watch) -> None:
        """Set the timer for the next try."""
        if watch.timer is not None:
            watch.timer.cancel()
            watch.timer = None
        if not watch.settled:
            now = self._clock()
            wait = probe_results.slot(one.observed.started_at, watch.probe, now) - now
            watch.timer = asyncio.get_running_loop().call_later(max(wait, 0.0), self._due, one, watch)

    def _due(self, one: _Followed, watch: _Watch) -> None:
        watch.timer = None
        if watch.kind is Kind.STARTUP or one.health.started:
            watch.owed = watch.task is not None or watch.exchange is not None
            self._begin(one, watch)
        loop, period = asyncio.get_running_loop(), float(watch.probe.period_seconds or 10)
        now = self._clock()
        wait = probe_results.slot(one.observed.started_at, watch.probe, now + 0.001) - now
        at = loop.time() + (wait if wait > period / 10 else wait + period)
        watch.timer = loop.call_at(math.ceil(at / TICK) * TICK, self._due, one, watch)

    def _eager(self, one: _Followed, watch: _Watch) -> bool:
        """Whether to probe a container that is not ready in addition to its period, on each sync of the pod."""
        now = self._clock()
        begun = now >= one.observed.started_at + (watch.probe.initial_delay_seconds or 0)
        return watch.tally.good is not True and begun and one.health.started and now - watch.tried_at >= EAGER

    def _begin(self, one: _Followed, watch: _Watch) -> None:
        if watch.task is not None or watch.exchange is not None:  # the previous try is still running
            return
        watch.tried_at, watch.began = self._clock(), time.perf_counter()
        loop = asyncio.get_running_loop()
        try:
            plain = watch.plain = watch.plain or self._prepared(one, watch)
            if plain is not None:
                watch.exchange = exchange = wire.Exchange(
                    plain.ip, plain.port, plain.request, complete=plain.complete, done=plain.done
                )
                self._limit(exchange, loop.time() + float(watch.probe.timeout_seconds or 1))
                exchange.begin()
                return
        except (RuntimeFault, OSError, ValueError):
            pass  # the task below reports the error and whether it counts
        watch.task = loop.create_task(self._try(one, watch))

    # -- a try --------------------------------------------------------------------------------------------------

    def _prepared(self, one: _Followed, watch: _Watch) -> _Plain | None:
        """The data of a plain probe; None for others. Raises ConfigError for a missing port, ValueError for an invalid
        URL."""
        http, tcp = watch.probe.http_get, watch.probe.tcp_socket
        done = partial(self._ended, one, watch)
        if http is not None and watch.probe.exec is None:
            get = http_get(one.container, http, one.host)
            if get.scheme == "http" and wire.is_address(get.host):
                return _Plain(get.host, get.port, request_of(get.url, get), is_complete, done, get)
        elif tcp is not None and watch.probe.exec is None:
            host, port = tcp.host or one.host, probe_results.port_number(one.container, tcp.port)
            if wire.is_address(host):
                return _Plain(host, port, b"", _at_once, done, None)
        return None

    def _limit(self, exchange: wire.Exchange, at: float) -> None:
        """Record when an exchange expires. One timer serves all of them, because hardly any expires."""
        while self._limits and self._limits[0][2].ended:
            heapq.heappop(self._limits)
        heapq.heappush(self._limits, (at, next(self._order), exchange))
        if self._limiter is None or at < self._limiter.when():
            if self._limiter is not None:
                self._limiter.cancel()
            self._limiter = asyncio.get_running_loop().call_at(at, self._expire)

    def _expire(self) -> None:
        loop, limits = asyncio.get_running_loop(), self._limits
        now = loop.time() + 0.001
        while limits and (limits[0][2].ended or limits[0][0] <= now):
            heapq.heappop(limits)[2].expire()
        if self._limiter is not None:
            self._limiter.cancel()
        self._limiter = loop.call_at(limits[0][0], self._expire) if limits else None

    def _ended(self, one: _Followed, watch: _Watch, data: bytearray, error: wire.WireError | None) -> None:
        """Evaluate a plain try that has ended."""
        plain, watch.exchange = watch.plain, None
        if plain is None:  # edited meanwhile: the result does not apply to the new probe
            self._finish(one, watch, None)
            return
        try:
            if error is not None:
                raise error
            result = SUCCEEDED
            if plain.get is not None:
                response = parse(data)
                if not 200 <= response.status < 300:
                    if redirect(response, plain.get.url, plain.get.host):
                        watch.task = asyncio.get_running_loop().create_task(self._try(one, watch, response))
                        return
                    result = http_result(response)
        except (wire.WireError, ValueError) as reason:
            if plain.get is not None:
                reason = failed(plain.get.url, reason)
            result = Result(Outcome.FAILURE, str(reason))
        self._finish(one, watch, result)

    async def _try(self, one: _Followed, watch: _Watch, first: Response | None = None) -> None:
        result = Result(Outcome.UNKNOWN)
        for _ in range(TRIES):
            result = await self._attempt(one, watch, first)
            if result.outcome is not Outcome.UNKNOWN:
                break
        watch.task = None
        self._finish(one, watch, result)

    def _finish(self, one: _Followed, watch: _Watch, result: Result | None) -> None:
        """Count the result of a try. None means that the try has no result and does not count."""
        uid, name = one.pod.metadata.uid or "", one.container.name
        if one.observed.id not in self._pods.get(uid, ()):
            return
        if result is not None:
            self._observer.probed(
                one.pod, name, watch.kind, result.outcome, time.perf_counter() - watch.began
            )
            if result.outcome is not Outcome.SUCCESS:
                self._say(one, watch.kind, result)
            self._count(one, watch, result.outcome)
        if watch.owed and watch.timer is not None:  # not if the probe was stopped
            watch.owed = False
            self._begin(one, watch)

    def _count(self, one: _Followed, watch: _Watch, outcome: Outcome) -> None:
        tally = probe_results.fold(watch.tally, outcome, watch.probe)
        news = tally.good is not watch.tally.good
        watch.tally = tally
        if not news:
            return
        before = one.health
        one.weigh()
        if watch.settled:
            watch.stop()
        if one.health != before:
            if one.health.started and not before.started:
                self._started(one)
            uid, name = one.pod.metadata.uid or "", one.container.name
            log.info("%s probe: %s", watch.kind, one.health, extra={"uid": uid, "container": name})
            self._wake(uid)

    def _started(self, one: _Followed) -> None:
        """The startup probe succeeded: start the other probes now."""
        now = self._clock()
        for watch in one.watches.values():
            due = now >= one.observed.started_at + (watch.probe.initial_delay_seconds or 0)
            if due and watch.kind is not Kind.STARTUP:
                self._begin(one, watch)

    def _say(self, one: _Followed, kind: Kind, result: Result) -> None:
        title, name = kind.title(), one.container.name
        if result.outcome is Outcome.FAILURE:
            one.events.container(name, WARNING, "Unhealthy", f"{title} probe failed: {result.text}")
        elif result.outcome is Outcome.WARNING:
            one.events.container(name, WARNING, "ProbeWarning", f"{title} probe warning: {result.text}")
        elif result.outcome is Outcome.UNKNOWN:
            sentence = f"{title} probe errored and resulted in unknown state: {result.text}"
            one.events.container(name, WARNING, "Unhealthy", sentence)

    async def _attempt(self, one: _Followed, watch: _Watch, first: Response | None) -> Result:
        probe = watch.probe
        timeout = float(probe.timeout_seconds or 1)
        try:
            if probe.exec is not None:
                async with self._turns.turn():
                    watch.began = time.perf_counter()  # the wait for a turn is no part of the probe
                    return await self._exec(one, probe.exec.command, timeout)
            if probe.http_get is not None:
                get = http_get(one.container, probe.http_get, one.host)
                return http_result(await fetch(get, timeout, first))
            if probe.tcp_socket is not None:
                port = probe_results.port_number(one.container, probe.tcp_socket.port)
                await wire.connect(probe.tcp_socket.host or one.host, port, timeout)
                return Result(Outcome.SUCCESS)
            if probe.grpc is not None:
                service = probe.grpc.service or ""
                good, text = await grpc_health.check(one.host, probe.grpc.port, service, timeout)
                return Result(Outcome.SUCCESS if good else Outcome.FAILURE, text)
        except wire.WireError as error:
            return Result(Outcome.FAILURE, str(error))
        except (RuntimeFault, OSError) as error:  # the probe could not be performed
            return Result(Outcome.UNKNOWN, str(error))
        return Result(Outcome.UNKNOWN, f"missing probe handler for {one.events.name}:{one.container.name}")

    async def _exec(self, one: _Followed, command: list[str], timeout: float) -> Result:
        argv = probe_results.exec_command(one.container, command)
        done = await self._cri.exec(one.pod.metadata.uid or "", one.observed.id, argv, timeout=timeout)
        if done.timed_out:
            sentence = f'command timed out: "{" ".join(argv)}" timed out after {timeout:g}s'
            return Result(Outcome.FAILURE, sentence)
        return Result(Outcome.FAILURE if done.exit_code else Outcome.SUCCESS, done.output)


def _at_once(_data: bytearray) -> bool:
    return True


def http_get(container: Container, action: HTTPGetAction, host: str, agent: str = "kube-probe/1.36") -> Get:
    """Pure: the request of an httpGet action. It goes to the pod's address unless the action names a host."""
    return Get(
        scheme=(action.scheme or "HTTP").lower(),
        host=action.host or host,
        port=probe_results.port_number(container, action.port),
        path=action.path or "/",
        headers=tuple((header.name, header.value) for header in action.http_headers),
        agent=agent,
    )


def http_result(response: Response) -> Result:
    """Pure: the result of a response. 2xx is a success, a redirect that was not followed is a success with a warning,
    and anything else is a failure (Kubernetes pkg/probe/http/http.go)."""
    body = response.body.decode(errors="replace")
    if 300 <= response.status < 400:
        return Result(Outcome.WARNING, f"Probe terminated redirects, Response body: {body}")
    if 200 <= response.status < 300:
        return Result(Outcome.SUCCESS, body)
    return Result(Outcome.FAILURE, f"HTTP probe failed with statuscode: {response.status}")

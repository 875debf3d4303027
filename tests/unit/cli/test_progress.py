"""Progress of waiting commands, and of pods."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from kubelite.api.kube.printers import summarize_pod
from kubelite.cli.objects import rollout
from kubelite.cli.objects.pod_progress import Progress, progress_of, ready_of, settled
from kubelite.diagnosis.unready import probe_words
from kubelite.kube.json import Json
from tests.unit.api.fake_node import NOW, event_doc, pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import KUBELITE, Terminal, kubelite, ok, server

__all__ = ["server"]

RUNNING = {"running": {"startedAt": NOW}}


def container(name: str, *, ready: bool, started: bool = True, state: Json | None = None) -> Json:
    return {"name": name, "ready": ready, "started": started, "state": state or RUNNING, "restartCount": 0}


def pod(*statuses: Json, init: tuple[Json, ...] = (), sidecars: tuple[str, ...] = (), **spec: Any) -> Json:
    containers = spec.pop("containers", [{"name": one["name"], "image": "a"} for one in statuses])
    inits = [{"name": one["name"], "image": "a"} for one in init]
    for one in inits:
        if one["name"] in sidecars:
            one["restartPolicy"] = "Always"
    status = {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}],
        "containerStatuses": list(statuses),
        "initContainerStatuses": list(init),
    }
    return pod_doc("web", status=status, containers=containers, initContainers=inits, **spec)


DONE = {"terminated": {"exitCode": 0, "reason": "Completed"}}


@pytest.mark.parametrize(
    "document",
    [
        pod(container("a", ready=True), container("b", ready=False)),
        pod(container("a", ready=True), init=(container("s", ready=True),), sidecars=("s",)),
        pod(container("a", ready=True), init=(container("s", ready=False),), sidecars=("s",)),
        pod(container("a", ready=False), init=(container("i", ready=True, state=DONE),)),
        pod(
            container("a", ready=False),
            init=(container("i", ready=True, state=DONE), container("s", ready=True)),
            sidecars=("s",),
        ),
    ],
)
def test_rollout_counts_the_containers_that_get_counts(document: Json) -> None:
    ready, total = ready_of(document)
    assert f"{ready}/{total}" == summarize_pod(document, 0.0).ready
    assert f"{ready} of {total} containers are ready" in progress_of(document).words


PROBES = [
    ({"httpGet": {"port": 80, "path": "/healthz"}}, "HTTP GET :80/healthz"),
    ({"httpGet": {"port": "web", "scheme": "HTTPS", "host": "example.com"}}, "HTTPS GET example.com:web/"),
    ({"tcpSocket": {"port": 5432}}, "TCP :5432"),
    ({"grpc": {"port": 9000}}, "gRPC :9000"),
    ({"exec": {"command": ["cat", "/ready"]}}, "cat /ready"),
]


@pytest.mark.parametrize(("probe", "words"), PROBES)
def test_a_pod_that_is_not_ready_names_its_probe(probe: Json, words: str) -> None:
    assert probe_words(probe) == words
    spec = {"name": "a", "image": "a", "readinessProbe": probe, "startupProbe": probe}
    for started, kind in ((True, "readiness"), (False, "startup")):
        document = pod(container("a", ready=False, started=started), containers=[spec])
        missing = f"(container a: its {kind} probe ({words}) has not succeeded)"
        assert progress_of(document).words == f"0 of 1 containers are ready {missing}"
    assert "probe" not in progress_of(pod(container("a", ready=True), containers=[spec])).words


def test_a_container_of_an_earlier_definition_is_not_the_end_of_a_rollout() -> None:
    document = pod(
        {**container("a", ready=True), "containerID": "kubelite://1"},
        {**container("b", ready=True), "containerID": "kubelite://2"},
    )
    done = Progress(done=True, failed=False, words="successfully rolled out", ready=2)
    stays = {"a": "kubelite://1", "b": "kubelite://2"}
    assert settled(document, done, {"current": stays}) is done
    assert settled(document, done, {}) is done  # an older daemon
    for current in ({"a": "kubelite://1"}, {**stays, "b": "kubelite://3"}):
        found = settled(document, done, {"current": current})
        assert (found.done, found.failed) == (False, False)
        assert found.words == "container b: its earlier instance is terminating"


def test_a_timeout_gives_the_advice_of_why(server: Served) -> None:
    server.run(server.node.store.update("Pod", pod(container("app", ready=False))))
    event = event_doc("probe", "web", "Unhealthy", "Readiness probe failed: 503", kind="Warning")
    server.run(server.node.store.create("Event", event))
    (advice,) = server.run(server.node.why("default", "web"))["advice"]  # type: ignore[index]
    assert "a probe fails (Readiness probe failed: 503)" in advice
    assert advice in ok(server, "why", "web")
    done = kubelite(server, "rollout", "status", "web", "--timeout=1s")
    assert done.returncode == 1
    assert done.stderr == f"error: timed out waiting for the condition\n  {advice}\n"


def test_a_pod_without_progress_ends_the_wait(
    server: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kubelite.cli.main import run

    monkeypatch.setattr(rollout, "PROGRESS_SECONDS", 0.5)
    server.run(server.node.store.update("Pod", pod(container("app", ready=False))))
    assert run(["--socket", server.socket, "rollout", "status", "web"]) == 1
    assert 'error: pod "web" exceeded its progress deadline' in capsys.readouterr().err


def test_a_wait_shows_its_time_on_a_terminal_and_clears_the_line(server: Served) -> None:
    server.run(server.node.store.update("Pod", pod(container("app", ready=False))))
    terminal = Terminal(server, "rollout", "status", "web", "--timeout=3s")
    terminal.expect(b'Waiting for pod "web" rollout to finish: 0 of 1 containers are ready...')
    terminal.expect(b'pod "web": 0 of 1 containers are ready  1s')
    terminal.expect(b"s\r\x1b[Kerror: timed out waiting for the condition")
    terminal.process.wait(30)


def test_a_wait_shows_nothing_in_a_pipe(server: Served) -> None:
    done = kubelite(server, "wait", "--for=condition=Never", "pod/web", "--timeout=1s")
    assert done.stdout == ""
    assert done.stderr == "error: timed out waiting for the condition on pods/web\n"


def test_progress_costs_no_import_of_rich() -> None:
    code = (
        "import sys, kubelite.cli.images.save, kubelite.cli.objects.rollout; sys.exit('rich' in sys.modules)"
    )
    environ = {**os.environ, "PYTHONPATH": os.getcwd()}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0
    assert KUBELITE[0] == sys.executable

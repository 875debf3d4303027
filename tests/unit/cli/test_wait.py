"""`wait`, `logs` by label, and `rollout`: arguments, messages and exit codes as in kubectl."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from kubelite.cli.errors import Unreachable
from kubelite.cli.names import PODS
from kubelite.cli.objects.pod_progress import progress_of
from kubelite.cli.objects.wait import states
from kubelite.cli.transport.client import Client
from kubelite.kube.json import Json
from tests.unit.api.fake_node import pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import WEB, kubelite, line_of, ok, server, started
from tests.waiting import SECONDS, until

__all__ = ["server"]


def ready(name: str, value: str, *, generation: int = 0, **metadata: Any) -> Json:
    doc = pod_doc(name)
    doc["metadata"] |= {"generation": 2, **metadata}
    condition = {"type": "Ready", "status": value} | (
        {"observedGeneration": generation} if generation else {}
    )
    doc["status"]["conditions"] = [condition]
    return doc


def watched(server: Served, number: int = 1) -> None:
    """Wait until so many watches are open."""
    until(lambda: len(server.node.store._watches) == number, f"{number} watches")


# -- wait ------------------------------------------------------------------------------------------------------


def test_conditions_that_are_already_met(server: Served) -> None:
    for arguments in (
        ("--for=condition=Ready", "pod/web"),
        ("--for=condition=ready=TRUE", "pod/web"),
        ("--for=jsonpath={.status.phase}=Running", "pod", "web"),
        ("--for=jsonpath=.status.podIP", "pods/web"),
        ('--for=jsonpath={.status.conditions[?(@.type=="Ready")].status}=True', "pod/web"),
        ("--for=create", "pod/web"),
    ):
        assert ok(server, "wait", *arguments) == "pod/web condition met\n", arguments
    assert ok(server, "wait", "--for=condition=Ready", "pods", "-l", "app in (web,db)", "--timeout=1m") == (
        "pod/db condition met\npod/web condition met\n"
    )
    assert ok(server, "wait", "--for=condition=Ready", "pods", "-A", "--all").count("condition met") == 3
    assert ok(server, "wait", "--for=condition=Ready", "node/here") == "node/here condition met\n"
    assert ok(server, "wait", "--for=delete", "pod/nix") == ""


def test_conditions_that_are_met_later(server: Served) -> None:
    server.run(server.node.store.update("Pod", ready("web", "False")))
    with started(server, "wait", "--for=condition=Ready", "pod/web", "--timeout=-1s") as process:
        watched(server)
        for doc in (ready("web", "True", generation=1), ready("web", "True", generation=2)):
            assert process.poll() is None
            server.run(server.node.store.update("Pod", doc))
        assert line_of(process) == "pod/web condition met\n"
        assert process.wait(30) == 0
    watched(server, 0)
    with started(server, "wait", "--for=create", "pod/late", "--timeout=10m") as process:
        watched(server)
        server.run(server.node.store.create("Pod", pod_doc("late")))
        assert line_of(process) == "pod/late condition met\n"


@pytest.mark.parametrize(
    "command",
    [
        ("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/web", "--timeout=10m"),
        ("rollout", "status", "web"),
    ],
)
def test_the_daemon_restarts_during_a_wait(tmp_path: Path, command: tuple[str, ...]) -> None:
    with contextlib.ExitStack() as commands:
        with Served.at(tmp_path) as first:
            first.run(first.node.store.create("Pod", pod_doc("web", status={"phase": "Pending"})))
            process = commands.enter_context(started(first, *command))
            watched(first)
        with Served.at(tmp_path) as second:
            watched(second)
            assert process.poll() is None
            second.run(second.node.store.update("Pod", pod_doc("web", status={"phase": "Succeeded"})))
            assert process.wait(SECONDS) == 0


def test_the_daemon_does_not_come_back_in_time(tmp_path: Path) -> None:
    nobody = Client(str(tmp_path / "no.sock"))
    with pytest.raises(Unreachable, match="kubelite is not running"):
        next(states(nobody, PODS, "default", "web", time.monotonic() + 0.05))


def test_a_new_pod_of_the_same_name_ends_only_a_wait_for_deletion(server: Served) -> None:
    def replace(value: str, uid: str) -> None:
        old = server.node.store.get("Pod", "default", "web")
        assert old is not None
        server.run(server.node.store.delete(old.uid))
        server.run(server.node.store.create("Pod", ready("web", value, uid=uid)))

    with started(server, "wait", "--for=delete", "pod/web", "--timeout=10m") as gone:
        watched(server)
        replace("False", "second")
        assert line_of(gone) == "pod/web condition met\n"
    watched(server, 0)
    with started(server, "wait", "--for=condition=Ready", "pod/web", "--timeout=10m") as process:
        watched(server)
        replace("True", "third")
        assert line_of(process) == "pod/web condition met\n"


def test_the_pods_of_a_manifest_are_waited_for(server: Served, tmp_path: Path) -> None:
    file = tmp_path / "nginx.yaml"
    file.write_text(WEB)
    missing = kubelite(server, "wait", "--for=condition=Ready", "-f", str(file))
    assert missing.returncode == 1 and 'pods "nginx" not found' in missing.stderr
    server.run(server.node.store.create("Pod", pod_doc("nginx")))
    assert ok(server, "wait", "--for=condition=Ready", "-f", str(file)) == "pod/nginx condition met\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--for=condition=Ready=False", "pod/web", "--timeout=0"), "error: condition not met for pods/web"),
        (("--for=delete", "pod/web", "--timeout=0s"), "error: condition not met for pods/web"),
        (("--for=create", "pod/nix", "--timeout=0s"), "error: condition not met for pods/nix"),
        (("--for=condition=Ready", "pod/nix"), 'Error from server (NotFound): pods "nix" not found'),
        (("--for=condition=Ready", "pods", "-l", "a=b"), "error: no matching resources found"),
        (("--for=condition=Ready", "pods"), "error: resource(s) were provided, but no name was specified"),
        (("pod/web",), 'error: unrecognized condition: ""'),
        (("--for=Ready", "pod/web"), 'error: unrecognized condition: "Ready"'),
        (("--for=jsonpath={.a}=b=c", "pod/web"), "jsonpath wait format must be"),
        (("--for=jsonpath={.a}=", "pod/web"), "jsonpath wait has to have a value after equal sign"),
        (("--for=jsonpath={.status}=x", "pod/web"), "leads to a nested object or list"),
        (("--for=jsonpath={.metadata.*}", "pod/web"), "matches more than one value"),
        (("--for=condition=Ready", "pod/web", "--timeout=soon"), 'invalid duration "soon"'),
        (("--for=condition=Ready", "-f", "x.yaml", "pod/web"), "may not specify resource arguments"),
    ],
)  # fmt: skip
def test_messages_of_a_timeout(server: Served, arguments: tuple[str, ...], words: str) -> None:
    done = kubelite(server, "wait", *arguments)
    assert done.returncode in (1, 2) and words in done.stderr and not done.stdout, done
    assert "Traceback" not in done.stderr


def test_a_timeout_of_one_object_does_not_hide_the_others(server: Served) -> None:
    server.run(server.node.store.update("Pod", ready("db", "False")))
    done = kubelite(server, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=1s")
    assert (done.returncode, done.stdout) == (1, "pod/web condition met\n")
    assert done.stderr == "error: timed out waiting for the condition on pods/db\n"


# -- logs of several -------------------------------------------------------------------------------------------


def write_log(server: Served, pod: Json, container: str, *lines: str) -> Path:
    directory = Path(server.node.container_log_dir(pod, container))
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "0.log"
    with file.open("a") as out:
        out.writelines(f"2026-11-24T14:33:01.000000000Z stdout F {line}\n" for line in lines)
    return file


def test_logs_of_all_pods_with_a_label(server: Served) -> None:
    two = pod_doc("two", containers=[{"name": n, "image": "i"} for n in ("app", "side")])
    server.run(server.node.store.create("Pod", two))
    for pod in (pod_doc("web"), pod_doc("db"), two):
        for container in pod["spec"]["containers"]:
            name = f"{pod['metadata']['name']}-{container['name']}"
            write_log(server, pod, container["name"], *(f"{name} {n}" for n in range(12)))
    done = kubelite(server, "logs", "-l", "app in (web,db,two)", "--tail=1", "--prefix")
    assert done.stdout.splitlines() == [
        "[pod/db/app] db-app 11",
        "[pod/two/app] two-app 11",
        "[pod/web/app] web-app 11",
    ]
    assert done.stderr == 'Defaulted container "app" out of: app, side\n'
    assert len(ok(server, "logs", "-l", "app=web").splitlines()) == 10, "kubectl's default of a selector"
    assert len(ok(server, "logs", "-l", "app=web", "--tail=-1").splitlines()) == 12
    every = ok(server, "logs", "-l", "app=two", "--all-containers", "--tail=1", "--prefix")
    assert every == "[pod/two/app] two-app 11\n[pod/two/side] two-side 11\n"
    none = kubelite(server, "logs", "-l", "app=none")
    assert (none.returncode, none.stdout, none.stderr) == (
        0,
        "",
        "No resources found in default namespace.\n",
    )


def test_logs_of_several_pods_are_followed_in_parallel(server: Served) -> None:
    for name in ("web", "db"):
        write_log(server, pod_doc(name), "app", f"{name} begins")
    selected = ("logs", "-f", "--prefix", "-l", "app in (web,db)")
    refused = kubelite(server, *selected, "--max-log-requests=1")
    assert refused.returncode == 1 and refused.stderr == (
        "error: you are attempting to follow 2 log streams, but maximum allowed concurrency is 1, "
        "use --max-log-requests to increase the limit\n"
    )
    with started(server, *selected) as process:
        first = {line_of(process), line_of(process)}
        assert first == {"[pod/web/app] web begins\n", "[pod/db/app] db begins\n"}
        write_log(server, pod_doc("db"), "app", "db goes on")
        assert line_of(process) == "[pod/db/app] db goes on\n"
        for name in ("web", "db"):
            server.run(server.node.store.delete(f"uid-default-{name}"))
        assert process.wait(30) == 0


def test_an_unreadable_log_ends_the_others_unless_ignored(server: Served) -> None:
    write_log(server, pod_doc("web"), "app", "of web")
    waits = {"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ContainerCreating"}}}]}
    db = "uid-default-db"  # has no log yet
    server.run(server.node.store.modify(db, lambda doc: {**doc, "status": {"phase": "Pending", **waits}}))
    selected = ("logs", "-l", "app in (web,db)")
    for follow in ((), ("-f",)):
        done = kubelite(server, *selected, *follow)
        assert done.returncode == 1 and 'container "app" in pod "db" is waiting to start' in done.stderr
    done = kubelite(server, *selected, "--ignore-errors")
    assert done.returncode == 0 and "waiting to start" in done.stdout and done.stdout.endswith("of web\n")


def test_logs_without_a_match_and_with_name_and_selector(server: Served) -> None:
    for arguments, words in (
        ((), "specify a POD, or -l SELECTOR"),
        (("web", "-l", "app=web"), "only a selector (-l) or a POD name is allowed"),
        (("web", "app", "-c", "app"), "only one of -c or a CONTAINER argument"),
        (("web", "-c", "app", "--all-containers"), "should not be specified with container name app"),
        (("web", "--tail=-2"), "--tail"),
    ):
        done = kubelite(server, "logs", *arguments)
        assert done.returncode != 0 and words in done.stderr, done


# -- rollout ---------------------------------------------------------------------------------------------------


def test_restart_recreates_the_pods_of_a_manifest(server: Served) -> None:
    both = WEB + "---\n" + WEB.replace("nginx\n", "second\n")
    ok(server, "apply", "-f", "-", stdin=both)
    (file,) = Path(server.node.manifests_dir).iterdir()
    done = kubelite(server, "rollout", "restart", file.name)
    assert (done.returncode, done.stderr) == (0, ""), "that they come back is no warning here"
    assert done.stdout == "pod/nginx restarted\npod/second restarted\n"
    assert server.node.deleted == [("default", "nginx", None), ("default", "second", None)]
    assert ok(server, "rollout", "restart", "pod", "web", "db") == "pod/web restarted\npod/db restarted\n"
    assert ok(server, "rollout", "restart", "api", "-n", "prod") == "pod/api restarted\n"
    assert server.node.deleted[-1] == ("prod", "api", None)


def test_status_waits_until_the_pods_of_a_manifest_run(server: Served) -> None:
    ok(server, "apply", "-f", "-", stdin=WEB)
    (file,) = Path(server.node.manifests_dir).iterdir()
    far = 'Waiting for pod "nginx" rollout to finish: 0 of 1 containers are ready...\n'
    assert ok(server, "rollout", "status", file.name, "--watch=false") == far
    done = kubelite(server, "rollout", "status", "nginx", "--timeout=1s")
    assert (done.returncode, done.stdout) == (1, far)
    assert done.stderr == "error: timed out waiting for the condition\n"
    with started(server, "rollout", "status", "pod/nginx") as process:
        assert line_of(process) == far
        server.run(server.node.store.delete("uid-default-nginx"))
        assert (
            line_of(process) == 'Waiting for pod "nginx" rollout to finish: the pod does not exist yet...\n'
        )
        server.run(server.node.store.create("Pod", pod_doc("nginx")))
        assert line_of(process) == 'pod "nginx" successfully rolled out\n'
        assert process.wait(30) == 0
    failed = pod_doc("web", status={"phase": "Failed", "reason": "OutOfcpu", "message": "no room"})
    server.run(server.node.store.update("Pod", failed))
    done = kubelite(server, "rollout", "status", "web")
    assert (done.returncode, done.stderr) == (
        1,
        'error: pod "web" has failed (OutOfcpu: no room)\n'
        "  the pod requests more CPU than the node has: lower resources.requests.cpu (no room)\n",
    )


def test_the_progress_of_a_pod() -> None:
    waiting = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "ready": False}
    creating = {"state": {"waiting": {"reason": "ContainerCreating"}}, "ready": False}
    crashing = ready("a", "False")
    crashing["status"]["containerStatuses"] = [waiting, creating]
    unplaced = ready("a", "False")
    unplaced["status"]["conditions"].append({"type": "PodScheduled", "status": "False", "message": "no room"})
    ended = ready("a", "False")
    ended["status"]["phase"] = "Succeeded"
    for document, done, words in (
        (None, False, "the pod does not exist yet"),
        (ready("a", "True", deletionTimestamp="now"), False, "the old pod is terminating"),
        (ready("a", "True", generation=1), False, "its last change has not taken effect yet"),
        (ready("a", "True", generation=2), True, "successfully rolled out"),
        (ready("a", "True"), True, "successfully rolled out"),
        (ended, True, "successfully rolled out"),
        (crashing, False, "0 of 1 containers are ready (CrashLoopBackOff)"),
        (unplaced, False, "it cannot be scheduled: no room"),
    ):
        assert progress_of(document)[:3] == (done, False, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("restart", "nix"), 'Error from server (NotFound): pods "nix" not found'),
        (("status", "nix"), 'Error from server (NotFound): pods "nix" not found'),
        (("restart", "nix.yaml"), "nix.yaml is not a manifest of this node"),
        (("restart", "cm/app"), 'configmaps "app" restarting is not supported'),
        (("restart", "gateway/web"), 'doesn\'t have a resource type "gateway"'),
        (("restart",), "missing argument"),
        (("pause", "web"), "takes effect as soon as its file is written"),
        (
            ("statsu", "web"),
            'kubelite rollout has history, pause, restart, resume, status, undo; did you mean "status"?',
        ),
    ],
)
def test_messages_of_rollout(server: Served, arguments: tuple[str, ...], words: str) -> None:
    done = kubelite(server, "rollout", *arguments)
    assert done.returncode in (1, 2) and words in done.stderr and not done.stdout, done
    assert not server.node.deleted


def test_unknown_subcommands_name_the_known_ones(server: Served) -> None:
    for arguments, words in (
        (("image", "inspct"), 'did you mean "inspect"?'),
        (("node", "drain"), "kubelite node has cordon, label, taint, uncordon"),
        (("top", "pds"), 'did you mean "pods"?'),
    ):
        done = kubelite(server, *arguments)
        assert done.returncode == 2 and words in done.stderr, done
    assert "--help" in ok(server, "top", "po", "--help")


def _document(process: subprocess.Popen[str]) -> Json:
    text = ""
    while not text.endswith("\n}\n"):
        line = line_of(process)
        assert line, text
        text += line
    found: Json = json.loads(text)
    return found


def test_a_node_is_polled(server: Served) -> None:
    with started(server, "get", "nodes", "-w", "-o", "json") as process:
        assert _document(process)["metadata"]["name"] == "here"
        server.run(server.node.store.create("Pod", pod_doc("late")))  # and therefore the version is different
        server.run(server.node.patch_node({"metadata": {"labels": {"disk": "ssd"}}}))
        found = _document(process)
        if not found["metadata"]["labels"]:  # it was polled between the two
            found = _document(process)
        assert found["metadata"]["labels"] == {"disk": "ssd"}

"""The rules of the manifest directory and of restarts in docs/explanation/pod-semantics.md, a row for each.

Each row is named after its rule and checks what kubelite's pure functions return. Rules that need a node or a kernel
have their rows in tests/e2e and tests/kernel.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from kubelite.node.decide.pod_rules import restart_policy, should_restart
from kubelite.node.model.node_config import BackOff
from kubelite.node.model.probe_results import Health
from kubelite.node.scheduling.ledger import reservation_of
from kubelite.settings import Settings
from kubelite.sources.files import MAX_BYTES, list_manifests, readable_name
from kubelite.sources.plan import ManifestState, bound, created, merged, plan
from manifests.types.core import Container
from state.records import Record
from tests.unit.node.decide.pod_worlds import World, container, make_pod
from tests.unit.node.decide.test_pod_actions import EXITED, NONE, NOW, decide, instance, starts, waits
from tests.unit.node.semantics.pod_rows import Row, box

# -- manifests ----------------------------------------------------------------------------------------------------


def _state(file: str, *names: str) -> ManifestState:
    def doc(name: str) -> dict[str, Any]:
        return {"kind": "Pod", "metadata": {"name": name, "namespace": "default"}, "spec": {"containers": []}}

    return ManifestState(file, objects={("Pod", "default", name): doc(name) for name in names})


def _recorded(file: str, name: str) -> Record:
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": name,
        "annotations": {"kubelite.io/source": file},
    }
    return Record(
        "Pod", "default", name, name, 1, {"kind": "Pod", "metadata": metadata, "spec": {"containers": []}}
    )


def _broken_file_keeps_its_pods() -> object:
    broken = ManifestState("/m/a.yaml", objects=None, status="Invalid")
    return plan([broken], [_recorded("/m/a.yaml", "web")]).remove


def _two_files_one_name() -> object:
    found = plan([_state("/m/a.yaml", "web"), _state("/m/b.yaml", "web")], [])
    return [file for _, _, file in found.create], sorted(found.duplicates)


def _doc(**metadata: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "a", "image": "app:1"}]}
    return {
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", "annotations": {}, **metadata},
        "spec": spec,
    }


def _listed() -> object:
    """The manifests found in a directory with a link, a subdirectory, a hidden directory and a README."""
    with tempfile.TemporaryDirectory() as name:
        top, elsewhere = Path(name, "m"), Path(name, "elsewhere.yaml")
        for directory in (top / "b", top / ".git"):
            directory.mkdir(parents=True)
        elsewhere.touch()
        for file in ("c.yml", "b/a.json", ".git/x.yaml", "README"):
            (top / file).touch()
        (top / "a.yaml").symlink_to(elsewhere)
        return [os.path.relpath(file, top) for file in list_manifests(str(top)).files]


def _edited_in_place() -> object:
    old = created(_doc(), "/m/a.yaml", uid="u1", now=0.0)
    new = _doc(labels={"a": "b"})
    new["spec"] = {"containers": [{"name": "a", "image": "app:2"}]}
    found = merged({**old, "status": {"phase": "Running"}}, new, "/m/a.yaml") or {}
    return found["metadata"]["uid"], found["metadata"]["generation"], found["status"]


def _made() -> dict[str, Any]:
    return created(bound(_doc(uid="mine"), "node"), "/m/a.yaml", uid="mine", now=0.0)


def _edited_when(**status: str) -> object:
    """The pods that an edit replaces."""
    record = _recorded("/m/a.yaml", "web")
    record.doc["status"] = status
    state = _state("/m/a.yaml", "web")
    assert state.objects is not None
    state.objects["Pod", "default", "web"]["spec"]["hostNetwork"] = True
    return plan([state], [record]).replace


def _order_of_kinds() -> object:
    docs = {(kind, "default", "x"): {"kind": kind, "metadata": {"name": "x"}} for kind in ("Pod", "Secret")}
    return [key[0] for key, _, _ in plan([ManifestState("/m/a.yaml", objects=docs)], []).create]


MANIFESTS = [
    Row("manifests", "dotfiles are no manifests", lambda: readable_name(".web.yaml"), False),
    Row(
        "manifests",
        "nor are editors' backups, which win over the file in kubelet",
        lambda: readable_name("web.yaml~"),
        False,
    ),
    Row(
        "manifests",
        "a file removed ends its pods",
        lambda: plan([], [_recorded("/m/a.yaml", "web")]).remove,
        (("Pod", "default", "web"),),
    ),
    Row(
        "manifests",
        "ours: a file that fails to parse keeps what runs (kubelet kills it)",
        _broken_file_keeps_its_pods,
        (),
    ),
    Row(
        "manifests",
        "ours: the second file of a name is named, the first stays",
        _two_files_one_name,
        (["/m/a.yaml"], ["/m/b.yaml"]),
    ),
    Row("manifests", "the directory is listed again every 20 s", lambda: Settings().relist_seconds, 20.0),
    Row(
        "manifests",
        "by name, links are followed; ours: sub-directories are entered",
        _listed,
        ["a.yaml", "b/a.json", "c.yml"],
    ),
    Row("manifests", "10 MiB at most", lambda: MAX_BYTES, 10 << 20),
    Row(
        "manifests",
        "ours: a directory that is not there ends nothing (kubelet kills every pod)",
        lambda: plan([], [_recorded("/m/a.yaml", "web")], lost=["/m"]).remove,
        (),
    ),
    Row(
        "manifests",
        "ours: a pod has its manifest's name, no node's behind it",
        lambda: _made()["metadata"]["name"],
        "web",
    ),
    Row("manifests", "it is this node's", lambda: _made()["spec"]["nodeName"], "node"),
    Row("manifests", "an explicit uid is kept", lambda: _made()["metadata"]["uid"], "mine"),
    Row("manifests", "it begins Pending", lambda: _made()["status"], {"phase": "Pending"}),
    Row(
        "manifests",
        "an annotation names its file",
        lambda: _made()["metadata"]["annotations"],
        {"kubelite.io/source": "/m/a.yaml"},
    ),
    Row(
        "manifests",
        "ours: an edit keeps uid and status and counts the generation (kubelet: remove and add)",
        _edited_in_place,
        ("u1", 2, {"phase": "Running"}),
    ),
    Row(
        "manifests",
        "an edit of a pod that has ended, or is being ended, makes a new one",
        lambda: [
            _edited_when(phase="Succeeded"),
            _edited_when(phase="Running", reason="Evicted"),
            _edited_when(phase="Running"),
        ],
        [(("Pod", "default", "web"),)] * 2 + [()],
    ),
    Row(
        "manifests",
        "ours: ConfigMaps, Secrets and claims beside pods, before them",
        _order_of_kinds,
        ["Secret", "Pod"],
    ),
    Row(
        "manifests",
        "ours: no pod is critical for coming from a file",
        lambda: reservation_of(make_pod("app")).priority,
        0,
    ),
]

# -- restarts -----------------------------------------------------------------------------------------------------


def _rule(operator: str, *values: int) -> Container:
    codes = {"operator": operator, "values": list(values)}
    return box(restartPolicy="Never", restartPolicyRules=[{"action": "Restart", "exitCodes": codes}])


def _policy(policy: str, code: int) -> bool:
    return should_restart(make_pod("app", restartPolicy=policy), box(), code)


def _back_off_words() -> object:
    world = World(make_pod("app"))
    for _ in range(2):
        world.converge()
        world.fake.exit(world.pod.metadata.uid or "", "app", 1)
        world.settle()
    waiting = world.decide().waiting["app"]
    return waiting.reason, waiting.message.partition(" pod=")[0]


def _again_after(policy: str, code: int, **facts: Any) -> object:
    """What happens after the only container of a pod has ended in this way."""
    pod = make_pod("app", restartPolicy=policy)
    made = decide(pod, instance(pod, "app", EXITED, exit_code=code, **facts))
    return starts(made) or waits(made)


def _sidecar(health: Health | None = None) -> object:
    """The containers that start while a sidecar with a startup probe runs."""
    sidecar = container("side", restartPolicy="Always", startupProbe={"tcpSocket": {"port": 1}})
    pod = make_pod("app", initContainers=[sidecar, container("init")])
    return starts(decide(pod, instance(pod, "side"), health={"side-0": health} if health else {}))


def _init(policy: str, code: int) -> object:
    pod = make_pod("app", restartPolicy=policy, initContainers=[container("one"), container("two")])
    made = decide(pod, instance(pod, "one", EXITED, exit_code=code))
    return starts(made) or made.init_failed


def _without_its_sandbox(policy: str, code: int) -> object:
    pod = make_pod("app", restartPolicy=policy, initContainers=[container("init")])
    old = instance(pod, "app", EXITED, exit_code=code, sandbox_id="gone")
    return starts(decide(pod, instance(pod, "init", EXITED, sandbox_id="gone"), old, box=NONE))


def _restart_all() -> object:
    rules = [{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]
    pod = make_pod(container("app", restartPolicy="Never", restartPolicyRules=rules), "other")
    made = decide(pod, instance(pod, "app", EXITED, exit_code=42), instance(pod, "other"))
    return [stop.name for stop in made.stop]


RAN_LONG, RAN_SHORT = {"started_at": NOW - 700, "crash_count": 5}, {"started_at": NOW - 500, "crash_count": 5}
RESTARTS = [
    Row(
        "restarts",
        "at once, then 10 s, doubled, at most 300 s",
        lambda: [BackOff().wait(n) for n in range(8)],
        [0, 10, 20, 40, 80, 160, 300, 300],
    ),
    Row("restarts", "a maximum below the first wait lowers that", lambda: BackOff(10, 1).wait(1), 1.0),
    Row("restarts", "Always restarts after success too", lambda: _policy("Always", 0)),
    Row(
        "restarts",
        "OnFailure restarts after failure",
        lambda: (_policy("OnFailure", 0), _policy("OnFailure", 1)),
        (False, True),
    ),
    Row("restarts", "Never does not", lambda: _policy("Never", 1), False),
    Row(
        "restarts",
        "an init container of an Always pod restarts on failure",
        lambda: restart_policy(make_pod("app", initContainers=[container("first")]), box(name="first")),
        "OnFailure",
    ),
    Row("restarts", "restartPolicyRules In", lambda: should_restart(make_pod("app"), _rule("In", 42), 42)),
    Row(
        "restarts",
        "restartPolicyRules NotIn",
        lambda: should_restart(make_pod("app"), _rule("NotIn", 42), 42),
        False,
    ),
    Row(
        "restarts",
        "CrashLoopBackOff in kubelet's words",
        _back_off_words,
        ("CrashLoopBackOff", "back-off 10s restarting failed container=app"),
    ),
    Row("restarts", "the first crash restarts at once", lambda: _again_after("Always", 1), [("app", 1)]),
    Row(
        "restarts",
        "the wait counts from its end",
        lambda: [_again_after("Always", 1, crash_count=1, finished_at=NOW - s) for s in (9, 10)],
        [{"app": "CrashLoopBackOff"}, [("app", 1)]],
    ),
    Row(
        "restarts",
        "more than ten minutes of running begin the count anew",
        lambda: [_again_after("Always", 1, **ran) for ran in (RAN_LONG, RAN_SHORT)],
        [[("app", 1)], {"app": "CrashLoopBackOff"}],
    ),
    Row(
        "restarts",
        "so does an edit of its image or resources",
        lambda: _again_after("Always", 1, crash_count=5, spec_hash="before"),
        [("app", 1)],
    ),
    Row(
        "restarts",
        "exit 0 under Always waits too",
        lambda: _again_after("Always", 0, crash_count=1),
        {"app": "CrashLoopBackOff"},
    ),
    Row(
        "restarts",
        "what was made and never ran is made again under Never, too",
        lambda: _again_after("Never", 137, started_at=0.0),
        [("app", 0)],
    ),
    Row(
        "restarts",
        "a container's own restartPolicy comes before the pod's",
        lambda: should_restart(make_pod("app", restartPolicy="Never"), box(restartPolicy="Always"), 0),
    ),
    Row("restarts", "RestartAllContainers ends the others as well", _restart_all, ["other"]),
    Row(
        "restarts",
        "init containers in order, each after the one before has succeeded",
        lambda: [_init("Always", 0), _init("Always", 1)],
        [[("two", 0)], [("one", 1)]],
    ),
    Row("restarts", "one that fails under Never ends the pod", lambda: _init("Never", 1), "one"),
    Row(
        "restarts",
        "a sidecar lets the next one begin once it has started",
        lambda: [_sidecar(), _sidecar(Health(started=False, ready=False)), _sidecar(Health(ready=False))],
        [[], [], [("init", 0)]],
    ),
    Row(
        "restarts",
        "a sidecar restarts whatever the pod's policy",
        lambda: should_restart(make_pod("app", restartPolicy="Never"), box(restartPolicy="Always"), 1),
    ),
    Row(
        "restarts",
        "without its sandbox a pod begins again with its init containers",
        lambda: [_without_its_sandbox(*end) for end in (("Always", 0), ("OnFailure", 1))],
        [[("init", 1)], [("init", 1)]],
    ),
    Row(
        "restarts",
        "but not where all had succeeded under OnFailure, nor under Never",
        lambda: [_without_its_sandbox(*end) for end in (("OnFailure", 0), ("Never", 1))],
        [[], []],
    ),
]

ROWS = [*MANIFESTS, *RESTARTS]


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.rule}: {row.words}" for row in ROWS])
def test_semantics(row: Row) -> None:
    assert row.got() == row.wanted


def test_every_rule_has_a_row() -> None:
    assert list(dict.fromkeys(row.rule for row in ROWS)) == ["manifests", "restarts"]

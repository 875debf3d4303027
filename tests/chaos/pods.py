"""Pods that record what happens to them: their log lines are numbered, and each start adds a line to a file in a
volume.

`/data/starts-<container>` is in the pod's volume, so its lines are the real number of starts, across all sandboxes. The
product's own count must agree.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node
from tests.waiting import until

_BEGIN = "exec 2>/dev/null; echo $CHAOS_GENERATION >> /data/starts-$CHAOS_CONTAINER; mkfifo /f || exit 9; exec 3<>/f; "
#: Prints numbers forever, one every CHAOS_PACE seconds, without starting processes.
TICK = (
    _BEGIN
    + "trap 'exit 0' TERM; i=0; while :; do echo $i; i=$((i+1)); read -t ${CHAOS_PACE:-0.5} _ <&3; done"
)
#: Counts to two and exits.
ONCE = _BEGIN + "trap 'exit 0' TERM; for i in 0 1 2; do echo $i; read -t 0.2 _ <&3; done; exit 0"
#: Fails the first two times.
FLAKY = _BEGIN + "echo 0; [ $(wc -l < /data/starts-$CHAOS_CONTAINER) -ge 3 ]"

ALWAYS, PAIR, NEVER, ON_FAILURE = "always", "pair", "never", "on-failure"
FLAVOURS = (ALWAYS, PAIR, NEVER, ON_FAILURE)


def containers_of(flavour: str) -> tuple[str, ...]:
    return ("main", "side") if flavour == PAIR else ("main",)


def manifest(name: str, flavour: str = ALWAYS, *, generation: int = 0, label: int = 0, **spec: Any) -> str:
    """A pod's manifest. Another `generation` changes the environment, so its containers restart."""
    script = {NEVER: ONCE, ON_FAILURE: FLAKY}.get(flavour, TICK)
    main = [_container(name, one, script, generation) for one in containers_of(flavour)]
    fields: dict[str, Any] = {"volumes": [{"name": "data", "emptyDir": {}}], **spec}
    if flavour == PAIR:
        fields["initContainers"] = [_container(name, "init", _BEGIN + "echo 0", generation)]
    if flavour in (NEVER, ON_FAILURE):
        fields["restartPolicy"] = {NEVER: "Never", ON_FAILURE: "OnFailure"}[flavour]
    return pod(name, *main, labels={"label": str(label)}, **fields)


def _container(pod_name: str, name: str, script: str, generation: int) -> dict[str, Any]:
    values = {"CHAOS_POD": pod_name, "CHAOS_CONTAINER": name, "CHAOS_GENERATION": str(generation)}
    return container(
        name,
        script,
        env=[{"name": key, "value": value} for key, value in values.items()],
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
    )


def volume(node: Node, uid: str) -> Path:
    return node.root / "pods" / uid / "volumes" / "kubernetes.io~empty-dir" / "data"


def starts(node: Node, uid: str, name: str) -> int:
    """How often a container's program has really started."""
    try:
        return len((volume(node, uid) / f"starts-{name}").read_text().splitlines())
    except FileNotFoundError:
        return 0


def begun(node: Node, uid: str, name: str, least: int = 1) -> int:
    """The same for a container that is reported to run for the `least`th time: its execve(2) is done, but its program
    may not have written its line yet."""
    with contextlib.suppress(AssertionError):  # then the caller's check fails with the lower number
        until(lambda: starts(node, uid, name) >= least)
    return starts(node, uid, name)


def together(*manifests: str) -> str:
    """Several documents in one file."""
    return yaml.safe_dump_all(
        [document for text in manifests for document in yaml.safe_load_all(text)], sort_keys=False
    )

"""Manifests that nobody here wrote, run: each comes to the state that its documentation describes (corpus/runs.yaml).

All of them at once, on one node, each in a namespace of its own. Images are stand-ins under the same names, and a pull
policy that nobody wrote (Always, for a name without a tag) is IfNotPresent here: there is no registry.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelite.cli.client import Client
from kubelite.cli.errors import CliError
from manifests.loader import load_file
from tests.e2e.node import Node, running_node

CORPUS = Path(__file__).parents[1] / "corpus"
PLACES = {
    "W": "kubernetes-website/content/en/examples",
    "O": "kubernetes-website-2021/content/en/examples",
    "P": "containers-podman/test/e2e/play_kube_test.go",
    "Q": "containers-podman/test/system",
}
STAND_IN = "localhost/kubelite/stand-in:latest"
PAGE = "/usr/share/nginx/html"
PROGRAM = (
    f"mkdir -p {PAGE}; [ -e {PAGE}/index.html ] || echo stand-in > {PAGE}/index.html; httpd -p 80 -h {PAGE}; "
    "trap 'exit 0' TERM; sleep 100000 & wait"
)


#: busybox of Debian has none.
PRINTENV = """#!/bin/sh
for name; do eval "printf '%s\\n' \\"\\$$name\\""; done
"""


def api(node: Node) -> Client:
    return Client(str(node.run_dir / "kubelite.sock"), timeout=30)


def runs() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((CORPUS / "runs.yaml").read_text())
    return found


def path_of(run: dict[str, Any]) -> Path:
    place, _, rest = str(run["file"]).partition("/")
    return CORPUS.joinpath(PLACES.get(place, place), rest)


def objects(run: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    """The manifest's objects and those it needs, in one namespace, as JSON documents."""
    found = []
    for kind, named in run.get("with", {}).items():
        for name, data in named.items():
            if kind == "PersistentVolumeClaim":
                found.append(_claim(name, data))
                continue
            values = {key: str(value) for key, value in data.items()}
            if kind == "Secret":
                values = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
            found.append({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": values})
    loaded = load_file(path_of(run))
    assert not loaded.errors, run["file"]
    found += [document.obj.to_json() for document in loaded.documents]
    for doc in found:
        doc["metadata"]["namespace"] = namespace
        if doc["kind"] == "Pod":
            for one in _containers(doc):
                one["imagePullPolicy"] = "IfNotPresent"
    return found


def _claim(name: str, size: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def _images(pod: dict[str, Any]) -> set[str]:
    """Of its containers, and those that it has as volumes."""
    volumes = [volume["image"]["reference"] for volume in pod["spec"].get("volumes", []) if "image" in volume]
    return {*(container["image"] for container in _containers(pod)), *volumes}


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Any:
    """A node on which all of them run: (node, run's index → its pods' names)."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs a second processor: together the pods ask for more than one")
    with running_node(tmp_path_factory.mktemp("corpus"), images, pod_cidr="10.77.0.0/22") as node:
        busybox = shutil.which("busybox") or "busybox"
        printenv = node.base / "printenv"
        printenv.write_text(PRINTENV)
        printenv.chmod(0o755)
        command, file = f"sh -c {shlex.quote(PROGRAM)}", f"{printenv}:/bin/printenv"
        node.cli("image", "pack", busybox, "-t", STAND_IN, "--cmd", command, "--file", file)
        pods: dict[int, list[str]] = {}
        wanted: set[str] = set()
        ready = node.base / "ready"
        ready.mkdir()
        for index, run in enumerate(runs()):
            docs = objects(run, f"c{index}")
            pods[index] = [doc["metadata"]["name"] for doc in docs if doc["kind"] == "Pod"]
            for doc in docs:
                wanted |= _images(doc) if doc["kind"] == "Pod" else set()
            (ready / f"c{index}.json").write_text(
                json.dumps({"apiVersion": "v1", "kind": "List", "items": docs})
            )
        for image in sorted(wanted):
            if not image.startswith("<"):
                api(node).post("/kubelite/v1/images/tag", {"reference": STAND_IN, "target": image})
        for manifest in ready.iterdir():
            manifest.rename(node.manifests / manifest.name)
        yield node, pods


@pytest.mark.parametrize("index", range(len(runs())), ids=[run["file"] for run in runs()])
def test_it_comes_to_what_its_documentation_says(
    index: int, corpus: tuple[Node, dict[int, list[str]]]
) -> None:
    node, pods = corpus
    run = runs()[index]
    for name in pods[index]:
        problems: list[str] = []

        def right(name: str = name, problems: list[str] = problems) -> bool:
            problems[:] = wrong(node, run, name, f"c{index}")
            return not problems

        try:
            node.wait(right, run["file"], timeout=40)
        except AssertionError as error:
            shown = node.cli("describe", "pod", name, "-n", f"c{index}", check=False).out
            raise AssertionError(f"{problems}\n{shown}\n{error}") from None


def wrong(node: Node, run: dict[str, Any], name: str, namespace: str) -> list[str]:
    """What is not yet as it should be."""
    try:
        status = api(node).get(f"/api/v1/namespaces/{namespace}/pods/{name}").get("status", {})
    except CliError as error:
        return [str(error)]
    every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    by_name = {one["name"]: one for one in every}
    found = []

    def check(what: str, got: object, wanted: object) -> None:
        if got != wanted:
            found.append(f"{what}: {got!r}, not {wanted!r}")

    check("phase", status.get("phase"), run["phase"])
    if "qos" in run:
        check("qosClass", status.get("qosClass"), run["qos"])
    if "ready" in run:
        check("ready", all(one["ready"] for one in every), run["ready"])
    if "reason" in run:
        reasons = {c.get("reason") for c in status.get("conditions", []) if c["type"] == "PodScheduled"}
        reasons.add(status.get("reason"))
        reasons |= {one["state"].get("waiting", {}).get("reason") for one in every}
        check("reason", run["reason"] in reasons, True)
    if sum(one["restartCount"] for one in every) < run.get("restarts", 0):
        found.append("too few restarts")
    for container, code in run.get("exit", {}).items():
        ended = by_name.get(container, {}).get("state", {}).get("terminated", {})
        check(f"exit code of {container}", ended.get("exitCode"), code)
    for container, text in run.get("message", {}).items():
        ended = by_name.get(container, {}).get("lastState", {}).get("terminated", {})
        check(f"message of {container}", (ended.get("message") or "").strip(), text)
    return found or [
        *_events(node, run, name, namespace),
        *_logs(node, run, name, namespace),
        *_commands(node, run, name, namespace),
    ]


def _events(node: Node, run: dict[str, Any], name: str, namespace: str) -> list[str]:
    wanted = run.get("event", [])
    events = api(node).get(f"/api/v1/namespaces/{namespace}/events")["items"] if wanted else []
    told = [e["message"] for e in events if e["involvedObject"]["name"] == name]
    return [f"no event says {text!r}: {told}" for text in wanted if not any(text in one for one in told)]


def _logs(node: Node, run: dict[str, Any], name: str, namespace: str) -> list[str]:
    found = []
    for container, texts in run.get("log", {}).items():
        place, query = f"/api/v1/namespaces/{namespace}/pods/{name}/log", {"container": container}
        log = api(node).open("GET", place, query=query).read().decode(errors="replace")
        found += [f"{container}'s log has no {text!r}: {log[-300:]!r}" for text in texts if text not in log]
    return found


def _commands(node: Node, run: dict[str, Any], name: str, namespace: str) -> list[str]:
    found = []
    for container, command, text in run.get("run", []):
        done = node.cli(
            "exec", "-n", namespace, name, "-c", container, "--", *shlex.split(command), check=False
        )
        if text not in done.out.replace("\r", ""):
            found.append(f"{command} in {container}: {done.out[-300:]!r} {done.err[-300:]!r} has no {text!r}")
    return found

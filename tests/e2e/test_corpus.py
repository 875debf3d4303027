"""Public manifests, run on a node: each does what its documentation describes (tests/corpus/README.md).

Nearly all run at the same time on one node, each in its own namespace. Those that need a node for themselves (all
processors, labels, a name) run on a second node, one after the other. Images are stand-ins with the same names. A
defaulted pull policy (Always for a name without a tag) is IfNotPresent here, because there is no registry.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubelite.cli.output.tables import list_of, to_yaml
from kubelite.kube.json import Json
from kubelite.kube.objects import SOURCE
from tests.e2e.corpus_runs import (
    CORPUS,
    api,
    claim_dir,
    image_names,
    objects,
    on_the_machine,
    runs,
    wrong,
)
from tests.e2e.kubectl import forwarded, one_by_one
from tests.e2e.node import Node, running_node
from tests.programs import PACKED_BUSYBOX

STAND_INS = {
    "localhost/kubelite/stand-in:latest": "--cmd=/serve",
    "localhost/kubelite/program:latest": "--entrypoint=/entrypoint",
}
#: Their manifests have `args` without a `command`, so the images have an ENTRYPOINT.
WITH_ENTRYPOINT = ("hashicorp/http-echo", "vish/stress", "redis:5")
OTHER = "foo-node"
LABELS = (
    "disktype=ssd",
    "topology.kubernetes.io/zone=antarctica-east1",
    "kubernetes.io/e2e-az-name=e2e-az1",
    "another-node-label-key=another-node-label-value",
)
RUNS = runs()
ALONE: list[Json] = []  # the pods of the manifests that run one after the other, in their final state
pytestmark = pytest.mark.timeout(300)  # the first test starts the nodes
#: Manifests that wait for a failing probe or a back-off are last; before them, those that run one after the other.
ORDER = sorted(range(len(RUNS)), key=lambda index: ("restarts" in RUNS[index], "node" not in RUNS[index]))


def pack_stand_ins(node: Node) -> None:
    """Pack the images that stand in for all others, from busybox and tests/corpus/stand-in."""
    files = [
        word
        for path in sorted((CORPUS / "stand-in").iterdir())
        for word in ("--file", f"{path}:/{path.name}")
    ]
    for image, program in STAND_INS.items():
        node.cli("image", "pack", PACKED_BUSYBOX, "-t", image, program, *files)


def pack(node: Node) -> None:
    """Give every named image to the node."""
    pack_stand_ins(node)
    plain, program = STAND_INS
    for image in sorted(
        {image for index, run in enumerate(RUNS) for doc in objects(run, "")[0] for image in image_names(doc)}
    ):
        if not image.startswith("<"):
            stand_in = program if image.startswith(WITH_ENTRYPOINT) else plain
            api(node).post("/kubelite/v1/images/tag", {"reference": stand_in, "target": image})


def profiles(node: Node) -> None:
    for name, profile in yaml.safe_load((CORPUS / "seccomp.yaml").read_text()).items():
        path = node.root / "seccomp" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(profile))


def drop(node: Node, index: int) -> list[str]:
    """Put a run's objects into the directory. Return the names of the pods that are compared."""
    docs, pods = objects(RUNS[index], f"c{index}")
    node.apply(f"c{index}.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": docs}))
    return pods


@pytest.fixture(scope="module")
def together(
    tmp_path_factory: pytest.TempPathFactory, images: Path
) -> Iterator[tuple[Node, dict[int, list[str]]]]:
    """A node on which all manifests run that do not need the other node: (node, index of the run → names of its
    pods)."""
    if (os.cpu_count() or 1) < 2:
        pytest.skip("needs a second processor: together the pods ask for more than one")
    with running_node(tmp_path_factory.mktemp("corpus"), images, pod_cidr="10.77.0.0/22") as node:
        pack(node)
        profiles(node)
        yield node, {index: drop(node, index) for index, run in enumerate(RUNS) if "node" not in run}


@pytest.fixture(scope="module")
def other(
    tmp_path_factory: pytest.TempPathFactory, together: tuple[Node, dict[int, list[str]]]
) -> Iterator[Node]:
    """A second node with the name and labels that some manifests require, without other pods."""
    settings = {
        "node_name": OTHER,
        "allowed_unsafe_sysctls": "kernel.msg*,net.core.somaxconn",
        "extended_resources": "example.com/dongle=4",
    }
    with running_node(tmp_path_factory.mktemp("other"), together[0].root / "images", **settings) as node:
        node.cli("node", "label", *LABELS)
        yield node


@pytest.mark.parametrize("index", ORDER, ids=[f"{RUNS[index]['file']}-{index}" for index in ORDER])
def test_a_public_manifest_does_what_its_documentation_says(
    index: int, request: pytest.FixtureRequest
) -> None:
    run = RUNS[index]
    node, pods = request.getfixturevalue("together")
    if "node" not in run:
        check(node, index, pods[index])
        return
    node = request.getfixturevalue("other")
    with on_the_machine(run):
        check(node, index, drop(node, index))
        found = api(node).get(f"/api/v1/namespaces/c{index}/pods")["items"]
        ALONE.extend({"apiVersion": "v1", "kind": "Pod", **doc} for doc in found)
        remove(node, index)


def check(node: Node, index: int, pods: list[str]) -> None:
    for name in pods:
        comes_to(node, RUNS[index], name, f"c{index}")
    for claim, files in RUNS[index].get("stopped", {}).items():
        remove(node, index)
        for file, text in files.items():
            assert text in (claim_dir(node, f"c{index}", claim) / file).read_text()


def comes_to(node: Node, run: Json, name: str, namespace: str) -> None:
    problems: list[str] = []

    def right() -> bool:
        problems[:] = wrong(node, run, name, namespace)
        return not problems

    try:
        node.wait(right, run["file"], timeout=60)
    except AssertionError as error:
        shown = node.cli("describe", "pod", name, "-n", namespace, check=False).out
        raise AssertionError(f"{problems}\n{shown}\n{error}") from None


def remove(node: Node, index: int) -> None:
    """Remove it with its volumes and claims: otherwise the next run's volume of the same name would be this one, which
    is bound."""
    manifest = node.manifests / f"c{index}.json"
    manifest.unlink()

    def gone() -> bool:
        paths = (f"namespaces/c{index}/pods", "persistentvolumeclaims", "persistentvolumes")
        items: list[Any] = [one for path in paths for one in api(node).get(f"/api/v1/{path}")["items"]]
        return not any(one["metadata"].get("annotations", {}).get(SOURCE) == str(manifest) for one in items)

    node.wait(gone, f"the objects of {RUNS[index]['file']} to go")


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl (kubernetes-client)")
def test_kubectl_reads_the_printed_objects(together: tuple[Node, dict[int, list[str]]]) -> None:
    """`get -o yaml` of all objects, parsed and printed by kubectl: nothing is lost or renamed."""
    node, _ = together
    printed, others = node.base / "printed.yaml", node.base / "others.yaml"
    printed.write_text(node.cli("get", "pods", "-A", "-o", "yaml").out)
    others.write_text(to_yaml(list_of(ALONE)))
    files = ("--dry-run=client", "--validate=false", "-f", str(printed), "-f", str(others))
    with forwarded(node) as kubectl:
        created = kubectl("create", "-o", "json", *files)
        applied = kubectl("apply", "-o", "name", *files)
    assert created.code == applied.code == 0, f"{created.err}\n{applied.err}"
    ours = {
        key_of(doc): doc
        for path in (printed, others)
        for doc in yaml.load(path.read_text(), TextOnly)["items"]
    }
    theirs = {key_of(doc): doc for doc in one_by_one(created.out)}
    assert len(ours) > 150 and theirs.keys() == ours.keys()
    assert sorted(applied.out.split()) == sorted(f"pod/{name}" for _, name in ours)
    for key, doc in ours.items():
        assert theirs[key]["metadata"] == doc["metadata"], key
        assert theirs[key]["spec"] == doc["spec"], key
        assert theirs[key]["status"] == doc["status"], key


class TextOnly(yaml.SafeLoader):
    """Loads timestamps as text."""


TextOnly.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def key_of(doc: Json) -> tuple[str, str]:
    return doc["metadata"]["namespace"], doc["metadata"]["name"]

"""Public workloads, run on a node: each comes to what its documentation describes (tests/corpus/README.md).

Several files run at the same time, each in its own namespace, as many as have `AT_ONCE` pods together. Images are
stand-ins with the same names (test_corpus.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.kube.json import Json
from tests.e2e.corpus_runs import api
from tests.e2e.corpus_workloads import CORE, Outcome, documents, images_of, need, workload_runs
from tests.e2e.node import Node, running_node
from tests.e2e.test_corpus import STAND_INS, pack_stand_ins

AT_ONCE = 25  # pods
PROCESSORS = 1.6  # that pods may ask for together
RUNS = workload_runs()
LONG = [index for index, run in enumerate(RUNS) if run.get("long")]
SHORT = [index for index in range(len(RUNS)) if index not in LONG]
#: Their manifests have `args` without a `command`, so the images have an ENTRYPOINT.
WITH_ENTRYPOINT = ("minio/", "tensorflow/", "elsonrodriguez/", "cockroachdb/cockroach-k8s-init")
pytestmark = pytest.mark.timeout(300)  # the first test starts the node


class Batches:
    """The runs that are on the node: the long ones always, and as many of the others as fit."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.machine = node.base / "machine"
        self.here: list[int] = []
        for name, text in {
            "etc/machine-id": "a machine\n",
            "var/log/a": "",
            "var/lib/docker/containers/a": "",
        }.items():
            path = self.machine / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for index in LONG:
            self.put(index, RUNS[index]["file"])

    def put(self, index: int, file: str) -> None:
        docs = documents(RUNS[index], file, f"w{index}", self.machine)
        self.node.apply(f"w{index}.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": docs}))

    def bring(self, index: int) -> None:
        """Put this run onto the node, and those after it that fit."""
        if index in self.here or index in LONG:
            return
        self.clear()
        needs = [need(RUNS[one]) for one in LONG]
        pods, processors = sum(count for count, _ in needs), sum(asked for _, asked in needs)
        for one in SHORT[SHORT.index(index) :]:
            more, asked = need(RUNS[one])
            if self.here and (pods + more > AT_ONCE or processors + asked > PROCESSORS):
                break
            pods, processors = pods + more, processors + asked
            self.put(one, RUNS[one]["file"])
            self.here.append(one)

    def clear(self) -> None:
        """Remove the short runs. Their pods must go."""
        for one in self.here:
            (self.node.manifests / f"w{one}.json").unlink()
        names = {f"w{one}" for one in self.here}

        def gone() -> bool:
            found = api(self.node).get(f"{CORE}/pods")["items"]
            return not names & {pod["metadata"]["namespace"] for pod in found}

        self.node.wait(gone, "the pods of the removed workloads to go")
        self.here = []


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory, images: Path) -> Iterator[Batches]:
    with running_node(tmp_path_factory.mktemp("workloads"), images) as node:
        pack_stand_ins(node)
        plain, program = STAND_INS
        for image in sorted({image for run in RUNS for image in images_of(run)}):
            if not image.startswith(("<", "non-existing")):
                reference = program if image.startswith(WITH_ENTRYPOINT) else plain
                api(node).post("/kubelite/v1/images/tag", {"reference": reference, "target": image})
        yield Batches(node)


def comes_to(node: Node, run: Json, namespace: str, timeout: float) -> None:
    problems: list[str] = []

    def right() -> bool:
        problems[:] = Outcome(node, run, namespace).look()
        return not problems

    try:
        node.wait(right, run["file"], timeout=timeout)
    except AssertionError as error:
        shown = node.cli("get", "pods", "-n", namespace, check=False).out
        said = node.cli("events", "-n", namespace, check=False).out
        raise AssertionError(f"{problems}\n{shown}\n{said}\n{error}") from None


@pytest.mark.parametrize(
    "index", [*SHORT, *LONG], ids=[f"{RUNS[index]['file']}-{index}" for index in [*SHORT, *LONG]]
)
def test_a_public_workload_comes_to_what_its_documentation_says(index: int, batches: Batches) -> None:
    run, namespace = RUNS[index], f"w{index}"
    batches.bring(index)
    if "then" in run:
        comes_to(batches.node, {key: value for key, value in run.items() if key != "images"}, namespace, 30)
        batches.put(index, run["then"])
    comes_to(batches.node, run, namespace, 90 if run.get("long") else 30)

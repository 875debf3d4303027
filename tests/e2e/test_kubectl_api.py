"""What client libraries ask of Kubernetes' API, by the real kubectl: collections, pages, versions of lists."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.e2e.manifests import container, pod
from tests.e2e.node import Node
from tests.e2e.test_kubeconfig import Kubectl
from tests.programs import missing

pytestmark = pytest.mark.skipif(bool(missing("kubectl")), reason="needs kubectl")

MAPS = "/api/v1/namespaces/default/configmaps"
BY_HAND = """\
# by hand
apiVersion: v1
kind: ConfigMap
metadata: {name: hand, labels: {app: x}}   # one of three
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kept}
data: {a: b}   # as it was
"""


@pytest.fixture(scope="module")
def kubectl(builder: Node) -> Iterator[Kubectl]:
    yield Kubectl(builder, "api")


def test_a_collection_is_deleted_from_the_files(kubectl: Kubectl) -> None:
    node = kubectl.node
    node.apply("hand.yaml", BY_HAND)
    for name in ("one", "two"):
        assert kubectl("create", "configmap", name).code == 0
        assert kubectl("label", "configmap", name, "app=x").code == 0
    node.wait(lambda: "hand" in kubectl("get", "cm", "-o", "name").out, "the file to be read")
    dry = json.loads(kubectl("delete", "--raw", f"{MAPS}?labelSelector=app%3Dx&dryRun=All").out)
    assert [doc["metadata"]["name"] for doc in dry["items"]] == ["hand", "one", "two"]
    done = kubectl("delete", "--raw", f"{MAPS}?labelSelector=app%3Dx")
    assert done.code == 0, done
    assert kubectl("get", "cm", "-o", "name").out == "configmap/kept\n"
    assert (node.manifests / "hand.yaml").read_text() == BY_HAND[BY_HAND.index("---") :]
    assert not list((node.manifests / "kubectl/default").glob("configmap-*"))
    assert "cannot be deleted as a collection" in kubectl("delete", "--raw", "/api/v1/namespaces").err


def test_a_list_comes_in_pages(kubectl: Kubectl) -> None:
    names = [f"page-{number}" for number in range(5)]
    for name in names:
        assert kubectl("create", "configmap", name).code == 0
    try:
        for options in ((), ("-o", "wide"), ("-o", "json")):
            whole = kubectl("get", "cm", *options)
            paged = kubectl("get", "cm", *options, "--chunk-size=2", "-v=8")
            assert paged.err.count("limit=2") >= 3 and "continue=" in paged.err
            assert without_ages(paged.out) == without_ages(whole.out)
        said = kubectl("get", "--raw", f"{MAPS}?limit=2&continue=x").err
        assert "invalid continue token" in said
    finally:
        assert kubectl("delete", "cm", *names).code == 0


def test_events_of_both_groups(kubectl: Kubectl) -> None:
    kubectl.node.apply("web.yaml", pod("web", container()))
    kubectl.node.wait_status("web", "Running")
    core, new = kubectl("get", "events.v1."), kubectl("get", "events.v1.events.k8s.io")
    assert "Started" in core.out and without_ages(core.out) == without_ages(new.out)
    (started, *_) = json.loads(
        kubectl("get", "events.v1.events.k8s.io", "-o", "json", "--field-selector=reason=Started").out
    )["items"]
    assert started["regarding"]["name"] == "web" and "note" in started
    for command in (
        ("events",),
        ("events", "--for", "pod/web"),
        ("get", "events"),
        ("describe", "pod", "web"),
    ):
        assert "Started" in kubectl(*command).out
    watch = kubectl("get", "--raw", "/apis/events.k8s.io/v1/events?watch=1&timeoutSeconds=1").out
    assert json.loads(watch.splitlines()[0])["object"]["apiVersion"] == "events.k8s.io/v1"


def test_a_body_without_a_content_type(kubectl: Kubectl) -> None:
    """kubectl sends none with --raw."""
    document = json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "raw"}})
    made = kubectl("create", "--raw", MAPS, "-f", "-", stdin=document)
    assert json.loads(made.out)["metadata"]["name"] == "raw", made
    said = kubectl("replace", "--raw", "/api/v1/namespaces/default/finalize", "-f", "-", stdin=document).err
    assert "namespaces are not finalized by clients" in said
    assert kubectl("delete", "cm", "raw").code == 0


def without_ages(text: str) -> list[str]:
    return [
        re.sub(r"\d+s", "AGE", line).rstrip() for line in text.splitlines() if "resourceVersion" not in line
    ]

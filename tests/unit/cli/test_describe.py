"""`describe` of objects other than pods: the text of each kind, and the selection of objects."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubelite.cli.describe.node import describe_node
from kubelite.cli.describe.objects import (
    describe_any,
    describe_claim,
    describe_config_map,
    describe_persistent_volume,
    describe_secret,
)
from tests.unit.api.fake_node import event_doc, pod_doc
from tests.unit.api.server import Served
from tests.unit.cli.kit import WEB, kubelite, ok, server

__all__ = ["server"]

NOW = 1_000_000_000.0  # 2001-09-09T01:46:40Z


def words(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_values_of_a_config_map_are_shown() -> None:
    doc = {
        "metadata": {"name": "c", "namespace": "d"},
        "data": {"b": "x\ty\n", "a": "1"},
        "binaryData": {"z": "AAEC"},
    }
    text = describe_config_map(doc, [], NOW)
    assert (
        "\n\nData\n====\na:\n----\n1\n\nb:\n----\nx\ty\n\n\n\nBinaryData\n====\nz: 3 bytes\n\nEvents:  <none>\n"
        in text
    )
    assert "Events" not in describe_config_map(doc, None, NOW)


def test_values_of_a_secret_are_not_shown() -> None:
    text = describe_secret({"metadata": {"name": "s"}, "data": {"password": "aHVudGVyMg=="}}, [], NOW)
    assert "password: 7 bytes" in words(text) and "aHVu" not in text and "hunter2" not in text


@pytest.mark.parametrize(
    ("volume", "capacity", "modes"),
    [("", "Capacity:", "Access Modes:"), ("v", "Capacity: 1Gi", "Access Modes: RWO")],
)
def test_a_claim_shows_the_capacity_of_its_volume(volume: str, capacity: str, modes: str) -> None:
    doc = {
        "metadata": {"name": "c", "namespace": "d", "deletionTimestamp": "2001-09-09T01:46:30Z"},
        "spec": {"volumeName": volume, "dataSource": {"kind": "VolumeSnapshot", "name": "s"}},
        "status": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]},
    }
    lines = words(describe_claim(doc, [], NOW, ["web", "db"]))
    assert capacity in lines and modes in lines
    assert "Status: Terminating (lasts 10s)" in lines
    assert lines[lines.index("Used By: web") + 1] == "db"
    assert lines[lines.index("DataSource:") + 1] == "Kind: VolumeSnapshot"


def test_the_source_of_a_volume() -> None:
    terms = [
        {
            "matchExpressions": [
                {"key": "a", "operator": "In", "values": ["b", "c"]},
                {"key": "d", "operator": "Exists"},
            ]
        }
    ]
    spec = {
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
        "claimRef": {"namespace": "n", "name": "c"},
    }
    lines = words(describe_persistent_volume({"metadata": {"name": "v"}, "spec": spec}, [], NOW))
    assert lines[lines.index("Required Terms:") + 1 :][:2] == ["Term 0: a in [b, c]", "d exists"]
    assert "Claim: n/c" in lines and lines[lines.index("Source:") + 1] == "<unknown>"


def test_resources_that_pods_use_of_the_node() -> None:
    asked = {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "1"}}
    init = [{"name": "i", "image": "i", "resources": {"requests": {"cpu": "1500m"}}}]
    pods = [
        pod_doc("web", containers=[{"name": "a", "image": "i", "resources": asked}] * 2, initContainers=init),
        pod_doc("db", overhead={"cpu": "100m"}),
    ]
    node = {
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/edge": ""}},
        "spec": {
            "taints": [
                {"key": "b", "effect": "NoExecute"},
                {"key": "a", "value": "1", "effect": "NoSchedule"},
            ]
        },
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "1000", "example.com/gpu": "2"}},
    }
    lines = words(describe_node(node, pods, None, NOW))
    assert "Roles: edge" in lines
    assert lines[lines.index("Taints: a=1:NoSchedule") + 1] == "b:NoExecute"
    assert any(line.startswith("default web 1500m (37%) 2 (50%) 2Gi (25%) 0 (0%)") for line in lines)
    assert any(line.startswith("default db 100m (2%) 0 (0%)") for line in lines)
    assert lines[-4:] == [
        "cpu 1600m (40%) 2 (50%)",
        "memory 2Gi (25%) 0 (0%)",
        "ephemeral-storage 0 (0%) 0 (0%)",
        "example.com/gpu 0 0",
    ]


def test_other_kinds_are_shown_field_by_field() -> None:
    doc = event_doc("e", "web", "Started", "m") | {"list": [{"podIP": "a"}, "b"], "odd.key": True}
    lines = words(describe_any(doc, [], NOW))
    for line in (
        "API Version: v1",
        "Involved Object:",
        "UID: uid-default-web",
        "List:",
        "Pod IP: a",
        "b",
        "odd.key: true",
    ):
        assert line in lines


def test_the_selection_of_objects(server: Served, tmp_path: Path) -> None:
    assert ok(server, "describe", "pod").count("Name: ") == 2
    assert words(ok(server, "describe", "pod", "we"))[0] == "Name: web", "the beginning of a name"
    assert "Started container app" in ok(server, "describe", "po/web")
    assert "Events" not in ok(server, "describe", "pod", "web", "--show-events=false")
    file = tmp_path / "nginx.yaml"
    file.write_text(WEB)
    assert 'pods "nginx" not found' in kubelite(server, "describe", "-f", str(file)).stderr
    ok(server, "apply", "-f", str(file))
    assert words(ok(server, "describe", "-f", str(file)))[0] == "Name: nginx"
    assert words(ok(server, "describe", "nodes"))[0] == "Name: here"
    assert "(3 in total)" in ok(server, "describe", "node"), "api, db and web: the new one is not scheduled"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pod", "nix"), 1, 'Error from server (NotFound): pods "nix" not found\n'),
        (("cm",), 0, "No resources found in default namespace.\n"),
        (("pv",), 0, "No resources found\n"),
        (("pods", "-A", "-l", "app=nix"), 0, "No resources found\n"),
        (
            ("manifests",),
            1,
            "error: manifests are files: `kubelite get manifests` shows their errors\n",
        ),
        (("pod", "web", "-A"), 2, "error: a resource cannot be retrieved by name across all namespaces\n"),
        (("pod", "web", "-f", "x.yaml"), 2, "error: name objects, or files with -f, not both\n"),
    ],
)
def test_errors_of_describe(server: Served, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = kubelite(server, "describe", *arguments)
    assert (done.returncode, done.stderr) == (code, said)


def test_foreign_text_does_not_control_the_terminal(server: Served) -> None:
    doc = {
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "default", "uid": "c"},
        "data": {"a": "\x1b[2J"},
    }
    server.run(server.node.store.create("ConfigMap", doc))
    assert "\n^[[2J\n" in ok(server, "describe", "cm")

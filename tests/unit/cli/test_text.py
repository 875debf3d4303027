"""Pure functions of the CLI: text of describe, alignment, names, durations, YAML."""

from __future__ import annotations

import pytest
import yaml

from kubelite.api.kube.resources import RESOURCES
from kubelite.cli.describe.parts import event_age, tabbed
from kubelite.cli.describe.pod import describe_pod
from kubelite.cli.errors import CliError
from kubelite.cli.images.images import created_ago, repository_and_tag, size
from kubelite.cli.names import TYPES, duration, pod_name, wanted
from kubelite.cli.objects.events import _about
from kubelite.cli.output.tables import TablePrinter, to_yaml
from kubelite.kube.json import Json
from manifests.yaml.document import YamlDocument, read_documents
from tests.unit.api.fake_node import event_doc, pod_doc

NOW = 1_000_000_000.0  # 2001-09-09T01:46:40Z


def test_columns_are_aligned_per_section() -> None:
    assert tabbed(["a\tb", "long:\tc\td", "plain", "x\ty"]) == "a      b\nlong:  c  d\nplain\nx  y\n"


def test_describe_of_a_terminating_pod() -> None:
    pod = pod_doc("web")
    pod["metadata"] |= {"deletionTimestamp": "2001-09-09T01:46:30Z", "deletionGracePeriodSeconds": 30}
    pod["status"] |= {"reason": "Why", "message": "because"}
    pod["status"]["containerStatuses"][0] |= {
        "state": {
            "terminated": {
                "exitCode": 137,
                "signal": 9,
                "reason": "OOMKilled",
                "finishedAt": "2001-09-09T01:46:40Z",
            }
        }
    }
    lines = [" ".join(line.split()) for line in describe_pod(pod, [], NOW).splitlines()]
    for line in (
        "Status: Terminating (lasts 10s)",
        "Termination Grace Period: 30s",
        "Reason: Why",
        "Message: because",
        "State: Terminated",
        "Reason: OOMKilled",
        "Exit Code: 137",
        "Signal: 9",
        "QoS Class: BestEffort",
        "Events: <none>",
    ):
        assert line in lines


@pytest.mark.parametrize(
    ("limits", "requests", "qos"),
    [
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": "1", "memory": "1Gi"}, "Guaranteed"),
        ({"cpu": "1", "memory": "1Gi"}, {}, "Guaranteed"),
        ({"memory": "1Gi"}, {"memory": "1Gi"}, "Burstable"),
        ({}, {"cpu": "1"}, "Burstable"),
        ({"ephemeral-storage": "1Gi"}, {}, "BestEffort"),
    ],
)
def test_qos_class_without_a_status(limits: Json, requests: Json, qos: str) -> None:
    resources = {"limits": limits, "requests": requests}
    pod = pod_doc(
        "web", containers=[{"name": "app", "image": "i", "resources": resources}], status={"phase": "Pending"}
    )
    assert f"{qos}\n" in describe_pod(pod, [], NOW)


def test_events_are_last_and_in_order() -> None:
    first, second = event_doc("a", "web", "Pulled", "one"), event_doc("b", "web", "Started", "two")
    first |= {"firstTimestamp": "2001-09-09T01:36:40Z", "lastTimestamp": "2001-09-09T01:46:35Z", "count": 3}
    second |= {"firstTimestamp": "2001-09-09T01:46:30Z", "lastTimestamp": "2001-09-09T01:46:30Z"}
    text = describe_pod(pod_doc("web"), [first, second], NOW)
    assert text.index("Started") < text.index("Pulled") or text.index("two") < text.index("one")
    assert event_age(first, NOW) == "5s (x3 over 10m)" and event_age(second, NOW) == "10s"


def test_a_table_does_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    TablePrinter().print(("A", "B"), [["\x1b[2Jx", "a\rb"]])
    assert capsys.readouterr().out == "A        B\n^[[2Jx   a\\rb\n"


def test_table_cells(capsys: pytest.CaptureFixture[str]) -> None:
    printer = TablePrinter()
    printer.print(("A", "Message"), [["x", "two\nlines"], [None, "z"]])
    printer.print(("A", "Message"), [["longer than before", "w"]])
    assert capsys.readouterr().out == (
        "A     MESSAGE\nx     two...\n      z\nlonger than before   w\n"
    )  # fmt: skip


def test_names() -> None:
    (both,) = wanted(["po", "a", "b"])
    assert both.type.plural == "pods" and both.names == ("a", "b")
    kinds = wanted(["pod/a", "cm/b", "pods/c"])
    assert [(k.type.plural, k.names) for k in kinds] == [("pods", ("a", "c")), ("configmaps", ("b",))]
    assert [k.type.plural for k in wanted(["pods,ev"])] == ["pods", "events"]
    assert pod_name("pod/web") == pod_name("po/web") == pod_name("web") == "web"
    for bad in (["pods", "cm/a"], ["pod/"], ["pod/a", "b"]):
        with pytest.raises(CliError):
            wanted(bad)
    with pytest.raises(CliError, match="is not a pod"):
        pod_name("cm/a")


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5), ("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5x", "-1s", "1h 2m", "soon"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(CliError, match="invalid duration"):
        duration(text)


def test_yaml_is_equivalent_and_formatted_as_by_kubectl() -> None:
    document: Json = {
        "b": "true",
        "a": ["1", "x: y", "", "2026-11-24"],
        "c": "two\nlines\n",
        "d": {},
        "e": None,
        "f": "ä",
    }
    text = to_yaml(document)
    assert yaml.safe_load(text) == document
    assert text.startswith('a:\n- "1"\n') and 'b: "true"\n' in text and "c: |\n  two\n  lines\n" in text


def test_types_have_the_kinds_of_the_api() -> None:
    assert {t.plural: t.kind for t in TYPES if t.plural != "manifests"} == {
        plural: resource.kind for plural, resource in RESOURCES.items()
    }


@pytest.mark.parametrize(
    ("about", "kind"),
    [("pod/x", "Pod"), ("pvc/x", "PersistentVolumeClaim"), ("cm/x", "ConfigMap"), ("sc/x", "StorageClass")],
)
def test_events_are_selected_by_kind(about: str, kind: str) -> None:
    assert _about(about) == {"fieldSelector": f"involvedObject.kind={kind},involvedObject.name=x"}


def test_an_image_of_1970_has_no_known_age() -> None:
    assert created_ago("1970-01-01T00:00:00Z", 1e9) == "<unknown>"
    assert created_ago(None, 1e9) == created_ago("", 1e9) == "<unknown>"
    assert created_ago("2001-09-09T01:45:40Z", 1e9) == "60s ago"


def test_images_as_docker_shows_them() -> None:
    assert repository_and_tag("nginx:1") == ("nginx", "1")
    assert repository_and_tag("localhost:5000/app:2") == ("localhost:5000/app", "2")
    assert repository_and_tag("quay.io/a/b@sha256:12") == ("quay.io/a/b", "sha256:12")
    assert repository_and_tag("") == ("<none>", "<none>")
    assert [size(n) for n in (0, 999, 4_500_000, 188_000_000)] == ["0B", "999B", "4.5MB", "188MB"]


@pytest.mark.parametrize(
    "value",
    ["y", "N", "08", "0o14", "0b1", "1e3", "1.", "014", "on", "null", "1.27.3", "10.88.0.7", "v1", "a"],
)
def test_a_string_in_yaml_stays_a_string_for_the_nodes_reader(value: str) -> None:
    """The reader's rules are those of Go's YAML, not PyYAML's."""
    (found,) = read_documents(to_yaml({"a": value}))
    assert isinstance(found, YamlDocument) and found.data == {"a": value}
    assert ('"' in to_yaml({"a": value})) == (value not in ("1.27.3", "10.88.0.7", "v1", "a"))

"""The web page: well-formed, and nothing in it that a manifest could have smuggled in; lines of what was measured."""

from __future__ import annotations

from html.parser import HTMLParser

from kubelite.diagnosis.advice import advice
from kubelite.telemetry.metrics.pages import _without_words
from kubelite.telemetry.sampling.machine import Root
from kubelite.telemetry.sampling.sampler import Limits, Sample, Snapshot
from kubelite.telemetry.sampling.targets import Target
from kubelite.telemetry.web import webpage
from kubelite.telemetry.web.webpage import KEEP, Recent, sparkline, waterfall
from runtime.cgroups.reading.stats import CpuStats, MemoryStats, PidsStats, PressureStats, Stats

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "polyline", "rect", "br"}


class Checker(HTMLParser):
    """Raises for what is not closed; collects the tags and where they point."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def pod() -> dict[str, object]:
    state = {"waiting": {"reason": EVIL, "message": "hidden words"}}
    return {
        "metadata": {"name": "web", "namespace": "default", "uid": "u"},
        "spec": {"containers": [{"name": "app", "env": [{"name": "PASSWORD", "value": "hunter2"}]}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "app", "image": EVIL, "state": state}]},
    }


def test_the_index() -> None:
    pods = [("default", "u", ["web", "0/1", EVIL, "0", "5s"], "bad")]
    found = Checker(webpage.index("node", (False, EVIL), pods, Recent()))
    assert "script" not in found.tags
    assert EVIL in found.words
    assert "/pods/default/web" in found.links
    assert all(link.startswith("/") for link in found.links)


def test_a_pod() -> None:
    steps = [{"at": 1.0, "step": "shim", "took": 0.004}, {"at": 1.004, "step": EVIL, "container": "app"}]
    now, advice = ("Pending", "bad"), [f"app: {EVIL}"]
    found = Checker(webpage.pod_page(pod(), steps, Recent(), now=now, advice=advice))
    assert "script" not in found.tags
    assert f"app: {EVIL}" in found.words
    assert "4.00 ms" in found.words
    for hidden in (
        "hunter2",
        "PASSWORD",
        "hidden words",
    ):  # what a container says or is told is not for everybody
        assert hidden not in found.words


def test_the_state_of_a_container() -> None:
    ended = {"terminated": {"reason": "Error", "exitCode": 3}}
    waits = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    assert webpage.state_words(waits) == "waiting CrashLoopBackOff (exit code 3)"
    assert webpage.state_words({"state": ended}) == "terminated Error (exit code 3)"
    assert webpage.state_words({"state": {"running": {}}, "lastState": ended}) == "running"
    assert webpage.state_words({}) == "waiting"


def test_what_to_do_is_said_without_what_a_container_said() -> None:
    doc = pod()
    doc["status"]["containerStatuses"][0]["state"] = {  # type: ignore[index]
        "waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hunter2" not found'}
    }
    (sentence,) = advice(_without_words(doc))
    assert "hunter2" not in sentence and "Secret" in sentence
    assert "hunter2" in advice(doc)[0], "the pod itself is left as it is"


def test_a_line_needs_two_points() -> None:
    assert sparkline([1.0]) == ""
    line = sparkline([0.0, 2.0], width=10, height=12)
    assert 'points="0.0,11.0 10.0,1.0"' in line
    assert 'points="0.0,11.0' in sparkline([0.0, 0.0], width=10, height=12)


def test_a_start_nobody_saw() -> None:
    assert "earlier daemon" in waterfall([])


def test_policy_forbids_scripts() -> None:
    assert "default-src 'none'" in webpage.HEADERS["content-security-policy"]


def measured(now: float, **pods: tuple[int, int]) -> Snapshot:
    """CPU in nanoseconds and memory of pods."""
    samples = tuple(
        Sample(
            Target("", "default", uid, uid),
            Stats(CpuStats(cpu), MemoryStats(working_set=memory), PidsStats(), (), PressureStats()),
            Limits(),
        )
        for uid, (cpu, memory) in pods.items()
    )
    root = Root(now, 0.0, 0.0, {}, {}, 0, (), (), {}, {})
    return Snapshot(now, (), samples, (), (), root)


def test_the_last_measures_of_a_pod_and_of_the_node() -> None:
    recent = Recent()
    for second in range(3 * KEEP):
        recent.note(measured(100.0 + second, old=(second * 10**9, second)))
    assert recent.cores("old") == [1.0] * (KEEP - 1)
    assert recent.memory("old") == list(range(2 * KEEP, 3 * KEEP))
    assert recent.cores("") == [1.0] * (KEEP - 1)


def test_measures_are_a_second_apart_at_least() -> None:
    recent = Recent()
    for now in (100.0, 100.5, 101.0):
        recent.note(measured(now, web=(0, int(now * 10))))
    assert recent.memory("web") == [1000, 1010]


def test_a_pods_measures_begin_and_end_with_it() -> None:
    recent = Recent()
    recent.note(measured(100.0, first=(0, 1)))
    recent.note(measured(101.0, first=(0, 2), second=(0, 3)))
    recent.note(measured(102.0, second=(0, 4)))
    assert (recent.memory("first"), recent.memory("second"), recent.memory("")) == ([], [3, 4], [0, 0, 0])
    assert (recent.cores("first"), recent.cores("second")) == ([], [0.0])

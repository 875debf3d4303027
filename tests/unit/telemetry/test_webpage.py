"""The web pages: well-formed, accessible in their structure, and with nothing that a manifest smuggled in."""

from __future__ import annotations

import gzip
import re
import time
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubelite.diagnosis.advice import advice
from kubelite.kube.json import Json
from kubelite.telemetry.node_view import NodeView
from kubelite.telemetry.sampling.machine import Root
from kubelite.telemetry.sampling.sampler import Limits, Sample, Snapshot
from kubelite.telemetry.sampling.targets import Target
from kubelite.telemetry.tracing.trace import Tracer
from kubelite.telemetry.web import public
from kubelite.telemetry.web.answers import node_answer, pod_answer
from kubelite.telemetry.web.charts import bar, bytes_text, cores_text, line, top_of
from kubelite.telemetry.web.facts import Question, event_facts, question
from kubelite.telemetry.web.frame import HEADERS, TYPES, address, advised, asset
from kubelite.telemetry.web.recent import KEEP, Recent
from kubelite.telemetry.web.starts import starts, starts_section
from runtime.cgroups.reading.stats import CpuStats, MemoryStats, PidsStats, PressureStats, Stats
from tests.unit.api.fake_node import pod_doc

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "polyline", "rect", "path", "br", "link", "input"}
NOW = 1_700_000_000.0
ALL = Question()


class Checker(HTMLParser):
    """Raises an error for unclosed elements; collects the parts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data

    def all(self, name: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.tags if tag == name]


class Records(list[Any]):
    """A store, as far as the pages read it."""

    def list(self, kind: str, _namespace: str | None = None) -> Any:
        return [one for one in self if one.kind == kind]

    def add(self, kind: str, doc: Json) -> Any:
        meta = doc["metadata"]
        found = SimpleNamespace(
            kind=kind, namespace=meta["namespace"], name=meta["name"], uid=meta["uid"], doc=doc
        )
        self.append(found)
        return found


def agent(records: Records, **more: Any) -> NodeView:
    found = {
        "store": records, "node_name": "node", "ready": lambda: (True, ""), "tracer": Tracer(),
        "sources": SimpleNamespace(states=list), "settings": SimpleNamespace(web_token_file=""),
        "has_image": lambda _: False, "images": list, **more,
    }  # fmt: skip
    return cast(NodeView, SimpleNamespace(**found))


def evil_pod() -> Json:
    doc = pod_doc(
        "web", containers=[{"name": "app", "image": EVIL, "env": [{"name": "PASSWORD", "value": "hunter2"}]}]
    )
    doc["metadata"]["labels"] = {"x": EVIL}
    doc["status"] |= {
        "phase": "Pending", "podIP": EVIL,
        "containerStatuses": [
            {"name": "app", "image": EVIL, "ready": False,
             "state": {"waiting": {"reason": EVIL, "message": "hidden words"}}},
        ],
    }  # fmt: skip
    return doc


def event(reason: str, message: str, pod: Json, **more: Any) -> Json:
    about = {
        "kind": "Pod",
        "name": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
        "namespace": "default",
    }
    meta = {"name": reason.lower(), "namespace": "default", "uid": f"e-{reason}"}
    return {
        "metadata": meta, "involvedObject": about, "reason": reason, "message": message, "type": "Warning",
        "lastTimestamp": "2026-01-01T00:00:00Z", **more,
    }  # fmt: skip


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


def node_html(records: Records, asked: Question = ALL, **more: Any) -> str:
    return node_answer(agent(records, **more), measured(NOW), Recent(), asked)


def pod_html(doc: Json, *events: Json, **more: Any) -> str:
    records = Records()
    for one in events:
        records.add("Event", one)
    return pod_answer(agent(records, **more), records.add("Pod", doc), measured(NOW), Recent(), {})


def check_structure(found: Checker) -> None:
    """Check what every page needs for keyboards and screen readers, and what no page may have."""
    scripts = found.all("script")
    assert [set(one) for one in scripts] == [{"src", "defer"}], "the page's own file, and nothing inline"
    addresses = [one[name] for _, one in found.tags for name in ("href", "src", "action") if name in one]
    assert all(one.startswith(("/", "#")) and not one.startswith("//") for one in addresses), (
        "nothing from outside"
    )
    assert not [one for _, one in found.tags if any(name.startswith("on") or name == "style" for name in one)]
    assert found.all("html")[0]["lang"] == "en" and len(found.all("h1")) == 1 and len(found.all("main")) == 1
    assert found.all("a")[0]["href"] == "#main", "the first link skips to the content"
    identities = [one["id"] for _, one in found.tags if "id" in one]
    assert len(identities) == len(set(identities)), "the script finds elements by their ids"
    for _, one in found.tags:
        assert one.get("aria-labelledby", identities[0]) in identities
    for field in [*found.all("input"), *found.all("select")]:
        assert field.get("aria-label") or field.get("type") == "hidden"
    for drawn in found.all("svg"):
        assert drawn.get("aria-hidden") == "true" or (drawn.get("role") == "img" and drawn["aria-label"])
    for cell in [*found.all("td"), *found.all("th"), *found.all("tr"), *found.all("table")]:
        assert cell["role"], "the style sheet makes grids of tables"


def test_the_node_escapes_everything_foreign() -> None:
    records = Records()
    doc = evil_pod()
    records.add("Pod", doc)
    records.add("Event", event("Failed", EVIL, doc))
    states = [
        SimpleNamespace(file=f"/etc/x/{EVIL}", problems=[SimpleNamespace(kind="invalid", line=3, field=EVIL)])
    ]
    asked = Question(words='"><script>', namespace='"><script>')
    for text in (
        node_html(
            records,
            ready=lambda: (False, EVIL),
            sources=SimpleNamespace(states=lambda: states),
            node_name=EVIL,
        ),
        node_html(records, asked),
    ):
        found = Checker(text)
        check_structure(found)
        assert "<script>" in found.words and "<script>" not in text
        for hidden in ("hunter2", "PASSWORD", "hidden words", "/etc/x"):
            assert hidden not in text


def test_a_pod_escapes_everything_foreign() -> None:
    doc = evil_pod()
    tracer = Tracer()
    with tracer.step("uid-default-web", EVIL, container="app"):
        pass
    text = pod_html(doc, event("Failed", EVIL, doc), tracer=tracer)
    found = Checker(text)
    check_structure(found)
    assert EVIL in found.words and EVIL not in text
    for hidden in ("hunter2", "PASSWORD", "hidden words"):
        assert hidden not in text


def broken(reason: str, message: str = "", **status: Any) -> Json:
    doc = pod_doc("web")
    doc["status"]["containerStatuses"][0] |= {
        "ready": False, "state": {"waiting": {"reason": reason, "message": message}}, **status,
    }  # fmt: skip
    return doc


def test_an_unready_pod_is_not_green_and_a_failed_pull_says_why() -> None:
    unready = pod_doc("web")
    unready["status"]["containerStatuses"][0]["ready"] = False
    said = event(
        "Unhealthy", 'Readiness probe failed: Get "http://10.0.0.1/": dial tcp 10.0.0.1:80: refused', unready
    )
    text = pod_html(unready, said)
    assert '<span class="mark waiting"><i aria-hidden="true">◐</i>Not ready</span>' in text
    assert "Readiness probe failed: dial tcp 10.0.0.1:80: refused" in text and "mark running" not in text
    why = "cannot pull reg/x: cannot reach reg: Connection refused"
    text = pod_html(broken("ErrImagePull", why))
    assert why in text and "<code>kubelite pull" in text


def test_the_page_has_the_advice_of_why() -> None:
    doc = broken("CrashLoopBackOff", lastState={"terminated": {"reason": "Error", "exitCode": 3}})
    records = Records()
    records.add("Pod", doc)
    (sentence,) = advice(doc)
    for text in (node_html(records), pod_html(doc)):
        found = Checker(text)
        assert sentence in found.words and "exit code 3" in found.words
    assert "Nothing needs attention" in node_html(Records())


def test_problems_come_first_and_queries_work() -> None:
    records = Records()
    for name in ("a", "b"):
        records.add("Pod", pod_doc(name))
    bad = broken("CrashLoopBackOff")
    bad["metadata"] |= {"name": "z", "uid": "uid-z", "namespace": "prod"}
    records.add("Pod", bad)

    def rows(asked: Question) -> list[str]:
        table = node_html(records, asked).partition('<section id="pods"')[2].partition("</section>")[0]
        return re.findall(r'scope="row"[^>]*><a href="/pods/\w+/(\w+)"', table)

    assert rows(Question()) == ["z", "a", "b"]
    assert rows(Question(sort="name")) == ["a", "b", "z"]
    assert rows(Question(sort="name", reverse=True)) == ["z", "b", "a"]
    assert rows(Question(level="failing")) == ["z"] == rows(Question(namespace="prod"))
    assert rows(Question(words="CRASH z")) == ["z"] and rows(Question(words="nothing")) == []
    assert 'aria-sort="descending"' in node_html(records, Question(sort="cpu", reverse=True))
    assert question({"sort": "x", "level": "y", "q": "w" * 999, "desc": "1"}) == Question(
        "w" * 100, reverse=True
    )


@pytest.mark.parametrize(
    ("reason", "message", "shown"),
    [
        ("Unhealthy", "Liveness probe failed: said by the container", "Liveness probe failed"),
        ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 500",
         "Readiness probe failed: HTTP probe failed with statuscode: 500"),
        ("FailedPostStartHook", "PostStartHook failed: said by the container", "PostStartHook failed"),
        ("FailedMount", "cannot mount /srv/secret/x on volume y", "cannot mount … on volume y"),
        ("Failed", "cannot pull reg.example/a/b:1: https://reg.example/v2/ refused",
         "cannot pull reg.example/a/b:1: https://reg.example/v2/ refused"),
        ("FailedValidation", "/etc/kubelite/a.yaml:4: data.x: hunter2 is not base64", "a.yaml:4: data.x"),
        ("Invented", "anything", ""),
    ],
)  # fmt: skip
def test_public_parts_of_an_event(reason: str, message: str, shown: str) -> None:
    doc = event(reason, message, pod_doc("web"))
    assert public.event(doc)["message"] == shown
    assert doc["message"] == message, "the event itself is left as it is"


def test_output_of_a_container_is_not_public() -> None:
    doc = broken("PostStartHookError", "said by the container")
    doc["status"]["containerStatuses"][0]["lastState"] = {
        "terminated": {"reason": "Error", "message": "its last words"}
    }
    text = str(public.pod(doc))
    assert "said by" not in text and "last words" not in text
    assert "said by" in str(doc), "the pod itself is left as it is"
    assert "not found" in str(public.pod(broken("CreateContainerConfigError", 'secret "s" not found')))


def test_events_name_pods_without_their_uids() -> None:
    uid = "12345678-1234-1234-1234-123456789abc"
    doc = event(
        "BackOff", f"Back-off restarting failed container app in pod web_default({uid})", pod_doc("web")
    )
    (found,) = event_facts([doc], NOW, most=5)
    assert found.message == "Back-off restarting failed container app in pod web"


def test_lines_of_one_column_have_one_scale() -> None:
    top = top_of([0.001, 0.387], 0.1)
    assert top == pytest.approx(0.5)
    low, high = (line([value, value], top) for value in (0.001, 0.387))
    assert low != high and "0,40 0,40 200,40" in low
    assert line([1.0], 1.0) == "", "one point is no line"
    assert top_of([], 0.1) == pytest.approx(0.1)


def test_numbers_as_text() -> None:
    assert [cores_text(v) for v in (0, 0.387, 0.9999, 1.25, 2.0)] == ["0m", "387m", "1", "1.25", "2"]
    assert [bytes_text(v) for v in (0, 1 << 20, 300 << 20, 5 << 30)] == [
        "0 B",
        "1.0 MiB",
        "300 MiB",
        "5.0 GiB",
    ]
    assert 'width="100.0"' in bar(7.0, "x") and 'aria-label="x: 100 %"' in bar(7.0, "x")


def test_commands_are_set_apart_in_advice() -> None:
    text = advised("see kubelite top node and kubelite df; run kubelite logs a -c b --previous")
    codes = ["kubelite top node", "kubelite df", "kubelite logs a -c b --previous"]
    assert re.findall("<code>(.*?)</code>", text) == codes
    assert "<b>" not in advised("kubelite logs <b>")


def steps() -> list[Json]:
    inner = [
        {"at": 1.02 + i / 1000, "step": f"mount {i} on /x", "took": 1e-5, "container": "app", "call": "m"}
        for i in range(60)
    ]
    return [
        {"at": 1.0, "step": "manifest changed"}, {"at": 1.01, "step": "shim", "took": 0.004},
        {"at": 1.015, "step": "create", "took": 0.2, "container": "app"}, *inner,
        {"at": 9.0, "step": "create", "took": 0.1, "container": "app", "error": "/hidden"},
    ]  # fmt: skip


def test_a_starts_steps_are_folded_into_stages_on_one_scale() -> None:
    newest, first = starts(steps())
    assert [stage.name for stage in first.stages] == ["manifest", "shim", "create"]
    assert [len(stage.parts) for stage in first.stages] == [1, 0, 60]
    assert newest.stages[0].error == "failed" and first.took == pytest.approx(0.215)
    text = starts_section(steps(), ["1s", "9s"])
    Checker(text)
    assert "bars 0 – 215 ms" in text and "on /x" not in text and "/hidden" not in text
    assert text.count('class="stage"') == 4 and text.count("<details") == 4
    widths = [
        float(one)
        for one in re.findall(r'class="took">|width="([\d.]+)"', text.partition("create")[0])
        if one
    ]
    assert all(0 < one <= 100 for one in widths)
    assert "earlier daemon" in starts_section([], [])


def test_the_policy_and_the_files() -> None:
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "require-trusted-types-for" in policy
    for name in TYPES:
        assert re.fullmatch(rf"/{re.escape(name)}\?[0-9a-f]{{12}}", address(name))
    script, css = asset("kubelite.js").decode(), asset("kubelite.css").decode()
    for sink in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "eval(",
        "document.write",
        "setTimeout('",
        "Function(",
    ):
        assert sink not in script
    assert "http" not in css.replace("https://www.w3.org", "") and "url(" not in css and "@import" not in css
    assert "prefers-reduced-motion" in css and "prefers-color-scheme:dark" in css and "forced-colors" in css
    assert css.count("{") == css.count("}")


def test_a_page_of_a_hundred_pods_is_small_and_fast() -> None:
    records, recent = Records(), Recent()
    for number in range(100):
        records.add("Pod", pod_doc(f"pod-{number}"))
    uids = [one.uid for one in records]
    for second in range(KEEP):
        recent.note(measured(NOW + second, **{uid: (second * 10**8, second << 20) for uid in uids}))
    snapshot = measured(NOW + KEEP, **dict.fromkeys(uids, (0, 0)))
    view = agent(records)
    text = node_answer(view, snapshot, recent, Question())
    assert len(text) < 150_000 and len(gzip.compress(text.encode(), 1)) < 16_000
    begin = time.process_time()
    for _ in range(5):
        node_answer(view, snapshot, recent, Question())
    assert (time.process_time() - begin) / 5 < 0.2, "seconds of CPU; 0.02 on a machine of its own"


def test_the_last_measures_of_a_pod_and_of_the_node() -> None:
    recent = Recent()
    for second in range(3 * KEEP):
        recent.note(measured(100.0 + second, old=(second * 10**9, second)))
    assert [point.cores for point in recent.points("old")] == [1.0] * (KEEP - 1)
    assert [point.memory for point in recent.points("old")] == list(range(2 * KEEP + 1, 3 * KEEP))
    assert len(recent.points("")) == KEEP - 1


def test_measures_are_a_second_apart_at_least() -> None:
    recent = Recent()
    for now in (100.0, 100.5, 101.0):
        recent.note(measured(now, web=(0, int(now * 10))))
    assert [point.memory for point in recent.points("web")] == [1010]


def test_a_pods_measures_begin_and_end_with_it() -> None:
    recent = Recent()
    recent.note(measured(100.0, first=(0, 1)))
    recent.note(measured(101.0, first=(0, 2), second=(0, 3)))
    recent.note(measured(102.0, second=(0, 4)))
    assert (recent.memory("first"), recent.memory("second"), recent.memory("")) == (None, 4, 0)
    assert [point.cores for point in recent.points("second")] == [0.0]

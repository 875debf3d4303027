"""apply and delete as edits of texts: what is written where. Nothing else changes."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubelite.kube.errors import ApiError
from kubelite.sources.edits import (
    Key,
    Plan,
    execute,
    in_namespace,
    plan_apply,
    plan_remove,
    read_candidates,
    single_objects,
    split,
    target_path,
    with_name,
)

WEB = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web  # mine\nspec: {a: 1}\n"
DB = "# the database\napiVersion: v1\nkind: Pod\nmetadata:\n  name: db\nspec: {a: 1}\n"
TARGET = "/m/new.yaml"


def apply(files: dict[str, str], text: str) -> Plan:
    return plan_apply(files, single_objects(split(text)), TARGET)


def results(plan: Plan) -> list[tuple[str, str, str]]:
    return [(str(o.key), o.result, o.file) for o in plan.outcomes]


def test_new_document_goes_into_the_target() -> None:
    plan = apply({}, WEB)
    assert results(plan) == [("pod/web", "created", TARGET)]
    assert plan.writes == {TARGET: WEB}


def test_new_document_is_added_to_a_target_that_has_others() -> None:
    plan = apply({TARGET: DB}, WEB)
    assert plan.writes == {TARGET: f"{DB}---\n{WEB}"}


def test_a_document_is_replaced_in_place_and_comments_are_retained() -> None:
    files = {"/m/all.yaml": f"# head\n---\n{DB}--- # second\n{WEB}---\n# tail\n"}
    changed = WEB.replace("a: 1", "a: 2")
    plan = apply(files, changed)
    assert results(plan) == [("pod/web", "configured", "/m/all.yaml")]
    assert plan.writes == {"/m/all.yaml": f"# head\n---\n{DB}---\n{changed}---\n# tail\n"}


def test_a_text_that_the_directory_takes_is_taken() -> None:
    """Go's YAML, which kubectl and the directory read, knows the escape of ' in double quotes."""
    text = WEB.replace("{a: 1}", '{a: "it\\\'s"}')
    assert split(text)[0].content["spec"] == {"a": "it's"}
    assert split(WEB.replace("{a: 1}", "{a: yes}"))[0].content["spec"] == {"a": True}


def test_first_document_without_separator_is_replaced() -> None:
    changed = WEB.replace("a: 1", "a: 2")
    assert apply({"/m/a.yaml": f"{WEB}---\n{DB}"}, f"---\n{changed}").writes == {
        "/m/a.yaml": f"{changed}---\n{DB}"
    }


def test_equal_content_in_another_form_is_unchanged() -> None:
    plan = apply(
        {"/m/a.yaml": WEB},
        '{"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "web"}, "spec": {"a": 1}}',
    )
    assert results(plan) == [("pod/web", "unchanged", "/m/a.yaml")]
    assert not plan.writes


def test_json_file_is_replaced_by_json() -> None:
    files = {"/m/a.json": json.dumps({"kind": "Pod", "metadata": {"name": "web"}})}
    (written,) = apply(files, WEB).writes.values()
    assert written is not None and json.loads(written)["spec"] == {"a": 1}


def test_two_namespaces_are_two_objects() -> None:
    other = WEB.replace("name: web", "name: web\n  namespace: prod")
    assert results(apply({"/m/a.yaml": WEB}, other)) == [("pod/web", "created", TARGET)]


def test_dashes_inside_a_block_are_not_a_separator() -> None:
    text = "kind: ConfigMap\nmetadata: {name: c}\ndata:\n  x: |\n    ---\n    y\n"
    (chunk,) = split(text)
    assert chunk.keys == (Key("ConfigMap", "default", "c"),)


def test_windows_line_ends() -> None:
    chunks = split(f"{WEB}---\n{DB}".replace("\n", "\r\n"))
    assert [c.keys[0].name for c in chunks] == ["web", "db"]


def test_flow_document_on_the_line_of_its_separator() -> None:
    files = {"/m/a.yaml": f"--- {{kind: Pod, metadata: {{name: web}}}}\n---\n{DB}"}
    plan = apply(files, WEB)
    assert plan.writes == {"/m/a.yaml": f"---\n{WEB}---\n{DB}"}


def test_a_list_is_split() -> None:
    text = json.dumps({"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": n}} for n in "ab"]})
    assert [str(o.key) for o in apply({}, text).outcomes] == ["pod/a", "pod/b"]


def test_an_object_inside_a_list_is_not_touched() -> None:
    files = {
        "/m/l.yaml": json.dumps(
            {"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": n}} for n in ("web", "b")]}
        )
    }
    with pytest.raises(ApiError, match="inside a List"):
        apply(files, WEB)


def test_removed_document_leaves_the_others() -> None:
    plan = plan_remove(
        {"/m/a.yaml": f"{DB}---\n{WEB}"}, [Key("Pod", "default", "web"), Key("Pod", "default", "x")]
    )
    assert results(plan) == [("pod/web", "deleted", "/m/a.yaml"), ("pod/x", "missing", "")]
    assert plan.writes == {"/m/a.yaml": DB}


def a_list(*names: str) -> str:
    items = "".join(f"- kind: Pod\n  metadata:\n    name: {name}\n" for name in names)
    return f"kind: List\nitems:\n{items}"


def pods(*names: str) -> list[Key]:
    return [Key("Pod", "default", name) for name in names]


@pytest.mark.parametrize(
    ("text", "gone", "left"),
    [
        (a_list("a", "b"), "ba", None),
        (f"# of all\n{a_list('a', 'b')}---\n{WEB}", "ab", f"---\n{WEB}"),
        (a_list("a", "b", "c"), "ca", a_list("b")),
        (f"{WEB}---\n{a_list('a', 'b')}", "a", f"{WEB}---\n{a_list('b')}"),
        (a_list("a").replace("kind: Pod\n  ", "").replace("List", "PodList"), "a", None),
    ],
)
def test_objects_of_a_list_are_removed(text: str, gone: str, left: str | None) -> None:
    plan = plan_remove({"/m/a.yaml": text}, pods(*gone))
    assert results(plan) == [(f"pod/{name}", "deleted", "/m/a.yaml") for name in gone]
    assert plan.writes == {"/m/a.yaml": left}


def test_json_stays_json() -> None:
    items = [{"kind": "Pod", "metadata": {"name": name}} for name in ("a", "#b")]
    for file, head in (("/m/a.json", ""), ("/m/a.yaml", "---\n")):
        plan = plan_remove({file: head + json.dumps({"kind": "List", "items": items})}, pods("a"))
        text = plan.writes[file]
        assert text is not None and text.startswith(head)
        assert json.loads(text.removeprefix(head)) == {"kind": "List", "items": items[1:]}


@pytest.mark.parametrize(
    "text",
    [
        a_list("a", "b").replace("name: b", "name: b  # mine"),
        a_list("a", "b") + "- kind: Pod\n  metadata:\n    generateName: c-\n",
    ],
)
def test_a_list_that_would_lose_something_is_not_written(text: str) -> None:
    with pytest.raises(ApiError, match=r"/m/a\.yaml has pod/a inside a List; edit that file by hand"):
        plan_remove({"/m/a.yaml": text}, pods("a"))


def test_an_empty_file_is_removed() -> None:
    plan = plan_remove({"/m/a.yaml": f"# only\n---\n{WEB}"}, [Key("Pod", "default", "web")])
    assert plan.writes == {"/m/a.yaml": None}


def test_namespace_is_written_into_the_text() -> None:
    (chunk,) = [in_namespace(c, "prod") for c in split(WEB)]
    assert chunk.text == WEB.replace("metadata:\n", "metadata:\n  namespace: prod\n")
    assert chunk.keys == (Key("Pod", "prod", "web"),)
    (flow,) = [in_namespace(c, "prod") for c in split("{kind: Pod, metadata: {name: web}}")]
    assert flow.keys == (Key("Pod", "prod", "web"),)
    with pytest.raises(ApiError, match="does not match the namespace"):
        in_namespace(chunk, "other")


@pytest.mark.parametrize(
    ("file", "taken", "expected"),
    [
        ("/home/x/web.yaml", (), "/m/web.yaml"),
        ("web.yml", (), "/m/web.yml"),
        ("web.yaml.tmpl", (), "/m/web.yaml.yaml"),
        (".hidden.yaml", (), "/m/hidden.yaml"),
        ("-", (), "/m/pod-web.yaml"),
        ("web.json", (), "/m/web.json"),
        ("web.json", ("/m/web.json",), "/m/pod-web.json"),
    ],
)
def test_target(file: str, taken: tuple[str, ...], expected: str) -> None:
    assert target_path("/m", file, split(WEB), taken=taken) == expected


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_file_keeps_its_owner_and_mode_under_any_umask(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("old")
    path.chmod(0o664)
    os.chown(path, 1234, 4321)
    before = os.umask(0o077)  # that of the systemd unit
    try:
        (tmp_path / f".a.yaml.{os.getpid()}.tmp").symlink_to(tmp_path / "elsewhere")
        execute(Plan({str(path): "new"}, ()), str(tmp_path))
    finally:
        os.umask(before)
    found = path.stat()
    assert (path.read_text(), found.st_uid, found.st_gid, found.st_mode & 0o777) == ("new", 1234, 4321, 0o664)
    assert [one.name for one in tmp_path.iterdir()] == ["a.yaml"]


def test_execute_replaces_by_rename_and_keeps_the_mode(tmp_path: Path) -> None:
    old = tmp_path / "a.yaml"
    old.write_text("old")
    old.chmod(0o640)
    gone = tmp_path / "b.yaml"
    gone.write_text("x")
    before = old.stat().st_ino
    execute(Plan({str(old): "new", str(gone): None}, ()), str(tmp_path))
    assert old.read_text() == "new" and old.stat().st_ino != before
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.yaml"]


@pytest.mark.parametrize(
    ("files", "gone", "left"),
    [
        (["kubectl/a/x.yaml"], ["kubectl/a/x.yaml"], []),
        (["kubectl/a/x.yaml", "kubectl/y.yaml"], ["kubectl/a/x.yaml"], ["kubectl", "kubectl/y.yaml"]),
        (["kubectl/a/x", "kubectl/b/y"], ["kubectl/a/x"], ["kubectl", "kubectl/b", "kubectl/b/y"]),
        (["kubectl/a/.mine", "kubectl/a/x"], ["kubectl/a/x"], ["kubectl", "kubectl/a", "kubectl/a/.mine"]),
        (["kubectl/x.yaml"], ["kubectl/x.yaml"], []),
        (["shop/x.yaml"], ["shop/x.yaml"], ["shop"]),  # a directory that somebody made
        (["kubectls/x.yaml"], ["kubectls/x.yaml"], ["kubectls"]),
        (["shop/kubectl/x.yaml"], ["shop/kubectl/x.yaml"], ["shop", "shop/kubectl"]),
    ],
)  # fmt: skip
def test_directories_of_the_api_go_with_their_last_file(
    tmp_path: Path, files: list[str], gone: list[str], left: list[str]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    execute(Plan({str(tmp_path / name): None for name in gone}, ()), str(tmp_path))
    assert sorted(str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")) == left


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    """A FIFO among the manifests, as target and as candidate: a reader would wait for a writer forever."""
    fifo, link, good = (str(tmp_path / name) for name in ("pipe.yaml", "link.yaml", "good.yaml"))
    os.mkfifo(fifo)
    os.symlink(fifo, link)
    Path(good).write_text("metadata: {name: web}\n")
    keys = [Key("Pod", "default", "web")]
    began = time.monotonic()
    assert list(read_candidates([fifo, link, good, "/dev/tty"], keys, also=fifo)) == [good]
    assert time.monotonic() - began < 5


def test_invalid_yaml_is_reported() -> None:
    with pytest.raises(ApiError, match="not a YAML document"):
        split("a: [")


# -- the property ---------------------------------------------------------------------------------------------

_DOCS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 2), max_size=5)


def _text(name: str, value: int, separator: bool) -> str:
    head = "---\n" if separator else ""
    return f"{head}# about {name}\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata: {{v: '{value}'}}\n"


def _contents(files: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, text in files.items():
        for chunk in split(text, path):
            for key in chunk.keys:
                assert key.name not in found, "one object in two places"
                found[key.name] = chunk.content["data"]["v"]
    return found


@given(
    _DOCS,
    st.lists(st.integers(0, 2), min_size=5, max_size=5),
    _DOCS,
    st.booleans(),
    st.sets(st.sampled_from("abcde")),
)
@settings(max_examples=200)
def test_the_directory_keeps_the_last_applied_configuration(
    standing: dict[str, int], places: list[int], applied: dict[str, int], separator: bool, gone: set[str]
) -> None:
    names = ["/m/x.yaml", "/m/y.yaml", TARGET]
    files: dict[str, str] = {}
    for index, (name, value) in enumerate(standing.items()):
        path = names[places[index]]
        files[path] = files.get(path, "") + _text(name, value, separator or path in files)
    text = "---\n".join(_text(name, value, False) for name, value in applied.items())
    plan = plan_apply(files, single_objects(split(text)), TARGET)
    after = {**files, **{path: new for path, new in plan.writes.items() if new is not None}}
    wanted = {name: str(value) for name, value in {**standing, **applied}.items()}
    assert _contents(after) == wanted
    for outcome in plan.outcomes:
        name = outcome.key.name
        same = standing.get(name) == applied[name]
        assert outcome.result == (
            "created" if name not in standing else "unchanged" if same else "configured"
        )
    for name in standing:
        assert f"# about {name}\n" in "".join(after.values())
    removal = plan_remove(after, [Key("ConfigMap", "default", name) for name in sorted(gone)])
    left = {**after, **removal.writes}
    remaining = {path: new for path, new in left.items() if new is not None}
    assert _contents(remaining) == {name: value for name, value in wanted.items() if name not in gone}


SUM = "# sum\napiVersion: batch/v1\nkind: Job\nmetadata:\n  generateName: sum-\nspec: {a: 1}\n"


def test_a_generated_object_is_found_by_its_name_and_the_others_keep_theirs() -> None:
    """Without its name written down, the second Job would become the first one, which is gone."""
    text = f"{SUM}---\n{SUM}"
    first, second = (chunk.keys[0] for chunk in split(text, TARGET))
    assert first != second and read_candidates([], [first]) == {}
    plan = plan_remove({TARGET: text}, [first])
    assert results(plan) == [(f"job/{first.name}", "deleted", TARGET)]
    left = plan.writes[TARGET] or ""
    assert left.count("generateName: sum-") == 1 and f"  name: {second.name}\n  generateName: sum-" in left
    assert [chunk.keys for chunk in split(left, TARGET)] == [(second,)]
    assert plan_remove({TARGET: text}, [second]).writes == {TARGET: SUM}


def test_a_name_is_written_before_its_prefix() -> None:
    (chunk,) = single_objects(split(SUM))
    named = with_name(chunk, "sum-b2z4x")
    assert named.text == SUM.replace("  generateName", "  name: sum-b2z4x\n  generateName")
    assert named.keys == (Key("Job", "default", "sum-b2z4x"),)
    (flow,) = single_objects(split("{kind: Job, metadata: {generateName: sum-}}"))
    assert with_name(in_namespace(flow, "prod"), "sum-b2z4x").content["metadata"] == {
        "generateName": "sum-", "namespace": "prod", "name": "sum-b2z4x"
    }  # fmt: skip
    assert with_name(in_namespace(chunk, "prod"), "a").keys == (Key("Job", "prod", "a"),)


def test_items_of_lists_become_documents_with_their_kind() -> None:
    inner = {"kind": "PodList", "apiVersion": "v1", "items": [{"metadata": {"name": "web"}}]}
    (chunk,) = single_objects(split(json.dumps({"kind": "List", "apiVersion": "v1", "items": [inner]})))
    assert chunk.keys == (Key("Pod", "default", "web"),)
    assert chunk.content == {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}}

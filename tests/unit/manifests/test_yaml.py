"""YAML → data with Go's interpretation of scalars, and the line of each value."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.yaml.document import SyntaxProblem, YamlDocument, read_documents, resolve


def documents(text: str) -> list[Any]:
    return [read if isinstance(read, SyntaxProblem) else read.data for read in read_documents(text)]


def one(text: str) -> YamlDocument:
    (read,) = read_documents(text)
    assert isinstance(read, YamlDocument)
    return read


def problem(text: str) -> SyntaxProblem:
    (read,) = read_documents(text)
    assert isinstance(read, SyntaxProblem)
    return read


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("yes", True),
        ("On", True),
        ("y", True),
        ("TRUE", True),
        ("no", False),
        ("off", False),
        ("N", False),
        ("yEs", "yEs"),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("nULL", "nULL"),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("1_000", 1000),
        ("0x1F", 31),
        ("014", 12),
        ("0o14", 12),
        ("08", 8),
        ("0b101", 5),
        ("-0b1", -1),
        ("18446744073709551615", 2**64 - 1),
        ("80.0", 80),
        ("1e3", 1000),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e400", "1e400"),
        ("1.2.3", "1.2.3"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("100m", "100m"),
        ("0x", "0x"),
        ("-", "-"),
        ("=", "="),
    ],
)
def test_plain_scalars_are_go_yamls(scalar: str, value: object) -> None:
    found = resolve(scalar)
    assert (type(found), found) == (type(value), value)


def test_quotes_and_tags_decide_the_type() -> None:
    text = "a: '1'\nb: \"yes\"\nc: !!str 1\nd: !!int '3'\ne: !!binary aGk=\nf: |\n  1\n"
    assert one(text).data == {"a": "1", "b": "yes", "c": "1", "d": 3, "e": "hi", "f": "1\n"}
    assert "cannot decode `x` as a !!int" in str(problem("a: !!int x"))


def test_keys_become_strings() -> None:
    assert one("1: a\nyes: b\n1.5: c\n").data == {"1": "a", "true": "b", "1.5": "c"}
    assert "must not be null" in str(problem("~: a"))
    assert "must be a scalar" in str(problem("{{ name }}: a"))


def test_anchors_aliases_and_merge_keys() -> None:
    text = "base: &b {x: 1, w: 2}\na: *b\nm: {<<: *b, w: 3}\no: {<<: [{z: 9, x: 7}, *b]}\nl: {'<<': 1}\n"
    assert one(text).data == {
        "base": {"x": 1, "w": 2},
        "a": {"x": 1, "w": 2},
        "m": {"x": 1, "w": 3},
        "o": {"z": 9, "x": 7, "w": 2},
        "l": {"<<": 1},
    }


def test_what_go_and_json_allow_and_libyaml_does_not() -> None:
    assert one("a: \"it\\'s \\'fine\\'\"\nb: 1\n").data == {"a": "it's 'fine'", "b": 1}
    assert one('{"a": "\\ud83d\\ude00"}').data == {"a": "\U0001f600"}
    assert one('{\n\t"a":1,\n\t"b":["\\/"]\n}').data == {"a": 1, "b": ["/"]}
    assert "unknown escape" in str(problem('a: "\\q"'))


def test_line_ends_of_other_systems() -> None:
    text = "a: 1\r\n---\r\nb: |\r\n  x\r\n  y\r\nc: '1'\r\n"
    assert documents(text) == [{"a": 1}, {"b": "x\ny\n", "c": "1"}]
    _, document = read_documents(text)
    assert isinstance(document, YamlDocument)
    assert document.locate(("c",))[0] == 6


def test_kyaml() -> None:
    text = '---\n{\n  # a comment\n  kind: "Pod",\n  spec: {\n    list: [{\n      a: "b",\n    }],\n  },\n}\n'
    document = one(text)
    assert document.data == {"kind": "Pod", "spec": {"list": [{"a": "b"}]}}
    assert document.locate(("spec", "list", 0, "a")) == (7, 7)


def test_documents_are_cut_before_they_are_parsed() -> None:
    text = "# head\n---\na: 1\n---\n---\n# only a comment\n---\na: b: c\n--- {d: 4}\n--- # note\ne: |\n  --- no\n"
    first, bad, flow, last = documents(text)
    assert (first, flow, last) == ({"a": 1}, {"d": 4}, {"e": "--- no\n"})
    assert isinstance(bad, SyntaxProblem)
    assert bad.line == 8


@pytest.mark.parametrize("text", ["", "\n\n", "---\n", "# a\n---\n# b\n", "null\n", "\ufeff", "---\n...\n"])
def test_empty_documents_are_left_out(text: str) -> None:
    assert documents(text) == []


def test_a_directive_belongs_to_its_document() -> None:
    assert documents("%YAML 1.1\n---\na: 1\n") == [{"a": 1}]


def test_lines_are_those_of_the_file() -> None:
    text = "x: 1\n---\n# c\na:\n  b:\n  - c: 1\n    d: 2\n  - {e: 3}\n"
    _, document = read_documents(text)
    assert isinstance(document, YamlDocument)
    assert document.line == 4
    for path, line in [
        (("a",), 4),
        (("a", "b"), 5),
        (("a", "b", 0, "d"), 7),
        (("a", "b", 1, "e"), 8),
        (("zz",), 4),
    ]:
        assert document.locate(path)[0] == line
    # not there: the line of the item in which it is missing
    assert document.locate(("a", "b", 0, "missing"))[0] == 6


def test_a_merged_key_is_found_where_it_was_written() -> None:
    document = one("base: &b\n  x: 1\nuse:\n  <<: *b\n")
    assert document.locate(("use", "x"))[0] == 2


def test_duplicate_keys_are_noted_with_both_lines() -> None:
    document = one("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert document.data == {"a": 1, "b": {"c": 1}}
    assert document.problems == (
        (("b", "c"), 4, "duplicate key, first set on line 3"),
        (("a",), 5, "duplicate key, first set on line 1"),
    )


@pytest.mark.parametrize(
    ("text", "sentence", "line"),
    [
        ("a:\n\t- b\n", "a tab where YAML needs spaces", 2),
        ("a: [1,\n", "did not find expected node content", 2),
        ('a: "x\n', "that starts on line 1", 2),
        ("a: *nope", "undefined alias", 1),
        ("a: 1\nb: \x07", "control characters are not allowed", 2),
        ("[" * 5000, "nest", 1),
        ("- " * 5000 + "x", "nested more than 200 deep", 1),
        ("a: &a [*a]", "contains itself", 1),
    ],
)
def test_syntax_errors_name_their_line(text: str, sentence: str, line: int) -> None:
    found = problem(text)
    assert sentence in str(found)
    assert found.line == line


def test_what_would_keep_the_node_busy_is_refused() -> None:
    assert "too many values" in str(problem(f"a: [{'{},' * 300_000}]"))
    assert "too many \\' escapes" in str(problem('a: "' + "\\'" * 600 + '"'))
    assert documents("---\n" * 200_000) == []


def test_an_alias_bomb_is_refused() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}' if n else 'x'] * 10)}]\n" for n in range(10))
    assert "excessive aliasing" in str(problem(levels))


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", min_size=1), values, min_size=1))
def test_any_json_is_read_as_what_it_is(data: dict[str, object]) -> None:
    assert documents(json.dumps(data)) == [data]
    assert documents(json.dumps(data, indent=2)) == [data]


@given(st.text("ab:-{}[]#&*!|>'\"%@\n\r\t\x85\u2028\\ ,?~0", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    for read in read_documents(text):
        if isinstance(read, SyntaxProblem):
            assert 1 <= read.line <= len(text.splitlines()) + 2


def test_documents_of_two_files_share_short_texts() -> None:
    """The store keeps them all. A long text, such as a script in a ConfigMap, is not looked up."""
    long = "x" * 65
    first, second = (one(f"image: registry.example/app\nscript: {long}").data for _ in range(2))
    assert first["image"] is second["image"]
    assert first["script"] == second["script"] == long and first["script"] is not second["script"]

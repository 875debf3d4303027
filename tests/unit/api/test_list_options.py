"""Which versions of a list can be asked for, and with what a watch may begin (apimachinery ValidateListOptions)."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from kubelite.api.kube.lists.options import check_list_options, check_watch_options
from kubelite.kube.errors import ApiError
from tests.unit.api.test_api import Http, http, node

__all__ = ["http", "node"]


@pytest.mark.parametrize(
    ("version", "match"),
    [("", ""), ("0", ""), ("3", ""), ("0", "NotOlderThan"), ("3", "NotOlderThan"), ("7", "Exact")],
)
def test_what_the_node_can_answer(version: str, match: str) -> None:
    check_list_options({"resourceVersion": version, "resourceVersionMatch": match}, 7)


@pytest.mark.parametrize(
    ("version", "match", "code", "said"),
    [
        ("", "Exact", 422, "forbidden unless resourceVersion is provided"),
        ("3", "Newest", 422, 'Unsupported value: "Newest"'),
        ("0", "Exact", 422, 'forbidden for resourceVersion "0"'),
        ("x", "", 400, 'Invalid value: "x"'),
        ("-1", "NotOlderThan", 400, 'Invalid value: "-1"'),
        ("6", "Exact", 410, "too old"),
        ("8", "Exact", 504, "Timeout: Too large resource version: 8, current: 7"),
        ("8", "NotOlderThan", 504, "Timeout: Too large resource version: 8, current: 7"),
        ("8", "", 504, "Timeout: Too large resource version: 8, current: 7"),
    ],
)
def test_what_it_refuses(version: str, match: str, code: int, said: str) -> None:
    with pytest.raises(ApiError, match=said) as refused:
        check_list_options({"resourceVersion": version, "resourceVersionMatch": match}, 7)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        ({"resourceVersion": "0"}, 0, ""),
        ({"resourceVersion": "3"}, 400, "specifying resource version is not allowed when using continue"),
        ({"resourceVersion": "3", "resourceVersionMatch": "NotOlderThan"}, 422, "when continue is provided"),
        ({"sendInitialEvents": "true"}, 422, "sendInitialEvents is forbidden for list"),
    ],
)
def test_versions_beside_a_continue_token(more: dict[str, str], code: int, said: str) -> None:
    found = 0
    try:
        check_list_options({"continue": "x", **more}, 7)
    except ApiError as error:
        found = error.code
        assert said in str(error)
    assert found == code


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", 0),
        ("resourceVersion=9", 0),  # the watch waits for it
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", 0),
        ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=7", 0),
        ("sendInitialEvents=true", 422),
        ("sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=1", 422),
        ("resourceVersionMatch=NotOlderThan&resourceVersion=1", 422),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x", 422),
        ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=8", 504),
        ("resourceVersion=x", 400),
    ],
)
def test_with_what_a_watch_may_begin(query: str, code: int) -> None:
    found = 0
    try:
        check_watch_options(dict(parse_qsl(query)), 7)
    except ApiError as error:
        found = error.code
    assert found == code


def test_a_version_to_come_says_when_to_ask_again(http: Http) -> None:
    answer = http.get("/api/v1/pods?resourceVersion=99999")
    assert (answer.status_code, answer.json()["reason"], answer.headers["retry-after"]) == (
        504,
        "Timeout",
        "1",
    )
    assert answer.json()["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


@pytest.mark.parametrize(
    ("query", "code"),
    [("resourceVersion=x", 400), ("resourceVersion=0", 200), ("resourceVersionMatch=Exact", 422)],
)
def test_a_list_over_the_api(http: Http, query: str, code: int) -> None:
    answer = http.get(f"/api/v1/pods?{query}")
    assert answer.status_code == code, answer.text
    assert answer.json()["kind"] == ("PodList" if code == 200 else "Status")

"""Which versions of a list can be asked for (apimachinery ValidateListOptions)."""

from __future__ import annotations

import pytest

from kubelite.api.kube.resources import check_list_options
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
        ("8", "Exact", 408, "Too large resource version: 8, current: 7"),
    ],
)
def test_what_it_refuses(version: str, match: str, code: int, said: str) -> None:
    with pytest.raises(ApiError, match=said) as refused:
        check_list_options({"resourceVersion": version, "resourceVersionMatch": match}, 7)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("query", "code"),
    [("resourceVersion=x", 400), ("resourceVersion=0", 200), ("resourceVersionMatch=Exact", 422)],
)
def test_a_list_over_the_api(http: Http, query: str, code: int) -> None:
    answer = http.get(f"/api/v1/pods?{query}")
    assert answer.status_code == code, answer.text
    assert answer.json()["kind"] == ("PodList" if code == 200 else "Status")

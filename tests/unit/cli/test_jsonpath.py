"""kubectl's JSONPath: the examples of its documentation, and invalid expressions."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cli.errors import CliError
from kubelite.cli.output.jsonpath import columns, path, sort_key, template

LIST: dict[str, Any] = {
    "kind": "List",
    "items": [
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.1", "labels": {"kubernetes.io/hostname": "127.0.0.1"}},
            "status": {
                "capacity": {"cpu": "4"},
                "addresses": [{"type": "LegacyHostIP", "address": "127.0.0.1"}],
            },
        },
        {
            "kind": "None",
            "metadata": {"name": "127.0.0.2"},
            "status": {"capacity": {"cpu": "8"}, "addresses": [{"type": "Another", "address": "127.0.0.3"}]},
        },
    ],
    "users": [
        {"name": "myself", "user": {}, "age": 3},
        {"name": "e2e", "user": {"username": "admin", "password": "secret"}, "age": 30, "on": True},
    ],
}


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        # https://kubernetes.io/docs/reference/kubectl/jsonpath/
        ("kind is {.kind}", "kind is List"),
        ("{.kind}", "List"),
        ("{['kind']}", "List"),
        ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
        ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
        ("{.users[0].name}", "myself"),
        ("{.users[-1].name}", "e2e"),
        ("{.users[0:1].name}", "myself"),
        ("{.users[::2].name}", "myself"),
        ("{.users[0,1].name}", "myself e2e"),
        ("{.items[*]['metadata.name','kind']}", "None None"),
        ('{.users[?(@.name=="e2e")].user.password}', "secret"),
        ("{.users[?(@.age > 3)].name}", "e2e"),
        ("{.users[?(@.age<=3)].name}", "myself"),
        ("{.users[?(@.on)].name}", "e2e"),
        ("{.users[?(@.on==true)].name}", "e2e"),
        ('{.users[?(@.name!="e2e")].name}', "myself"),
        (
            '{range .items[*]}[{.metadata.name}, {.status.capacity.cpu}]{"\\n"}{end}',
            "[127.0.0.1, 4]\n[127.0.0.2, 8]\n",
        ),
        ("{range .items[*]}{range .status.addresses[*]}{.type};{end}{end}", "LegacyHostIP;Another;"),
        ("{.items[*].metadata.labels.kubernetes\\.io/hostname}", "127.0.0.1"),
        ("{.items[0].metadata.labels['kubernetes.io/hostname']}", "127.0.0.1"),
        ("{range .users[*]}{$.kind}{end}", "ListList"),
        # values other than strings are printed as JSON; missing values print nothing
        ("{.users[1].user}", '{"username":"admin","password":"secret"}'),
        ("{.users[1].on} {.users[1].age}", "true 30"),
        ("<{.nothing.at.all}{.users[7].name}>", "<>"),
        # braces are optional
        (".kind", "List"),
        ("{'}'}{\"{\"}", "}{"),
        ("{.users[?(@.name<3)].name}", ""),
    ],
)
def test_templates(text: str, printed: str) -> None:
    assert template(text)(LIST) == printed


@pytest.mark.parametrize(
    "text",
    [
        "{.items[",
        "{.items",
        "{range .items[*]}x",
        "x{end}",
        "{.items[?(name)]}",
        "{.items[x]}",
        "{.a b}",
        "{kind}",
        "{.items[]}",
    ],
)
def test_invalid_templates_are_reported(text: str) -> None:
    with pytest.raises(CliError, match="JSONPath"):
        template(text)


def test_columns() -> None:
    shown = columns("NAME:.metadata.name,CPU:{.status.capacity.cpu},HOW:status.addresses[0,1].type,X:.x.y")
    assert [header for header, _ in shown] == ["NAME", "CPU", "HOW", "X"]
    assert [cell(LIST["items"][0]) for _, cell in shown] == ["127.0.0.1", "4", "LegacyHostIP", "<none>"]
    for text in ("", "NAME", "NAME:", ":.metadata.name"):
        with pytest.raises(CliError, match="custom"):
            columns(text)


def test_sorting_is_natural() -> None:
    docs = [{"n": v} for v in ("pod-10", "pod-2", 7, None, 3.5, "a")]
    assert [d["n"] for d in sorted(docs, key=sort_key(".n"))] == [None, 3.5, 7, "a", "pod-2", "pod-10"]
    assert path("{.n}")(docs[0]) == ["pod-10"]

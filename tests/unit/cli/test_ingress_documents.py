"""`kubelite create ingress`: the documents of kubectl's generator. Rows follow kubectl
pkg/cmd/create/create_ingress_test.go."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.cli.create.ingress import ingress_document
from kubelite.cli.errors import CliError

Doc = dict[str, Any]


def spec(*rules: str, **given: Any) -> Doc:
    options = {"namespace": None, "default_backend": None, "class_name": None, "annotations": ()}
    found: Doc = ingress_document("web", {**options, "rules": rules, **given})["spec"]
    return found


def path(value: str, kind: str, name: str = "svc", port: Doc | None = None) -> Doc:
    return {
        "path": value, "pathType": kind,
        "backend": {"service": {"name": name, "port": port or {"number": 80}}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "host", "wanted"),
    [
        ("foo.com/=svc:80", "foo.com", path("/", "Exact")),
        ("foo.com/path*=svc:http", "foo.com", path("/path", "Prefix", port={"name": "http"})),
        ("*.foo.com/*=svc:80", "*.foo.com", path("/", "Prefix")),
        ("/api/v1=svc:80", "", path("/api/v1", "Exact")),
    ],
)
def test_rules(rule: str, host: str, wanted: Doc) -> None:
    own = {"host": host} if host else {}
    assert spec(rule) == {"rules": [{**own, "http": {"paths": [wanted]}}]}


def test_rules_of_a_host_are_together_and_its_certificate_once() -> None:
    found = spec("a.x/a=svc:80,tls=s", "b.x/=svc:80,tls", "a.x/b=other:80,tls=s", class_name="c")
    assert [rule["host"] for rule in found["rules"]] == ["a.x", "b.x"]
    assert found["rules"][0]["http"]["paths"][1] == path("/b", "Exact", "other")
    assert found["tls"] == [{"hosts": ["a.x"], "secretName": "s"}, {"hosts": ["b.x"]}]
    assert found["ingressClassName"] == "c"


@pytest.mark.parametrize(
    ("rules", "given", "words"),
    [
        ((), {}, "not enough information provided"),
        (("a.x=svc",), {}, "rule a.x=svc is invalid and should be in format host/path=svcname:svcport"),
        ((), {"default_backend": "svc"}, "default-backend should be in format servicename:serviceport"),
        (("/=a:1",), {"annotations": ("a",)}, "a is an invalid format"),
    ],
)
def test_what_is_wrong(rules: tuple[str, ...], given: Doc, words: str) -> None:
    with pytest.raises(CliError, match=words):
        spec(*rules, **given)

"""The claims of tokens, and when a token is accepted (cases as in Kubernetes pkg/serviceaccount/claims_test.go)."""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.accounts.claims import (
    EXTENDED,
    LEEWAY,
    Bound,
    Rejected,
    Wish,
    claims_of,
    default_account,
    identity_of,
)
from kubelite.kube.json import Json
from kubelite.kube.objects import MOUNTED_SECONDS
from kubelite.kube.times import rfc3339

ISSUER, NOW = "https://kubernetes.default.svc.cluster.local", 1_800_000_000.0
ACCOUNT: Json = {"metadata": {"namespace": "shop", "name": "bot", "uid": "sa-1"}}
POD = Bound("Pod", "web", "pod-1")


def claims(wish: Wish, *, extend: bool = True) -> Json:
    return claims_of(ACCOUNT, wish, issuer=ISSUER, node="here", now=NOW + 0.7, jti="j", extend=extend)


def objects(**changes: Any) -> dict[tuple[str, str, str], Json]:
    found: dict[tuple[str, str, str], Json] = {
        ("ServiceAccount", "shop", "bot"): ACCOUNT,
        ("Pod", "shop", "web"): {"metadata": {"uid": "pod-1"}},
        ("Secret", "shop", "s"): {"metadata": {"uid": "secret-1"}},
        ("Node", "", "here"): {"metadata": {"uid": "here"}},
    }
    for kind, metadata in changes.items():
        key = next(one for one in found if one[0] == kind)
        if metadata is None:
            del found[key]
        else:
            found[key] = {"metadata": {**found[key]["metadata"], **metadata}}
    return found


def test_the_claims_of_a_pods_token() -> None:
    assert claims(Wish(("a", "b"), 600, POD)) == {
        "aud": ["a", "b"], "exp": NOW + 600, "iat": NOW, "nbf": NOW, "iss": ISSUER, "jti": "j",
        "sub": "system:serviceaccount:shop:bot",
        "kubernetes.io": {
            "namespace": "shop", "serviceaccount": {"name": "bot", "uid": "sa-1"},
            "pod": {"name": "web", "uid": "pod-1"}, "node": {"name": "here", "uid": "here"},
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wish", "extend", "seconds"),
    [
        (Wish((ISSUER,), MOUNTED_SECONDS, POD), True, EXTENDED),
        (Wish((ISSUER,), MOUNTED_SECONDS, POD), False, MOUNTED_SECONDS),  # for another audience
        (Wish((ISSUER,), MOUNTED_SECONDS), True, MOUNTED_SECONDS),  # bound to no pod
        (Wish((ISSUER,), 3600, POD), True, 3600),
    ],
)
def test_only_a_mounted_token_of_the_api_is_extended(wish: Wish, extend: bool, seconds: int) -> None:
    found = claims(wish, extend=extend)
    assert found["exp"] == NOW + seconds
    assert ("warnafter" in found["kubernetes.io"]) == (seconds == EXTENDED)


def test_who_a_token_is() -> None:
    found = identity_of(
        claims(Wish((ISSUER, "x"), 600, POD)), issuer=ISSUER, audiences=("x", "y"),
        find=lambda *key: objects().get(key), now=NOW,
    )  # fmt: skip
    assert found.username == "system:serviceaccount:shop:bot" and found.uid == "sa-1"
    assert found.groups == (
        "system:serviceaccounts",
        "system:serviceaccounts:shop",
        "system:authenticated",
    )
    assert found.audiences == ("x",)
    assert dict(found.extra) == {
        "authentication.kubernetes.io/credential-id": ("JTI=j",),
        "authentication.kubernetes.io/pod-name": ("web",),
        "authentication.kubernetes.io/pod-uid": ("pod-1",),
        "authentication.kubernetes.io/node-name": ("here",),
        "authentication.kubernetes.io/node-uid": ("here",),
    }


LATE, EARLY = {"now": NOW + 601 + LEEWAY}, {"now": NOW - 1 - LEEWAY}
SECRET = Bound("Secret", "s", "secret-1")


@pytest.mark.parametrize(
    ("bound", "changes", "options", "said"),
    [
        (POD, {}, LATE, "has expired"),
        (POD, {}, EARLY, "is not valid yet"),
        (POD, {}, {"audiences": ("other",)}, "audiences"),
        (POD, {}, {"issuer": "https://other"}, "issuer"),
        (None, {"ServiceAccount": None}, {}, "ServiceAccount bot is gone"),
        (None, {"ServiceAccount": {"uid": "sa-2"}}, {}, "ServiceAccount bot is gone"),
        (POD, {"Pod": None}, {}, "Pod web is gone"),
        (POD, {"Pod": {"uid": "pod-2"}}, {}, "Pod web is gone"),
        (POD, {"Pod": {"deletionTimestamp": rfc3339(NOW - LEEWAY - 1)}}, {}, "Pod web is deleted"),
        (SECRET, {"Secret": None}, {}, "Secret s is gone"),
        (Bound("Node", "here", "here"), {"Node": {"uid": "other"}}, {}, "Node here is gone"),
    ],
)
def test_what_makes_a_token_worthless(
    bound: Bound | None, changes: dict[str, Any], options: dict[str, Any], said: str
) -> None:
    found = objects(**changes)
    given: dict[str, Any] = {"issuer": ISSUER, "audiences": (ISSUER,), "now": NOW, **options}
    with pytest.raises(Rejected, match=said):
        identity_of(claims(Wish((ISSUER,), 600, bound)), find=lambda *key: found.get(key), **given)


@pytest.mark.parametrize(
    ("changes", "now"),
    [
        (
            {"Pod": {"deletionTimestamp": rfc3339(NOW - LEEWAY + 1)}},
            NOW,
        ),  # a pod that terminates may still ask
        ({"Pod": {"deletionTimestamp": rfc3339(NOW + 30)}}, NOW),
        ({"Node": None}, NOW),  # a pod's token only tells its node
        ({"Node": {"uid": "other"}}, NOW),
        ({}, NOW + 600 + LEEWAY - 1),
        ({}, NOW - LEEWAY + 1),
    ],
)
def test_what_a_token_outlives(changes: dict[str, Any], now: float) -> None:
    found = objects(**changes)
    made = claims(Wish((ISSUER,), 600, POD))
    identity_of(made, issuer=ISSUER, audiences=(ISSUER,), find=lambda *key: found.get(key), now=now)


def test_the_default_account_is_another_one_in_a_namespace_that_was_created_again() -> None:
    first, second = ({"metadata": {"uid": uid}} for uid in ("ns-1", "ns-2"))
    accounts = [default_account("shop", one) for one in (None, first, second, None)]
    uids = [one["metadata"]["uid"] for one in accounts]
    assert len(set(uids)) == 3 and uids[0] == uids[3]
    assert accounts[0]["metadata"]["name"] == "default"

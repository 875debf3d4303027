"""IP families of Services: defaults, upgrade and downgrade, and what is refused.

Rows follow Kubernetes 1.36: pkg/registry/core/service/storage/storage_test.go (TestCreateInitIPFields,
TestFeatureClusterIPs…, TestFeatureIPFamilies…) and pkg/registry/core/service/storage/alloc.go (initIPFamilyFields).
"""

from __future__ import annotations

from typing import Any

import pytest

from kubelite.services.allocation import Name, Ranges, allocate, with_allocated
from kubelite.services.families import Refusal, with_families

Doc = dict[str, Any]
V4, BOTH = ("IPv4",), ("IPv4", "IPv6")
FOUR, SIX = "10.96.0.5", "fd00:96::5"
SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"
WEB: Name = ("default", "web")


def spec(**fields: Any) -> Doc:
    given = {"type": "ClusterIP", "selector": {"app": "web"}, **fields}
    return {key: value for key, value in given.items() if value is not None}


def policy_and_families(found: Doc | Refusal) -> tuple[str, list[str]]:
    assert not isinstance(found, Refusal), found
    return found["ipFamilyPolicy"], found["ipFamilies"]


@pytest.mark.parametrize(
    ("given", "alone", "dual"),
    [
        ({}, (SINGLE, ["IPv4"]), (SINGLE, ["IPv4"])),
        ({"ipFamilyPolicy": PREFER}, (PREFER, ["IPv4"]), (PREFER, ["IPv4", "IPv6"])),
        ({"ipFamilyPolicy": REQUIRE}, None, (REQUIRE, ["IPv4", "IPv6"])),
        ({"ipFamilies": ["IPv6"]}, None, (SINGLE, ["IPv6"])),
        ({"ipFamilyPolicy": PREFER, "ipFamilies": ["IPv6"]}, None, (PREFER, ["IPv6", "IPv4"])),
        ({"clusterIP": SIX}, None, (SINGLE, ["IPv6"])),
        ({"clusterIP": SIX, "ipFamilyPolicy": REQUIRE}, None, (REQUIRE, ["IPv6", "IPv4"])),
        ({"clusterIP": "None"}, (SINGLE, ["IPv4"]), (SINGLE, ["IPv4"])),
        ({"clusterIP": "None", "ipFamilyPolicy": PREFER}, (PREFER, ["IPv4"]), (PREFER, ["IPv4", "IPv6"])),
        # its endpoints are no pods of the node, so that both families are allowed everywhere
        (
            {"clusterIP": "None", "selector": None},
            (REQUIRE, ["IPv4", "IPv6"]),
            (REQUIRE, ["IPv4", "IPv6"]),
        ),
        (
            {"clusterIP": "None", "selector": None, "ipFamilies": ["IPv6"], "ipFamilyPolicy": SINGLE},
            (SINGLE, ["IPv6"]),
            (SINGLE, ["IPv6"]),
        ),
    ],
)
def test_a_new_service(
    given: Doc, alone: tuple[str, list[str]] | None, dual: tuple[str, list[str]] | None
) -> None:
    for configured, expected in ((V4, alone), (BOTH, dual)):
        found = with_families(None, spec(**given), configured)
        if expected is None:
            assert isinstance(found, Refusal)
        else:
            assert policy_and_families(found) == expected


@pytest.mark.parametrize(
    ("given", "configured", "field", "message"),
    [
        (
            {"ipFamilyPolicy": REQUIRE},
            V4,
            "spec.ipFamilyPolicy",
            'Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services',
        ),
        (
            {"ipFamilies": ["IPv6"]},
            V4,
            "spec.ipFamilies[0]",
            'Invalid value: "IPv6": not configured on this cluster',
        ),
        (
            {"clusterIP": SIX},
            V4,
            "spec.clusterIPs[0]",
            'Invalid value: ["fd00:96::5"]: IPv6 is not configured on this cluster',
        ),
        (
            {"ipFamilies": ["IPv4", "IPv6"]},
            BOTH,
            "spec.ipFamilyPolicy",
            "Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families "
            "are specified",
        ),
        (
            {"clusterIP": FOUR, "clusterIPs": [FOUR, SIX]},
            BOTH,
            "spec.ipFamilyPolicy",
            "Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs "
            "are specified",
        ),
    ],
)
def test_what_is_refused(given: Doc, configured: tuple[str, ...], field: str, message: str) -> None:
    assert with_families(None, spec(**given), configured) == Refusal(field, message)


ONE = spec(clusterIP=FOUR, clusterIPs=[FOUR], ipFamilies=["IPv4"], ipFamilyPolicy=SINGLE)
TWO = spec(clusterIP=FOUR, clusterIPs=[FOUR, SIX], ipFamilies=["IPv4", "IPv6"], ipFamilyPolicy=REQUIRE)


def edited(old: Doc, configured: tuple[str, ...] = BOTH, **fields: Any) -> Doc | Refusal:
    """The spec of a manifest that names these fields, for a Service that has the old one."""
    return with_families(old, with_allocated(old, spec(**fields)), configured)


def test_an_edit_that_names_nothing_changes_nothing() -> None:
    for old in (ONE, TWO):
        assert edited(old) == old


def test_upgrade() -> None:
    for policy in (PREFER, REQUIRE):
        found = edited(ONE, ipFamilyPolicy=policy)
        assert policy_and_families(found) == (policy, ["IPv4", "IPv6"])
        done = allocate(
            {WEB: {"spec": found}}, {WEB: {"spec": ONE}}, Ranges("10.96.0.0/16", cidr6="fd00:96::/112")
        )
        first, second = done.services[WEB]["spec"]["clusterIPs"]
        assert first == FOUR and second.startswith("fd00:96::")
    named = edited(ONE, ipFamilyPolicy=PREFER, clusterIP=FOUR, clusterIPs=[FOUR, SIX])
    assert not isinstance(named, Refusal) and named["clusterIPs"] == [FOUR, SIX]
    assert isinstance(edited(ONE, ipFamilies=["IPv4", "IPv6"]), Refusal), "the policy must be named"


def test_downgrade() -> None:
    for fields in (
        {},
        {"ipFamilies": ["IPv4"]},
        {"clusterIP": FOUR},
        {"clusterIP": FOUR, "clusterIPs": [FOUR]},
    ):
        assert edited(TWO, ipFamilyPolicy=SINGLE, **fields) == ONE
    assert edited(TWO, V4, ipFamilyPolicy=SINGLE) == ONE, "of a node that has lost the family, too"
    for contradiction in ({"ipFamilies": ["IPv4", "IPv6"]}, {"clusterIP": FOUR, "clusterIPs": [FOUR, SIX]}):
        for old in (TWO, ONE):  # a manifest is read again and again: it means the same each time
            found = edited(old, ipFamilyPolicy=SINGLE, **contradiction)
            assert isinstance(found, Refusal) and found.field == "spec.ipFamilyPolicy"


@pytest.mark.parametrize("policy", [PREFER, REQUIRE])
def test_a_manifest_that_names_the_first_family_means_the_same_each_time(policy: str) -> None:
    ranges = Ranges("10.96.0.0/16", cidr6="fd00:96::/112")
    for fields in (
        {"ipFamilies": ["IPv6"]},
        {"ipFamilies": ["IPv4"]},
        {"clusterIP": SIX},
        {"clusterIP": FOUR, "clusterIPs": [FOUR]},
    ):
        manifest = spec(ipFamilyPolicy=policy, **fields)
        first = allocate({WEB: {"spec": manifest}}, {}, ranges).services[WEB]
        again = with_allocated(first["spec"], manifest)
        second = allocate({WEB: {"spec": again}}, {WEB: first}, ranges)
        assert second.services[WEB]["spec"] == first["spec"] and len(first["spec"]["clusterIPs"]) == 2


def test_a_new_setting_of_the_node_changes_no_service_by_itself() -> None:
    preferred = {**ONE, "ipFamilyPolicy": PREFER}
    assert edited(preferred, BOTH, ipFamilyPolicy=PREFER) == preferred
    assert edited(preferred, BOTH) == preferred
    both = {**TWO, "ipFamilyPolicy": PREFER}
    assert edited(both, V4, ipFamilyPolicy=PREFER) == both
    assert policy_and_families(edited(preferred, BOTH, ipFamilyPolicy=REQUIRE))[1] == ["IPv4", "IPv6"]


def test_the_family_of_an_address_is_the_one_that_is_named() -> None:
    found = edited(ONE, ipFamilies=["IPv6"])
    message = 'Invalid value: "10.96.0.5": expected an IPv6 value as indicated by `ipFamilies[0]`'
    assert found == Refusal("spec.clusterIPs[0]", message)


def test_a_service_that_was_an_external_name_is_a_new_one() -> None:
    old = {"type": "ExternalName", "externalName": "x"}
    assert policy_and_families(edited(old)) == (SINGLE, ["IPv4"])
    assert edited(TWO, type="ExternalName", externalName="x") == spec(type="ExternalName", externalName="x")

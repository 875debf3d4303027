"""Which images need credentials, by kubelet's four policies."""

from __future__ import annotations

import pytest

from kubelite.node.spec.image_verification import Policy, allowlist

ALLOWED = allowlist("registry.example.com/base/*, docker.io/library/busybox,localhost:5000/app")


@pytest.mark.parametrize(
    ("policy", "name", "pulled", "verifies"),
    [
        ("NeverVerify", "r.example.com/app", True, False),
        ("NeverVerify", "r.example.com/app", False, False),
        ("NeverVerifyPreloadedImages", "r.example.com/app", True, True),
        ("NeverVerifyPreloadedImages", "r.example.com/app", False, False),
        ("AlwaysVerify", "r.example.com/app", True, True),
        ("AlwaysVerify", "r.example.com/app", False, True),
        ("NeverVerifyAllowlistedImages", "r.example.com/app", False, True),
        ("NeverVerifyAllowlistedImages", "registry.example.com/base/x/y", True, False),
        ("NeverVerifyAllowlistedImages", "registry.example.com/based", True, True),
        ("NeverVerifyAllowlistedImages", "registry.example.com/base", True, True),
        ("NeverVerifyAllowlistedImages", "docker.io/library/busybox", True, False),
        ("NeverVerifyAllowlistedImages", "docker.io/library/busybox2", True, True),
        ("NeverVerifyAllowlistedImages", "localhost:5000/app", False, False),
    ],
)
def test_policies(policy: str, name: str, pulled: bool, verifies: bool) -> None:
    assert Policy(policy, ALLOWED).verifies(name, pulled=pulled) is verifies


@pytest.mark.parametrize("text", ["docker.io/*", "r.example.com/*", "a.example/b_c.d--e/*", "registry:80/x"])
def test_patterns(text: str) -> None:
    assert allowlist(text) == (text.removesuffix("*"),)


@pytest.mark.parametrize(
    "text",
    [
        "*", "/*", "r.example.com/a*", "r.example.com/*/b", "busybox", "docker.io/busybox", "r.example.com/a:1",
        "r.example.com/a@sha256:0", "r.example.com", "r.example.com/", "r.example.com/A", "r.example.com/*/*",
    ],
)  # fmt: skip
def test_what_is_no_pattern(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a name|a \* is only possible"):
        allowlist(text)

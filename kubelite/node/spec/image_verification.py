"""Which images on the node need credentials: kubelet's imagePullCredentialsVerificationPolicy (KEP-2535).

Kubernetes: pkg/kubelet/images/pullmanager/image_pull_policies.go. The default is from SetDefaults_KubeletConfiguration
(pkg/kubelet/apis/config/v1beta1/defaults.go) with the feature gate KubeletEnsureSecretPulledImages, on since 1.35.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

NEVER, PRELOADED = "NeverVerify", "NeverVerifyPreloadedImages"
ALLOWLISTED, ALWAYS = "NeverVerifyAllowlistedImages", "AlwaysVerify"

_PART: Final = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
#: A normalized name: its first part is a registry, and Docker Hub's names have three parts.
_PATTERN: Final = re.compile(
    rf"(?!docker\.io/[^/*]+$)(?:localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(?::[0-9]+)?"
    rf"(?:/{_PART})*(?:/{_PART}|/\*)"
)


class Policy(NamedTuple):
    """kubelet's imagePullCredentialsVerificationPolicy and preloadedImagesVerificationAllowlist."""

    name: str = PRELOADED
    allowed: tuple[str, ...] = ()  # names without tag; with a / at the end: everything below

    def verifies(self, name: str, *, pulled: bool) -> bool:
        """Whether an image that is present needs credentials. `pulled`: by a pod."""
        if self.name == PRELOADED:
            return pulled
        if self.name == ALLOWLISTED:
            return not any(name.startswith(one) if one.endswith("/") else name == one for one in self.allowed)
        return self.name == ALWAYS


def allowlist(text: str) -> tuple[str, ...]:
    """Parse the setting: names of images without a tag, or with `/*` at the end. ValueError for another pattern
    (getAllowlistImagePattern in kubelet's image_pull_policies.go)."""
    patterns = [one.strip() for one in text.split(",") if one.strip()]
    for pattern in patterns:
        if "*" in pattern.removesuffix("/*"):
            raise ValueError(f"{pattern!r}: a * is only possible at the end, after a /")
        if not _PATTERN.fullmatch(pattern):
            raise ValueError(
                f"{pattern!r}: must be a name with registry and without tag, such as docker.io/library/busybox, or all "
                "below one, such as registry.example.com/*"
            )
    return tuple(pattern.removesuffix("*") for pattern in patterns)

"""Hashes of templates, which name what a controller makes of them: pod-template-hash, controller-revision-hash.

Kubernetes hashes Go's printed form of a template (pkg/controller/controller_utils.go ComputeHash); nothing depends on
the value. Here it depends on the template's JSON alone, with sorted keys: a restart of the daemon finds the same hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from manifests.yaml.object_names import in_alphabet

LENGTH = 10


def template_hash(template: Mapping[str, Any], collisions: int = 0) -> str:
    """Return the hash of a template, `LENGTH` characters of Kubernetes' alphabet. `collisions`: the owner's
    `status.collisionCount`, by which it gets another name if the first belongs to something else."""
    text = json.dumps(template, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(f"{text}{collisions or ''}".encode()).digest()
    return in_alphabet(int.from_bytes(digest[:8]), LENGTH)

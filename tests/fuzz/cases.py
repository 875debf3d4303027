"""Cases by seed and number: half of them from the grammar, half real ones with mutations."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.grammar import Grammar
from tests.fuzz.mutate import mutated

REAL = Path(__file__).parent / "real"


@functools.cache
def real() -> tuple[Any, ...]:
    """config.json files written by podman, docker and containerd (paths are placeholders, see `placed`)."""
    return tuple(json.loads(path.read_text()) for path in sorted(REAL.glob("*.json")))


def config(seed: int, number: int) -> bytes:
    """Case `number`: the bytes of config.json with placeholders."""
    random = Random(f"{seed}:{number}")
    if random.random() < 0.5:
        return json.dumps(Grammar(random).config()).encode()
    base = random.choice(real()) if random.random() < 0.8 else Grammar(random).config()
    return mutated(base, random)


def placed(case: bytes, *, source: Path, cgroup: str) -> bytes:
    """The case with paths in place of its placeholders: the source of bind mounts, and the parent cgroup."""
    return case.replace(b"SOURCE", str(source).encode()).replace(b"CGROUP", cgroup.encode())

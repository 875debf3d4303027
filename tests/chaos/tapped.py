"""kubelite whose helpers also load tap.c, although they start with a bare environment: `python -m
tests.chaos.tapped`."""

from __future__ import annotations

import os
from typing import Any

from kubelite.cli.main import main

_spawn = os.posix_spawn


def _with_tap(path: Any, argv: Any, env: Any, **more: Any) -> int:
    tap = {key: value for key, value in os.environ.items() if key in ("LD_PRELOAD", "CHAOS_STRIKE")}
    return _spawn(path, argv, {**env, **tap}, **more)


if __name__ == "__main__":
    os.posix_spawn = _with_tap
    main()

"""The console script `kubelite`. It runs the fast paths that need no command-line library before it loads click."""

from __future__ import annotations

import sys


def main() -> None:
    from kubelite.cli.build.build_again import attempt

    code = attempt(sys.argv[1:])
    if code is not None:
        sys.exit(code)
    from kubelite.cli.main import main as whole

    whole()

"""The console script `kubelite`. Here, before the command line's own library is loaded, is what can do without it."""

from __future__ import annotations

import sys


def main() -> None:
    from kubelite.cli.build.build_again import attempt

    code = attempt(sys.argv[1:])
    if code is not None:
        sys.exit(code)
    from kubelite.cli.main import main as whole

    whole()

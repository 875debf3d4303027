"""`python -m tests.rerun_failures FEW ARGUMENT…`: run pytest; if at most FEW tests failed, run these once more, alone.

A suite that starts thousands of processes on a shared machine sometimes misses a deadline without a bug; a real bug
fails again. Every failed test is named at the end, and its first failure stays in the output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

FAILED = 1  # pytest.ExitCode.TESTS_FAILED


def main(few: int, arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="kubelite-again.") as cache:
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}"]
        code = subprocess.run([*command, *arguments], check=False).returncode
        failed = _failed(Path(cache))
        if code != FAILED or not 0 < len(failed) <= few:
            return code
        print(f"--- once more, alone: {len(failed)} that failed", flush=True)
        code = subprocess.run([*command, *_alone(arguments), "--last-failed"], check=False).returncode
        again = _failed(Path(cache))
    for test in failed:
        print(f"--- {'failed twice' if test in again else 'unsteady, passed alone'}: {test}", flush=True)
    return code


def _failed(cache: Path) -> list[str]:
    try:
        return sorted(json.loads((cache / "v/cache/lastfailed").read_bytes()))
    except FileNotFoundError:
        return []


def _alone(arguments: list[str]) -> list[str]:
    """The same without workers."""
    return [one for one in arguments if not one.startswith(("-n", "--dist", "--no-loadscope"))]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

"""The OCI process of a command that runs beside a container's own process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubelite.node.cri.commands import exec_process


@pytest.mark.parametrize(
    ("env", "tty", "expected"),
    [
        (["PATH=/bin"], True, ["PATH=/bin", "TERM=xterm"]),
        (["PATH=/bin"], False, ["PATH=/bin"]),
        (["TERM=dumb", "PATH=/bin"], True, ["TERM=dumb", "PATH=/bin"]),
        (["MY_TERM=x"], True, ["MY_TERM=x", "TERM=xterm"]),
    ],
)
def test_a_terminal_gets_a_term_variable(
    tmp_path: Path, env: list[str], tty: bool, expected: list[str]
) -> None:
    config = {"process": {"args": ["main"], "env": env, "terminal": not tty, "consoleSize": {"width": 1}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    process = exec_process(str(tmp_path), ["top"], tty=tty)
    assert process == {"args": ["top"], "env": expected, "terminal": tty}

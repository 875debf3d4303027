"""The table of `make coverage`: files are summed by directory; none is counted twice or left out."""

from __future__ import annotations

import pytest

from tests.coverage_table import Counts, counts, room, table


@pytest.mark.parametrize(
    "path, expected",
    [
        ("kubelite/version.py", "kubelite"),
        ("kubelite/api/server.py", "kubelite/api"),
        ("kubelite/api/kube/routes.py", "kubelite/api"),
        ("kubelite/node/config.py", "kubelite/node"),
        ("kubelite/node/decide/starting.py", "kubelite/node/decide"),
        ("runtime/oci/rootfs/binds.py", "runtime/oci/rootfs"),
        ("runtime/syscalls.py", "runtime"),
    ],
)
def test_the_directory_of_a_file(path: str, expected: str) -> None:
    assert room(path) == expected


def of(statements: int, covered: int, branches: int, taken: int) -> dict[str, dict[str, int]]:
    return {
        "summary": {
            "num_statements": statements,
            "covered_lines": covered,
            "num_branches": branches,
            "covered_branches": taken,
        }
    }


def test_directories_and_total() -> None:
    rooms = counts(
        {
            "files": {
                "state/store.py": of(10, 5, 10, 5),
                "state/database.py": of(20, 20, 0, 0),
                "runtime/errors.py": of(10, 0, 0, 0),
                "kubelite/__init__.py": of(0, 0, 0, 0),
            }
        }
    )
    assert rooms == {"state": Counts(30, 25, 10, 5), "runtime": Counts(10, 0, 0, 0), "kubelite": Counts()}
    lines = [line.split() for line in table(rooms).splitlines()]
    assert lines == [
        ["statements", "branches", "covered"],
        ["kubelite", "0", "0", "100.0%"],
        ["runtime", "10", "0", "0.0%"],
        ["state", "30", "10", "75.0%"],
        ["all", "40", "10", "60.0%"],
    ]

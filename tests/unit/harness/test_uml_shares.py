"""How test files are distributed among guests."""

from __future__ import annotations

from tests.uml.harness import shares


def test_files_of_one_directory_share_a_guest_and_every_file_is_run_once() -> None:
    paths = [f"e2e/{n}" for n in range(7)] + ["conformance/a"] + [f"kernel/{n}" for n in range(3)]
    found = shares(paths, 3)
    assert found == [
        ["e2e/0", "e2e/3", "e2e/6"],
        ["e2e/1", "e2e/4"],
        ["e2e/2", "e2e/5"],
        ["conformance/a"],
        ["kernel/0", "kernel/1", "kernel/2"],
    ]
    assert shares(paths, 1) == [[path] for path in paths]

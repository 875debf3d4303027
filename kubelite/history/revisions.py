"""Chooses the version of a manifest file that an undo writes back. Pure.

A revision is the text of a file that was read and is valid. An undo writes an older revision into the file, where it is
read like any edit and becomes the newest revision; another undo therefore reverts the first.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from state.history import Revision, digest


class NothingToUndo(Exception):
    """The message says what is available instead."""


def choose(
    file: str,
    revisions: Sequence[Revision],
    text: str | None,
    *,
    number: int | None = None,
    valid: Callable[[Revision], bool] = lambda _revision: True,
) -> Revision:
    """Return the revision to write. `revisions`: oldest first; `text`: the file's current text (None: deleted). Without
    `number`, it is the newest revision that differs from the text: the last valid version after a broken edit or a
    deletion, else the version before the current one. Raises NothingToUndo."""
    if number is not None:
        found = next((r for r in revisions if r.number == number), None)
        if found is None:
            known = ", ".join(str(r.number) for r in revisions) or "none"
            raise NothingToUndo(f"{file}: there is no revision {number}; known: {known}")
        return found
    now = digest(text) if text is not None else ""
    found = next((r for r in reversed(revisions) if r.digest != now and valid(r)), None)
    if found is None:
        raise NothingToUndo(f"{file}: history has no earlier version")
    return found


def difference(file: str, text: str | None, revision: Revision) -> str:
    """Return the changes that the undo would make, as a unified diff."""
    lines = difflib.unified_diff(
        (text or "").splitlines(keepends=True),
        revision.text.splitlines(keepends=True),
        f"{file} (now)",
        f"{file} (revision {revision.number})",
    )
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

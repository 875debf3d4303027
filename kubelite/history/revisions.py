"""Chooses the revision of a manifest file that a rollback restores.

A revision is a valid text that a manifest file had. A rollback writes an older revision to the file. The node reads it
like any edit, so it becomes the newest revision, and a second rollback reverts the first.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from state.history import Revision, digest


class NothingToUndo(Exception):
    """There is no revision to restore. The message names the known ones."""


def choose(
    file: str,
    revisions: Sequence[Revision],
    text: str | None,
    *,
    number: int | None = None,
    valid: Callable[[Revision], bool] = lambda _revision: True,
) -> Revision:
    """Return the revision to restore. `revisions`: oldest first; `text`: the file's current text (None: deleted).
    Without `number`, this is the newest valid revision that differs from the text: after a broken edit or a deletion,
    the last valid version; otherwise, the version before the current one. Raises NothingToUndo."""
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
    """Return the changes that the rollback would make, as a unified diff."""
    lines = difflib.unified_diff(
        (text or "").splitlines(keepends=True),
        revision.text.splitlines(keepends=True),
        f"{file} (now)",
        f"{file} (revision {revision.number})",
    )
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

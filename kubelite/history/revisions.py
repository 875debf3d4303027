"""PURE: which version of a manifest file an undo writes back, and what is said of a file's versions.

A revision is a file's text that was read and understood. The undo writes an older one into the file, where it is read
like any edit and becomes the newest revision: so an undo is undone by one more.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence

from state.history import Revision, digest


class NothingToUndo(Exception):
    """The sentence says what there is instead."""


def choose(
    file: str,
    revisions: Sequence[Revision],
    text: str | None,
    *,
    number: int | None = None,
    valid: Callable[[Revision], bool] = lambda _revision: True,
) -> Revision:
    """The revision to write. `revisions`: oldest first; `text`: what the file says now (None: it is gone). Without
    `number`: the newest one when the file says something else (a broken edit, a file that was deleted), else the
    newest one before it that says something else. Raises NothingToUndo."""
    if number is not None:
        found = next((r for r in revisions if r.number == number), None)
        if found is None:
            known = ", ".join(str(r.number) for r in revisions) or "none"
            raise NothingToUndo(f"{file}: there is no revision {number}; known: {known}")
        return found
    now = digest(text) if text is not None else ""
    found = next((r for r in reversed(revisions) if r.digest != now and valid(r)), None)
    if found is None:
        raise NothingToUndo(f"{file}: there is no version before this one in history")
    return found


def difference(file: str, text: str | None, revision: Revision) -> str:
    """What the undo would change, as a unified diff."""
    lines = difflib.unified_diff(
        (text or "").splitlines(keepends=True),
        revision.text.splitlines(keepends=True),
        f"{file} (now)",
        f"{file} (revision {revision.number})",
    )
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)

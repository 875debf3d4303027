"""A future kubelite with a newer schema: `python -m tests.chaos.newer serve`.

With CHAOS_OLDEST_READER=2 older versions must not open its files.
"""

from __future__ import annotations

import os
from typing import Any

from kubelite.cli.main import main
from state import schema

VERSION = schema.SCHEMA_VERSION + 1
STEP = (
    "ALTER TABLE objects ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'",
    "CREATE TABLE notes (pod_uid TEXT PRIMARY KEY, words TEXT NOT NULL)",
    "INSERT INTO notes SELECT uid, name FROM objects WHERE kind = 'Pod'",
)


def changes() -> dict[str, Any]:
    """Change state.schema."""
    return {
        "MIGRATIONS": (*schema.MIGRATIONS, STEP),
        "SCHEMA_VERSION": VERSION,
        "OLDEST_READER": int(os.environ.get("CHAOS_OLDEST_READER", "1")),
    }


if __name__ == "__main__":
    for name, value in changes().items():
        setattr(schema, name, value)
    main()

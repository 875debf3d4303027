"""The installed version, looked up once: importlib.metadata parses a file on each call."""

from __future__ import annotations

from functools import cache


@cache
def version() -> str:
    """Return the version of the installed kubelite package."""
    from importlib.metadata import version as installed

    return installed("kubelite")

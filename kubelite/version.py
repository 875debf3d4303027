"""The version that is installed, looked up once: importlib.metadata parses a file for each question."""

from __future__ import annotations

from functools import cache


@cache
def version() -> str:
    """Of the kubelite that is installed, as its package says."""
    from importlib.metadata import version as installed

    return installed("kubelite")

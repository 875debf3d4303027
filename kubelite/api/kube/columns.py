"""The columns of a Table, and what tables of several kinds share."""

from __future__ import annotations

from typing import Any, NamedTuple

Cells = list[Any]

NONE = "<none>"


class Column(NamedTuple):
    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


NAME = Column("Name", format="name", description="Name must be unique within a namespace.")
AGE = Column("Age", description="Time since the object was created.")

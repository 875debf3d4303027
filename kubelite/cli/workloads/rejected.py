"""Whether the manifest of an object is what runs. After an edit with an error, an earlier version of it does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubelite.kube.objects import SOURCE

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.kube.json import Json

_WHOLE = ("Invalid", "Unreadable")  # states of a file in which nothing of it applies


def rejected(server: Client, doc: Json) -> list[str]:
    """Return why the manifest's present version of a workload does not apply: `FILE:LINE: FIELD: MESSAGE` for each
    error; [] if it applies, or if no manifest has the object. Raises CliError."""
    from kubelite.cli.objects.get import problem_line

    metadata = doc["metadata"]
    source = (metadata.get("annotations") or {}).get(SOURCE)
    if not source:
        return []
    files: list[Json] = server.get("/kubelite/v1/manifests")["files"]
    name = f"{doc['kind']} {metadata.get('namespace') or 'default'}/{metadata['name']}"
    return [
        problem_line(source, problem)
        for file in files
        for problem in file["errors"]
        if file["file"] == source and problem.get("kind") != "unsupported"
        if file["status"] in _WHOLE or problem.get("object") == name
    ]

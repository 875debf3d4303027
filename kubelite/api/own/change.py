"""/kubelite/v1/change: sets and removes fields of an object in its manifest, in place and with its comments kept.

`kubelite scale`, `set`, `label`, `annotate`, `patch` and `rollout` change manifests this way: the directory stays the
truth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from kubelite.api.kube.routes import node_of
from kubelite.api.node import NodeApi
from kubelite.api.own.routes import admitted, carry_out, json_body, validated
from kubelite.kube.errors import ApiError, bad_request
from kubelite.kube.json import Json
from kubelite.sources import edits

if TYPE_CHECKING:
    from kubelite.sources.fields import Change


async def change(request: Request) -> Response:
    """Body: {"kind", "namespace", "name", "changes": [{"path": ["spec", "replicas"], "value": 3} or {"path": […],
    "remove": true}]}, or in place of "changes" {"patch": …, "patchType": "strategic", "merge" or "json"};
    `dryRun=true` only validates. Answer: as for apply, and with `dryRun=true` "diff": the change of the file as a
    unified diff, without values of Secrets."""
    from kubelite.sources.fields import CannotChange, changed
    from kubelite.sources.patches import CannotPatch

    node = node_of(request)
    wanted = await json_body(request)
    key, changes_of = _key(wanted), _changes(wanted)
    await node.rescan()
    source = source_of_object(node, key)

    def change_text(text: str) -> str:
        try:
            return changed(text, changes_of(edits.content_of(text)))
        except CannotChange as error:
            raise ApiError("Conflict", f"{source}: {error}") from error
        except CannotPatch as error:
            raise bad_request(f"{source}: {error}") from error

    before = edits.read_candidates([source], [key])
    plan = edits.plan_change(before, key, change_text)
    headers: dict[str, str] = {}
    for text in plan.writes.values():
        chunks = [chunk for chunk in edits.split(text or "", source) if key in chunk.keys]
        if not chunks:
            raise bad_request("a change cannot give the object another kind, name or namespace")
        validated(chunks[0].text, source)
        headers = admitted(request, node, chunks)
    more: Json = {}
    if request.query_params.get("dryRun") == "true":
        more["diff"] = "".join(
            _difference(path, before.get(path, ""), plan.writes[path]) for path in plan.writes
        )
    return await carry_out(request, node, plan, headers, more=more)


def _difference(path: str, old: str, new: str | None) -> str:
    """Return a unified diff of a file's texts; "" if the values of its Secrets cannot be left out."""
    import difflib

    from kubelite.history.redaction import redact

    before, after = redact(old), redact(new or "")
    if before is None or after is None:
        return ""
    texts = before.splitlines(keepends=True), after.splitlines(keepends=True)
    lines = difflib.unified_diff(*texts, f"{path} (now)", f"{path} (changed)")
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _key(wanted: Json) -> edits.Key:
    given = [wanted.get(part) for part in ("kind", "namespace", "name")]
    if not all(isinstance(part, str) for part in given):
        raise bad_request('change needs {"kind", "namespace", "name"}, all strings')
    return edits.Key(*(str(part) for part in given))


def _changes(wanted: Json) -> Callable[[Json], list[Change]]:
    """Return how the changes follow from a document: they are in the request, or a patch makes them. Raises
    BadRequest."""
    from kubelite.sources.fields import differences
    from kubelite.sources.patches import patched

    if "patch" not in wanted:
        listed = _listed(wanted)
        return lambda document: listed
    patch, kind = wanted["patch"], wanted.get("patchType", "strategic")
    if kind not in ("strategic", "merge", "json"):
        raise bad_request('"patchType" is strategic, merge or json')
    return lambda document: differences(document, patched(document, patch, kind), by_item=True)


def _listed(wanted: Json) -> list[Change]:
    """Parse the changes of a request. Raises BadRequest."""
    from kubelite.sources.fields import REMOVED, Change

    given = wanted.get("changes")
    if not isinstance(given, list) or not given:
        raise bad_request('change needs "changes": [{"path": […], "value": …}]')
    found = []
    for one in given:
        path: Any = one.get("path") if isinstance(one, dict) else None
        if not isinstance(path, list) or not path or not all(type(part) in (str, int) for part in path):
            raise bad_request("the path of a change is a list of names and positions")
        if one.get("remove") is not True and "value" not in one:
            raise bad_request('a change has a "value", or "remove": true')
        found.append(Change(tuple(path), REMOVED if one.get("remove") is True else one["value"]))
    return found


def source_of_object(node: NodeApi, key: edits.Key) -> str:
    """Return the manifest that defines the object. Raises an ApiError that says why there is none."""
    from kubelite.kube.objects import SOURCE, object_name

    record = node.store.get(*key)
    title = object_name(*key)
    if record is None:
        raise ApiError("NotFound", f"there is no {title}")
    metadata = record.doc["metadata"]
    source = (metadata.get("annotations") or {}).get(SOURCE)
    if source:
        return str(source)
    owner = next((ref for ref in metadata.get("ownerReferences") or () if ref.get("controller")), None)
    if owner is not None:
        raise ApiError(
            "Conflict", f"{title} is made by {owner['kind']} {owner['name']}: change that, and it follows"
        )
    raise ApiError("Conflict", f"{title} is in no manifest: there is nothing to change")


def routes() -> list[BaseRoute]:
    return [Route("/kubelite/v1/change", change, methods=["POST"])]

"""POST, PUT, PATCH and DELETE of objects: each is an edit of the manifest directory, and answers with what the node has
read from it.

A new object gets a file of its own, `kubectl/NAMESPACE/KIND-NAME.yaml`, which it is removed with. Another is changed in
the file that defines it, in place. If the node does not accept the file, the edit is undone and the client told why.

Writes take turns (`app.state.writes`), from the look at the object until the node has read the changed file: of clients
that change the same version of an object, one succeeds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kubelite.api.audit import note
from kubelite.api.kube.resources import Resource, complete, read_one, scale_of
from kubelite.api.kube.writes.bodies import (
    PATCHES,
    content_type,
    data_of,
    duplicates_in,
    is_dry_run,
    named,
    object_of,
)
from kubelite.api.kube.writes.carry import carried
from kubelite.api.kube.writes.field_validation import known_fields, mode_of
from kubelite.api.kube.writes.ownership import Updater, Views, entries, manager_name
from kubelite.api.node import NodeApi
from kubelite.api.own.change import source_of_object
from kubelite.api.own.routes import admitted
from kubelite.api.warnings import joined, warning_header
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.sources import edits
from kubelite.sources.fields import CannotChange, changed, differences, dumped
from kubelite.sources.manifest_part import stripped
from kubelite.sources.ownership import NONE_GIVEN, Owners, with_managers
from kubelite.sources.patches import CannotPatch, TooLarge, patched
from manifests.yaml.loader import KINDS, load_text

T = TypeVar("T")
#: Returns metadata.managedFields of an object that is created, from the object with its defaults.
OwnersOfNew = Callable[[Json], list[Json]]
#: Returns metadata.managedFields of an object that is changed: from how it is, how it will be, and what its manifest
#: says before and after (None: the manifest does not change).
OwnersOfChanged = Callable[[Json, Json, Views | None], list[Json]]

_LARGE = 64 << 10  # characters, about 50 ms of work
_LONGEST_NAME = 200  # characters of a file's name, without its suffix
#: Errors that a patch of a wrong form leads to.
_MISFITS = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


def is_written(resource: Resource) -> bool:
    """Whether manifests define objects of the resource."""
    return (resource.group_version, resource.kind) in KINDS


async def create(request: Request, node: NodeApi, resource: Resource, namespace: str) -> Response:
    given = await object_of(request, resource)
    if given["metadata"].get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    known, said = known_fields(given, resource, mode_of(request), duplicates_in(request))
    doc = named(known, resource, namespace if resource.namespaced else "")
    owners = Updater(manager_name(request), resource).of_new
    async with request.app.state.writes:
        return await create_in_file(request, node, resource, doc, warned=warning_header(said), owners=owners)


async def create_in_file(
    request: Request,
    node: NodeApi,
    resource: Resource,
    doc: Json,
    *,
    warned: dict[str, str],
    owners: OwnersOfNew,
) -> Response:
    """Create an object in a file of its own. The caller has the turn (`app.state.writes`)."""
    key = edits.Key(resource.kind, doc["metadata"].get("namespace", ""), doc["metadata"]["name"])
    await node.rescan()
    if node.store.get(*key) is not None:
        details = {"name": key.name, "kind": resource.plural}
        raise ApiError("AlreadyExists", f'{_title(resource)} "{key.name}" already exists', details=details)

    def prepared() -> tuple[edits.Chunk, Json]:
        chunk = edits.split(f"---\n{dumped(stripped(doc))}")[0]
        return chunk, _validated(chunk.text, key)

    chunk, valid = await _computed(prepared, len(await request.body()))
    headers = joined(warned, admitted(request, node, [chunk]))
    managers = owners(valid)
    if is_dry_run(request):
        return JSONResponse(with_managers(complete(resource, valid), managers), 201, headers=headers)
    folder = "/".join(part for part in (node.manifests_dir, edits.FOLDER, key.namespace) if part)
    target = f"{folder}/{_file_name(key)}"
    before = edits.read_candidates((entry["file"] for entry in node.manifests()), [key], also=target)
    plan = edits.plan_apply(before, [chunk], target)
    if plan.outcomes[0].result != "created":
        words = "but the node does not accept it: see `kubelite get manifests`, and correct the file"
        raise ApiError("Conflict", f"{plan.outcomes[0].file} defines {key}, {words}")
    await carry_out(request, node, plan, before, {key: managers})
    return JSONResponse(await _owned(node, resource, key, managers), 201, headers=headers)


async def update(request: Request, node: NodeApi, resource: Resource, namespace: str, name: str) -> Response:
    """PUT: the object as a whole."""
    given = await object_of(request, resource)
    owners = Updater(manager_name(request), resource).of_changed
    doc, headers = await _change(request, node, resource, (namespace, name), lambda _: given, owners=owners)
    return JSONResponse(doc, headers=headers)


async def patch(request: Request, node: NodeApi, resource: Resource, namespace: str, name: str) -> Response:
    make, owners = await _patch(request), Updater(manager_name(request), resource).of_changed
    doc, headers = await _change(request, node, resource, (namespace, name), make, owners=owners)
    return JSONResponse(doc, headers=headers)


async def scale(request: Request, node: NodeApi, resource: Resource, namespace: str, name: str) -> Response:
    """PUT or PATCH of the subresource scale."""
    put = await data_of(request) if request.method == "PUT" else None
    make = await _patch(request) if request.method == "PATCH" else None

    def scaled(doc: Json) -> Json:
        given = make(scale_of(doc)) if make is not None else put
        wanted = given if isinstance(given, dict) else {}
        spec = wanted.get("spec")
        replicas = spec.get("replicas", 0) if isinstance(spec, dict) else None
        if type(replicas) is not int or not 0 <= replicas < 2**31:
            words = "spec.replicas: Invalid value: must be a whole number, not less than 0"
            raise ApiError("Invalid", f'Scale "{name}" is invalid: {words}')
        metadata = wanted.get("metadata")
        said = metadata if isinstance(metadata, dict) else {}
        pinned = {key: said[key] for key in ("resourceVersion", "uid") if said.get(key)}
        return {
            **doc,
            "metadata": {**doc["metadata"], **pinned},
            "spec": {**doc["spec"], "replicas": replicas},
        }

    owners = Updater(manager_name(request), resource, "scale").of_changed
    doc, headers = await _change(request, node, resource, (namespace, name), scaled, owners=owners)
    return JSONResponse(scale_of(doc), headers=headers)


async def remove(request: Request, node: NodeApi, doc: Json, source: str, check: Callable[[], None]) -> None:
    """Remove the object's document from the file that defines it. `check()` is called when no other write is under way,
    and raises ApiError if the object has to stay."""
    key = key_of(doc)
    async with request.app.state.writes:
        check()
        before = edits.read_candidates([source], [key])
        plan = edits.plan_remove(before, [key])
        if not plan.writes:
            raise ApiError("Conflict", f"{source}, which defines {key}, has changed meanwhile: try again")
        await carry_out(request, node, plan, before)


async def _patch(request: Request) -> Callable[[Json], Json]:
    """Return what the patch in the body makes of an object."""
    kind = PATCHES.get(content_type(request))
    if kind is None:
        raise ApiError("UnsupportedMediaType", "unknown kind of patch")
    if "force" in request.query_params:
        words = "force: Forbidden: may not be specified for non-apply patch"
        raise ApiError("Invalid", f"the options of the request are invalid: {words}")
    given = await data_of(request)

    def make(doc: Json) -> Json:
        try:
            return patched(doc, given, kind)
        except TooLarge as error:
            raise ApiError("RequestEntityTooLarge", f"{error}") from error
        except CannotPatch as error:
            raise ApiError("Invalid", f"the patch cannot be applied: {error}") from error
        except _MISFITS as error:
            raise bad_request(f"the patch does not fit the object: {error}") from error

    return make


async def _change(
    request: Request,
    node: NodeApi,
    resource: Resource,
    place: tuple[str, str],
    make: Callable[[Json], Json],
    *,
    owners: OwnersOfChanged,
) -> tuple[Json, dict[str, str]]:
    """Change an object in its manifest. Return it as it is then, and headers with warnings."""
    async with request.app.state.writes:
        return await changed_by(request, node, resource, place, make, owners=owners)


async def changed_by(
    request: Request,
    node: NodeApi,
    resource: Resource,
    place: tuple[str, str],
    make: Callable[[Json], Json],
    *,
    owners: OwnersOfChanged,
) -> tuple[Json, dict[str, str]]:
    """Do as `_change`. The caller has the turn."""
    await node.rescan()
    current = read_one(node, resource, *place)
    if current is None:
        raise not_found(_title(resource), place[1])
    new = _placed(await _computed(lambda: make(current), len(await request.body())), current)
    _check_same(resource, current, new)
    body = {key: value for key, value in new.items() if key != "status"}
    new, said = known_fields(body, resource, mode_of(request), duplicates_in(request))
    warned = warning_header(said)
    old_words, new_words = stripped(current), stripped(new)
    key = key_of(current)
    if old_words == new_words:
        managers = owners(current, new, None)
        if is_dry_run(request):
            return with_managers(current, managers), warned
        return await _owned(node, resource, key, managers), warned
    source = source_of_object(node, key)

    def change_text(text: str) -> str:
        said = edits.content_of(text)
        if said.get("apiVersion") != resource.group_version:
            words = f"it is a manifest of {said.get('apiVersion')}: change it in that version"
            raise ApiError("Conflict", f"{source}: {words}")
        wanted = carried(said, old_words, new_words)
        try:
            return changed(text, differences(said, wanted, by_item=True))
        except CannotChange as error:
            if f"/{edits.FOLDER}/" in source:  # a file without comments of anybody
                return f"---\n{dumped(wanted)}"
            raise ApiError("Conflict", f"{source}: {error}") from error

    before = edits.read_candidates([source], [key])

    size = sum(map(len, before.values()))
    plan, ours = await _computed(lambda: _planned(before, key, change_text), size)
    headers = joined(warned, admitted(request, node, ours)) if ours else warned

    def views() -> tuple[Json, Json]:
        old = [chunk for chunk in edits.split(before[source], source) if key in chunk.keys]
        first, second = (_validated(chunks[0].text, key) for chunks in (old, ours or old))
        return first, second

    managers = owners(current, new, views)
    if is_dry_run(request):
        return with_managers({**new, "status": current.get("status", {})}, managers), headers
    await carry_out(request, node, plan, before, {key: managers})
    return await _owned(node, resource, key, managers), headers


def _planned(
    before: Mapping[str, str], key: edits.Key, change_text: Callable[[str], str]
) -> tuple[edits.Plan, list[edits.Chunk]]:
    """Plan the change of an object's document. Return the plan, and the document as it will be, if it changes."""
    plan = edits.plan_change(before, key, change_text)
    written = ((path, text or "") for path, text in plan.writes.items())
    ours = [chunk for path, text in written for chunk in edits.split(text, path) if key in chunk.keys]
    if plan.writes and not ours:
        raise bad_request("a change cannot give the object another kind, name or namespace")
    for chunk in ours[:1]:
        _validated(chunk.text, key)
    return plan, ours


async def _computed(function: Callable[[], T], size: int) -> T:
    """Return what a pure function returns. `size`: characters of what it reads: with much of it, it runs in a thread,
    so that the node goes on meanwhile."""
    return function() if size < _LARGE else await asyncio.to_thread(function)


def _placed(new: Json, current: Json) -> Json:
    """Return the new object in its namespace, which a client may leave out: it is in the path (apiserver
    pkg/registry/rest/update.go, EnsureObjectNamespaceMatchesRequestNamespace)."""
    metadata, namespace = new.get("metadata"), current["metadata"].get("namespace")
    if not namespace or not isinstance(metadata, dict) or metadata.get("namespace"):
        return new
    return {**new, "metadata": {**metadata, "namespace": namespace}}


def _check_same(resource: Resource, current: Json, new: Json) -> None:
    """Raise an ApiError if the new object is another one, or was made from an older version (apiserver
    pkg/registry/rest/update.go and pkg/registry/generic/registry/store.go)."""
    metadata, given = current["metadata"], new.get("metadata")
    if not isinstance(given, dict):
        raise bad_request("metadata is not an object")
    title, name = _title(resource), metadata["name"]
    if given.get("name") != name:
        words = f"the name of the object ({given.get('name')}) does not match the name on the URL ({name})"
        raise bad_request(words)
    namespace = metadata.get("namespace", "")
    if (given.get("namespace") or namespace) != namespace:
        raise bad_request("the namespace of the object does not match the namespace on the request")
    for key, wanted in (("kind", resource.kind), ("apiVersion", resource.group_version)):
        if new.get(key, wanted) != wanted:
            raise bad_request(f"{key} of an object cannot change")
    changed_since = (
        "the object has been modified; please apply your changes to the latest version and try again"
    )
    for field, words in (
        ("uid", "Precondition failed: UID in precondition"),
        ("resourceVersion", changed_since),
    ):
        if given.get(field) and given[field] != metadata.get(field):
            raise ApiError("Conflict", f'Operation cannot be fulfilled on {title} "{name}": {words}')


def _validated(text: str, key: edits.Key) -> Json:
    """Return the object of a text with its defaults. Raises Invalid with everything that is wrong, as an API server
    words it."""
    loaded = load_text(text, file="")
    if loaded.errors:
        said = "; ".join(f"{e.field}: {e.message}" if e.field else e.message for e in loaded.errors)
        causes = [
            {"reason": "FieldValueInvalid", "message": e.message, "field": e.field} for e in loaded.errors
        ]
        details = {"name": key.name, "kind": key.kind, "causes": causes}
        raise ApiError("Invalid", f'{key.kind} "{key.name}" is invalid: {said}', details=details)
    if [(one.kind, one.namespace, one.name) for one in loaded.documents] != [tuple(key)]:
        raise bad_request("a change cannot give the object another kind, name or namespace")
    return loaded.documents[0].obj.to_json()


async def carry_out(
    request: Request,
    node: NodeApi,
    plan: edits.Plan,
    before: Mapping[str, str],
    owners: Owners = NONE_GIVEN,
) -> None:
    """Write the files, and read the directory. If one cannot be written, or the node does not accept one, undo all.
    Raises ApiError. `owners`: metadata.managedFields of the objects that change."""
    try:
        edits.execute(plan, node.manifests_dir)
    except ApiError as error:  # a read-only file system, a full disk
        words = f"{plan.outcomes[0].key}: {error}"
        try:
            edits.undo(plan, before, node.manifests_dir)
        except ApiError as failed:
            words = f"{words}; some files are changed already: {failed}"
        raise ApiError("Conflict", words) from error
    await node.rescan(owners)
    files = {entry["file"]: entry for entry in node.manifests()}
    for path in plan.writes:
        errors = files[path]["errors"] if path in files else []
        said = [one["message"] for one in errors if one.get("kind") != "unsupported"]
        if said:
            edits.undo(plan, before, node.manifests_dir)
            await node.rescan()
            key = next(outcome.key for outcome in plan.outcomes if outcome.file == path)
            raise ApiError("Invalid", f'{key.kind} "{key.name}" is invalid: {path}: {"; ".join(said)}')
    note(request, *[f"{o.key.kind.lower()}/{o.key.namespace}/{o.key.name} {o.result}" for o in plan.outcomes])


async def _owned(node: NodeApi, resource: Resource, key: edits.Key, managers: list[Json]) -> Json:
    """Return an object as it is, with its managers. They are recorded here if nothing else of it has changed, or if the
    node has read its file before it was told who wrote it."""
    if read_one(node, resource, key.namespace, key.name) is None:
        await node.rescan({key: managers})  # the old object is gone already, such as a Job that is replaced
    found = _present(node, resource, key)
    uid = found["metadata"].get("uid")
    if entries(found) == managers or node.store.get(*key) is None or uid is None:
        return found
    await node.change_object(uid, lambda doc: with_managers(doc, managers))
    return _present(node, resource, key)


def _present(node: NodeApi, resource: Resource, key: edits.Key) -> Json:
    found = read_one(node, resource, key.namespace, key.name)
    if found is None:  # removed again meanwhile
        raise not_found(_title(resource), key.name)
    return found


def _file_name(key: edits.Key) -> str:
    """Return the name of a new object's file. A long one is shortened, and made unique by a digest: NAME_MAX is 255
    bytes, and the temporary file beside it has a longer name."""
    name = f"{key.kind.lower()}-{key.name}"
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.yaml"


def key_of(doc: Json) -> edits.Key:
    metadata = doc["metadata"]
    return edits.Key(doc["kind"], metadata.get("namespace", ""), metadata["name"])


def _title(resource: Resource) -> str:
    """`pods`, `deployments.apps`."""
    group = resource.group_version.rpartition("/")[0]
    return f"{resource.plural}.{group}" if group else resource.plural

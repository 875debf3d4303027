"""Server-side apply: PATCH with `application/apply-patch+yaml`. The body says what its manager wants of an object, and
nothing else.

What the manager wants is merged into the object, and the difference is an edit of its manifest like that of any other
patch. An object that does not exist is created. Source: apiserver pkg/endpoints/handlers/patch.go (applyPatcher),
apimachinery pkg/util/managedfields; the rules are in kubelite/managed_fields.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kubelite.api.kube.resources import Resource, scale_of
from kubelite.api.kube.writes import writing
from kubelite.api.kube.writes.bodies import data_of, duplicates_in, named
from kubelite.api.kube.writes.field_validation import known_fields, mode_of, undeclared
from kubelite.api.kube.writes.ownership import entries, manager_name, now, tree_of
from kubelite.api.node import NodeApi
from kubelite.api.own.change import source_of_object
from kubelite.api.rbac.authorizer import attributes_of, refused
from kubelite.api.secure.users import user_of
from kubelite.api.warnings import warning_header
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.managed_fields import last_applied
from kubelite.managed_fields.fields import display
from kubelite.managed_fields.managers import (
    MANIFESTS,
    Applied,
    Conflicts,
    Manager,
    Managers,
    Operation,
    applied,
    entries_of,
    owner_of_all,
    recorded_managers,
)
from kubelite.managed_fields.values import Misfit
from kubelite.sources import edits
from kubelite.sources.manifest_part import stripped, with_nodes_part
from kubelite.sources.ownership import with_managers


class _Apply(NamedTuple):
    """What a request asks for. `configuration`: the object that its manager wants, without what only the node sets."""

    resource: Resource
    namespace: str
    name: str
    manager: str
    force: bool
    configuration: Json
    preconditions: Json  # uid, resourceVersion
    subresource: str = ""

    @property
    def by(self) -> Manager:
        return Manager(self.manager, Operation.APPLY, subresource=self.subresource)

    @property
    def goes_on(self) -> bool:
        """Whether kubectl may go on with what it applied from the client's side."""
        return self.manager == last_applied.MANAGER and not self.subresource

    @property
    def title(self) -> str:
        """Return the object as messages of apply name it."""
        return f"{self.namespace}/{self.name}; {self.resource.group_version}, Kind={self.resource.kind}"


async def apply(request: Request, node: NodeApi, resource: Resource, namespace: str, name: str) -> Response:
    wanted = await _wanted(request, resource, namespace if resource.namespaced else "", name)
    async with request.app.state.writes:
        await node.rescan()
        if node.store.get(resource.kind, wanted.namespace, name) is None:
            return await _created(request, node, wanted)
        doc, headers = await _changed(request, node, wanted)
    return JSONResponse(doc, headers=headers)


async def apply_scale(
    request: Request, node: NodeApi, resource: Resource, namespace: str, name: str
) -> Response:
    """Apply the subresource scale: of the object, its number of pods, by a manager of its own."""
    manager, force = _options(request)
    sent = await _sent(request, "autoscaling/v1", "Scale", name)
    spec = sent.get("spec") or {}
    replicas = spec.get("replicas") if isinstance(spec, dict) else ""
    if replicas is not None and (type(replicas) is not int or not 0 <= replicas < 2**31):
        words = "spec.replicas: Invalid value: must be a whole number, not less than 0"
        raise ApiError("Invalid", f'Scale "{name}" is invalid: {words}')
    configuration: Json = {
        "metadata": {},
        **({"spec": {"replicas": replicas}} if replicas is not None else {}),
    }
    pinned = _pinned(sent["metadata"])
    wanted = _Apply(resource, namespace, name, manager, force, configuration, pinned, "scale")
    async with request.app.state.writes:
        await node.rescan()
        if node.store.get(resource.kind, namespace, name) is None:
            raise not_found(resource.plural, name)
        doc, headers = await _changed(request, node, wanted)
    return JSONResponse(scale_of(doc), headers=headers)


async def _changed(request: Request, node: NodeApi, wanted: _Apply) -> tuple[Json, dict[str, str]]:
    before = _known_managers(node, wanted)
    return await writing.changed_by(
        request,
        node,
        wanted.resource,
        (wanted.namespace, wanted.name),
        lambda current: _merged(wanted, current, before),
        owners=lambda _, new, __: entries(new),
    )


def _options(request: Request) -> tuple[str, bool]:
    """Return the manager, and whether it takes what others own. Raises BadRequest, Invalid."""
    given = request.query_params
    if not given.get("fieldManager"):
        raise _invalid("fieldManager: Required value: is required for apply patch")
    if (force := given.get("force", "false")).lower() not in _FORCE:
        raise bad_request(f'force: "{force[:40]}" is neither true nor false')
    return manager_name(request), _FORCE[force.lower()]


async def _sent(request: Request, version: str, kind: str, name: str) -> Json:
    """Return the object in the body, with its name. Raises BadRequest."""
    sent = await data_of(request)
    if not isinstance(sent, dict) or not isinstance(sent.get("metadata"), dict | None):
        raise bad_request("the body is not an object with metadata")
    for key, wanted, words in (
        ("apiVersion", version, "version"),
        ("kind", kind, "kind"),
    ):
        if sent.get(key) != wanted:
            said = f"Specified patch {words}: {sent.get(key) or ''}, expected: {wanted}"
            raise bad_request(f"Incorrect {words} specified in apply patch. {said}")
    metadata = sent.get("metadata") or {}
    if metadata.get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    if (said := metadata.get("name") or name) != name:
        raise bad_request(f"the name of the object ({said}) does not match the name on the URL ({name})")
    return {**sent, "metadata": {**metadata, "name": name}}


def _pinned(metadata: Json) -> Json:
    return {key: metadata[key] for key in ("resourceVersion", "uid") if metadata.get(key)}


async def _wanted(request: Request, resource: Resource, namespace: str, name: str) -> _Apply:
    """Read the request. Raises BadRequest, Invalid."""
    manager, force = _options(request)
    doc = named(await _sent(request, resource.group_version, resource.kind, name), resource, namespace)
    found = _Apply(resource, namespace, name, manager, force, stripped(doc), _pinned(doc["metadata"]))
    if fields := undeclared(found.configuration, resource):
        known_fields(doc, resource, mode_of(request), duplicates_in(request))  # Strict says more
        said = "; ".join(f".{field}: field not declared in schema" for field in fields)
        raise bad_request(f"failed to create typed patch object ({found.title}): {said}")
    return found


_FORCE = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False, "": False}


async def _created(request: Request, node: NodeApi, wanted: _Apply) -> Response:
    """Create the object: the user needs the verb create as well."""
    if wanted.preconditions:
        words = "the object has a uid or resourceVersion, and no existing object was found"
        raise ApiError("Conflict", f'{wanted.resource.plural} "{wanted.name}": {words}')
    user = user_of(request.scope)
    creation = attributes_of(request.scope)._replace(verb="create")
    if user is not None and (error := refused(node.store, user, creation)) is not None:
        raise error
    _, said = known_fields(wanted.configuration, wanted.resource, mode_of(request), duplicates_in(request))
    managers = _applied(wanted, {}, {}).managers
    return await writing.create_in_file(
        request,
        node,
        wanted.resource,
        wanted.configuration,
        warned=warning_header(said),
        owners=lambda _: entries_of(managers),
    )


def _known_managers(node: NodeApi, wanted: _Apply) -> Managers:
    """Return the managers of an object that has none recorded: what its manifest says belongs to the manager
    `kubelite-directory`, defaults to nobody."""
    key = edits.Key(wanted.resource.kind, wanted.namespace, wanted.name)
    record = node.store.get(*key)
    if record is None or record.doc["metadata"].get("managedFields"):
        return {}
    source = source_of_object(node, key)
    chunks = (
        chunk
        for text in edits.read_candidates([source], [key]).values()
        for chunk in edits.split(text, source)
    )
    text = next((chunk.text for chunk in chunks if key in chunk.keys), "")
    by = Manager(MANIFESTS, Operation.UPDATE, wanted.resource.group_version)
    doc = record.doc
    readings: tuple[Callable[[], Json], ...] = (lambda: _with_data(edits.content_of(text)), lambda: doc)
    for said in readings:
        with suppress(Misfit, AttributeError):  # a manifest of an older version, in another form
            return owner_of_all(stripped(said()), tree_of(wanted.resource), by=by, time=now())
    return {}


def _with_data(said: Json) -> Json:
    """Return a Secret's manifest as the node reads it: with `data` in place of `stringData`."""
    if said.get("kind") != "Secret" or not isinstance(said.get("stringData"), dict):
        return said
    rest = {key: value for key, value in said.items() if key != "stringData"}
    return {**rest, "data": {**(said.get("data") or {}), **said["stringData"]}}


def _merged(wanted: _Apply, current: Json, unrecorded: Managers) -> Json:
    """Return an object with what is applied, and its managers. Raises Conflict, BadRequest."""
    managers = recorded_managers(entries(current)) or unrecorded
    live = stripped(current)
    found = _applied(wanted, live, managers)
    value = found.value
    if wanted.goes_on and (said := last_applied.renewed(value, wanted.configuration)):
        value = said
    new = with_nodes_part(value, current)
    new = {**new, "metadata": {**new["metadata"], **wanted.preconditions}}
    return with_managers(new, entries_of(found.managers))


def _applied(wanted: _Apply, live: Json, managers: Managers) -> Applied:
    """Return the object and its managers. Raises Conflict, BadRequest."""

    def once(force: bool) -> Applied:
        return applied(
            managers,
            live,
            wanted.configuration,
            tree_of(wanted.resource),
            by=wanted.by,
            version=wanted.resource.group_version,
            force=force,
            time=now(),
        )

    try:
        try:
            return once(wanted.force)
        except Conflicts as error:
            if not wanted.goes_on:
                raise
            mine = last_applied.fields(live, wanted.resource.group_version, tree_of(wanted.resource))
            if left := [(manager, path) for manager, path in error.found if path not in mine]:
                raise Conflicts(left) from None
            return once(True)
    except Conflicts as error:
        causes = [
            {
                "reason": "FieldManagerConflict",
                "message": f"conflict with {manager.words}",
                "field": display(path),
            }
            for manager, path in error.found
        ]
        raise ApiError("Conflict", str(error), details={"causes": causes}) from error
    except Misfit as error:
        raise bad_request(f"failed to create typed patch object ({wanted.title}): {error}") from error


def _invalid(words: str) -> ApiError:
    return ApiError("Invalid", f"the options of the request are invalid: {words}")

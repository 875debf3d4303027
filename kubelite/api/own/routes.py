"""kubelite's own half of the API, under /kubelite/v1: manifests, why, diff, apply, images, doctor, trace, inspect."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.audit import note, note_violation
from kubelite.api.errors import from_exception, status
from kubelite.api.guard import ARCHIVE
from kubelite.api.kube.routes import node_of
from kubelite.api.node import NodeApi, Progress
from kubelite.api.own.removals import missed, staying
from kubelite.api.stream import Stream
from kubelite.api.warnings import warning_header
from kubelite.kube.errors import ApiError, bad_request, not_found
from kubelite.kube.json import Json
from kubelite.kube.objects import WORKLOADS
from kubelite.kube.pod_security import Level, PodSecurity
from kubelite.sources import edits
from manifests.yaml.helm_hooks import passed_over
from manifests.yaml.object_names import prefix_of, random_name
from runtime.images.store.disk import disk_error

if TYPE_CHECKING:
    from manifests.yaml.loader import Document

#: Limit of progress events that wait for a slow client. Further events are dropped, but never the final answer.
PROGRESS = 4096
MAX_MANIFEST = 10 << 20  # bytes, the same limit as for files in the manifests directory


async def manifests(request: Request) -> Response:
    node = node_of(request)
    return JSONResponse({"directory": node.manifests_dir, "files": node.manifests()})


async def why(request: Request) -> Response:
    namespace, name = request.path_params["namespace"], request.path_params["pod"]
    return _found(await node_of(request).why(namespace, name), name)


async def trace(request: Request) -> Response:
    namespace, name = request.path_params["namespace"], request.path_params["pod"]
    return _found(await node_of(request).trace(namespace, name), name)


def _found(answer: Any, name: str) -> Response:
    if answer is None:
        raise not_found("pods", name)
    return JSONResponse(answer)


async def inspect(request: Request) -> Response:
    ref = request.path_params["ref"]
    answer = await node_of(request).inspect(ref)
    if answer is None:
        raise ApiError("NotFound", f'there is no container, pod or image "{ref}"')
    return JSONResponse(answer)


async def doctor(request: Request) -> Response:
    deep = request.query_params.get("deep") == "true"
    return JSONResponse({"findings": await node_of(request).doctor(deep=deep)})


async def repair(request: Request) -> Response:
    await json_body(request)
    return JSONResponse({"done": await node_of(request).repair()})


async def stats(request: Request) -> Response:
    return JSONResponse(node_of(request).stats())


async def usage(request: Request) -> Response:
    return JSONResponse(await node_of(request).usage())


async def processes(request: Request) -> Response:
    namespace, pod, container = (request.path_params[key] for key in ("namespace", "pod", "container"))
    found = await node_of(request).processes(namespace, pod, container)
    if found is None:
        raise ApiError("NotFound", f'container "{container}" of pod "{pod}" does not run')
    return JSONResponse({"processes": found})


async def healthz(_: Request) -> Response:
    return PlainTextResponse("ok")


async def readyz(request: Request) -> Response:
    ready, sentence = node_of(request).ready()
    return PlainTextResponse(sentence or "ok", 200 if ready else 503)


# -- apply and delete ---------------------------------------------------------------------------------------------


async def _documents(request: Request) -> tuple[str, str, list[edits.Chunk]]:
    """Return the posted text, its file name, and its objects."""
    body = await request.body()
    if len(body) > MAX_MANIFEST:
        raise bad_request(f"the manifest is larger than {MAX_MANIFEST} bytes")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise bad_request(f"the manifest is not UTF-8: {error}") from error
    file = request.query_params.get("file", "-")
    return text, file, edits.single_objects(edits.split(text, file), file)


def _placed(request: Request, chunks: Sequence[edits.Chunk]) -> list[edits.Chunk]:
    """Return the objects in the requested namespace. Raises BadRequest if one names another."""
    namespace = request.query_params.get("namespace", "")
    return [edits.in_namespace(chunk, namespace) for chunk in chunks]


class Validated(NamedTuple):
    """The result of a valid text: its objects as (kind, name), and a sentence for each unsupported document, and for
    each that Helm does not create at an installation."""

    objects: frozenset[tuple[str, str]]
    unsupported: list[str]
    ignored: list[str]


def validated(text: str, file: str) -> Validated:
    """Validate the text. Raises Invalid with every error, each with file, line and field. Documents of unsupported
    kinds are errors only if there are other errors or no other documents."""
    from manifests.yaml.loader import load_text

    loaded = load_text(text, file="<stdin>" if file == "-" else file, place=file)
    unsupported = [str(error) for error in loaded.errors if error.kind == "unsupported"]
    if loaded.errors and (len(unsupported) < len(loaded.errors) or not loaded.documents):
        causes = [{"reason": str(e.kind), "message": str(e), "field": e.field} for e in loaded.errors]
        raise ApiError("Invalid", "\n".join(str(e) for e in loaded.errors), details={"causes": causes})
    ignored = [str(one) for one in loaded.ignored]
    if not loaded.documents:
        raise bad_request("\n".join(("no objects passed to apply", *ignored)))
    return Validated(frozenset((d.kind, d.name) for d in loaded.documents), unsupported, ignored)


def admitted(request: Request, node: NodeApi, applied: list[edits.Chunk]) -> dict[str, str]:
    """Check the pods by Pod Security admission and by the rules of their namespaces, as the node does when it reads
    their file (sources/directory.py), and whether Services can have what they ask for. Return the headers of the
    answer, with the warnings. Raises Forbidden, and Invalid for a Service."""
    from kubelite.sources.admission import refusal
    from kubelite.sources.namespaces import security_labels
    from kubelite.sources.services import refused_services
    from manifests.yaml.loader import load_text

    documents = [one for chunk in applied for one in load_text(chunk.text, file="").documents]
    if said := refusal(documents, node.store, time.time()):
        raise ApiError("Forbidden", said)
    for (_, name), no in refused_services(documents, node.store, node.settings).items():
        words = f'Service "{name}" is invalid: {no.field}: {no.message}'
        causes = [{"reason": "FieldValueInvalid", "message": no.message, "field": no.field}]
        raise ApiError("Invalid", words, details={"name": name, "kind": "Service", "causes": causes})
    security = node.pod_security.declaring(security_labels(documents))
    if security.open:
        return {}
    from kubelite.node.decide.pod_security.admission import audited, forbidden, warning, workload_pod
    from manifests.types.core import Pod

    warnings = [said for one in documents for said in _of_existing_pods(node, one, security)]
    for one in documents:
        if isinstance(one.obj, Pod):
            if said := forbidden(one.obj, security):
                raise ApiError("Forbidden", said)
            pod = one.obj
        elif one.kind in WORKLOADS:
            pod = workload_pod(one.obj.to_json())
        else:
            continue
        if said := audited(pod, security):
            note_violation(request, said)
        if said := warning(pod, security):
            warnings.append(said)
    return warning_header(warnings)


def _of_existing_pods(node: NodeApi, document: Document, security: PodSecurity) -> list[str]:
    """Return warnings about pods that exist, if the document is a Namespace that becomes stricter."""
    if document.kind != "Namespace":
        return []
    from kubelite.node.decide.pod_security.admission import existing
    from manifests.types.core import Pod

    before, after = (rules.levels(document.name).enforce for rules in (node.pod_security, security))
    order = list(Level)
    relaxed = after.minor == before.minor and order.index(after.level) <= order.index(before.level)
    if relaxed or after.level is Level.PRIVILEGED:
        return []
    pods = (Pod.parse(record.doc) for record in node.store.list("Pod", document.name))
    return existing(pods, document.name, after)


async def apply_manifest(request: Request) -> Response:
    node = node_of(request)
    # Validate the text as it was sent, so that errors have the sender's line numbers.
    body = await request.body()
    valid = validated(body.decode(errors="replace"), request.query_params.get("file", "-"))
    _, file, given = await _documents(request)
    applied = [
        chunk
        for chunk in given
        if (chunk.keys[0].kind, chunk.keys[0].name) in valid.objects and not passed_over(chunk.content)
    ]
    create = request.query_params.get("create") == "true"
    applied = _placed(request, [_with_name(chunk, create=create) for chunk in applied])
    headers = admitted(request, node, applied)
    await node.rescan()
    paths = [entry["file"] for entry in node.manifests()]
    keys = [chunk.keys[0] for chunk in applied]
    target = edits.target_path(node.manifests_dir, file, applied, taken=paths)
    plan = edits.plan_apply(edits.read_candidates(paths, keys, also=target), applied, target)
    if create:
        edits.refuse_known(plan)
    said = {"ignored": valid.ignored}
    return await carry_out(request, node, plan, headers, unsupported=valid.unsupported, more=said)


def _with_name(chunk: edits.Chunk, *, create: bool) -> edits.Chunk:
    """Return an object of `generateName` with a random name if it is created. Raises BadRequest if it is applied: which
    object would it be? (kubectl pkg/cmd/apply/apply.go applyOneObject)"""
    if not (prefix := prefix_of(chunk.content)):
        return chunk
    if not create:
        raise bad_request(
            f"from {prefix}: cannot use generate name with apply; `kubelite create -f` creates an object each time"
        )
    return edits.with_name(chunk, random_name(prefix))


async def remove_manifest(request: Request) -> Response:
    node = node_of(request)
    given = [chunk for chunk in (await _documents(request))[2] if not passed_over(chunk.content)]
    if not given:
        raise bad_request("no objects passed to delete")
    if any(prefix_of(chunk.content) for chunk in given):  # client-go rest/request.go
        raise bad_request("resource name may not be empty")
    given = _placed(request, given)
    await node.rescan()
    keys = [chunk.keys[0] for chunk in given]
    paths = [entry["file"] for entry in node.manifests()]
    plan = edits.plan_remove(edits.read_candidates(paths, keys), keys)
    gone = [o.key for o in plan.outcomes if o.result == "deleted"]
    headers = warning_header([*missed(node, gone), *staying(node, gone)])
    return await carry_out(request, node, plan, headers)


async def carry_out(
    request: Request,
    node: NodeApi,
    plan: edits.Plan,
    headers: dict[str, str] | None = None,
    *,
    unsupported: Sequence[str] = (),
    more: Json | None = None,
) -> Response:
    """Make the changes, unless the request is a dry run, and answer with their results. `more`: further fields of the
    answer."""
    if request.query_params.get("dryRun") != "true" and plan.writes:
        edits.execute(plan, node.manifests_dir)
        await node.rescan()
    note(request, *[f"{o.key.kind.lower()}/{o.key.namespace}/{o.key.name} {o.result}" for o in plan.outcomes])
    objects = [
        {
            "kind": o.key.kind,
            "namespace": o.key.namespace,
            "name": o.key.name,
            "result": o.result,
            "file": o.file,
        }
        for o in plan.outcomes
    ]
    answer = {"objects": objects, "unsupported": list(unsupported), **(more or {})}
    return JSONResponse(answer, headers=headers)


async def diff(request: Request) -> Response:
    body = await request.body()
    file = request.query_params.get("file", "-")
    validated(body.decode(errors="replace"), file)
    _, _, given = await _documents(request)
    placed = _placed(request, given)
    text = "".join(c.text if c.text.startswith("---") else f"---\n{c.text.rstrip()}\n" for c in placed)
    node = node_of(request)
    if not file.startswith(f"{node.manifests_dir}/"):  # generated names depend on where the file would be
        file = os.path.join(node.manifests_dir, os.path.basename(file))
    return JSONResponse({"objects": await node.diff(text, file=file)})


# -- images -------------------------------------------------------------------------------------------------------


async def images(request: Request) -> Response:
    return JSONResponse({"images": node_of(request).images()})


async def pull_image(request: Request) -> Response:
    reference = (await json_body(request)).get("reference")
    if not isinstance(reference, str) or not reference:
        raise bad_request('pull needs {"reference": IMAGE}')
    node = node_of(request)
    note(request, f"image {reference}")

    async def pull(progress: Progress) -> list[Json]:
        return [await node.pull(reference, progress)]

    return progress_stream(pull)


async def login(request: Request) -> Response:
    wanted = await json_body(request)
    registry, username, password = (wanted.get(key) for key in ("registry", "username", "password"))
    if not (isinstance(registry, str) and isinstance(username, str) and isinstance(password, str)):
        raise bad_request('login needs {"registry", "username", "password"}, all strings')
    if not registry or not username:
        raise bad_request("login needs a registry and a user name")
    note(request, f"registry {registry} user {username}")
    return JSONResponse(await node_of(request).login(registry, username, password))


async def logout(request: Request) -> Response:
    registry = (await json_body(request)).get("registry")
    if not isinstance(registry, str):
        raise bad_request('logout needs {"registry": HOST}, or "" for all registries')
    note(request, f"registry {registry or 'all'}")
    return JSONResponse({"removed": await node_of(request).logout(registry)})


async def load_image(request: Request) -> Response:
    """Load an archive by path (JSON body), or from the body itself (application/x-tar)."""
    node = node_of(request)
    if request.headers.get("content-type", "").startswith("application/json"):
        path = (await json_body(request)).get("path")
        if not isinstance(path, str) or not os.path.isabs(path):
            raise bad_request('load needs {"path": an absolute path}')
        note(request, f"archive {path}")
        return progress_stream(lambda progress: node.load(path, progress))
    if not request.headers.get("content-type", "").startswith(ARCHIVE):
        raise ApiError(
            "UnsupportedMediaType", f"load needs an archive ({ARCHIVE}) or a path (application/json)"
        )
    spool = node.images_api.spool()
    try:
        await _spooled(request, spool)
    except BaseException:
        spool.close()
        raise

    async def load(progress: Progress) -> list[Json]:
        return await node.load(f"/proc/{os.getpid()}/fd/{spool.fileno()}", progress, shown="standard input")

    return progress_stream(load, on_close=spool.close)


async def _spooled(request: Request, spool: IO[bytes]) -> None:
    """Write the body to a file. If the disk is full, still read the rest of the body: otherwise the sender does not
    receive the error."""
    full: OSError | None = None
    async for chunk in request.stream():
        try:
            if full is None:
                spool.write(chunk)
                spool.flush()
        except OSError as error:
            os.ftruncate(spool.fileno(), 0)
            full = error
    if full is not None:
        raise ApiError("ErrImageLoad", f"cannot load standard input: {disk_error(full)}") from full


async def pack_image(request: Request) -> Response:
    wanted = await json_body(request)
    note(request, f"image {wanted.get('reference') or ''}".rstrip())
    return JSONResponse(await node_of(request).pack(wanted))


async def remove_image(request: Request) -> Response:
    ref = request.path_params["ref"]
    force = request.query_params.get("force") == "true"
    removed = await node_of(request).remove_image(ref, force=force)
    if removed is None:
        raise ApiError("NotFound", f'there is no image "{ref}"')
    return JSONResponse(removed)


async def json_body(request: Request) -> Json:
    try:
        document = json.loads(await request.body())
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise bad_request("the body is not a JSON object")
    return document


def progress_stream(
    work: Callable[[Progress], Awaitable[list[Json]]], *, on_close: Callable[[], None] | None = None
) -> Stream:
    return Stream(_progress_lines(work), media_type="application/x-ndjson", on_close=on_close)


async def _progress_lines(work: Callable[[Progress], Awaitable[list[Json]]]) -> AsyncGenerator[bytes, None]:
    """Yield the work's progress as JSON lines; the last one is {"event": "done", "images"} or {"event": "error",
    "status"}. If the client disconnects, the work is cancelled."""
    queue: asyncio.Queue[Json | None] = asyncio.Queue()

    def tell(event: Json) -> None:
        # Drop the work's own "done" event: the final answer has the images.
        if event.get("event") != "done" and queue.qsize() < PROGRESS:
            queue.put_nowait(event)

    async def run() -> Json:
        try:
            found = await work(tell)
            return {"event": "done", "images": found}
        except Exception as error:  # noqa: BLE001 - sent to the client as the last line of the stream
            return {"event": "error", "status": status(from_exception(error))}
        finally:
            queue.put_nowait(None)

    task = asyncio.create_task(run())
    try:
        while (event := await queue.get()) is not None:
            yield _line(event)
        yield _line(await task)
    finally:
        task.cancel()


def _line(document: Json) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def routes() -> list[BaseRoute]:
    own = "/kubelite/v1"
    return [
        Route("/healthz", healthz),
        Route("/livez", healthz),
        Route("/readyz", readyz),
        Route(f"{own}/manifests", manifests),
        Route(f"{own}/why/{{namespace}}/{{pod}}", why),
        Route(f"{own}/trace/{{namespace}}/{{pod}}", trace),
        Route(f"{own}/inspect/{{ref:path}}", inspect),
        Route(f"{own}/doctor", doctor),
        Route(f"{own}/repair", repair, methods=["POST"]),
        Route(f"{own}/stats", stats),
        Route(f"{own}/usage", usage),
        Route(f"{own}/processes/{{namespace}}/{{pod}}/{{container}}", processes),
        Route(f"{own}/apply", apply_manifest, methods=["POST"]),
        Route(f"{own}/remove", remove_manifest, methods=["POST"]),
        Route(f"{own}/diff", diff, methods=["POST"]),
        Route(f"{own}/login", login, methods=["POST"]),
        Route(f"{own}/logout", logout, methods=["POST"]),
        Route(f"{own}/images", images),
        Route(f"{own}/images/pull", pull_image, methods=["POST"]),
        Route(f"{own}/images/load", load_image, methods=["POST"]),
        Route(f"{own}/images/pack", pack_image, methods=["POST"]),
        Route(f"{own}/images/{{ref:path}}", remove_image, methods=["DELETE"]),
    ]

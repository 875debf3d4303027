"""History, under /kubelite/v1: a pod's history, the revisions of manifests, and the rollback to a revision."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.audit import note
from kubelite.api.kube.routes import node_of, number_of
from kubelite.api.own.routes import json_body
from kubelite.kube.errors import bad_request
from kubelite.kube.objects import WORKLOADS
from kubelite.kube.times import parse_time, rfc3339


async def history(request: Request) -> Response:
    """Return the history of a pod, or with ?kind of a workload."""
    node = node_of(request)
    kind = request.query_params.get("kind", "Pod")
    if kind != "Pod" and kind not in WORKLOADS:
        raise bad_request(f"history is only kept for pods and workloads, not for kind {kind!r}")
    await node.events_settled()
    since = request.query_params.get("since", "")
    answer = await node.history.of_object(
        request.path_params["namespace"],
        request.path_params["pod"],
        kind=kind,
        since=moment(since, "since") if since else 0.0,
        limit=number_of(request, "limit", least=1),
    )
    return JSONResponse(answer)


def moment(text: str, name: str) -> float:
    """Return the Unix seconds of an RFC 3339 time. Raises BadRequest."""
    found = parse_time(text)
    if found is None:
        raise bad_request(f"{name} {text!r} is not an RFC 3339 time")
    return found


async def revisions(request: Request) -> Response:
    """Return the revisions of an object's manifest (?kind, namespace, name) or of a ?file; with ?revision, only that
    one, with its text."""
    wanted = number_of(request, "revision", least=1)
    file, found = await node_of(request).history.revisions(dict(request.query_params))
    if wanted is not None and wanted not in [revision.number for revision in found]:
        raise bad_request(f"{file}: there is no revision {wanted}")
    return JSONResponse(
        {
            "file": file,
            "revisions": [
                {
                    "revision": revision.number,
                    "time": rfc3339(revision.at),
                    "bytes": len(revision.text.encode()),
                    **({"text": revision.text} if revision.number == wanted else {}),
                }
                for revision in found
                if wanted in (None, revision.number)
            ],
        }
    )


async def roll_back(request: Request) -> Response:
    wanted = await json_body(request)
    number = wanted.pop("toRevision", None)
    if number is not None and (not isinstance(number, int) or number < 1):
        raise bad_request(f"toRevision must be the number of a revision, not {number!r}")
    dry_run = bool(wanted.pop("dryRun", False))
    note(
        request,
        " ".join(str(wanted[key]) for key in ("file", "kind", "namespace", "name") if wanted.get(key)),
    )
    return JSONResponse(await node_of(request).history.roll_back(wanted, number=number, dry_run=dry_run))


def routes() -> list[BaseRoute]:
    own = "/kubelite/v1"
    return [
        Route(f"{own}/history/{{namespace}}/{{pod}}", history),
        Route(f"{own}/revisions", revisions),
        Route(f"{own}/rollback", roll_back, methods=["POST"]),
    ]

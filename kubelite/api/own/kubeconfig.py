"""/kubelite/v1/kubeconfig: opens the API's TLS port and issues a client certificate (`kubelite kubeconfig`)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from kubelite.api.audit import note
from kubelite.api.kube.routes import node_of
from kubelite.api.own.routes import json_body
from kubelite.kube.errors import bad_request

LONGEST = 64  # characters of a name in a certificate (RFC 5280, ub-common-name and ub-organization-name)


async def kubeconfig(request: Request) -> Response:
    """Body: {"user", "groups": […], "seconds"}. Answer: {"server": URL, "authority", "certificate", "key"}, PEM.
    The body {} opens no port, and is answered with the first two."""
    wanted = await json_body(request)
    if wanted == {}:
        return JSONResponse(await node_of(request).kube_authority())
    user, groups, seconds = wanted.get("user"), wanted.get("groups"), wanted.get("seconds")
    if not _is_name(user) or not isinstance(groups, list) or not all(map(_is_name, groups)):
        raise bad_request(
            f'kubeconfig needs {{"user", "groups": […], "seconds"}}; a name has 1 to {LONGEST} characters'
        )
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 600 <= seconds <= 10 * 366 * 86400
    ):
        raise bad_request("a certificate is valid for 10 minutes at least and for 10 years at most")
    note(request, f"certificate of {user} in the groups {', '.join(groups) or 'none'}")
    return JSONResponse(await node_of(request).kubeconfig(str(user), groups, float(seconds)))


def _is_name(given: object) -> bool:
    return isinstance(given, str) and 0 < len(given) <= LONGEST and given.isprintable()


def routes() -> list[BaseRoute]:
    return [Route("/kubelite/v1/kubeconfig", kubeconfig, methods=["POST"])]

"""`…/pods/NAME/exec`, `attach` and `portforward` of the API."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute

from kubelite.api.kube.logs import pick_container
from kubelite.api.kube.routes import pod_of
from kubelite.api.kube.streams.commands import Commands, Names, port_forwards
from kubelite.kube.json import Json


def _target(connection: HTTPConnection) -> tuple[Json, str]:
    pod = pod_of(connection)
    return pod, pick_container(pod, connection.query_params.get("container", ""))


def routes() -> list[BaseRoute]:
    pod = "/api/v1/namespaces/{namespace}/pods/{name}"
    commands = Commands(_target, Names("stdin", "stdout", "stderr"))
    return [
        *commands.routes(f"{pod}/exec", f"{pod}/attach"),
        *port_forwards(f"{pod}/portforward", pod_of, "ports"),
    ]

"""`kubelite create ingress`: write the manifest of an Ingress, with kubectl's flags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.create.documents import filled, named
from kubelite.cli.create.writing import dry_run_option, output_option, write
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.options import client, namespace_option, socket_option

if TYPE_CHECKING:
    from kubelite.kube.json import Json

# kubectl pkg/cmd/create/create_ingress.go: regexRule
_RULE = re.compile(
    r"(?P<host>[\w*.-]*)(?P<path>/[^=]*)?=(?P<service>[\w-]+):(?P<port>[\w-]+)(?P<tls>,tls(=(?P<secret>[\w.-]*))?)?",
    re.ASCII,
)
_BACKEND = re.compile(r"(?P<service>[\w-]+):(?P<port>[\w-]+)", re.ASCII)


@click.command(
    cls=Command,
    examples="""
    # Route all requests for a host to a service
    kubelite create ingress web --rule="web.example/*=web:80"

    # Use a certificate
    kubelite create ingress web --rule="web.example/*=web:80,tls=web-tls"

    # Route one path to another service
    kubelite create ingress web --rule="a.example/*=web:80" --rule="a.example/api*=api:http"

    # Route all requests that no rule matches to a service
    kubelite create ingress rest --default-backend=web:80
    """,
)
@click.argument("name")
@click.option(
    "--rule", "rules", multiple=True, metavar="HOST/PATH=SERVICE:PORT[,tls[=SECRET]]",
    help="Rule; repeatable. A path that ends in * is a prefix.",
)  # fmt: skip
@click.option("--default-backend", metavar="SERVICE:PORT", help="Service for requests that no rule matches.")
@click.option("--class", "class_name", metavar="NAME", help="Class of the ingress.")
@click.option(
    "--annotation", "annotations", multiple=True, metavar="KEY=VALUE", help="Annotation; repeatable."
)
@namespace_option
@dry_run_option
@output_option
@socket_option
@click.pass_context
def ingress(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create an ingress.

    At least one --rule or a --default-backend is required.
    """
    document = ingress_document(name, options)
    write(client(ctx), document, dry_run=options["dry_run"], output=options["output"])


def ingress_document(name: str, options: Json) -> Json:
    """Return the Ingress of `kubelite create ingress`. Raises CliError. Pure."""
    if not options["rules"] and not options["default_backend"]:
        raise CliError("error: not enough information provided: every ingress has to either specify a "
                       "default-backend (which catches all traffic) or a list of rules", code=2)  # fmt: skip
    document = named("Ingress", name, options["namespace"])
    document["apiVersion"] = "networking.k8s.io/v1"
    if options["annotations"]:
        document["metadata"]["annotations"] = dict(_annotation(text) for text in options["annotations"])
    spec: Json = {"ingressClassName": options["class_name"] or ""}
    if text := options["default_backend"]:
        if (found := _BACKEND.fullmatch(text)) is None:
            raise CliError("error: default-backend should be in format servicename:serviceport", code=2)
        spec["defaultBackend"] = _backend(found)
    rules, tls = _rules(options["rules"])
    document["spec"] = filled({**spec, "rules": rules, "tls": tls})
    return document


def _annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise CliError(f"error: {text} is an invalid format: use KEY=VALUE", code=2)
    return key, value


def _rules(given: Iterable[str]) -> tuple[list[Json], list[Json]]:
    """Parse rules. Those of one host are together, as kubectl writes them."""
    paths: dict[str, list[Json]] = {}
    tls: dict[str, list[str]] = {}
    for text in given:
        found = _RULE.fullmatch(text)
        if found is None:
            form = "host/path=svcname:svcport[,tls[=secret]]"
            raise CliError(f"error: rule {text} is invalid and should be in format {form}", code=2)
        host, path = found["host"], found["path"] or ""
        kind = "Prefix" if path.endswith("*") else "Exact"
        entry: Json = {"path": path.removesuffix("*") or "/", "pathType": kind, "backend": _backend(found)}
        paths.setdefault(host, []).append(entry)
        if found["tls"]:
            hosts = tls.setdefault(found["secret"] or "", [])
            hosts += [host] if host and host not in hosts else []
    rules = [filled({"host": host, "http": {"paths": found}}) for host, found in paths.items()]
    return rules, [filled({"hosts": hosts, "secretName": secret}) for secret, hosts in tls.items()]


def _backend(found: re.Match[str]) -> Json:
    port = found["port"]
    own: Json = {"number": int(port)} if port.isdecimal() else {"name": port}
    return {"service": {"name": found["service"], "port": own}}

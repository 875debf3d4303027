"""`kubelite create` of roles, bindings, ServiceAccounts and tokens, with kubectl's flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kubelite.cli.create import access_documents as documents
from kubelite.cli.create.documents import pairs_of
from kubelite.cli.create.writing import dry_run_option, output_option, write
from kubelite.cli.errors import CliError
from kubelite.cli.groups import Command
from kubelite.cli.names import path_of, resource_type
from kubelite.cli.options import client, namespace_option, socket_option

F = TypeVar("F", bound=Callable[..., Any])
_name = click.argument("name")


def _options(*options: Callable[[Any], Any], namespaced: bool = True) -> Callable[[F], F]:
    def add(command: F) -> F:
        common = (*options, *((namespace_option,) if namespaced else ()), dry_run_option, output_option)
        for option in reversed((_name, *common, socket_option)):
            command = option(command)
        return click.pass_context(command)  # type: ignore[return-value]

    return add


_verb = click.option("--verb", multiple=True, metavar="VERB,...", help="What is allowed; repeatable.")
_resource = click.option(
    "--resource",
    multiple=True,
    metavar="TYPE[.GROUP][/SUB],...",
    help="Resources that it is allowed with; repeatable.",
)
_resource_name = click.option(
    "--resource-name", multiple=True, metavar="NAME", help="Only objects of this name; repeatable."
)
_clusterrole = click.option("--clusterrole", default="", metavar="NAME", help="ClusterRole to bind.")
_subjects = (
    click.option("--user", multiple=True, metavar="NAME", help="User to bind it to; repeatable."),
    click.option("--group", multiple=True, metavar="NAME", help="Group to bind it to; repeatable."),
    click.option(
        "--serviceaccount",
        multiple=True,
        metavar="NAMESPACE:NAME",
        help="ServiceAccount to bind it to; repeatable.",
    ),
)


def _write(ctx: click.Context, document: dict[str, Any], options: dict[str, Any]) -> None:
    write(client(ctx), document, dry_run=options["dry_run"], output=options["output"])


@click.command(
    "role",
    cls=Command,
    examples="""
    # Allow to read the pods of a namespace, and their logs
    kubelite create role pod-reader --verb=get,list,watch --resource=pods,pods/log -n prod

    # Allow to scale one deployment
    kubelite create role scale --verb=update --resource=deployments.apps/scale --resource-name=web
    """,
)
@_options(_verb, _resource, _resource_name)
def role(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a Role.

    `kubelite create rolebinding` gives it to users.
    """
    rules = documents.rules(options["verb"], options["resource"], options["resource_name"])
    _write(ctx, documents.role(name, options["namespace"], rules), options)


@click.command(
    "clusterrole",
    cls=Command,
    examples="""
    # Allow to read the pods of all namespaces
    kubelite create clusterrole pod-reader --verb=get,list,watch --resource=pods

    # Allow to read the metrics of the node
    kubelite create clusterrole scrape --verb=get --non-resource-url=/metrics

    # Join all ClusterRoles with a label
    kubelite create clusterrole monitoring --aggregation-rule="example.com/monitoring=true"
    """,
)
@_options(
    _verb,
    _resource,
    _resource_name,
    click.option(
        "--non-resource-url", multiple=True, metavar="PATH,...", help="Path of the API, which may end in *."
    ),
    click.option(
        "--aggregation-rule", default="", metavar="KEY=VALUE,...", help="Labels of ClusterRoles to join."
    ),
    namespaced=False,
)
def clusterrole(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a ClusterRole."""
    given = [options[word] for word in ("verb", "resource", "resource_name", "non_resource_url")]
    labels = pairs_of(options["aggregation_rule"], "aggregation rule")
    if labels and any(given):
        raise CliError("error: --aggregation-rule cannot be combined with rules", code=2)
    rules = [] if labels else documents.rules(*given, cluster=True)
    _write(ctx, documents.cluster_role(name, rules, labels), options)


@click.command(
    "rolebinding",
    cls=Command,
    examples="""
    # Let two users and a group administer a namespace
    kubelite create rolebinding admin --clusterrole=admin --user=ann --user=bo --group=ops -n prod

    # Let a pod's ServiceAccount do what a Role allows
    kubelite create rolebinding read-pods --role=pod-reader --serviceaccount=prod:robot -n prod
    """,
)
@_options(_clusterrole, click.option("--role", default="", metavar="NAME", help="Role to bind."), *_subjects)
def rolebinding(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Bind a Role or ClusterRole to users in a namespace."""
    if bool(options["role"]) == bool(options["clusterrole"]):
        raise CliError("error: exactly one of --clusterrole and --role is required", code=2)
    kind = "Role" if options["role"] else "ClusterRole"
    given = documents.subjects(options["user"], options["group"], options["serviceaccount"])
    role_name = options["role"] or options["clusterrole"]
    _write(ctx, documents.binding(name, options["namespace"], kind, role_name, given), options)


@click.command(
    "clusterrolebinding",
    cls=Command,
    examples="""
    # Let a group read everything except Secrets
    kubelite create clusterrolebinding viewers --clusterrole=view --group=staff
    """,
)
@_options(_clusterrole, *_subjects, namespaced=False)
def clusterrolebinding(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Bind a ClusterRole to users in all namespaces."""
    if not options["clusterrole"]:
        raise CliError("error: --clusterrole is required", code=2)
    given = documents.subjects(options["user"], options["group"], options["serviceaccount"])
    _write(ctx, documents.cluster_binding(name, options["clusterrole"], given), options)


@click.command(
    "serviceaccount",
    cls=Command,
    examples="""
    # Create a ServiceAccount for pods that use the API
    kubelite create serviceaccount robot -n prod
    """,
)
@_options()
def serviceaccount(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a ServiceAccount."""
    _write(ctx, documents.service_account(name, options["namespace"]), options)


@click.command(
    "token",
    cls=Command,
    examples="""
    # Print a token of a ServiceAccount for an hour
    kubelite create token robot -n prod

    # Print one for ten minutes that another service accepts
    kubelite create token robot --duration=10m --audience=https://example.com

    # Print one that ends with a pod
    kubelite create token robot --bound-object-kind=Pod --bound-object-name=web
    """,
)
@_name
@click.option("--audience", multiple=True, metavar="TEXT", help="Service that the token is for; repeatable.")
@click.option(
    "--duration", default="", metavar="DURATION", help="Life of the token, at least 10m. [default: 1h]"
)
@click.option(
    "--bound-object-kind",
    default="",
    type=click.Choice(["", "Pod", "Secret", "Node"]),
    metavar="KIND",
    help="Kind of the object with which the token ends: Pod, Secret or Node.",
)
@click.option("--bound-object-name", default="", metavar="NAME", help="Name of that object.")
@click.option("--bound-object-uid", default="", metavar="UID", help="Uid of that object.")
@namespace_option
@socket_option
@click.pass_context
def token(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Print a new token of a ServiceAccount.

    The API accepts it on its TLS port.
    """
    place = path_of(resource_type("serviceaccounts"), options["namespace"] or "default", name)
    print(client(ctx).post(f"{place}/token", documents.token_request(options))["status"]["token"])

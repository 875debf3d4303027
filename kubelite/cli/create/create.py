"""`kubelite create`: write new objects to the manifest directory, from files, or from flags as kubectl does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from kubelite.cli.create import access, documents, ingress, services, workloads
from kubelite.cli.create.key_values import read_bytes, read_values
from kubelite.cli.create.writing import create as create_objects
from kubelite.cli.create.writing import dry_run_option, output_option, write
from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.groups import Group
from kubelite.cli.names import qualified
from kubelite.cli.objects.manifest_files import kustomize_option, read_manifests, say_unsupported
from kubelite.cli.options import client, files_option, namespace_option, recursive_option, socket_option

F = TypeVar("F", bound=Callable[..., Any])

_BY_HAND = "kubectl has no generator either: `kubelite explain pvc.spec` describes the fields of a manifest"
_INSTEAD = {
    "pod": "use `kubelite run IMAGE`",
    "pvc": _BY_HAND,
    "persistentvolumeclaim": _BY_HAND,
}


@click.group(
    cls=Group,
    instead=_INSTEAD,
    invoke_without_command=True,
    examples="""
    # Create the objects of a manifest file
    kubelite create -f web.yaml

    # Create what an overlay of kustomize makes
    kubelite create -k overlays/production

    # Create a ConfigMap and a Secret
    kubelite create configmap app --from-file=app.conf --from-literal=level=info
    kubelite create secret generic db --from-literal=password=s3cret

    # Create a deployment
    kubelite create deployment web --image=nginx --replicas=3

    # Print a manifest instead
    kubelite create configmap app --from-file=conf.d --dry-run=client -o yaml >app.yaml
    """,
)
@files_option
@kustomize_option
@recursive_option
@namespace_option
@dry_run_option
@socket_option
@click.pass_context
def create(
    ctx: click.Context,
    /,
    *,
    files: tuple[str, ...],
    kustomize: str,
    recursive: bool,
    namespace: str | None,
    dry_run: str,
) -> None:
    """Create objects from files or from flags.

    Like `kubelite apply`, but an object that a manifest already has is an error, and changes nothing.
    """
    if ctx.invoked_subcommand:
        return
    if not files and not kustomize:
        raise CliError(ctx.get_help(), code=2)
    failed = False
    for file, text in read_manifests(files, recursive, "create", kustomize):
        try:
            found = create_objects(client(ctx), text, namespace or "", dry_run=dry_run, file=file)
        except ServerError as error:
            click.echo(error, err=True)
            failed = True
            continue
        failed |= say_unsupported(found)
        for entry in found["objects"]:
            suffix = "" if dry_run == "none" else " (dry run)"
            print(f"{qualified(entry['kind'])}/{entry['name']} created{suffix}")
    if failed:
        raise Exit(1)


def _common(command: F) -> F:
    """Add the options that all generators of namespaced objects have."""
    for option in (socket_option, output_option, dry_run_option, namespace_option):
        command = option(command)
    return command


def _values(command: F) -> F:
    """Add kubectl's options for keys and values."""
    for words, help_text, shown in (
        ("--from-env-file", "Add each line NAME=VALUE of a file.", "PATH"),
        ("--from-literal", "Add a key with this value.", "KEY=VALUE"),
        ("--from-file", "Add a file under its name or under KEY, or each file of a directory.", "[KEY=]PATH"),
    ):
        command = click.option(words, multiple=True, metavar=shown, help=help_text, type=click.Path())(
            command
        )
    return command


def _read(options: dict[str, Any], owner: str) -> dict[str, bytes]:
    given = (options["from_file"], options["from_literal"], options["from_env_file"])
    return read_values(*given, os.environ, owner=owner)


@create.command(
    "configmap",
    examples="""
    # Create a ConfigMap with a key for each file of a directory
    kubelite create configmap app --from-file=conf.d

    # Create a ConfigMap from values, and one from the lines of an env file
    kubelite create configmap app --from-literal=level=info --from-literal=color=red
    kubelite create configmap app --from-env-file=app.env
    """,
)
@click.argument("name")
@_values
@_common
@click.pass_context
def configmap(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a ConfigMap from files or values.

    A value that is not UTF-8 becomes an entry of binaryData.
    """
    document = documents.config_map(name, options["namespace"], _read(options, f'ConfigMap "{name}"'))
    write(client(ctx), document, dry_run=options["dry_run"], output=options["output"])


create.add_command(configmap, "cm")


@create.group(
    "secret",
    cls=Group,
    examples="""
    # Create a Secret from values
    kubelite create secret generic db --from-literal=user=app --from-literal=password=s3cret

    # Create a Secret with a certificate and its key
    kubelite create secret tls web --cert=tls.crt --key=tls.key
    """,
)
def secret() -> None:
    """Create a Secret from files or values."""


@secret.command(
    "generic",
    examples="""
    # Create a Secret from values
    kubelite create secret generic db --from-literal=user=app --from-literal=password=s3cret

    # Create a Secret from a file
    kubelite create secret generic tools --from-file=key.pem --type=example.com/key
    """,
)
@click.argument("name")
@_values
@click.option("--type", "kind", default="", metavar="TYPE", help="Type of the Secret. [default: Opaque]")
@_common
@click.pass_context
def generic(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a Secret from files or values.

    Values that are given on the command line are visible to other users in the list of processes; files are not.
    """
    values = _read(options, f'Secret "{name}"')
    document = documents.secret(name, options["namespace"], values, options["kind"])
    write(client(ctx), document, dry_run=options["dry_run"], output=options["output"])


@secret.command(
    "tls",
    examples="""
    # Create a Secret with a certificate and its key
    kubelite create secret tls web --cert=tls.crt --key=tls.key
    """,
)
@click.argument("name")
@click.option("--cert", required=True, type=click.Path(), metavar="PATH", help="Certificate, in PEM.")
@click.option("--key", required=True, type=click.Path(), metavar="PATH", help="Private key, in PEM.")
@_common
@click.pass_context
def tls(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a Secret with a certificate and its key.

    The key must belong to the certificate.
    """
    values = {"tls.crt": read_bytes(options["cert"]), "tls.key": read_bytes(options["key"])}
    _check_pair(options["cert"], options["key"])
    document = documents.secret(name, options["namespace"], values, "kubernetes.io/tls")
    write(client(ctx), document, dry_run=options["dry_run"], output=options["output"])


def _check_pair(cert: str, key: str) -> None:
    """Raise CliError unless the key belongs to the certificate and needs no password."""
    import ssl

    def password() -> str:
        raise CliError(f"error: {key} is encrypted: a Secret needs a key without a password")

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        raise CliError(
            f"error: {cert} and {key} are not a certificate and its key: {error.reason or error}"
        ) from error


@secret.command(
    "docker-registry",
    examples="""
    # Create a Secret for imagePullSecrets
    kubelite create secret docker-registry pull --docker-username=me --docker-password=s3cret

    # Create it from a file that docker login or podman login wrote
    kubelite create secret docker-registry pull --from-file=.dockerconfigjson=config.json
    """,
)
@click.argument("name")
@click.option(
    "--docker-server",
    default="https://index.docker.io/v1/",
    show_default=True,
    metavar="REGISTRY",
    help="Registry.",
)
@click.option("--docker-username", default="", metavar="NAME", help="Name of the user.")
@click.option("--docker-password", default="", metavar="TEXT", help="Password of the user.")
@click.option(
    "--docker-email", default="", metavar="ADDRESS", help="E-mail address, which registries ignore."
)
@click.option(
    "--from-file",
    multiple=True,
    type=click.Path(),
    metavar="[.dockerconfigjson=]PATH",
    help="File with the logins, instead of the other options.",
)
@_common
@click.pass_context
def docker_registry(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a Secret with the login of a registry.

    A pod names it in imagePullSecrets.
    """
    key = ".dockerconfigjson"
    if options["from_file"]:
        found = read_values(options["from_file"], (), (), os.environ, owner=f'Secret "{name}"')
        if len(found) != 1:
            raise CliError(f"error: --from-file must name one file with logins, not {len(found)}", code=2)
        (login,) = found.values()
        values = {key: login}
    elif not options["docker_username"] or not options["docker_password"]:
        raise CliError(
            "error: either --from-file or both --docker-username and --docker-password are required", code=2
        )
    else:
        given = (options[f"docker_{word}"] for word in ("server", "username", "password", "email"))
        values = {key: documents.docker_config(*given)}
    document = documents.secret(name, options["namespace"], values, "kubernetes.io/dockerconfigjson")
    write(client(ctx), document, dry_run=options["dry_run"], output=options["output"])


@create.command(
    "priorityclass",
    examples="""
    # Create a class for pods that others make room for
    kubelite create priorityclass high --value=1000 --description="high priority"
    """,
)
@click.argument("name")
@click.option("--value", type=int, default=0, show_default=True, metavar="N", help="Priority.")
@click.option("--global-default", is_flag=True, help="Pods without a class get this one.")
@click.option("--description", default="", metavar="TEXT", help="When the class should be used.")
@click.option(
    "--preemption-policy",
    type=click.Choice(["PreemptLowerPriority", "Never"]),
    default="PreemptLowerPriority",
    show_default=True,
    metavar="PreemptLowerPriority|Never",
    help="Whether its pods end pods of lower priority.",
)
@dry_run_option
@output_option
@socket_option
@click.pass_context
def priorityclass(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a PriorityClass."""
    document = documents.priority_class(name, options)
    write(client(ctx), document, dry_run=options["dry_run"], output=options["output"])


create.add_command(priorityclass, "pc")


@create.command(
    "namespace",
    examples="""
    # Create a namespace
    kubelite create namespace prod

    # Print its manifest, to add labels for Pod Security
    kubelite create namespace prod --dry-run=client -o yaml
    """,
)
@click.argument("name")
@dry_run_option
@output_option
@socket_option
@click.pass_context
def namespace(ctx: click.Context, name: str, dry_run: str, output: str) -> None:
    """Create a namespace.

    A namespace that no manifest defines exists while an object is in it.
    """
    write(client(ctx), documents.namespace_object(name), dry_run=dry_run, output=output)


create.add_command(namespace, "ns")


@create.command(
    "quota",
    examples="""
    # Limit what the objects of the namespace use together
    kubelite create quota compute --hard=requests.cpu=2,requests.memory=1Gi,pods=10

    # Limit the pods without requests and limits
    kubelite create quota best-effort --hard=pods=100 --scopes=BestEffort
    """,
)
@click.argument("name")
@click.option("--hard", default="", metavar="RESOURCE=QUANTITY,...", help="Hard limits.")
@click.option(
    "--scopes", default="", metavar="SCOPE,...", help="Scopes that all must match an object that is counted."
)
@_common
@click.pass_context
def quota(ctx: click.Context, /, name: str, **options: Any) -> None:
    """Create a ResourceQuota."""
    document = documents.quota(name, options["namespace"], options["hard"], options["scopes"])
    write(client(ctx), document, dry_run=options["dry_run"], output=options["output"])


create.add_command(quota, "resourcequota")
for _command in (
    access.role,
    access.clusterrole,
    access.rolebinding,
    access.clusterrolebinding,
    access.serviceaccount,
    access.token,
):
    create.add_command(_command)
create.add_command(access.serviceaccount, "sa")
create.add_command(ingress.ingress)
create.add_command(ingress.ingress, "ing")
create.add_command(services.service)
create.add_command(services.service, "svc")
create.add_command(workloads.deployment)
create.add_command(workloads.deployment, "deploy")
create.add_command(workloads.job)
create.add_command(workloads.cronjob)
create.add_command(workloads.cronjob, "cj")
create.add_command(workloads.poddisruptionbudget)
create.add_command(workloads.poddisruptionbudget, "pdb")

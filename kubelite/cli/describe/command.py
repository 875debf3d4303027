"""`kubelite describe`: show an object's details, with its events at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from kubelite.cli.errors import CliError, Exit, ServerError
from kubelite.cli.groups import Command
from kubelite.cli.names import PODS, SERVICES, WORKLOADS, Type, path_of, resource_type, wanted
from kubelite.cli.objects.manifest_files import objects_of_files
from kubelite.cli.options import (
    all_namespaces_option,
    client,
    complete_types,
    files_option,
    namespace_option,
    recursive_option,
    selector_option,
    socket_option,
)
from kubelite.cli.output.foreign import harmless
from kubelite.cli.transport.client import Client

if TYPE_CHECKING:
    from kubelite.kube.json import Json

_POLICIES = ("limitranges", "resourcequotas")


@click.command(
    cls=Command,
    examples="""
    # Describe a pod
    kubelite describe pod web

    # Describe all pods whose names begin with web
    kubelite describe pods web

    # Describe the node
    kubelite describe node

    # Describe all volumes and their claims
    kubelite describe pvc,pv

    # Describe the objects of a manifest file
    kubelite describe -f web.yaml
    """,
)
@click.argument("what", nargs=-1, metavar="TYPE [NAME...] | TYPE/NAME...", shell_complete=complete_types)
@namespace_option
@all_namespaces_option
@selector_option
@files_option
@recursive_option
@click.option(
    "--show-events/--no-show-events", default=True, help="Show the events of the object. [default: show]"
)
@socket_option
@click.pass_context
def describe(ctx: click.Context, /, what: tuple[str, ...], **options: Any) -> None:
    """Show details of objects and their events.

    If no object is named NAME, all objects whose names begin with NAME are described.
    """
    if what and options["files"]:
        raise CliError("error: name objects, or files with -f, not both", code=2)
    describer = _Describer(client(ctx), options)
    if options["files"]:
        namespace = options["namespace"] or ""
        found = objects_of_files(
            describer.server, options["files"], options["recursive"], namespace, "describe"
        )
        for kind, where, name in found:
            describer.named(kind, where, name)
    for query in wanted(what) if what or not options["files"] else ():
        describer.query(query.type, query.names)
    describer.finish()


class _Describer:
    def __init__(self, server: Client, options: Json) -> None:
        self.server, self.options, self.now = server, options, time.time()
        self.namespace = None if options["all_namespaces"] else options["namespace"] or "default"
        self.namespaced = False
        self.failed = self.shown = False

    def query(self, kind: Type, names: tuple[str, ...]) -> None:
        if kind.plural == "manifests":
            raise CliError("error: manifests are files: `kubelite get manifests` shows their errors")
        self.namespaced = self.namespaced or kind.namespaced
        if names and kind.namespaced and self.namespace is None:
            raise CliError("error: a resource cannot be retrieved by name across all namespaces", code=2)
        for name in names:
            self.named(kind, self.namespace, name)
        for doc in self._listed(kind, self.namespace) if not names else ():
            self._print(kind, doc)

    def named(self, kind: Type, namespace: str | None, name: str) -> None:
        """Describe the object, or those whose names start with the given name. Report if there is none."""
        try:
            self._print(kind, self.server.get(path_of(kind, namespace, name)))
        except ServerError as error:
            if error.reason != "NotFound":
                raise
            found = [d for d in self._listed(kind, namespace) if d["metadata"]["name"].startswith(name)]
            for doc in found:
                self._print(kind, doc)
            if not found:
                print(error, file=sys.stderr)
                self.failed = True

    def finish(self) -> None:
        if not self.shown and not self.failed:
            where = f" in {self.namespace} namespace." if self.namespaced and self.namespace else ""
            print(f"No resources found{where}", file=sys.stderr)
        if self.failed:
            raise Exit(1)

    def _listed(self, kind: Type, namespace: str | None) -> list[Json]:
        query = {"labelSelector": self.options["selector"]} if self.options["selector"] else None
        return list(self.server.get(path_of(kind, namespace), query=query)["items"])

    def _print(self, kind: Type, doc: Json) -> None:
        text = ("\n\n" if self.shown else "") + self._described(kind, doc)
        sys.stdout.write(harmless(text))
        self.shown = True

    def _described(self, kind: Type, doc: Json) -> str:
        events = self._events(doc) if self.options["show_events"] else None
        if kind is PODS:
            from kubelite.cli.describe.pod import describe_pod

            return describe_pod(doc, events, self.now)
        if kind.plural == "nodes":
            from kubelite.cli.describe.node import describe_node

            selector = f"spec.nodeName={doc['metadata']['name']},status.phase!=Succeeded,status.phase!=Failed"
            placed = self.server.get("/api/v1/pods", query={"fieldSelector": selector})["items"]
            return describe_node(doc, placed, events, self.now)
        if kind in WORKLOADS:
            from kubelite.cli.describe.workloads import describe_workload
            from kubelite.cli.workloads.owned import owned_by

            return describe_workload(doc, owned_by(self.server, doc), events, self.now)
        if kind is SERVICES:
            from kubelite.cli.describe.services import describe_service
            from kubelite.cli.diagnosis.why_service import slices_of

            return describe_service(doc, slices_of(self.server, doc), events, self.now)
        if kind.plural in ("endpoints", "endpointslices"):
            from kubelite.cli.describe.services import describe_endpoints, describe_slice

            describe_one = describe_endpoints if kind.plural == "endpoints" else describe_slice
            return describe_one(doc, events, self.now)
        if kind.plural in ("ingresses", "ingressclasses"):
            return self._ingress(kind, doc, events)
        from kubelite.cli.describe.objects import DESCRIBERS, describe_any, describe_claim

        if kind.plural == "persistentvolumeclaims":
            return describe_claim(doc, events, self.now, self._users(doc["metadata"]))
        if kind.plural in _POLICIES:
            from kubelite.cli.describe import policies

            limits = kind.plural == "limitranges"
            describe_policy = policies.describe_limit_range if limits else policies.describe_quota
            return describe_policy(doc, events, self.now)
        if kind.plural == "networkpolicies":
            from kubelite.cli.describe.network_policies import describe_network_policy

            return describe_network_policy(doc, events, self.now)
        if kind.plural == "horizontalpodautoscalers":
            from kubelite.cli.describe.autoscaler import describe_autoscaler

            return describe_autoscaler(doc, events, self.now)
        text = DESCRIBERS.get(kind.plural, describe_any)(doc, events, self.now)
        return text + self._policies(doc["metadata"]["name"]) if kind.plural == "namespaces" else text

    def _ingress(self, kind: Type, doc: Json, events: list[Json] | None) -> str:
        from kubelite.cli.describe.ingress import describe_class, describe_ingress
        from kubelite.cli.diagnosis.why_ingress import endpoints_text

        if kind.plural == "ingressclasses":
            return describe_class(doc, events, self.now)
        namespace = doc["metadata"]["namespace"]
        return describe_ingress(
            doc, lambda service: endpoints_text(self.server, namespace, service), events, self.now
        )

    def _policies(self, namespace: str) -> str:
        """Return what `describe namespace` shows of the quotas and limits in it."""
        from kubelite.cli.describe.parts import tabbed
        from kubelite.cli.describe.policies import limits_of_namespace, quotas_of_namespace

        quotas, ranges = (
            self.server.get(path_of(resource_type(kind), namespace))["items"]
            for kind in ("resourcequotas", "limitranges")
        )
        return tabbed(["", *quotas_of_namespace(quotas), "", *limits_of_namespace(ranges)])

    def _users(self, claim: Json) -> list[str]:
        """Return the names of the pods that use a claim: through their volumes, or as an ephemeral volume's claim."""
        pods = self.server.get(path_of(PODS, claim["namespace"]))["items"]
        owners = {o["uid"] for o in claim.get("ownerReferences") or () if o["kind"] == "Pod"}
        return [
            pod["metadata"]["name"]
            for pod in pods
            if pod["metadata"]["uid"] in owners or claim["name"] in _claims(pod["spec"])
        ]

    def _events(self, doc: Json) -> list[Json]:
        metadata = doc["metadata"]
        about = {"name": metadata["name"], "kind": doc["kind"], "uid": metadata.get("uid", "")}
        if metadata.get("namespace"):
            about["namespace"] = metadata["namespace"]
        selector = ",".join(f"involvedObject.{field}={value}" for field, value in about.items())
        events: list[Json] = self.server.get("/api/v1/events", query={"fieldSelector": selector})["items"]
        return events


def _claims(spec: Json) -> Iterator[str]:
    for volume in spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield claim["claimName"]

"""Which pods and workloads the arguments of `kubelite rollout` select: files, objects, and all workloads of a type."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kubelite.cli.errors import CliError
from kubelite.cli.names import PODS, WORKLOADS, path_of, resource_type
from kubelite.cli.workloads.rollout_states import ROLLED_OUT

if TYPE_CHECKING:
    from kubelite.cli.transport.client import Client
    from kubelite.cli.workloads.changing import Target
    from kubelite.kube.json import Json

_IN_MANIFESTS = ("Pod", "ConfigMap", "Secret")
#: what the command does → the kinds of a file that it works on; the others are left out
_DONE_TO = {"restarting": ROLLED_OUT, "waiting for": ROLLED_OUT}


class Pod(NamedTuple):
    namespace: str
    name: str


def selected(
    server: Client, manifests: Sequence[str], namespace: str | None, doing: str
) -> tuple[list[Pod], list[Target]]:
    """Return the selected pods and workloads. Raises CliError for any other object."""
    pods: list[Pod] = []
    targets: list[Target] = []
    files: list[Json] = server.get("/kubelite/v1/manifests")["files"]
    if (every := _all_of_a_type(server, manifests, namespace, files)) is not None:
        return [], every
    for reference in [_reference(one, namespace) for one in _typed(manifests)]:
        if "file" in reference:
            found, others = _in_file(server, reference["file"], files, doing)
            pods += found
            targets += others
        elif target := workload(server, reference):
            targets.append(target)
        elif reference["kind"] != "Pod":
            plural = resource_type(reference["kind"]).plural
            raise CliError(
                f'error: {plural} "{reference["name"]}" {doing} is not supported: only pods and workloads run'
            )
        else:
            pods.append(_known(server, Pod(reference["namespace"], reference["name"]), files))
    return list(dict.fromkeys(pods)), targets


def only(manifest: Sequence[str], namespace: str | None) -> Json:
    """Return the reference of the only object or file that is named: `web.yaml`, `deployment/web`, `deployment web`.
    Raises CliError."""
    found = _typed(manifest)
    if len(found) != 1:
        raise CliError("error: name one file or one object", code=2)
    return _reference(found[0], namespace)


def workload(server: Client, reference: Json) -> Target | None:
    """Return the workload of a reference with a kind; None for a file, or another kind."""
    kind = resource_type(reference["kind"]) if "kind" in reference else None
    if kind is None or kind not in WORKLOADS:
        return None
    from kubelite.cli.workloads.changing import Target

    return Target(kind, server.get(path_of(kind, reference["namespace"], reference["name"])))


def _all_of_a_type(
    server: Client, manifests: Sequence[str], namespace: str | None, files: list[Json]
) -> list[Target] | None:
    """Return the workloads of `deployments`, a type without a name, as kubectl does; None for other arguments. A pod
    may have that name: then it is the pod."""
    if len(manifests) != 1 or "/" in manifests[0] or not _is_type(manifests[0]):
        return None
    kind, where = resource_type(manifests[0]), namespace or "default"
    if kind not in WORKLOADS or any(f"pod/{where}/{manifests[0]}" in file["objects"] for file in files):
        return None
    from kubelite.cli.workloads.changing import Target

    items: list[Json] = server.get(path_of(kind, where))["items"]
    if not items:
        print(f"No resources found in {where} namespace.", file=sys.stderr)
    return [Target(kind, doc) for doc in items]


def _known(server: Client, pod: Pod, files: list[Json]) -> Pod:
    """Return the pod. Raises NotFound if neither a manifest nor the node has it."""
    if not any(f"pod/{pod.namespace}/{pod.name}" in file["objects"] for file in files):
        server.get(path_of(PODS, *pod))
    return pod


def _in_file(server: Client, name: str, files: list[Json], doing: str) -> tuple[list[Pod], list[Target]]:
    """Return the pods and workloads of a manifest file. A kind that the command does not work on is left out, which is
    said on stderr. Raises CliError if nothing is left."""
    file = next((f for f in files if f["file"] == name or f["file"].endswith(f"/{name}")), None)
    if file is None:
        raise CliError(f"error: {name} is not a manifest of this node: `kubelite get manifests` lists them")
    for problem in file["errors"]:
        where = ":".join(str(part) for part in (file["file"], problem["line"]) if part)
        field = f"{problem['field']}: " if problem["field"] else ""
        print(f"Warning: {where}: {field}{problem['message']}", file=sys.stderr)
    parts = [entry.split("/") for entry in file["objects"]]
    pods = [Pod(part[1], part[2]) for part in parts if len(part) == 3 and part[0] == "pod"]
    others = [part for part in parts if len(part) == 3 and part[0] in {kind.singular for kind in WORKLOADS}]
    if not pods and not others:
        raise CliError(f"error: {file['file']} has no pods")
    targets: list[Target] = []
    for word, namespace, called in others:
        kind = resource_type(word)
        if kind.kind not in _DONE_TO.get(doing, (kind.kind,)):
            print(
                f"{kind.qualified}/{called} has no rollout, it is left out{_instead(kind.kind, called)}",
                file=sys.stderr,
            )
            continue
        reference = {"kind": kind.kind, "namespace": namespace, "name": called}
        if target := workload(server, reference):
            targets.append(target)
    if not pods and not targets:
        raise CliError(f"error: {file['file']} has nothing that is rolled out")
    return pods, targets


def _instead(kind: str, name: str) -> str:
    return f": `kubelite wait --for=condition=Complete job/{name}` waits for it" if kind == "Job" else ""


def _typed(manifests: Sequence[str]) -> list[str]:
    """Accept `pod web db` as `pod/web pod/db`, as kubectl does."""
    first, *names = manifests
    if not names or "/" in first or first.endswith((".yaml", ".yml", ".json")) or not _is_type(first):
        return list(manifests)
    return [f"{first}/{name}" for name in names]


def _is_type(word: str) -> bool:
    try:
        resource_type(word)
    except CliError:
        return False
    return True


def _reference(manifest: str, namespace: str | None) -> Json:
    """Parse `web.yaml` or an absolute path as a file; `pod/web` or `cm/app` as an object."""
    if manifest.endswith((".yaml", ".yml", ".json")) or manifest.startswith("/"):
        return {"file": manifest}
    kind, slash, name = manifest.partition("/")
    if not slash:
        kind, name = "pod", manifest
    found = resource_type(kind)
    if found.kind not in _IN_MANIFESTS and found not in WORKLOADS:
        raise CliError(f"error: {found.plural} are not defined in manifests", code=2)
    return {"kind": found.kind, "namespace": namespace or "default", "name": name}

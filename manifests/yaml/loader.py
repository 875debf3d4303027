"""Loads a manifest file: typed, defaulted, validated objects, and every error with file, line and field path.

An invalid document does not hide the valid ones, and all errors of a document are reported at once; the caller decides
what to do about them. `List` kinds are expanded. A kind that Kubernetes has but this node does not run is an error of
kind "unsupported", for that document only.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from manifests.problems import Path, Problem, did_you_mean, field_path, required
from manifests.types.core import ConfigMap, PersistentVolumeClaim, Pod, Secret
from manifests.types.kinds import KNOWN_KINDS, api_versions_of, of_api_server
from manifests.types.meta import Object
from manifests.types.persistent_volume import PersistentVolume, StorageClass
from manifests.types.priority import PriorityClass
from manifests.types.trust_bundle import ClusterTrustBundle
from manifests.types.workloads.kinds import Kinds
from manifests.validation.checking import check
from manifests.yaml.document import SyntaxProblem, YamlDocument, read_documents
from manifests.yaml.helm_hooks import FIELD, passed_over
from manifests.yaml.object_names import GeneratedNames, objects_in

MAX_FILE = 10 << 20  # bytes, as in kubelet
SUFFIXES = (".yaml", ".yml", ".json")
KINDS = Kinds(
    {
        ("v1", "Pod"): Pod,
        ("v1", "ConfigMap"): ConfigMap,
        ("v1", "Secret"): Secret,
        ("v1", "PersistentVolumeClaim"): PersistentVolumeClaim,
        ("v1", "PersistentVolume"): PersistentVolume,
        ("storage.k8s.io/v1", "StorageClass"): StorageClass,
        ("scheduling.k8s.io/v1", "PriorityClass"): PriorityClass,
        ("certificates.k8s.io/v1beta1", "ClusterTrustBundle"): ClusterTrustBundle,
    },
    "LimitRange",
    "ResourceQuota",
    "NetworkPolicy",
    "ReplicationController",
    "ReplicaSet",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "PodDisruptionBudget",
    "HorizontalPodAutoscaler",
    "Service",
    "Endpoints",
    "EndpointSlice",
    "Ingress",
    "IngressClass",
    "Namespace",
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
)


#: Kinds without which the rest of a file runs: one of an API version that is no longer served is ignored.
_NOT_NEEDED = frozenset({"PodDisruptionBudget"})
_PSS = "pod-security.kubernetes.io/enforce: baseline or restricted"
_KUSTOMIZATION = (
    "a kustomization is not applied itself: keep it outside the manifest directory, and `kubelite apply -k DIR` writes "
    "the objects that it makes"
)


class ErrorKind(StrEnum):
    SYNTAX = "syntax"
    INVALID = "invalid"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class ManifestError:
    """An error. `str()` is the whole line for a person: `web.yaml:7: spec.containers[0].imagee: unknown field, …`"""

    file: str
    line: int
    field: str
    message: str
    kind: ErrorKind = ErrorKind.INVALID
    column: int | None = None
    object: str = ""  # "Pod default/web" if known

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.field}: {self.message}" if self.field else f"{where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Document:
    """One valid object. `obj` has its defaults, `line` is its first line in the file, and `namespace` is "" for a kind
    without namespaces."""

    kind: str
    api_version: str
    namespace: str
    name: str
    obj: Object
    line: int
    file: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


@dataclass(frozen=True, slots=True)
class Loaded:
    """`ignored`: documents that have no meaning here, which is no error."""

    documents: tuple[Document, ...]
    errors: tuple[ManifestError, ...]
    ignored: tuple[ManifestError, ...] = ()


@dataclass(frozen=True, slots=True)
class _Source:
    """A decoded object and its origin. `prefix` is its path inside the YAML document, for items of a List."""

    file: str
    document: YamlDocument
    data: Any
    prefix: Path = ()

    def error(self, problem: Problem, kind: ErrorKind = ErrorKind.INVALID) -> ManifestError:
        path = (*self.prefix, *problem.path)
        line, column = self.document.locate(path)
        return ManifestError(
            self.file, line, field_path(path), problem.message, kind, column=column, object=_title(self.data)
        )


def load_file(path: str | os.PathLike[str], *, file: str | None = None) -> Loaded:
    """Read and load a file. Errors name it `file` (default: the path). Raises OSError if it cannot be read."""
    name = file or os.fspath(path)
    with open(path, "rb") as handle:
        raw = handle.read(MAX_FILE + 1)
    if len(raw) > MAX_FILE:
        return _failed(name, f"larger than {MAX_FILE >> 20} MiB")
    try:
        return load_text(raw.decode("utf-8-sig"), file=name)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return _failed(name, f"not UTF-8 text (byte 0x{raw[error.start]:02x})", line=line)


def load_text(text: str, *, file: str, place: str = "") -> Loaded:
    """Load the text of a file, which errors name `file`. Raises nothing: all errors are in the result. `place`: the
    path on which generated names depend (default: `file`)."""
    if len(text) > MAX_FILE:
        return _failed(file, f"larger than {MAX_FILE >> 20} MiB")
    documents: dict[tuple[str, str, str], Document] = {}
    errors: list[ManifestError] = []
    ignored: list[ManifestError] = []
    names = GeneratedNames(place or file)
    for read in read_documents(text):
        if isinstance(read, SyntaxProblem):
            errors.append(ManifestError(file, read.line, "", str(read), ErrorKind.SYNTAX, column=read.column))
            continue
        for path, data in objects_in(read.data):
            source = _Source(file, read, names.named(data), path)
            if (problem := _ignored(source.data)) is not None:
                ignored.append(source.error(problem, ErrorKind.UNSUPPORTED))
                continue
            loaded = _load_object(source)
            if isinstance(loaded, list):
                errors += loaded
            elif (first := documents.setdefault(loaded.key, loaded)) is not loaded:
                sentence = f"{_title(source.data)} is already defined on line {first.line} of this file"
                errors.append(source.error(Problem(("metadata", "name"), sentence)))
    return Loaded(tuple(documents.values()), tuple(errors), tuple(ignored))


def _failed(file: str, message: str, line: int = 0) -> Loaded:
    return Loaded((), (ManifestError(file, line, "", message, ErrorKind.SYNTAX),))


def _ignored(data: Any) -> Problem | None:
    """Return why an object has no meaning here: Helm would not create it when it installs its chart (`helm_hooks`), or
    it configures an API server. None for all others."""
    if said := passed_over(data):
        return Problem(FIELD, said)
    if isinstance(data, dict) and (said := of_api_server(str(data.get("apiVersion")), str(data.get("kind")))):
        return Problem(("kind",), said)
    return None


def _load_object(source: _Source) -> Document | list[ManifestError]:
    kind_of = _type_of(source)
    if isinstance(kind_of, ManifestError):
        return [kind_of, *_duplicate_keys(source)]
    obj, problems = check(kind_of, source.data)
    errors = _duplicate_keys(source) + [source.error(problem) for problem in problems]
    if obj is None or errors:
        return _sorted(errors)
    line, _ = source.document.locate(source.prefix)
    meta = obj.metadata
    return Document(
        obj.kind,
        obj.api_version,
        (meta.namespace or "default") if obj.namespaced else "",
        meta.name or "",
        obj,
        line=line,
        file=source.file,
    )


def _type_of(source: _Source) -> type[Object] | ManifestError:
    data = source.data
    if not isinstance(data, dict):
        return source.error(
            Problem((), "must be a Kubernetes object (a map with apiVersion, kind and metadata)")
        )
    if _is_kustomization(source.file, data):
        return source.error(Problem((), _KUSTOMIZATION), ErrorKind.UNSUPPORTED)
    for name in ("kind", "apiVersion"):
        value = data.get(name)
        if value in (None, ""):
            return source.error(required((name,)))
        if not isinstance(value, str):
            return source.error(Problem((name,), "must be a string"))
    version, kind = data["apiVersion"], data["kind"]
    if kind == "List":
        return source.error(Problem(("items",), "must be a list"))
    found = KINDS.get((version, kind))
    return found if found is not None else _other_kind(source, version, kind)


def _is_kustomization(file: str, data: dict[str, Any]) -> bool:
    """Whether a document is a kustomization. Its kind and version may be left out in a file of that name."""
    if "kind" in data or "apiVersion" in data:
        group = str(data.get("apiVersion", "kustomize.config.k8s.io/")).partition("/")[0]
        return group == "kustomize.config.k8s.io" and data.get("kind") in (None, "Kustomization", "Component")
    return os.path.basename(file) in ("kustomization.yaml", "kustomization.yml")


def _other_kind(source: _Source, version: str, kind: str) -> ManifestError:
    ours = [ours for ours, name in KINDS if name == kind]
    if ours:
        sentence = f'{kind} is served in "{ours[0]}", not in "{version}"'
        if kind in _NOT_NEEDED and version in api_versions_of(kind):
            ignored = Problem(("apiVersion",), f"{sentence}: this document is ignored")
            return source.error(ignored, ErrorKind.UNSUPPORTED)
        return source.error(Problem(("apiVersion",), sentence))
    versions = api_versions_of(kind)
    if kind == "PodSecurityPolicy":
        sentence = (
            "Kubernetes 1.25 removed PodSecurityPolicy, this document is ignored: label the namespace instead"
        )
        return source.error(Problem(("kind",), f"{sentence} ({_PSS})"), ErrorKind.UNSUPPORTED)
    if version in versions:
        sentence = f"kubelite does not run {kind} objects yet: this document is ignored"
        return source.error(Problem(("kind",), sentence), ErrorKind.UNSUPPORTED)
    if versions:
        sentence = (
            f'no kind "{kind}" in "{version}": it is served in "{versions[-1]}"; kubelite does not run it yet'
        )
        return source.error(Problem(("apiVersion",), sentence), ErrorKind.UNSUPPORTED)
    if version != "v1" and "." in version.partition("/")[0]:
        sentence = f"{version} {kind} is not one of Kubernetes' own kinds: custom resources are not supported"
        return source.error(Problem(("kind",), sentence), ErrorKind.UNSUPPORTED)
    names = [*(name for _, name in KINDS), *KNOWN_KINDS]
    return source.error(Problem(("kind",), f'no kind "{kind}" in "{version}"{did_you_mean(kind, names)}'))


def _duplicate_keys(source: _Source) -> list[ManifestError]:
    """Return duplicate keys inside this object only; the document may be a List of several."""
    return [
        ManifestError(source.file, line, field_path(path), sentence, object=_title(source.data))
        for path, line, sentence in source.document.problems
        if path[: len(source.prefix)] == source.prefix
    ]


def _sorted(errors: list[ManifestError]) -> list[ManifestError]:
    return sorted(errors, key=lambda error: error.line)


def _title(data: Any) -> str:
    """Write `Pod default/web`, or as much of it as is known."""
    if not isinstance(data, dict) or not isinstance(data.get("kind"), str):
        return ""
    meta = data.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    name = meta.get("name") or meta.get("generateName") or "?"
    found = KINDS.get((str(data.get("apiVersion")), data["kind"]))
    if found is not None and not found.namespaced:
        return f"{data['kind']} {name}"
    return f"{data['kind']} {meta.get('namespace') or 'default'}/{name}"

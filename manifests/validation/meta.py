"""Rules of metadata, which all kinds share (apimachinery's pkg/api/validation/objectmeta.go, Kubernetes 1.36)."""

import re
from collections.abc import Iterator

from manifests.names import Format, dns_label, dns_subdomain, qualified_name
from manifests.problems import Path, Problem, forbidden, invalid, required
from manifests.types.meta import ObjectMeta
from manifests.validation.pod import validate_labels
from manifests.validation.rules import formatted

MAX_ANNOTATIONS = 256 << 10
#: An API server generates uids. One from a manifest becomes part of paths (as in kubelet), so it must be a valid name.
_UID = re.compile(r"[A-Za-z0-9]([-.A-Za-z0-9]{0,61}[A-Za-z0-9])?")


def validate_meta(
    meta: ObjectMeta, *, namespaced: bool = True, name: Format = dns_subdomain
) -> Iterator[Problem]:
    """Check name, namespace, labels, annotations and owners (ValidateObjectMetaAccessor), and the uid."""
    path: Path = ("metadata",)
    # The prefix may end in "-", because a suffix is appended. A name that was generated from a wrong one is wrong, too.
    prefix = (meta.generate_name or "").removesuffix("-")
    wrong = list(formatted((*path, "generateName"), prefix, name)) if meta.generate_name else []
    yield from wrong
    if meta.name and not wrong:
        yield from formatted((*path, "name"), meta.name, name)
    elif not meta.name and not meta.generate_name:
        yield required((*path, "name"), "name or generateName is required")
    if meta.namespace and not namespaced:
        yield forbidden((*path, "namespace"), "not allowed on this type")
    elif meta.namespace:
        yield from formatted((*path, "namespace"), meta.namespace, dns_label)
    if meta.uid and not _UID.fullmatch(meta.uid):
        yield invalid((*path, "uid"), meta.uid, "must be letters, digits, '-' and '.', at most 63 of them")
    yield from validate_labels(meta.labels, (*path, "labels"))
    yield from validate_annotation_keys(meta.annotations, (*path, "annotations"))
    yield from _owners(meta, (*path, "ownerReferences"))


def validate_annotation_keys(annotations: dict[str, str], path: Path) -> Iterator[Problem]:
    """Check the keys of annotations and their total size (ValidateAnnotations)."""
    for key in annotations:
        for sentence in qualified_name(key.lower()):
            yield invalid((*path, key), key, sentence)
    size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
    if size > MAX_ANNOTATIONS:
        yield Problem(path, f"Too long: may not be more than {MAX_ANNOTATIONS} bytes")


def _owners(meta: ObjectMeta, path: Path) -> Iterator[Problem]:
    controllers = 0
    for index, owner in enumerate(meta.owner_references):
        given = {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
        for alias, value in given.items():
            if not value:
                yield invalid((*path, index, alias), value, "must not be empty")
        controllers += bool(owner.controller)
    if controllers > 1:
        yield invalid(path, controllers, "Only one reference can have Controller set to true")

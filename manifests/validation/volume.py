"""The API server's checks of a volume, after defaulting (pkg/apis/core/validation, Kubernetes 1.36)."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from manifests.names import dns_label, file_mode, no_backsteps, projected_path
from manifests.problems import Path, Problem, duplicate, forbidden, invalid, required
from manifests.types.core import (
    ConfigMapVolumeSource,
    DownwardAPIVolumeFile,
    DownwardAPIVolumeSource,
    EmptyDirVolumeSource,
    EphemeralVolumeSource,
    HostPathVolumeSource,
    ImageVolumeSource,
    KeyToPath,
    NFSVolumeSource,
    PersistentVolumeClaimVolumeSource,
    ProjectedVolumeSource,
    Quantity,
    SecretVolumeSource,
    Volume,
    VolumeProjection,
)
from manifests.types.meta import ObjectMeta
from manifests.validation.claim import claim_spec_problems
from manifests.validation.rules import formatted, one_of, required_name, resource_field

_HOST_PATH_TYPES = (
    "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice",
)  # fmt: skip
_DOWNWARD_FIELDS = (
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
)
_MIN_TOKEN_SECONDS = 600


def validate_volumes(volumes: Sequence[Volume], path: Path) -> Iterator[Problem]:
    """Check the volumes' names, and the one source of each (ValidateVolumes)."""
    seen: set[str] = set()
    for index, volume in enumerate(volumes):
        here = (*path, index)
        yield from required_name((*here, "name"), volume.name, dns_label)
        if volume.name and volume.name in seen:
            yield duplicate((*here, "name"), volume.name)
        seen.add(volume.name)
        yield from _volume(volume, here)


def _volume(volume: Volume, path: Path) -> Iterator[Problem]:
    sources = volume.sources()
    for alias in sources[1:]:
        yield forbidden((*path, alias), "may not specify more than 1 volume type")
    if not sources:
        yield required(path, "must specify a volume type")
        return
    for attribute, check in _CHECKS.items():
        source = getattr(volume, attribute)
        if source is not None:
            yield from check(source, (*path, Volume.model_fields[attribute].alias or attribute))


def volume_source(source: HostPathVolumeSource | NFSVolumeSource, path: Path) -> Iterator[Problem]:
    """Check a PersistentVolume's source that pods' volumes can have too."""
    yield from _host_path(source, path) if isinstance(source, HostPathVolumeSource) else _nfs(source, path)


def _host_path(source: HostPathVolumeSource, path: Path) -> Iterator[Problem]:
    if not source.path:
        yield required((*path, "path"))
    yield from formatted((*path, "path"), source.path, no_backsteps)
    yield from one_of((*path, "type"), source.type, _HOST_PATH_TYPES)


def _empty_dir(source: EmptyDirVolumeSource, path: Path) -> Iterator[Problem]:
    if source.size_limit is not None and source.size_limit < Quantity(0):
        yield forbidden((*path, "sizeLimit"), "SizeLimit field must be a valid resource quantity")


def _config_map(source: ConfigMapVolumeSource, path: Path) -> Iterator[Problem]:
    if not source.name:
        yield required((*path, "name"))
    yield from _mode(source.default_mode, (*path, "defaultMode"))
    yield from _items(source.items, (*path, "items"))


def _secret(source: SecretVolumeSource, path: Path) -> Iterator[Problem]:
    if not source.secret_name:
        yield required((*path, "secretName"))
    yield from _mode(source.default_mode, (*path, "defaultMode"))
    yield from _items(source.items, (*path, "items"))


def _downward(source: DownwardAPIVolumeSource, path: Path) -> Iterator[Problem]:
    yield from _mode(source.default_mode, (*path, "defaultMode"))
    for index, item in enumerate(source.items):
        yield from _downward_item(item, (*path, "items", index))


def _downward_item(item: DownwardAPIVolumeFile, path: Path) -> Iterator[Problem]:
    if not item.path:
        yield required((*path, "path"))
    yield from formatted((*path, "path"), item.path, projected_path)
    yield from _mode(item.mode, (*path, "mode"))
    if item.field_ref is not None:
        field = item.field_ref.field_path
        if not field.startswith(("metadata.labels['", "metadata.annotations['")):
            yield from one_of((*path, "fieldRef", "fieldPath"), field, _DOWNWARD_FIELDS)
        if item.resource_field_ref is not None:
            yield invalid(
                path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"
            )
    elif item.resource_field_ref is None:
        yield required(path, "one of fieldRef and resourceFieldRef is required")
    elif not item.resource_field_ref.container_name:
        yield required((*path, "resourceFieldRef", "containerName"))
    else:
        yield from resource_field((*path, "resourceFieldRef"), item.resource_field_ref)


def _mode(mode: int | None, path: Path) -> Iterator[Problem]:
    for sentence in file_mode(mode) if mode is not None else ():
        yield invalid(path, mode, sentence)


def _items(items: Sequence[KeyToPath], path: Path) -> Iterator[Problem]:
    for index, item in enumerate(items):
        here = (*path, index)
        if not item.key:
            yield required((*here, "key"))
        if not item.path:
            yield required((*here, "path"))
        yield from formatted((*here, "path"), item.path, projected_path)
        yield from _mode(item.mode, (*here, "mode"))


def _projected(source: ProjectedVolumeSource, path: Path) -> Iterator[Problem]:
    yield from _mode(source.default_mode, (*path, "defaultMode"))
    taken: set[str] = set()
    for index, projection in enumerate(source.sources):
        here = (*path, "sources", index)
        yield from _projection(projection, here)
        for alias, file in _files(projection):
            if file in taken:
                yield invalid((*here, alias, "path"), file, "conflicting duplicate paths")
            taken.add(file)


def _projection(projection: VolumeProjection, path: Path) -> Iterator[Problem]:
    given = [
        field.alias or name
        for name, field in VolumeProjection.model_fields.items()
        if getattr(projection, name) is not None
    ]
    if not given:
        yield required(path, "must specify a projection type")
    for alias in given[1:]:
        yield forbidden((*path, alias), "may not specify more than 1 volume type")
    for alias, source in (("configMap", projection.config_map), ("secret", projection.secret)):
        if source is not None:
            if not source.name:
                yield required((*path, alias, "name"))
            yield from _items(source.items, (*path, alias, "items"))
    if projection.downward_api is not None:
        for index, item in enumerate(projection.downward_api.items):
            yield from _downward_item(item, (*path, "downwardAPI", "items", index))
    token = projection.service_account_token
    if token is not None:
        here = (*path, "serviceAccountToken")
        if not token.path:
            yield required((*here, "path"))
        yield from formatted((*here, "path"), token.path, projected_path)
        if token.expiration_seconds is not None and token.expiration_seconds < _MIN_TOKEN_SECONDS:
            sentence = "may not specify a duration less than 10 minutes"
            yield invalid((*here, "expirationSeconds"), token.expiration_seconds, sentence)


def _files(projection: VolumeProjection) -> Iterator[tuple[str, str]]:
    """Yield (field, path) of every file that a projection names."""
    for alias, source in (
        ("configMap", projection.config_map),
        ("secret", projection.secret),
        ("downwardAPI", projection.downward_api),
    ):
        for item in source.items if source is not None else ():
            yield alias, item.path
    if projection.service_account_token is not None:
        yield "serviceAccountToken", projection.service_account_token.path
    if projection.cluster_trust_bundle is not None:
        yield "clusterTrustBundle", projection.cluster_trust_bundle.path


def _claim(source: PersistentVolumeClaimVolumeSource, path: Path) -> Iterator[Problem]:
    if not source.claim_name:
        yield required((*path, "claimName"))


def _ephemeral(source: EphemeralVolumeSource, path: Path) -> Iterator[Problem]:
    """Check a claim template, whose metadata has labels and annotations only (validateEphemeralVolumeSource)."""
    template, here = source.volume_claim_template, (*path, "volumeClaimTemplate")
    if template is None:
        yield required(here)
        return
    metadata = template.metadata
    for name in sorted(metadata.model_fields_set - {"labels", "annotations"}) if metadata is not None else ():
        if getattr(metadata, name) not in (None, "", [], {}):
            alias = ObjectMeta.model_fields[name].alias or name
            yield forbidden((*here, "metadata", alias), "this field may not be used")
    yield from claim_spec_problems(template.spec, (*here, "spec"))


def _image(source: ImageVolumeSource, path: Path) -> Iterator[Problem]:
    if not source.reference:
        yield required((*path, "reference"))
    yield from one_of((*path, "pullPolicy"), source.pull_policy, ("Always", "IfNotPresent", "Never"))


def _nfs(source: NFSVolumeSource, path: Path) -> Iterator[Problem]:
    if not source.server:
        yield required((*path, "server"))
    if not source.path:
        yield required((*path, "path"))
    elif not source.path.startswith("/"):
        yield invalid((*path, "path"), source.path, "must be an absolute path")


_CHECKS: dict[str, Callable[[Any, Path], Iterator[Problem]]] = {
    "host_path": _host_path,
    "empty_dir": _empty_dir,
    "config_map": _config_map,
    "secret": _secret,
    "downward_api": _downward,
    "projected": _projected,
    "persistent_volume_claim": _claim,
    "ephemeral": _ephemeral,
    "image": _image,
    "nfs": _nfs,
}

"""Rules of PersistentVolumes and StorageClasses (Kubernetes pkg/apis/core/validation, pkg/apis/storage/validation)."""

from collections.abc import Iterator

from manifests.names import dns_subdomain, qualified_name
from manifests.problems import Path, Problem, forbidden, invalid, not_supported, required
from manifests.types.persistent_volume import PersistentVolume, PersistentVolumeSpec, StorageClass
from manifests.validation.claim import ACCESS_MODES
from manifests.validation.pod import validate_node_selector
from manifests.validation.rules import formatted, one_of
from manifests.validation.volume import volume_source

POLICIES = ("Delete", "Recycle", "Retain")
_MAX_PARAMETERS, _MAX_PARAMETERS_BYTES = 512, 256 << 10


def persistent_volume_problems(volume: PersistentVolume) -> Iterator[Problem]:
    spec = volume.spec
    path: Path = ("spec",)
    if not spec.access_modes:
        yield required((*path, "accessModes"))
    for index, mode in enumerate(spec.access_modes):
        yield from one_of((*path, "accessModes", index), mode, ACCESS_MODES)
    if "ReadWriteOncePod" in spec.access_modes and len(spec.access_modes) > 1:
        yield forbidden((*path, "accessModes"), "may not use ReadWriteOncePod with other access modes")
    yield from _capacity(spec, (*path, "capacity"))
    yield from one_of(
        (*path, "persistentVolumeReclaimPolicy"), spec.persistent_volume_reclaim_policy, POLICIES
    )
    if spec.storage_class_name:
        yield from formatted((*path, "storageClassName"), spec.storage_class_name, dns_subdomain)
    yield from one_of((*path, "volumeMode"), spec.volume_mode, ("Block", "Filesystem"))
    yield from _source(spec, path)
    if spec.claim_ref is not None:
        for alias, value in (("name", spec.claim_ref.name), ("namespace", spec.claim_ref.namespace)):
            if not value:
                yield required((*path, "claimRef", alias))


def _capacity(spec: PersistentVolumeSpec, path: Path) -> Iterator[Problem]:
    if not spec.capacity:
        yield required(path)
    elif len(spec.capacity) > 1 or "storage" not in spec.capacity:
        yield not_supported(path, ",".join(sorted(spec.capacity)), ("storage",))
    elif spec.capacity["storage"].nanos <= 0:
        yield invalid((*path, "storage"), str(spec.capacity["storage"]), "must be greater than zero")


def _source(spec: PersistentVolumeSpec, path: Path) -> Iterator[Problem]:
    given = spec.sources()
    if not given:
        yield required(path, "must specify a volume type")
    for alias in given[1:]:
        yield forbidden((*path, alias), "may not specify more than 1 volume type")
    for alias, source in (("hostPath", spec.host_path), ("nfs", spec.nfs)):
        if source is not None:
            yield from volume_source(source, (*path, alias))
    recycled = spec.host_path is not None and spec.persistent_volume_reclaim_policy == "Recycle"
    if recycled and spec.host_path is not None and not spec.host_path.path.strip("/"):
        words = "may not be 'recycle' for a hostPath mount of '/'"
        yield forbidden((*path, "persistentVolumeReclaimPolicy"), words)
    yield from _local(spec, path)


def _local(spec: PersistentVolumeSpec, path: Path) -> Iterator[Problem]:
    if spec.local is not None:
        if not spec.local.path:
            yield required((*path, "local", "path"))
        elif ".." in spec.local.path.split("/"):
            yield invalid((*path, "local", "path"), spec.local.path, "must not contain '..'")
        if spec.node_affinity is None or spec.node_affinity.required is None:
            yield required((*path, "nodeAffinity"), "Local volume requires node affinity")
    if spec.node_affinity is not None:
        where: Path = (*path, "nodeAffinity", "required")
        if spec.node_affinity.required is None:
            yield required(where, "must specify required node constraints")
        else:
            yield from validate_node_selector(spec.node_affinity.required, where)


def storage_class_problems(found: StorageClass) -> Iterator[Problem]:
    if not found.provisioner:
        yield required(("provisioner",))
    else:
        for sentence in qualified_name(found.provisioner.lower()):
            yield invalid(("provisioner",), found.provisioner, sentence)
    yield from one_of(("reclaimPolicy",), found.reclaim_policy, POLICIES)
    yield from one_of(
        ("volumeBindingMode",), found.volume_binding_mode, ("Immediate", "WaitForFirstConsumer")
    )
    if len(found.parameters) > _MAX_PARAMETERS:
        yield Problem(("parameters",), f"Too many: must have at most {_MAX_PARAMETERS} items")
    if "" in found.parameters:
        yield invalid(("parameters",), "", "field can not be empty.")
    size = sum(len(key.encode()) + len(value.encode()) for key, value in found.parameters.items())
    if size > _MAX_PARAMETERS_BYTES:
        yield Problem(("parameters",), f"Too long: may not be more than {_MAX_PARAMETERS_BYTES} bytes")

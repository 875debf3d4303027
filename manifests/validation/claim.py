"""Rules of a PersistentVolumeClaim (Kubernetes pkg/apis/core/validation/validation.go)."""

from collections.abc import Iterator

from manifests.problems import Path, Problem, forbidden, invalid, required
from manifests.types.claim import PersistentVolumeClaim
from manifests.types.volume import PersistentVolumeClaimSpec
from manifests.validation.rules import one_of

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")


def claim_problems(claim: PersistentVolumeClaim) -> Iterator[Problem]:
    yield from claim_spec_problems(claim.spec, ("spec",))


def claim_spec_problems(spec: PersistentVolumeClaimSpec, path: Path) -> Iterator[Problem]:
    """Check a claim's spec, as ValidatePersistentVolumeClaimSpec does."""
    if not spec.access_modes:
        yield required((*path, "accessModes"), "at least 1 access mode is required")
    for index, mode in enumerate(spec.access_modes):
        yield from one_of((*path, "accessModes", index), mode, ACCESS_MODES)
    if "ReadWriteOncePod" in spec.access_modes and len(spec.access_modes) > 1:
        yield forbidden((*path, "accessModes"), "may not use ReadWriteOncePod with other access modes")
    yield from one_of((*path, "volumeMode"), spec.volume_mode, ("Block", "Filesystem"))
    storage: Path = (*path, "resources", "requests", "storage")
    amount = spec.resources.requests.get("storage") if spec.resources is not None else None
    if amount is None:
        yield required(storage)
    elif amount.nanos <= 0:
        yield invalid(storage, str(amount), "must be greater than zero")

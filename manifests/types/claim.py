"""core/v1: PersistentVolumeClaim (Kubernetes 1.36)."""

from typing import Literal

from pydantic import Field

from manifests.types.meta import Model, Object, ObjectMeta, Quantities, Str, empty_dict, empty_list
from manifests.types.volume import PersistentVolumeClaimSpec


class PersistentVolumeClaimStatus(Model):
    access_modes: list[Str] = Field(default_factory=empty_list)
    capacity: Quantities = Field(default_factory=empty_dict)
    phase: Str | None = None


class PersistentVolumeClaim(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["PersistentVolumeClaim"] = "PersistentVolumeClaim"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: PersistentVolumeClaimSpec = Field(default_factory=PersistentVolumeClaimSpec)
    status: PersistentVolumeClaimStatus = Field(default_factory=PersistentVolumeClaimStatus)


def default_claim(claim: PersistentVolumeClaim) -> PersistentVolumeClaim:
    """Return a copy with Kubernetes' defaults (SetDefaults_PersistentVolumeClaimSpec) and a namespace."""
    claim = claim.model_copy(deep=True)
    claim.metadata.namespace = claim.metadata.namespace or "default"
    claim.spec.volume_mode = claim.spec.volume_mode or "Filesystem"
    return claim

"""apps/v1: ControllerRevision (Kubernetes 1.36), a former template of a StatefulSet or a DaemonSet."""

from typing import Any, Literal

from pydantic import Field

from manifests.types.meta import Int64, Object, ObjectMeta


class ControllerRevision(Object):
    api_version: Literal["apps/v1"] = "apps/v1"
    kind: Literal["ControllerRevision"] = "ControllerRevision"
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    data: dict[str, Any] | None = None
    revision: Int64

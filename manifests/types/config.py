"""core/v1: ConfigMap, Secret and Event (Kubernetes 1.36)."""

from typing import Literal

from pydantic import Field

from manifests.types.meta import (
    Bool,
    BytesMap,
    Int32,
    Model,
    Object,
    ObjectMeta,
    ObjectReference,
    Str,
    StrMap,
    Time,
    empty_dict,
)


class ConfigMap(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    binary_data: BytesMap = Field(default_factory=empty_dict)
    data: StrMap = Field(default_factory=empty_dict)
    immutable: Bool | None = None
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)


class Secret(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["Secret"] = "Secret"
    data: BytesMap = Field(default_factory=empty_dict)
    immutable: Bool | None = None
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    string_data: StrMap = Field(default_factory=empty_dict)
    type: Str | None = None


class EventSeries(Model):
    count: Int32 | None = None
    last_observed_time: Time | None = None


class EventSource(Model):
    component: Str | None = None
    host: Str | None = None


class Event(Object):
    api_version: Literal["v1"] = "v1"
    kind: Literal["Event"] = "Event"
    involved_object: ObjectReference
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    action: Str | None = None
    count: Int32 | None = None
    event_time: Time | None = None
    first_timestamp: Time | None = None
    last_timestamp: Time | None = None
    message: Str | None = None
    reason: Str | None = None
    related: ObjectReference | None = None
    reporting_component: Str | None = None
    reporting_instance: Str | None = None
    series: EventSeries | None = None
    source: EventSource | None = None
    type: Str | None = None

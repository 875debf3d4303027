"""What all kinds share: the model base, metadata, references, label selectors, and scalars with Kubernetes' rules.

The types are those of apimachinery's meta/v1 and api/core/v1 (Kubernetes 1.36). Python names are snake_case, JSON names
camelCase. Scalars are strict, as in the API: a number never becomes a string, nor a string a number. A null counts as
an absent field (Go's decoder leaves the zero value).
"""

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Strict,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from manifests.problems import InvalidObject, problems_of
from manifests.types.quantity import Form, Quantity

__all__ = [
    "Bool", "BytesMap", "Form", "Int32", "Int64", "IntOrString", "LabelSelector", "LabelSelectorRequirement",
    "LocalObjectReference", "ManagedFieldsEntry", "Model", "Object", "ObjectMeta", "ObjectReference", "OwnerReference",
    "Quantities", "Quantity", "StatusCondition", "Str", "StrMap", "Time", "empty_dict", "empty_list",
    "parse_selector",
]  # fmt: skip


def empty_list() -> list[Any]:
    """Return the default of a field that is a list: a `default_factory` in place of `list`.

    pydantic inspects the signature of each factory. That of a built-in type is parsed from text, in 0.1 ms, and
    leaves a copy of sys.modules (36 kB) to the garbage collector (`inspect._signature_fromstr`)."""
    return []


def empty_dict() -> dict[Any, Any]:
    """Return the default of a field that is a dict: a `default_factory` in place of `dict` (see `empty_list`)."""
    return {}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


class Model(BaseModel):
    """Base of every type. pydantic builds a schema on first use (`defer_build`), so importing costs nothing."""

    model_config = ConfigDict(
        extra="forbid",
        alias_generator=_camel,
        validate_by_name=True,
        validate_by_alias=True,
        defer_build=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict) and None in data.values():
            return {key: value for key, value in data.items() if value is not None}
        return data

    @classmethod
    def parse(cls, data: Any) -> Self:
        """Parse a decoded document (camelCase). Raises InvalidObject with everything that is wrong with its shape."""
        try:
            return cls.model_validate(data, by_alias=True, by_name=False)
        except ValidationError as error:
            raise InvalidObject(problems_of(error, cls)) from error

    def to_json(self) -> dict[str, Any]:
        """Return the object as the API writes it: camelCase, without fields that are empty or not set."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)


def _int_or_string(value: Any) -> int | str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise PydanticCustomError("int_or_string", "must be an integer or a string")
    if isinstance(value, int) and not -(2**31) <= value < 2**31:
        raise PydanticCustomError("int_or_string", "does not fit in 32 bits")
    return value


def _nulls_to_empty(value: Any) -> Any:
    if isinstance(value, dict) and None in value.values():
        return {key: "" if item is None else item for key, item in value.items()}
    return value


def _base64(value: str) -> str:
    try:
        base64.b64decode("".join(value.split("\n")).replace("\r", ""), validate=True)
    except (binascii.Error, ValueError) as error:
        raise PydanticCustomError(
            "base64", "must be base64 ({why}); plain text goes in stringData", {"why": str(error).lower()}
        ) from error
    return value


_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")


def _rfc3339(value: str) -> str:
    parts = _TIME.fullmatch(value)
    try:
        # Without the fraction: Python 3.11 reads at most six digits of it, Go writes up to nine.
        datetime.fromisoformat("".join(parts.groups()) if parts else "")
    except ValueError as error:
        raise PydanticCustomError("time", "must be a time like 2006-01-02T15:04:05Z (RFC 3339)") from error
    return value


Str = Annotated[str, Strict()]
Bool = Annotated[bool, Strict()]
Int32 = Annotated[int, Strict(), Field(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Strict(), Field(ge=-(2**63), le=2**63 - 1)]
IntOrString = Annotated[int | str, PlainValidator(_int_or_string)]
Time = Annotated[str, Strict(), AfterValidator(_rfc3339)]
StrMap = Annotated[dict[Str, Str], BeforeValidator(_nulls_to_empty)]
BytesMap = Annotated[
    dict[Str, Annotated[str, Strict(), AfterValidator(_base64)]], BeforeValidator(_nulls_to_empty)
]
Quantities = dict[Str, Quantity]


class ManagedFieldsEntry(Model):
    api_version: Str | None = None
    fields_type: Str | None = None
    fields_v1: dict[str, Any] | None = None
    manager: Str | None = None
    operation: Str | None = None
    subresource: Str | None = None
    time: Time | None = None


class OwnerReference(Model):
    name: Str
    api_version: Str
    kind: Str
    uid: Str
    block_owner_deletion: Bool | None = None
    controller: Bool | None = None


class ObjectMeta(Model):
    name: Str | None = None
    annotations: StrMap = Field(default_factory=empty_dict)
    creation_timestamp: Time | None = None
    deletion_grace_period_seconds: Int64 | None = None
    deletion_timestamp: Time | None = None
    finalizers: list[Str] = Field(default_factory=empty_list)
    generate_name: Str | None = None
    generation: Int64 | None = None
    labels: StrMap = Field(default_factory=empty_dict)
    managed_fields: list[ManagedFieldsEntry] = Field(default_factory=empty_list)
    namespace: Str | None = None
    owner_references: list[OwnerReference] = Field(default_factory=empty_list)
    resource_version: Str | None = None
    self_link: Str | None = None
    uid: Str | None = None


class LabelSelectorRequirement(Model):
    """`operator` is In, NotIn, Exists or DoesNotExist; parse_selector also gives Gt and Lt."""

    key: Str
    operator: Str
    values: list[Str] = Field(default_factory=empty_list)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Implement labels.Requirement.Matches: NotIn and DoesNotExist also match if the label is missing."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
            case "Gt" | "Lt":
                if value is None or not value.lstrip("-").isdigit():
                    return False
                return (
                    int(value) > int(self.values[0])
                    if self.operator == "Gt"
                    else int(value) < int(self.values[0])
                )
            case other:
                raise ValueError(f"{other!r} is not a valid label selector operator")


class LabelSelector(Model):
    """A selector that matches if all its requirements do. The empty selector matches everything."""

    match_expressions: list[LabelSelectorRequirement] = Field(default_factory=empty_list)
    match_labels: StrMap = Field(default_factory=empty_dict)

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.matches(labels) for requirement in self.match_expressions
        )


class LocalObjectReference(Model):
    name: Str | None = None


class ObjectReference(Model):
    name: Str | None = None
    api_version: Str | None = None
    field_path: Str | None = None
    kind: Str | None = None
    namespace: Str | None = None
    resource_version: Str | None = None
    uid: Str | None = None


class StatusCondition(Model):
    """The fields that the conditions of all kinds have."""

    status: Str
    type: Str
    last_transition_time: Time | None = None
    message: Str | None = None
    reason: Str | None = None


class Object(Model):
    """A top-level object. Each kind sets `api_version` and `kind`; they are always written out."""

    namespaced: ClassVar[bool] = True
    api_version: str
    kind: str
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    def as_stored(self) -> "Object":
        """Return the object in the API version in which the node stores it."""
        return self

    def set_defaults(self) -> None:
        """Fill in the kind's defaults, in place. A kind without an own method has none, or they are in
        `manifests.types.defaults`."""

    def to_json(self) -> dict[str, Any]:
        """Return the object as the API writes it: a kind that has a spec shows it even if it is empty, as in Go, where
        it is no pointer."""
        found = super().to_json()
        spec: dict[str, Any] = (
            {"spec": {}} if "spec" in type(self).model_fields and "spec" not in found else {}
        )
        return {"apiVersion": self.api_version, "kind": self.kind, **found, **spec}


_TERM = re.compile(
    r"""\s*(?:
      (?P<key>[^\s=!<>(),]+)\s+(?P<set>in|notin)\s*\((?P<values>[^()]*)\)
    | (?P<negated>!)\s*(?P<absent>[^\s=!<>(),]+)
    | (?P<left>[^\s=!<>(),]+)\s*(?P<op>==|=|!=|<|>)\s*(?P<right>[^\s=!<>(),]*)
    | (?P<present>[^\s=!<>(),]+)
    )\s*(?:,|$)""",
    re.VERBOSE,
)


def parse_selector(text: str) -> LabelSelector:
    """Parse kubectl's -l: `a=b,c!=d,e in (x,y),f notin (z),g,!h`. Empty selects everything. ValueError if malformed."""
    requirements: list[LabelSelectorRequirement] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TERM.match(text, position)
        if match is None or match.end() == position or (match.end() == end and text[end - 1] == ","):
            raise ValueError(f'invalid label selector "{text}": unable to parse "{text[position:].strip()}"')
        requirements.append(_requirement(match))
        position = match.end()
    return LabelSelector(match_expressions=requirements)


def _requirement(match: re.Match[str]) -> LabelSelectorRequirement:
    found = match.groupdict()
    if found["set"]:
        values = [value.strip() for value in found["values"].split(",")]
        operator = "In" if found["set"] == "in" else "NotIn"
        return LabelSelectorRequirement(key=found["key"], operator=operator, values=values)
    if found["negated"]:
        return LabelSelectorRequirement(key=found["absent"], operator="DoesNotExist")
    if found["op"]:
        operator = {"!=": "NotIn", "<": "Lt", ">": "Gt"}.get(found["op"], "In")
        if operator in ("Lt", "Gt") and not re.fullmatch(r"-?\d+", found["right"], re.ASCII):
            words = f"{found['left']}{found['op']}{found['right']}"
            raise ValueError(f'invalid label selector "{words}": {found["op"]} needs an integer')
        return LabelSelectorRequirement(key=found["left"], operator=operator, values=[found["right"]])
    return LabelSelectorRequirement(key=found["present"], operator="Exists")

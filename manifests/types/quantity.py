"""Kubernetes quantities: `500m`, `1.5Gi`, `2e3`, exact and printed in canonical form.

The rules are those of apimachinery's pkg/api/resource (quantity.go, suffix.go). A quantity is a number and one of three
kinds of suffix: decimal SI (n u m k M G T P E), binary (Ki … Ei) or an exponent (e3, E-2). Amounts finer than a nano
are rounded up, away from zero; binary quantities are capped at 2^63-1. The canonical text has no fraction, the largest
suffix that fits, and the form in which the number was written (1024Mi prints as 1Gi, 0.5 as 500m, 1e3 as 1e3).
"""

import re
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from functools import total_ordering
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MAX_INT64 = 2**63 - 1
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_NAMES = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_NAMES = {exponent: suffix for suffix, exponent in _BINARY.items()}
_NANO = 10**9
_SHAPE = re.compile(r"([+-]?)(?=[0-9.]*[0-9])([0-9]*)(?:\.([0-9]*))?([A-Za-z]*)([+-]?[0-9]*)")
_MAX_DIGITS = 400  # manifests are untrusted input: no number in them needs more, and 10**N grows fast
WRONG_FORMAT = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$', "
    "like 500m, 0.5, 128Mi or 2e3"
)
_BAD_SUFFIX = "unable to parse quantity's suffix"


class Form(StrEnum):
    """The form in which a quantity was written, which is also the form in which it is printed."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


@total_ordering
class Quantity:
    """An exact amount. Immutable; compared by amount, whatever the form. `nanos` is the amount times 10^9."""

    __slots__ = ("form", "nanos")
    nanos: int
    form: Form

    def __init__(self, text: "str | int | float | Quantity") -> None:
        """Parse a quantity. Raises ValueError in the API's words."""
        if isinstance(text, Quantity):
            nanos, form = text.nanos, text.form
        else:
            nanos, form = _parse(text if isinstance(text, str) else _number_text(text))
        object.__setattr__(self, "nanos", nanos)
        object.__setattr__(self, "form", form)

    @classmethod
    def of(cls, amount: int | Fraction, form: Form = Form.DECIMAL_SI) -> Self:
        """Return a quantity of an exact amount, rounded up to a nano."""
        made = cls.__new__(cls)
        object.__setattr__(made, "nanos", _ceil_away(Fraction(amount) * _NANO))
        object.__setattr__(made, "form", form)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Quantity is immutable: cannot set {name}")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (str(self),)

    def value(self) -> int:
        """Return the amount in whole units (bytes, CPUs), rounded up, away from zero."""
        return _ceil_away(Fraction(self.nanos, _NANO))

    def milli(self) -> int:
        """Return the amount in thousandths, rounded up: 0.25 CPU → 250."""
        return _ceil_away(Fraction(self.nanos * 1000, _NANO))

    def exact(self) -> Fraction:
        return Fraction(self.nanos, _NANO)

    def rounded_to_milli(self) -> "Quantity":
        """Round up to a thousandth, as API defaulting does with every resource amount (SetDefaults_ResourceList)."""
        return Quantity.of(Fraction(self.milli(), 1000), self.form)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __lt__(self, other: "Quantity") -> bool:
        return self.nanos < other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __add__(self, other: "Quantity") -> "Quantity":
        form = other.form if self.nanos == 0 else self.form
        return Quantity.of(Fraction(self.nanos + other.nanos, _NANO), form)

    def __sub__(self, other: "Quantity") -> "Quantity":
        return Quantity.of(Fraction(self.nanos - other.nanos, _NANO), self.form)

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"

    def __str__(self) -> str:
        """Return the canonical text (CanonicalizeBytes)."""
        if self.form is Form.BINARY_SI and abs(self.nanos) >= 1024 * _NANO and self.nanos % _NANO == 0:
            return _binary_text(self.nanos // _NANO)
        return _decimal_text(self.nanos, exponent_form=self.form is Form.DECIMAL_EXPONENT)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            _validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema()
            ),
        )


def _validate(value: Any) -> Quantity:
    if isinstance(value, Quantity):
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise PydanticCustomError("quantity", "must be a quantity, like 500m or 128Mi")
    try:
        return Quantity(value)
    except ValueError as error:
        raise PydanticCustomError("quantity", "{sentence}", {"sentence": str(error)}) from error


def _number_text(number: int | float) -> str:
    """Format a JSON number as Go does: plain digits between 1e-6 and 1e21, an exponent outside."""
    if isinstance(number, float) and 1e-6 <= abs(number) < 1e21:
        return format(Decimal(repr(number)), "f")
    return repr(number)


def _ceil_away(amount: Fraction) -> int:
    magnitude = -((-abs(amount.numerator)) // amount.denominator)
    return magnitude if amount >= 0 else -magnitude


def _parse(text: str) -> tuple[int, Form]:
    match = _SHAPE.fullmatch(text)
    if match is None or len(text) > _MAX_DIGITS:
        raise ValueError(WRONG_FORMAT)
    sign, whole, fraction, letters, digits = match.groups(default="")
    factor, form = _suffix(letters, digits)
    amount = Fraction(int(whole + fraction or "0"), 10 ** len(fraction)) * factor
    if form is Form.BINARY_SI:
        amount = min(amount, Fraction(MAX_INT64))
        if 0 < amount < 1:
            form = Form.DECIMAL_SI
    nanos = _ceil_away(amount * _NANO)
    return (-nanos if sign == "-" else nanos), form


def _suffix(letters: str, digits: str) -> tuple[Fraction, Form]:
    if not digits and letters in _DECIMAL:
        return Fraction(10) ** _DECIMAL[letters], Form.DECIMAL_SI
    if not digits and letters in _BINARY:
        return Fraction(2) ** _BINARY[letters], Form.BINARY_SI
    if letters in ("e", "E") and digits not in ("", "+", "-"):
        exponent = int(digits)
        if abs(exponent) > _MAX_DIGITS:
            raise ValueError(_BAD_SUFFIX)
        return Fraction(10) ** exponent, Form.DECIMAL_EXPONENT
    raise ValueError(WRONG_FORMAT if digits and letters == "" else f"{_BAD_SUFFIX}: {letters + digits!r}")


def _binary_text(number: int) -> str:
    exponent = 0
    while number % 1024 == 0 and exponent < 60:
        number //= 1024
        exponent += 10
    return f"{number}{_BINARY_NAMES.get(exponent, '')}"


def _decimal_text(nanos: int, *, exponent_form: bool) -> str:
    if nanos == 0:
        return "0"
    number, exponent = nanos, -9
    while number % 1000 == 0 and (exponent_form or exponent < 18):
        number //= 1000
        exponent += 3
    if exponent_form:
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL_NAMES[exponent]}"

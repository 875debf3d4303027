"""Quantities: exact, in every suffix, printed as the API prints them."""

import copy
import pickle
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifests.types.quantity import MAX_INT64, Form, Quantity


@pytest.mark.parametrize(
    ("text", "canonical", "value", "milli"),
    [
        ("0", "0", 0, 0),
        ("100m", "100m", 1, 100),
        ("0.5", "500m", 1, 500),
        (".5", "500m", 1, 500),
        ("5.", "5", 5, 5000),
        ("1000m", "1", 1, 1000),
        ("1500m", "1500m", 2, 1500),
        ("2", "2", 2, 2000),
        ("+2", "2", 2, 2000),
        ("-1.5", "-1500m", -2, -1500),
        ("1k", "1k", 1000, 1000000),
        ("1000k", "1M", 10**6, 10**9),
        ("100", "100", 100, 100000),
        ("128Mi", "128Mi", 128 << 20, (128 << 20) * 1000),
        ("1024Mi", "1Gi", 1 << 30, (1 << 30) * 1000),
        ("1.5Gi", "1536Mi", 3 << 29, (3 << 29) * 1000),
        ("0.5Ki", "512", 512, 512000),
        ("1Ki", "1Ki", 1024, 1024000),
        ("1023Ki", "1023Ki", 1023 << 10, (1023 << 10) * 1000),
        ("0.1Ki", "102400m", 103, 102400),
        ("1e3", "1e3", 1000, 1000000),
        ("12e6", "12e6", 12 * 10**6, 12 * 10**9),
        ("1e2", "100", 100, 100000),
        ("1E3", "1e3", 1000, 1000000),
        ("1e-3", "1e-3", 1, 1),
        ("1E", "1E", 10**18, 10**21),
        ("5n", "5n", 1, 1),
        ("5u", "5u", 1, 1),
        ("0.1n", "1n", 1, 1),  # finer than a nano: rounded up, so that a small amount is never 0
        ("-0.1n", "-1n", -1, -1),
        ("8Ei", str(MAX_INT64), MAX_INT64, MAX_INT64 * 1000),  # capped
    ],
)
def test_parse_and_print(text: str, canonical: str, value: int, milli: int) -> None:
    amount = Quantity(text)
    assert (str(amount), amount.value(), amount.milli()) == (canonical, value, milli)
    assert Quantity(canonical) == amount


@pytest.mark.parametrize(
    "text",
    ["", " ", "1 ", " 1", "abc", "1.2.3", ".", "-", "1mm", "1mi", "1KI", "1Kib", "1MB", "1e", "1e+", "1e3m", "1m3",
     "0x10", "1_000", "１", "1e999999999", "9" * 1000, "nan", "inf"],
)  # fmt: skip
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantit"):
        Quantity(text)


@pytest.mark.parametrize(
    ("number", "canonical"),
    [(1, "1"), (0.5, "500m"), (1e16, "10P"), (0.000001, "1u"), (2.5e-7, "250e-9"), (1e21, "1e21")],
)
def test_numbers_are_read_as_go_prints_them(number: float, canonical: str) -> None:
    assert str(Quantity(number)) == canonical


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_amount_is_infinite(number: float) -> None:
    with pytest.raises(ValueError, match="quantities"):
        Quantity(number)


def test_equal_by_amount_ordered_and_immutable() -> None:
    assert Quantity("1Gi") == Quantity("1024Mi") == Quantity("1073741824")
    assert len({Quantity("1"), Quantity("1000m")}) == 1
    assert Quantity("1M") < Quantity("1Mi")
    assert Quantity("1") != "1"
    with pytest.raises(AttributeError):
        Quantity("1").nanos = 2


def test_arithmetic_keeps_the_form_of_what_is_added_to() -> None:
    assert str(Quantity("1Gi") + Quantity("1Gi")) == "2Gi"
    assert str(Quantity("100m") + Quantity("1")) == "1100m"
    assert str(Quantity("0") + Quantity("2Ki")) == "2Ki"
    assert str(Quantity("2Gi") - Quantity("1Gi")) == "1Gi"
    assert Quantity("1") - Quantity("2") == Quantity("-1")


def test_defaulting_rounds_up_to_a_thousandth() -> None:
    assert str(Quantity("1u").rounded_to_milli()) == "1m"
    assert str(Quantity("1Gi").rounded_to_milli()) == "1Gi"


def test_copies_and_pickles() -> None:
    amount = Quantity("1536Mi")
    assert copy.deepcopy(amount) is amount
    assert pickle.loads(pickle.dumps(amount)) == amount


SUFFIXES = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]
POWERS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@st.composite
def written(draw: st.DrawFn) -> str:
    number = draw(st.decimals(min_value=0, max_value=10**9, allow_nan=False, places=draw(st.integers(0, 9))))
    exponent = draw(st.one_of(st.none(), st.integers(-12, 18)))
    suffix = f"e{exponent}" if exponent is not None else draw(st.sampled_from(SUFFIXES))
    return draw(st.sampled_from(["", "-", "+"])) + format(number, "f") + suffix


@given(written())
def test_canonical_text_is_the_same_amount_and_stays(text: str) -> None:
    amount = Quantity(text)
    again = Quantity(str(amount))
    assert again == amount
    assert str(again) == str(amount)
    assert "." not in str(amount)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=3), st.sampled_from(sorted(POWERS)))
def test_decimal_amounts_are_exact(number: Decimal, suffix: str) -> None:
    amount = Quantity(f"{number:f}{suffix}")
    exact = Fraction(number) * Fraction(10) ** POWERS[suffix]
    if (exact * 10**9).denominator == 1:
        assert amount.exact() == exact
    assert abs(amount.exact()) >= abs(exact)
    assert abs(amount.exact()) - abs(exact) < Fraction(1, 10**9)


@given(written(), written())
def test_order_is_the_order_of_amounts(one: str, other: str) -> None:
    left, right = Quantity(one), Quantity(other)
    assert (left < right) == (left.exact() < right.exact())
    assert (left + right).exact() == left.exact() + right.exact()
    assert abs(left.value()) >= abs(left.exact()) > abs(left.value()) - 1 or left.exact() == 0


@given(st.integers(0, 2**62))
def test_a_number_of_bytes_is_that_number(count: int) -> None:
    assert Quantity(str(count)).value() == count
    assert Quantity.of(count, Form.BINARY_SI).value() == count
    assert Quantity(str(Quantity.of(count, Form.BINARY_SI))).value() == count

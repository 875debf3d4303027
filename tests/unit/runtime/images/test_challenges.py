"""WWW-Authenticate headers of registries: what is understood, and that hostile ones take no time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.images.registry import transport

challenges = transport._challenges

BEARER = {
    "realm": "https://auth.docker.io/token",
    "service": "registry.docker.io",
    "scope": "repository:a/b:pull,push",
}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
            'scope="repository:a/b:pull,push"',
            {"bearer": BEARER},
        ),
        ('basic realm="x"', {"basic": {"realm": "x"}}),
        ("Basic", {"basic": {}}),
        (
            "Basic realm=x, Bearer realm=y , service = z",
            {"basic": {"realm": "x"}, "bearer": {"realm": "y", "service": "z"}},
        ),
        ('Bearer realm="a, Basic b", x="\\"q\\\\"', {"bearer": {"realm": "a, Basic b", "x": '"q\\'}}),
        ('Negotiate, Basic realm="x"', {"negotiate": {}, "basic": {"realm": "x"}}),
        ('Negotiate dG9rZW4=, Basic realm="x"', {"negotiate": {}, "basic": {"realm": "x"}}),
        ('Bearer realm="a", Bearer realm="b"', {"bearer": {"realm": "a"}}),
        ('Bearer realm="never ends, Basic realm="', {"bearer": {"realm": "never ends, Basic realm="}}),
        ('Bearer realm="never ends, Basic', {"bearer": {}}),
        ("", {}),
        (",,,", {}),
        ('realm="x"', {}),
    ],
)  # fmt: skip
def test_challenges(text: str, found: dict[str, dict[str, str]]) -> None:
    assert challenges(text) == found


HOSTILE = {
    "one word": "a" * 60_000,
    "words": "Bearer " + "a " * 30_000,
    "quotes": 'Bearer a="' * 6_000,
    "backslashes": 'Bearer a="' + "\\" * 60_000,
    "escaped quotes": 'Bearer a="' + '\\",a=' * 12_000,
    "spaces": "Bearer a" + " " * 60_000 + "x",
    "equals": "Bearer " + "a =" * 20_000,
    "commas": "Bearer" + "," * 60_000,
    "schemes": "Basic," * 10_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear(name: str) -> None:
    """60 KB took 45 seconds before. The bound is generous for a slow machine: linear time is a few milliseconds."""
    started = time.process_time()
    challenges(HOSTILE[name])
    assert time.process_time() - started < 1.0


@given(st.text(alphabet='Bearsic =",\\\t\n', max_size=200))
def test_any_text_is_parsed(text: str) -> None:
    for scheme, parameters in challenges(text).items():
        assert scheme == scheme.lower() and all(key == key.lower() for key in parameters)

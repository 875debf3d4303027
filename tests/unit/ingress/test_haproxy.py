"""The files of haproxy: what a routing becomes, that nothing in an object becomes configuration, and which changes are
commands."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kubelite.ingress.haproxy import (
    CERTIFICATES,
    CONFIG,
    EXACT,
    PREFIX,
    Rendered,
    Servers,
    commands,
    placed,
    rendered,
)
from kubelite.ingress.model import Backend, Endpoint, Route, Routing
from tests.unit.ingress.kit import backend, endpoint_slice, ingress, path, routing, rule, service

ONE, TWO, THREE = (Endpoint(f"10.88.0.{number}", 80) for number in (1, 2, 3))


def render(found: Routing, before: Servers | None = None, default: bytes | None = b"PEM") -> Rendered:
    return rendered(found, before or {}, default, http_port=80, https_port=443)


def of(*endpoints: Endpoint) -> Routing:
    return Routing((Route("", "", False, "a_b_80"),), backends=(Backend("a_b_80", endpoints),))


def test_routes_are_keys_of_maps() -> None:
    paths = path("/x"), path("/x", kind="Exact"), path("/", backend("nix"))
    files = render(routing(ingress("a", rule("*.a.example", *paths)))).files
    assert files[EXACT] == b"*.a.example/x default_web_80\n"
    assert files[PREFIX] == b"*.a.example/ unavailable\n*.a.example/x/ default_web_80\n"


def test_the_default_certificate_is_the_first() -> None:
    tls = [{"hosts": ["a.example"], "secretName": "one"}]
    found = routing(ingress("a", rule("a.example"), tls=tls), pems={("default", "one"): b"OWN"})
    with_default, without = render(found).files, render(found, default=None).files
    assert with_default[CERTIFICATES] == b"default.pem\ndefault_one.pem a.example\n"
    assert with_default["default_one.pem"] == b"OWN"
    assert b"strict-sni" in without[CONFIG] and b"strict-sni" not in with_default[CONFIG]
    assert b":8443" not in render(of(), default=None).files[CONFIG]


def test_a_listener_of_each_family() -> None:
    def listeners(ipv6: bool) -> list[str]:
        files = rendered(of(), {}, b"PEM", http_port=80, https_port=443, ipv6=ipv6).files
        return [line.strip() for line in files[CONFIG].decode().splitlines() if line.startswith("  bind")]

    http, https = listeners(ipv6=False)
    assert http == "bind :8080" and https.startswith("bind :8443 ssl")
    tls = https.removeprefix("bind :8443 ")
    assert listeners(ipv6=True) == [http, "bind [::]:8080 v6only", https, f"bind [::]:8443 v6only {tls}"]


@pytest.mark.parametrize(
    ("endpoints", "before", "after"),
    [
        ((ONE,), (), (ONE, None, None, None)),
        ((ONE, TWO), (None, TWO, None, None), (ONE, TWO, None, None)),
        ((TWO, THREE), (ONE, TWO, None, None), (THREE, TWO, None, None)),
        ((), (ONE, None), (None, None)),
        ((ONE, TWO), (TWO, THREE), (TWO, ONE)),
    ],
)
def test_an_endpoint_keeps_its_server(
    endpoints: tuple[Endpoint, ...],
    before: tuple[Endpoint | None, ...],
    after: tuple[Endpoint | None, ...],
) -> None:
    assert placed(endpoints, before) == after


def test_a_change_of_endpoints_is_commands_and_of_anything_else_a_reload() -> None:
    before = render(of(ONE))
    after = render(of(TWO), before.servers)
    assert before.structure == after.structure
    assert commands(before.servers, after.servers) == (
        "set server a_b_80/s0 addr 10.88.0.2 port 80",
        "set server a_b_80/s0 state ready",
    )
    gone = render(of(), after.servers)
    assert commands(after.servers, gone.servers) == ("set server a_b_80/s0 state maint",)
    many = render(of(*(Endpoint(f"10.88.1.{number}", 80) for number in range(9))), before.servers)
    assert many.structure != before.structure and len(many.servers["a_b_80"]) == 12
    assert render(Routing(backends=of().backends)).structure != before.structure


_FIRST = "\nbackend default_"
_ODD = [
    "\n",
    " ",
    "\t",
    "#",
    '"',
    "'",
    "\\",
    "{",
    "%[",
    "]",
    "$(x)",
    "\r",
    "\x00",
    "ä",
    "*",
    "/",
    "..",
    "backend x",
    ",",
]


def test_nothing_in_an_object_becomes_configuration() -> None:
    """Objects in the store are validated. This does not rely on it."""
    dice = random.Random(7)

    def odd(text: str) -> str:
        for _ in range(dice.randint(0, 3)):
            place = dice.randint(0, len(text))
            text = text[:place] + dice.choice(_ODD) + text[place:]
        return text

    plain = render(routing(ingress("a", rule("a.example", path("/x"))))).files[CONFIG].decode()
    for _ in range(3000):
        name = odd("web")
        doc = ingress(
            "a",
            rule(odd("a.example"), path(odd("/x"), backend(name)), path(odd("/y"), kind="Exact")),
            tls=[{"hosts": [odd("b.example")], "secretName": "one"}],
        )
        found = routing(
            doc,
            services=[service(), service(name)],
            slices={("default", "web"): [endpoint_slice(odd("10.88.0.6"))]},
            pems={("default", "one"): b"PEM"},
        )
        try:
            files = render(found).files
        except ValueError:  # refused as a whole; the proxy keeps what it has
            continue
        config = files[CONFIG].decode()
        assert config.partition(_FIRST)[0] == plain.partition(_FIRST)[0]
        for backend_lines in re.findall(r"\nbackend (default_\S+)\n((?:  .+\n)+)", config):
            assert re.fullmatch(r"default_[a-z0-9_.-]+", backend_lines[0])
            assert re.fullmatch(
                r"  balance roundrobin\n(  server s\d 10\.88\.\d+\.\d+:8080\n|  server s\d 127\.0\.0\.1:1 disabled\n)+",
                backend_lines[1],
            )
        for name_of_map in (EXACT, PREFIX):
            lines = files[name_of_map].decode().splitlines()
            assert all(re.fullmatch(r"[!-~]+ (default_[a-z0-9_.-]+|unavailable)", line) for line in lines)
        for line in files[CERTIFICATES].decode().splitlines():
            assert re.fullmatch(r"[a-z0-9_.-]+\.pem( [a-z0-9*.-]+)*", line)


def test_haproxy_accepts_it(tmp_path: Path) -> None:
    if not shutil.which("haproxy"):
        pytest.skip("needs haproxy")
    found = routing(
        ingress(
            "a", rule("a.example", path("/{}%[x]'\"\\"), path("/y", kind="Exact")), defaultBackend=backend()
        ),
        services=[service(sessionAffinity="ClientIP")],
        slices={("default", "web"): [endpoint_slice("10.88.0.6")]},
    )
    for name, content in render(found, default=None).files.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        ["haproxy", "-c", "-f", tmp_path / CONFIG], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr

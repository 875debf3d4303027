"""Hostile values in Ingresses and Secrets: what haproxy itself makes of the files."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubelite.ingress.certificates import self_signed
from kubelite.ingress.haproxy import CERTIFICATES, CONFIG, EXACT, PREFIX, rendered
from kubelite.ingress.model import Routing
from tests.unit.ingress.kit import backend, ingress, path, routing, rule
from tests.waiting import until

MISSING = backend("missing")  # requests that have a rule are answered 503, others 404
VISIBLE = [
    "/'", '/"', "/a\"b\"", "/\\", "/{}", "/{{x}}", "/%[src]", "/$HOME", "/${PATH}", "/$(id)", "/`id`",
    "/;x", "/a,b", "/a=b", "/-", "/*", "/^.*$", "/a|b", "/[a-z]", "/~", "/a:b@c", "/&&", "/<x>",
    "/a%20b", "/a%0Ab", "/%23", "/%3F", "/%2e%2e", "/%", "/%zz", "/a%00", "/backend", "/default_web_80",
]  # fmt: skip
INVISIBLE = [
    "/a b",
    "/a\tb",
    "/a\nx.example/ y",
    "/a\rb",
    "/a\x00b",
    "/ä",
    "/#",
    "/a#b",
    "/a?b",
    "/\x7f",
    "a",
    " /a",
]


def files(found: Routing, directory: Path) -> Path:
    pem = self_signed("node", time.time()) if found.certificates else None
    for name, content in rendered(found, {}, pem, http_port=80, https_port=443).files.items():
        (directory / name).write_bytes(content)
    return directory / CONFIG


@contextlib.contextmanager
def haproxy(found: Routing, directory: Path) -> Iterator[Path]:
    """Run haproxy with a routing. It listens on a socket in the directory, which is what the block gets."""
    if not shutil.which("haproxy"):
        pytest.skip("needs haproxy")
    config, place = files(found, directory), directory / "http"
    text = config.read_text().replace("bind :8080", f"bind unix@{place}")
    assert "8080" not in text and "8443" not in text
    config.write_text(text)
    process = subprocess.Popen(["haproxy", "-db", "-f", config], stdout=subprocess.DEVNULL, cwd=directory)
    try:
        until(place.exists, "haproxy listens")
        yield place
    finally:
        process.terminate()
        process.wait()


def status(place: Path, target: str, host: str) -> int:
    """Return the status that a request gets whose target is sent as it is."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        client.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    return int(answer.split()[1])


def test_a_path_is_what_its_rule_says_and_nothing_else(tmp_path: Path) -> None:
    rules = [path(one, MISSING, kind) for one in VISIBLE for kind in ("Exact", "Prefix")]
    found = routing(ingress("a", rule("a.example", *rules)))
    with haproxy(found, tmp_path) as place:
        for one in VISIBLE:
            assert status(place, one, "a.example") == 503, one
            assert status(place, f"{one}/deeper", "a.example") == 503, one
            assert status(place, f"{one}z", "a.example") == 404, one
            assert status(place, one, "b.example") == 404, one


def test_paths_are_compared_as_they_are_sent(tmp_path: Path) -> None:
    """Kubernetes compares the path of the request, and says nothing of an encoding (networking/v1: PathTypeExact)."""
    found = routing(ingress("a", rule("a.example", path("/a%20b", MISSING), path("/Admin", MISSING))))
    with haproxy(found, tmp_path) as place:
        asked = ("/a%20b", "/Admin/x", "/Admin?x=/", "/%41dmin", "/admin", "/x/../Admin", "//Admin", "/a+b")
        assert [status(place, one, "a.example") for one in asked] == [503, 503, 503, 404, 404, 404, 404, 404]


@pytest.mark.parametrize("value", INVISIBLE)
@pytest.mark.parametrize("kind", ["Exact", "Prefix", "ImplementationSpecific"])
def test_a_path_that_no_request_has_is_no_key(value: str, kind: str, tmp_path: Path) -> None:
    found = routing(ingress("a", rule("a.example", path(value, MISSING, kind), path("/good", MISSING))))
    (sentence, *_) = found.problems["uid-a"]
    assert sentence.startswith("no request has the path") and sentence.isprintable()
    files(found, tmp_path)
    assert (tmp_path / EXACT).read_bytes() + (
        tmp_path / PREFIX
    ).read_bytes() == b"a.example/good/ unavailable\n"


@pytest.mark.parametrize("kind", ["Exact", "Prefix"])
def test_a_long_path_does_not_become_a_rule_of_another_host(kind: str, tmp_path: Path) -> None:
    """haproxy reads 16,383 bytes of a line of a map at once, and the rest as a line of its own."""
    long = [f"/{'a' * (length - 1)}victim.example/x" for length in (16382, 16383, 16384, 2 * 16383)]
    found = routing(ingress("evil", rule("", *(path(one, MISSING, kind) for one in long))))
    assert all("is longer than 8192 characters" in one for one in found.problems["uid-evil"][:-1])
    with haproxy(found, tmp_path) as place:
        assert status(place, "/x", "victim.example") == 404


@pytest.mark.parametrize(
    "host",
    [
        "a b",
        "a.example#",
        "a\nb",
        "*",
        "*.",
        "**.a",
        "a*.b",
        "A.example",
        "a.example/x",
        "ä",
        "-a",
        "$x",
        "a_b",
    ],
)
def test_a_host_that_is_no_name_is_no_key(host: str, tmp_path: Path) -> None:
    tls = [{"hosts": [host], "secretName": "one"}]
    found = routing(ingress("a", rule(host, path("/x", MISSING)), tls=tls), pems={("default", "one"): b"PEM"})
    assert found.problems["uid-a"] == (f"no request has the host {host!r}",)
    files(found, tmp_path)
    assert (tmp_path / PREFIX).read_bytes() == b""
    assert (tmp_path / CERTIFICATES).read_bytes() == b"default.pem\ndefault_one.pem\n"


def test_many_hosts_and_long_names_of_secrets_are_read(tmp_path: Path) -> None:
    if not shutil.which("haproxy"):
        pytest.skip("needs haproxy")
    pem = self_signed("node", time.time())
    hosts = [f"{'a' * 60}.{'b' * 60}.{'c' * 60}.x{number}.example" for number in range(400)]
    names = ["s" * 253, "s" * 252 + "t"]
    tls = [{"hosts": hosts, "secretName": names[0]}, {"hosts": ["t.example"], "secretName": names[1]}]
    found = routing(ingress("a", rule("a.example"), tls=tls), pems={("default", name): pem for name in names})
    assert len({one.name for one in found.certificates}) == 2
    config = files(found, tmp_path)
    done = subprocess.run(["haproxy", "-c", "-f", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    listed = (tmp_path / CERTIFICATES).read_text().split()
    assert set(hosts) <= set(listed)

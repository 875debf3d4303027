"""Image names: docker's grammar and normalisation."""

from __future__ import annotations

import pytest

from runtime.errors import ImageError
from runtime.images.reference import is_loopback, parse

D = "sha256:" + "0123456789abcdef" * 4

GOOD = [
    # written, canonical, familiar
    ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
    ("nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"),
    ("user/app", "docker.io/user/app:latest", "user/app:latest"),
    ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
    ("index.docker.io/user/app:v1", "docker.io/user/app:v1", "user/app:v1"),
    ("quay.io/a/b/c:x", "quay.io/a/b/c:x", "quay.io/a/b/c:x"),
    ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
    ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
    ("localhost:5000/x:t", "localhost:5000/x:t", "localhost:5000/x:t"),
    ("host:5000", "docker.io/library/host:5000", "host:5000"),
    ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest", "127.0.0.1:5000/a/b:latest"),
    ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
    (
        "Upper/x",
        "Upper/x:latest",
        "Upper/x:latest",
    ),  # an upper-case first component is a registry, as in docker
    ("a--b/c__d.e_f", "docker.io/a--b/c__d.e_f:latest", "a--b/c__d.e_f:latest"),
    (f"nginx@{D}", f"docker.io/library/nginx@{D}", f"nginx@{D}"),
    (f"nginx:1@{D}", f"docker.io/library/nginx:1@{D}", f"nginx:1@{D}"),
    ("x:" + "t" * 128, "docker.io/library/x:" + "t" * 128, "x:" + "t" * 128),
]


@pytest.mark.parametrize(("text", "canonical", "familiar"), GOOD)
def test_normalisation(text: str, canonical: str, familiar: str) -> None:
    reference = parse(text)
    assert str(reference) == canonical and reference.familiar == familiar
    assert parse(str(reference)) == reference and parse(familiar) == reference


BAD = [
    "", "Nginx", "nginx:", "nginx: x", "nginx:-t", "a//b", "/a", "a/", "a/B", "nginx@sha256:123", f"nginx@{D[:-1]}",
    "nginx@md5:" + "a" * 32, "0123456789abcdef" * 4, "a..b", "a/-b", "a/b-", "x:" + "t" * 129, "quay.io/" + "a" * 250,
    "ex_ample.com/x", "-host.com/x", "host:port/x", "https://host/x", "nginx latest", "caf\u00e9",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_names_that_docker_rejects(text: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse(text)
    assert caught.value.reason == "InvalidImageName"
    assert str(caught.value).startswith(f'couldn\'t parse image name "{text}": ')


def test_a_digest_precedes_the_tag() -> None:
    assert parse("a:b").wanted == "b" and parse(f"a:b@{D}").wanted == D


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("localhost", True), ("localhost:5000", True), ("127.0.0.1", True), ("127.8.9.1:80", True),
        ("[::1]:5000", True), ("[::1]", True), ("x.localhost:1", True),
        ("docker.io", False), ("10.0.0.1:5000", False), ("[::2]:5000", False),
        ("127.0.0.1.evil.com", False), ("localhost.evil.com:5000", False),
    ],
)  # fmt: skip
def test_loopback(registry: str, expected: bool) -> None:
    assert is_loopback(registry) is expected

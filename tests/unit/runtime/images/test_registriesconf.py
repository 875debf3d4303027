"""registries.conf: the registries that are tried for a name."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from runtime.errors import ImageError
from runtime.images.reference import Endpoint, parse
from runtime.images.registry import registriesconf
from runtime.images.registry.registriesconf import Registries

CONF = """
unqualified-search-registries = ["quay.io"]
[[registry]]
prefix = "docker.io"
[[registry.mirror]]
location = "mirror.test:5000/hub"
insecure = true
[[registry.mirror]]
location = "second.test"
pull-from-mirror = "digest-only"

[[registry]]
location = "moved.test/old"
blocked = true
[[registry]]
prefix = "moved.test/team"
location = "new.test/group/team"

[[registry]]
prefix = "*.corp.test"
insecure = true
[[registry]]
location = "bydigest.test"
mirror-by-digest-only = true
[[registry.mirror]]
location = "cache.test"

[aliases]
"fedora" = "registry.fedoraproject.org/fedora"
"gone" = ""
"""


def conf(text: str = CONF) -> Registries:
    return registriesconf.merge([registriesconf.parse(tomllib.loads(text), "r.conf")])


DIGEST = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nginx", [Endpoint("mirror.test:5000", "hub/library/nginx", True), Endpoint("docker.io", "library/nginx")]),
        (f"nginx@{DIGEST}", [Endpoint("mirror.test:5000", "hub/library/nginx", True),
                             Endpoint("second.test", "library/nginx"), Endpoint("docker.io", "library/nginx")]),
        ("moved.test/team/app", [Endpoint("new.test", "group/team/app")]),
        ("moved.test/teammates/app", [Endpoint("moved.test", "teammates/app")]),
        ("a.b.corp.test:5000/x", [Endpoint("a.b.corp.test:5000", "x", True)]),
        ("corp.test/x", [Endpoint("corp.test", "x")]),
        ("bydigest.test/x:1", [Endpoint("bydigest.test", "x")]),
        (f"bydigest.test/x@{DIGEST}", [Endpoint("cache.test", "x"), Endpoint("bydigest.test", "x")]),
        ("quay.io/x", [Endpoint("quay.io", "x")]),
    ],
)  # fmt: skip
def test_the_registries_of_a_name(name: str, expected: list[Endpoint]) -> None:
    assert conf().endpoints(parse(name)) == expected


def test_the_error_for_a_blocked_registry_names_the_file() -> None:
    with pytest.raises(ImageError, match=r"registry moved.test/old is blocked in r\.conf"):
        conf().endpoints(parse("moved.test/old/x"))


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("fedora", "registry.fedoraproject.org/fedora"),
        ("fedora:40", "registry.fedoraproject.org/fedora:40"),
        (f"fedora@{DIGEST}", f"registry.fedoraproject.org/fedora@{DIGEST}"),
        ("docker.io/library/fedora", "docker.io/library/fedora"),
        ("me/fedora", "me/fedora"),
        ("gone:1", "gone:1"),
        ("nginx", "nginx"),
        ("localhost:5000/fedora:1", "localhost:5000/fedora:1"),
    ],
)
def test_short_names(text: str, expanded: str) -> None:
    assert conf().expand(text) == expanded


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[registries.search]\nregistries = []", "version 1"),
        ("[[registry]]\ninsecure = true", "neither prefix nor location"),
        ('[[registry]]\nlocation = "https://x.test"', "without a scheme"),
        ('[[registry]]\nprefix = "a.*.test"', "a \\* is only allowed at the start"),
        (
            '[[registry]]\nlocation = "x.test"\n[[registry.mirror]]\ninsecure = true',
            "a mirror of x.test has no location",
        ),
        (
            '[[registry]]\nlocation = "x"\n[[registry.mirror]]\nlocation = "y"\npull-from-mirror = "never"',
            "never",
        ),
        ('registry = "x"', "must be a list of tables"),
        ('[aliases]\nx = "y"', "must name a registry"),
        ('[aliases]\nx = "reg.test/UPPER"', "lowercase"),
    ],
)
def test_invalid_configurations(text: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        conf(text)
    assert caught.value.reason == "InvalidRegistriesConf" and "r.conf" in str(caught.value)


def test_files_in_order(tmp_path: Path) -> None:
    main = tmp_path / "registries.conf"
    environ = {"CONTAINERS_REGISTRIES_CONF": str(main)}
    assert registriesconf.load(environ) == Registries()
    main.write_text(CONF)
    more = tmp_path / "registries.conf.d"
    more.mkdir()
    (more / "b.conf").write_text('[aliases]\nfedora = "b.test/fedora"\n')
    (more / "a.conf").write_text('[[registry]]\nprefix = "docker.io"\n[aliases]\nfedora = "a.test/fedora"\n')
    (more / "c.txt").write_text("no toml")
    found = registriesconf.load(environ)
    assert found.expand("fedora") == "b.test/fedora"
    assert found.endpoints(parse("nginx")) == [Endpoint("docker.io", "library/nginx")], "its mirrors are gone"
    assert found.endpoints(parse("moved.test/team/x"))[0].registry == "new.test"
    (more / "d.conf").write_text("= broken")
    with pytest.raises(ImageError, match=r"cannot read .*d\.conf"):
        registriesconf.load(environ)

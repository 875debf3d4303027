"""Which configuration a directory means, and in which version its plugins are asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.cni.conflist import agreed_version, choose, from_json, parse
from runtime.errors import SpecError

BRIDGE = {"type": "bridge", "capabilities": {"ips": True, "mac": False}}


def conflist(**changed: Any) -> str:
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [BRIDGE]} | changed)


def test_a_list_says_its_name_plugins_and_capabilities() -> None:
    found = parse(conflist(disableCheck="true", disableGC=True))
    assert (found.name, found.versions) == ("pods", ("1.0.0",))
    assert found.capabilities == frozenset({"ips"})
    assert found.disable_check and found.disable_gc
    assert from_json(found.to_json()) == found


def test_a_single_plugin_is_a_list_of_one() -> None:
    found = parse(json.dumps({"cniVersion": "0.4.0", "name": "one", "type": "ptp"}), single=True)
    assert [plugin["type"] for plugin in found.plugins] == ["ptp"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        pytest.param("[" * 200_000, "not JSON", id="deep"),
        ("[]", "not a JSON object"),
        (conflist(name="a/b"), "is not that of a network"),
        (conflist(plugins=[]), "has no plugins"),
        (conflist(plugins=[{"type": "../sh"}]), "has no type that names a program"),
        (conflist(plugins=["bridge"]), "has no type that names a program"),
        (conflist(cniVersion="0.2.0"), "CNI version 0.2.0 is not supported"),
        (conflist(cniVersion="2.0.0", cniVersions=["3.0.0"]), "CNI version 2.0.0, 3.0.0 is not supported"),
        (conflist(cniVersion=1), "cniVersion must be a text"),
        (conflist(disableCheck="maybe"), "disableCheck must be true or false"),
    ],
)
def test_what_is_invalid_is_said(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse(text)


def test_the_first_valid_file_by_name_is_taken() -> None:
    files = {
        "00-readme.md": "no configuration",
        "05-broken.conflist": "{",
        "10-pods.conflist": conflist(),
        "20-later.conflist": conflist(name="later"),
    }
    found = choose(files)
    assert found.network is not None
    assert (found.network.name, found.file) == ("pods", "10-pods.conflist")
    assert [problem.split(":")[0] for problem in found.problems] == ["05-broken.conflist"]
    assert choose({}).network is None


def test_a_list_in_a_conf_file_is_refused() -> None:
    (problem,) = choose({"10-pods.conf": conflist()}).problems
    assert "belongs in a file that ends in .conflist" in problem


def test_the_newest_version_that_all_speak_is_agreed_on() -> None:
    network = parse(conflist(cniVersion="1.1.0", cniVersions=["0.4.0", "1.0.0", "9.9.9"]))
    assert network.versions == ("1.1.0", "1.0.0", "0.4.0")
    assert agreed_version(network, lambda _kind: {"0.4.0", "1.0.0"}) == "1.0.0"
    with pytest.raises(SpecError, match=r'plugin bridge does not support config version "1\.1\.0"'):
        agreed_version(network, lambda _kind: {"0.3.1"})

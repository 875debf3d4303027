"""Manifests: choice by platform, refusals, and the stored form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images import imageconfig, manifests
from runtime.images.manifests import Platform, build_image, choose, media_type, parse_platform, read_manifest
from runtime.images.store.listing import INDEX_TYPE, MANIFEST_TYPE, digest_of
from runtime.images.store.store import chain_ids


def entry(name: str, os_: str = "linux", architecture: str = "amd64", variant: str = "") -> dict[str, Any]:
    return {
        "mediaType": MANIFEST_TYPE,
        "digest": digest_of(name.encode()),
        "size": 1,
        "platform": {"os": os_, "architecture": architecture, "variant": variant},
    }


INDEX = {
    "manifests": [
        entry("attestation", "unknown", "unknown"),
        entry("amd64-v3", variant="v3"),
        entry("amd64"),
        entry("armv5", architecture="arm", variant="v5"),
        entry("armv7", architecture="arm", variant="v7"),
        entry("armv6", architecture="arm", variant="v6"),
        entry("arm64", architecture="arm64", variant="v8"),
        entry("windows", "windows"),
    ]
}


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ("linux/amd64", "amd64"),
        ("linux/amd64/v3", "amd64-v3"),
        ("linux/amd64/v2", "amd64"),
        ("linux/arm/v7", "armv7"),
        ("linux/arm/v6", "armv6"),
        ("linux/arm", "armv7"),
        ("linux/arm64", "arm64"),
        ("arm64", "arm64"),
        ("windows/amd64", "windows"),
    ],
)
def test_the_best_fitting_entry_is_chosen(wanted: str, chosen: str) -> None:
    assert choose(INDEX, parse_platform(wanted)).digest == digest_of(chosen.encode())


def test_the_available_platforms_are_listed_if_none_fits() -> None:
    with pytest.raises(
        ImageError, match=r"no image for linux/riscv64; available platforms: .*linux/arm/v7.*windows/amd64"
    ):
        choose(INDEX, Platform("linux", "riscv64"))
    with pytest.raises(ImageError, match="available platforms: none"):
        choose({}, Platform("linux", "amd64"))


def test_an_invalid_platform() -> None:
    for text in ("a/b/c/d", "linux//v8", "linux/"):
        with pytest.raises(ImageError):
            parse_platform(text)


@pytest.mark.parametrize(
    ("document", "content_type", "expected"),
    [
        ({"mediaType": manifests.DOCKER_LIST}, "application/json", manifests.DOCKER_LIST),
        ({"layers": [], "config": {}}, "", MANIFEST_TYPE),
        ({"manifests": []}, "text/plain", INDEX_TYPE),
        ({"manifests": []}, manifests.DOCKER_LIST, manifests.DOCKER_LIST),
        ({"layers": []}, manifests.DOCKER_MANIFEST, manifests.DOCKER_MANIFEST),
        ({"schemaVersion": 1}, "application/json", "application/vnd.docker.distribution.manifest.v1+json"),
    ],
)
def test_types_of_manifests(document: dict[str, Any], content_type: str, expected: str) -> None:
    assert media_type(document, content_type) == expected


def test_schema_1_and_unknown_types_are_rejected_by_name() -> None:
    with pytest.raises(ImageError, match="schema 1"):
        manifests.refuse_foreign("application/vnd.docker.distribution.manifest.v1+prettyjws")
    with pytest.raises(ImageError, match=r"application/x\+y"):
        manifests.refuse_foreign("application/x+y")
    manifests.refuse_foreign(manifests.DOCKER_MANIFEST)


def document(
    config_type: str = manifests.CONFIG_TYPE, layer_type: str = manifests.LAYER_TYPE
) -> dict[str, Any]:
    layer = {"mediaType": layer_type, "digest": digest_of(b"layer"), "size": 5}
    return {"config": {"mediaType": config_type, "digest": digest_of(b"c"), "size": 1}, "layers": [layer]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest_of(b""), "size": 2},
          "artifactType": "application/spdx"}, "artifact of type application/spdx"),
        ({"config": None}, "config is not a descriptor"),
        ({"layers": None}, "no list of layers"),
        ({"layers": [{"mediaType": manifests.LAYER_TYPE, "digest": "sha512:00", "size": 1}]}, "layer 1 has the digest"),
        ({"layers": [{"mediaType": manifests.LAYER_TYPE, "digest": digest_of(b""), "size": -1}]},
         "layer 1 has the invalid size"),
        ({"layers": [{"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                      "digest": digest_of(b""), "size": 1}]}, "not in the registry"),
        ({"layers": [{"mediaType": manifests.LAYER_TYPE + "+gzip+encrypted", "digest": digest_of(b""), "size": 1}]},
         "encrypted"),
        ({"layers": [{"mediaType": "text/html", "digest": digest_of(b""), "size": 1}]}, "text/html"),
    ],
)  # fmt: skip
def test_manifests_that_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        read_manifest({**document(), **change})


CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest_of(b"plain")]}}
).encode()


def test_an_oci_manifest_is_stored_unchanged() -> None:
    raw = json.dumps({"mediaType": MANIFEST_TYPE, **document()}).encode()
    image = build_image(read_manifest(document()), CONFIG, original=raw, names=["n"], source="s")
    assert image.manifest is raw and image.platform == {"architecture": "amd64", "os": "linux"}
    assert image.layers[0].diff_id == image.layers[0].chain_id == digest_of(b"plain")


def test_a_docker_manifest_is_translated_and_keeps_its_config() -> None:
    docker = document(
        "application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"
    )
    raw = json.dumps({"mediaType": manifests.DOCKER_MANIFEST, **docker}).encode()
    image = build_image(read_manifest(docker), CONFIG, original=raw, names=["n"], source="s")
    stored = json.loads(image.manifest)
    assert stored["mediaType"] == MANIFEST_TYPE and stored["layers"][0]["mediaType"].endswith(".v1.tar+gzip")
    assert stored["config"]["digest"] == digest_of(CONFIG) and image.config is CONFIG


@pytest.mark.parametrize("rootfs", [None, {}, {"diff_ids": ["x"]}, {"diff_ids": []}])
def test_a_config_that_does_not_fit(rootfs: Any) -> None:
    with pytest.raises(ImageError, match="diff ids"):
        config = json.dumps({"rootfs": rootfs}).encode()
        build_image(read_manifest(document()), config, original=b"", names=[], source="")


def test_chain_ids_are_the_specifications() -> None:
    a, b, c = (digest_of(x) for x in (b"a", b"b", b"c"))
    ab = digest_of(f"{a} {b}".encode())
    assert chain_ids([a, b, c]) == [a, ab, digest_of(f"{ab} {c}".encode())]
    assert chain_ids([]) == []


DEEP = b'{"a":' * 100_000


def test_deeply_nested_json_is_rejected() -> None:
    with pytest.raises(ImageError, match="the manifest is nested too deeply"):
        manifests.parse_json(DEEP, "the manifest")


def test_a_manifest_that_is_also_an_index_is_rejected() -> None:
    """CVE-2021-41190: one digest, but the reader decides which of two images runs."""
    with pytest.raises(ImageError, match="an index and an image at once"):
        manifests.refuse_both({"manifests": [], "layers": []})
    manifests.refuse_both({"manifests": []})
    manifests.refuse_both({"layers": [], "config": {}})


def test_an_index_of_odd_entries_has_nothing() -> None:
    for entries in ("text", {"a": 1}, ["text", 5, None, {"platform": "linux"}]):
        with pytest.raises(ImageError, match=r"no image for|an index entry is not a descriptor"):
            manifests.choose({"manifests": entries}, Platform("linux", "amd64"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"created": 5}, "created is not a string"),
        ({"architecture": ["amd64"]}, "architecture is not a string"),
        ({"config": "text"}, "config is not an object"),
        ({"config": {"Env": 5}}, r"config\.Env is not a list of strings"),
        ({"config": {"Cmd": "sh"}}, r"config\.Cmd is not a list of strings"),
        ({"config": {"Entrypoint": [1]}}, r"config\.Entrypoint is not a list of strings"),
        ({"config": {"User": 7}}, r"config\.User is not a string"),
        ({"config": {"Volumes": ["/v"]}}, r"config\.Volumes is not an object"),
        ({"config": {"Labels": {"a": 1}}}, r"config\.Labels is not an object of strings"),
        ({"history": 5}, "history is not a list"),
        ({"history": ["step"]}, "entry 1 of history is not an object"),
        ({"history": [{}, {"created_by": ["x"]}]}, "entry 2 of history: created_by is not a string"),
        ({"history": [{"empty_layer": "yes"}]}, "empty_layer is not true or false"),
        ({"history": [{}] * 20_000}, "history has 20000 entries"),
    ],
)
def test_a_config_of_wrong_types_is_refused_by_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        imageconfig.check(fields)


def test_null_in_a_config_counts_as_absent() -> None:
    nothing = dict.fromkeys(("Env", "Cmd", "Labels", "Volumes", "User"))
    imageconfig.check({"created": None, "history": None, "config": nothing})
    imageconfig.check({"config": None})

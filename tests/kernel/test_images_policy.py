"""Pulls under an image policy, of images that skopeo signed as cosign does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime.errors import ImageError
from runtime.images.client import ImageClient
from runtime.images.store.store import ImageStore
from tests.kernel import images_support as support
from tests.kernel.images_support import directory, member, registry, run, tar, write_layout

_MISSING = support.need("docker-registry", "skopeo")
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        bool(_MISSING), reason=f"needs {', '.join(_MISSING)} (apt-get install {' '.join(_MISSING)})"
    ),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with registry(tmp_path_factory.mktemp("registry") / "r") as address:
        yield address


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of keys, and what tells skopeo to attach signatures."""
    path = tmp_path_factory.mktemp("keys")
    (path / "passphrase").write_text("x")
    for name in ("one", "two"):
        options = ("--output-prefix", f"{path}/{name}", "--passphrase-file", f"{path}/passphrase")
        run("skopeo", "generate-sigstore-key", *options)
    (path / "registries.d").mkdir()
    (path / "registries.d/all.yaml").write_text("default-docker: {use-sigstore-attachments: true}\n")
    return path


def push(host: str, keys: Path, layout: Path, name: str, *, by: str = "", identity: str = "") -> str:
    if not layout.exists():
        write_layout(layout, [tar(directory("etc"), (member("etc/a"), layout.name.encode()))])
    signing = [
        "--sign-by-sigstore-private-key",
        f"{keys}/{by}.private",
        "--sign-passphrase-file",
        f"{keys}/passphrase",
    ]
    signing += ["--sign-identity", identity] if identity else []
    run(
        "skopeo", "--registries.d", f"{keys}/registries.d", "copy", "-q", "--dest-tls-verify=false",
        *(signing if by else []), f"oci:{layout}:latest", f"docker://{host}/{name}",
    )  # fmt: skip
    return f"{host}/{name}"


def digest_of(name: str) -> str:
    return run("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}")


def policy(path: Path, default: dict[str, Any], **docker: dict[str, Any]) -> str:
    scopes = {scope: [requirement] for scope, requirement in docker.items()}
    path.write_text(json.dumps({"default": [default], "transports": {"docker": scopes}}))
    return str(path)


def pull(root: Path, name: str, policy: str) -> Any:
    return asyncio.run(asyncio.wait_for(ImageClient(str(root), policy=policy).pull(name), 60))


def test_signed_images(host: str, keys: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    signed = push(host, keys, tmp_path / "a", "team/signed:1", by="one")
    other = push(host, keys, tmp_path / "b", "team/other:1", by="two")
    plain = push(host, keys, tmp_path / "c", "team/plain:1")
    named = push(host, keys, tmp_path / "d", "team/named:1", by="one", identity="quay.io/another/name:1")
    required = {"type": "sigstoreSigned", "keyPath": f"{keys}/one.pub"}
    strict = policy(tmp_path / "policy.json", required)

    record = pull(store, signed, strict)
    assert record.reference == signed
    by_digest = f"{host}/team/signed@{digest_of(signed)}"
    assert pull(tmp_path / "again", by_digest, strict).id == record.id
    for name, words in (
        (other, "a signature is by another key"),
        (plain, "it has none"),
        (named, "a signature is of the name quay.io/another/name:1"),
    ):
        with pytest.raises(ImageError, match="A signature was required, but no signature is valid") as caught:
            pull(store, name, strict)
        assert words in str(caught.value) and caught.value.reason == "SignatureValidationFailed"
    assert [one.reference for one in ImageStore(str(store)).list()] == [signed]

    both = {**required, "keyPaths": [f"{keys}/one.pub", f"{keys}/two.pub"]}
    del both["keyPath"]
    assert pull(store, other, policy(tmp_path / "both.json", both)).reference == other


def test_a_signature_of_another_image_is_none(host: str, keys: Path, tmp_path: Path) -> None:
    """Who controls the registry attaches the signatures of a good image to a bad one."""
    good = push(host, keys, tmp_path / "good", "swap/app:1", by="one")
    digest = digest_of(good)
    bad = push(host, keys, tmp_path / "bad", "swap/app:1")
    after = digest_of(bad)
    assert after != digest
    tags = [f"docker://{host}/swap/app:{one.replace(':', '-')}.sig" for one in (digest, after)]
    run("skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", *tags)
    strict = policy(tmp_path / "p.json", {"type": "sigstoreSigned", "keyPath": f"{keys}/one.pub"})
    with pytest.raises(ImageError, match=f"a signature is of another image, {digest}"):
        pull(tmp_path / "store", bad, strict)


def test_registries(host: str, keys: Path, tmp_path: Path) -> None:
    name = push(host, keys, tmp_path / "a", "free/app:1")
    closed = policy(
        tmp_path / "p.json", {"type": "reject"}, **{f"{host}/free": {"type": "insecureAcceptAnything"}}
    )
    assert pull(tmp_path / "store", name, closed).reference == name
    with pytest.raises(ImageError, match=r"is rejected by policy\."):
        pull(tmp_path / "store", push(host, keys, tmp_path / "b", "shut/app:1"), closed)
    with pytest.raises(ImageError, match="cannot be used: No such file"):
        pull(tmp_path / "store", name, str(tmp_path / "none.json"))

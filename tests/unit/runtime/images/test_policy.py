"""Image policies: containers-policy.json(5) as containers/image reads it, and the signatures that it asks for."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from runtime.errors import ImageError
from runtime.images import reference
from runtime.images.registry import policy, signatures
from runtime.images.registry.policy import Identity, Requirement, Wrong, parse, scopes_of
from runtime.images.registry.signatures import Signature, check

ACCEPT, REJECT = [{"type": "insecureAcceptAnything"}], [{"type": "reject"}]
DIGEST, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def scoped(default: Any = None, **docker: Any) -> policy.Policy:
    return parse({"default": default or REJECT, "transports": {"docker": docker}}, "/p")


def test_scopes_from_the_image_to_everything() -> None:
    """deep.com/n1/n2/n3/repo:tag in policy_eval_test.go and naming_test.go."""
    assert list(scopes_of(reference.parse("a.deep.com:5000/n1/n2/repo:tag2"))) == [
        "a.deep.com:5000/n1/n2/repo:tag2", "a.deep.com:5000/n1/n2/repo", "a.deep.com:5000/n1/n2", "a.deep.com:5000/n1",
        "a.deep.com:5000", "*.deep.com:5000", "*.com:5000", "",
    ]  # fmt: skip
    assert list(scopes_of(reference.parse("busybox"))) == [
        "docker.io/library/busybox:latest", "docker.io/library/busybox", "docker.io/library", "docker.io", "*.io", "",
    ]  # fmt: skip
    assert next(scopes_of(reference.parse(f"q.io/x:1@{DIGEST}"))) == f"q.io/x@{DIGEST}"


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("quay.io/team/app:1", True),
        ("quay.io/team/bad:1", False),
        ("quay.io/team/bad:good", True),
        ("quay.io/other:1", False),
        ("quay.io/teams/app", False),
        ("eu.registry.example/x", True),
        ("registry.example/x", False),
        ("busybox", False),
    ],
)
def test_registries_that_are_allowed(image: str, allowed: bool) -> None:
    docker = {
        "quay.io/team": ACCEPT, "quay.io/team/bad": REJECT, "quay.io/team/bad:good": ACCEPT,
        "*.registry.example": ACCEPT,
    }  # fmt: skip
    found = scoped(**docker)
    if allowed:
        assert found.admit(reference.parse(image)) == ()
    else:
        with pytest.raises(ImageError, match=r"Running image docker://.* is rejected by policy\.") as caught:
            found.admit(reference.parse(image))
        assert caught.value.reason == "SignatureValidationFailed"


def test_all_requirements_of_a_scope_hold_at_once() -> None:
    with pytest.raises(ImageError, match="rejected"):
        scoped(**{"": [*ACCEPT, *REJECT]}).admit(reference.parse("x"))
    assert scoped(ACCEPT).admit(reference.parse("x")) == ()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "the policy is not an object"),
        ({}, "it has no default"),
        ({"default": []}, "default is not a list of requirements"),
        ({"default": ACCEPT, "defaults": []}, "unknown key 'defaults'"),
        ({"default": [{"type": "accept"}]}, "cannot check the type 'accept'"),
        ({"default": [{"type": "reject", "keyPath": "/k"}]}, "unknown key 'keyPath'"),
        (
            {"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]},
            "cannot check the type 'signedBy'",
        ),
        ({"default": [{"type": "sigstoreSigned"}]}, "must have one of"),
        ({"default": [{"type": "sigstoreSigned", "keyPath": "/k", "keyData": ""}]}, "must have one of"),
        (
            {"default": [{"type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyPath": "/r"}]},
            "unknown key 'rekor",
        ),
        ({"default": [{"type": "sigstoreSigned", "fulcio": {}}]}, "unknown key 'fulcio'"),
        ({"default": [{"type": "sigstoreSigned", "keyData": "%"}]}, "not base64"),
        ({"default": [{"type": "sigstoreSigned", "keyData": "\ud800"}]}, "not base64"),
        ({"default": [{"type": "sigstoreSigned", "keyPath": 1}]}, "keys must be texts"),
        (
            {
                "default": [
                    {"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "remapIdentity"}}
                ]
            },
            "cannot check the type 'remapIdentity'",
        ),
        ({"default": ACCEPT, "transports": {"docker": {"x": [{"type": "no"}]}}}, "transports.docker"),
    ],
)
def test_an_invalid_or_unsupported_policy_is_an_error(document: Any, words: str) -> None:
    with pytest.raises(Wrong, match="the image policy /p cannot be used") as caught:
        parse(document, "/p")
    assert words in str(caught.value)


POLICY = """{
  "default": [{"type": "reject"}],
  "transports": {
    "docker": {
      "a.example": [{"type": "insecureAcceptAnything"}],
      "b.example/x \\u007b": [
        {"type": "insecureAcceptAnything"},
        {
          "type": "signedBy", "keyType": "GPGKeys",
          "keyPath": "/etc/pki/key.gpg"
        }
      ]
    },
    "other": {"a": [1, {"]": "}"}]}
  }
}
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        (
            "", "", 8,
            "transports.docker['b.example/x {'][1]: this version cannot check the type 'signedBy' (signatures with GPG "
            "keys); it checks sigstoreSigned with keys",
        ),
        (
            '"type": "signedBy", "keyType": "GPGKeys",', '"type": "sigstoreSigned", "fulcio": {},', 9,
            "transports.docker['b.example/x {'][1] has an unknown key 'fulcio': this version checks signatures with "
            "keys, not those of Fulcio, of a PKI, or in Rekor's log",
        ),
        (
            '"type": "signedBy", "keyType": "GPGKeys",',
            '"type": "sigstoreSigned", "keyData": "",\n"rekorPublicKeyPath": "/r",',
            10, "'rekorPublicKeyPath': this version checks signatures with keys",
        ),
        ('"default": [{"type": "reject"}],', "", 1, "it has no default"),
        ('[{"type": "reject"}]', "[{", 2, "it is not JSON"),
    ],
)  # fmt: skip
def test_what_is_unsupported_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    path = tmp_path / "policy.json"
    path.write_text(POLICY.replace(old, new) if old else POLICY)
    with pytest.raises(Wrong) as caught:
        policy.load(str(path))
    said = str(caught.value)
    assert said.startswith(f"the image policy {path}, line {line}, cannot be used: ") and words in said, said


def test_every_value_has_a_line() -> None:
    for text in (
        POLICY,
        " [ ]",
        "{}",
        '[[], {}, "x\\"]", {"a": {"b": [1, [2]]}}]',
        json.dumps(json.loads(POLICY)),
    ):
        at = {json.dumps(steps): line for steps, line in _lines(json.loads(text), text)}
        assert all(1 <= line <= text.count("\n") + 1 for line in at.values())


def test_of_equal_keys_the_last_one_counts() -> None:
    assert policy.line_of('{"a": 1,\n"a": 2, "b": {}}', ("a",)) == 2
    assert policy.line_of('{"a": 1,\n"b": [{}, \n{}]}', ("b", 1, "none")) == 3


def _lines(
    value: Any, text: str, steps: tuple[str | int, ...] = ()
) -> list[tuple[tuple[str | int, ...], int]]:
    found = [(steps, policy.line_of(text, steps))]
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for step, member in members:
        found += _lines(member, text, (*steps, step))
    return found


def test_a_file_that_cannot_be_read_allows_nothing(tmp_path: Path) -> None:
    with pytest.raises(Wrong, match="No such file"):
        policy.load(str(tmp_path / "none"))
    (tmp_path / "bad").write_text("{")
    with pytest.raises(Wrong, match="it is not JSON"):
        policy.load(str(tmp_path / "bad"))


R = "quay.io/team/app"


@pytest.mark.parametrize(
    ("kind", "given", "signed", "wanted", "found"),
    [
        ("matchRepoDigestOrExact", "", f"{R}:1", f"{R}:1", True),
        ("matchRepoDigestOrExact", "", f"{R}:1", f"{R}:2", False),
        ("matchRepoDigestOrExact", "", R, f"{R}:latest", False),
        ("matchRepoDigestOrExact", "", f"{R}:1", f"{R}@{DIGEST}", True),
        ("matchRepoDigestOrExact", "", f"{R}:1", f"quay.io/team/other@{DIGEST}", False),
        ("matchExact", "", f"{R}:1", f"{R}:1", True),
        ("matchExact", "", f"{R}:1", f"{R}@{DIGEST}", False),
        ("matchRepository", "", R, f"{R}:1", True),
        ("matchRepository", "", f"{R}:9", f"{R}:1", True),
        ("matchRepository", "", "quay.io/team/other:1", f"{R}:1", False),
        ("exactReference", f"{R}:1", f"{R}:1", "mirror.example/x:1", True),
        ("exactReference", f"{R}:1", f"{R}:2", f"{R}:1", False),
        ("exactReference", f"{R}:latest", R, f"{R}:1", False),
        ("exactRepository", R, f"{R}:5", "mirror.example/x:1", True),
        ("exactRepository", R, "quay.io/team/other", f"{R}:1", False),
        ("matchRepository", "", "not a name", f"{R}:1", False),
    ],
)
def test_identities(kind: str, given: str, signed: str, wanted: str, found: bool) -> None:
    assert Identity(kind, given).matches(signed, reference.parse(wanted)) is found


def pem(key: Any) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))


def payload(digest: str = DIGEST, name: str = R, kind: str = "cosign container image signature") -> bytes:
    critical = {
        "identity": {"docker-reference": name}, "image": {"docker-manifest-digest": digest}, "type": kind,
    }  # fmt: skip
    return json.dumps({"critical": critical, "optional": None}).encode()


EC = ec.generate_private_key(ec.SECP256R1())


def signed(text: bytes, key: Any = EC) -> Signature:
    if isinstance(key, rsa.RSAPrivateKey):
        return Signature(text, key.sign(text, padding.PKCS1v15(), hashes.SHA256()))
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return Signature(text, key.sign(text))
    return Signature(text, key.sign(text, ec.ECDSA(hashes.SHA256())))


def required(*keys: Any) -> Requirement:
    return Requirement("sigstoreSigned", (), tuple(map(pem, keys)), Identity("matchRepository"))


WANTED = reference.parse(f"{R}:1")


@pytest.mark.parametrize(
    "key",
    [EC, rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()],
    ids=["ec", "rsa", "ed25519"],
)
def test_a_signature_by_the_key(key: Any) -> None:
    check([signed(payload(), key)], [required(key)], WANTED, [DIGEST])
    with pytest.raises(ImageError, match="a signature is by another key"):
        check([signed(payload(), key)], [required(ec.generate_private_key(ec.SECP256R1()))], WANTED, [DIGEST])


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], "it has none"),
        ([signed(payload(OTHER))], f"a signature is of another image, {OTHER}"),
        ([signed(payload(name="quay.io/team/other"))], "a signature is of the name quay.io/team/other"),
        ([signed(payload(kind="atomic container signature"))], "a signed text is not one of an image"),
        ([signed(b"{}")], "a signed text is not one of an image"),
        ([signed(b"[]")], "a signed text is not one of an image"),
        ([Signature(payload(), b"")], "a signature is by another key"),
        ([Signature(payload(), signed(payload(OTHER)).signature)], "a signature is by another key"),
    ],
)
def test_invalid_signatures_are_rejected(found: list[Signature], words: str) -> None:
    with pytest.raises(ImageError, match="A signature was required, but no signature is valid") as caught:
        check(found, [required(EC)], WANTED, [DIGEST])
    assert words in str(caught.value) and caught.value.reason == "SignatureValidationFailed"


def test_each_requirement_needs_a_signature_by_any_of_its_keys() -> None:
    second = ec.generate_private_key(ec.SECP256R1())
    one, two = signed(payload()), signed(payload(), second)
    check([one], [required(second, EC)], WANTED, [DIGEST])
    check([one, two], [required(EC), required(second)], WANTED, [OTHER, DIGEST])
    with pytest.raises(ImageError, match="no signature is valid"):
        check([one], [required(EC), required(second)], WANTED, [DIGEST])


def test_keys_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read the public key .*: No such file"):
        check([signed(payload())], [Requirement("sigstoreSigned", (str(tmp_path / "k"),))], WANTED, [DIGEST])
    with pytest.raises(ImageError, match="is not a public key in PEM"):
        check([signed(payload())], [Requirement("sigstoreSigned", (), (b"x",))], WANTED, [DIGEST])


def test_signatures_in_a_manifest() -> None:
    layer = {"mediaType": signatures.MEDIA_TYPE, "digest": DIGEST, "size": 1}
    good = {**layer, "annotations": {signatures.ANNOTATION: base64.b64encode(b"s").decode()}}
    others: list[Any] = [
        layer,
        {**good, "mediaType": "x"},
        {**good, "annotations": {signatures.ANNOTATION: "%"}},
        1,
    ]
    assert signatures.listed({"layers": [*others, good]}) == [(good, b"s")]
    assert signatures.listed({"layers": None}) == [] and signatures.listed([]) == []
    assert len(signatures.listed({"layers": [good] * 1000})) == signatures.MOST
    assert signatures.tag_of(DIGEST) == f"sha256-{'1' * 64}.sig"

"""How a node finds the cluster that it is to join, and trusts it. Pure.

A person gives the line that `kubeadm token create --print-join-command` prints, or a kubeconfig. The line names an
address, a token and the hash of the cluster's CA. The address answers anybody with the ConfigMap
`kube-public/cluster-info`, which the token's secret signs. Only an answer with that signature, and with a CA of that
hash, is believed.

Sources: Kubernetes cmd/kubeadm/app/discovery/token/token.go, staging/src/k8s.io/cluster-bootstrap/token/jws/jws.go.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from kubelite.cluster.membership.der import certificates, key_hash
from kubelite.kube.json import Json

_TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_TOKENS, _PIN = ("token", "discovery-token", "tls-bootstrap-token"), "discovery-token-ca-cert-hash"
_EXAMPLE = "give the line that `kubeadm token create --print-join-command` prints"


class JoinError(Exception):
    """The node cannot join. The message says why, and what to do."""


class NotYetSigned(JoinError):
    """The cluster has not signed its cluster-info for this token yet; it may do so soon."""


@dataclass(frozen=True, slots=True)
class JoinLine:
    """What a join command says. `server`: https://HOST:PORT; `hashes`: of acceptable CAs, at least one."""

    server: str
    token: str
    hashes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """A server and by what it and its client know each other. PEM texts; either a token or a certificate with its
    key."""

    server: str
    authority: str
    token: str = ""
    certificate: str = ""
    key: str = ""


def parse_line(text: str) -> JoinLine:
    """Read a join command. Raises JoinError."""
    try:
        words = shlex.split(text.replace("\\\n", " "))
    except ValueError as error:
        raise JoinError(f"cannot read the join command: {error}: {_EXAMPLE}") from error
    words = words[2:] if words[:2] == ["kubeadm", "join"] else words
    address, options = "", dict[str, list[str]]()
    at = 0
    while at < len(words):
        word = words[at]
        if not word.startswith("--"):
            if address:
                raise JoinError(f"the join command names two addresses, {address} and {word}: {_EXAMPLE}")
            address = word
        else:
            name, equals, value = word[2:].partition("=")
            if name not in (*_TOKENS, _PIN):
                raise JoinError(f"--{name} of the join command is not supported: leave it out, or {_EXAMPLE}")
            if not equals:
                at += 1
                value = words[at] if at < len(words) else ""
            options.setdefault(name, []).append(value)
        at += 1
    return _line(address, options)


def _line(address: str, options: dict[str, list[str]]) -> JoinLine:
    tokens = {value for name in _TOKENS for value in options.get(name, ())}
    hashes = tuple(options.get(_PIN, ()))
    if not address:
        raise JoinError(f"the join command names no API server (HOST:PORT): {_EXAMPLE}")
    if len(tokens) != 1 or not _TOKEN.fullmatch(next(iter(tokens))):
        raise JoinError(f"the join command needs one --token of the form abcdef.0123456789abcdef: {_EXAMPLE}")
    if not hashes or not all(_HASH.fullmatch(one) for one in hashes):
        words = "the join command needs --discovery-token-ca-cert-hash sha256:… , by which the CA is known"
        raise JoinError(f"{words}: {_EXAMPLE}")
    server = address if address.startswith("https://") else f"https://{address}"
    return JoinLine(server.rstrip("/"), next(iter(tokens)), hashes)


def trusted(cluster_info: Json, line: JoinLine) -> Access:
    """Return how to reach the cluster that a ConfigMap cluster-info describes, with the token as login. Raises
    NotYetSigned, JoinError."""
    data = cluster_info.get("data") or {}
    text = str(data.get("kubeconfig") or "")
    identity, _, secret = line.token.partition(".")
    signature = data.get(f"jws-kubeconfig-{identity}")
    if not text or not signature:
        words = f"the cluster knows no token {identity}: it is wrong or has expired"
        raise NotYetSigned(f"{words}; print a new one with `kubeadm token create --print-join-command`")
    if not _is_signed(text, str(signature), secret):
        raise JoinError(
            f"the signature of cluster-info does not match the token {identity}: "
            "the secret part of the token is wrong, or another server answers at this address"
        )
    found = _cluster_of(_document(text))
    if not any(one in line.hashes for one in _hashes(found.authority)):
        raise JoinError(
            "the CA of the cluster is not the one whose hash the join command names: "
            "another server may answer at this address"
        )
    return Access(found.server, found.authority, token=line.token)


def _is_signed(text: str, signature: str, secret: str) -> bool:
    """Whether a detached JWS (RFC 7515, appendix F) is that of the text."""
    header, _, rest = signature.partition(".")
    between, _, given = rest.partition(".")
    try:
        algorithm = json.loads(_decoded(header)).get("alg")
    except (ValueError, AttributeError):
        return False
    if between or algorithm != "HS256":
        return False
    payload = base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
    wanted = hmac.new(secret.encode(), f"{header}.{payload}".encode(), hashlib.sha256).digest()
    try:
        return hmac.compare_digest(wanted, _decoded(given))
    except ValueError:
        return False


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _hashes(authority: str) -> list[str]:
    try:
        return [key_hash(one) for one in certificates(authority)]
    except ValueError as error:
        raise JoinError(f"the CA that the cluster names is not a certificate: {error}") from error


def parse_kubeconfig(text: str) -> Access:
    """Read the current context of a kubeconfig whose data are inline. Raises JoinError."""
    document = _document(text)
    contexts = {one.get("name"): one.get("context") or {} for one in document.get("contexts") or ()}
    context = contexts.get(document.get("current-context"), {})
    found = _cluster_of(document, str(context.get("cluster") or ""))
    users = {one.get("name"): one.get("user") or {} for one in document.get("users") or ()}
    user = users.get(context.get("user"), {})
    certificate, key = (_data(user, f"client-{one}-data") for one in ("certificate", "key"))
    token = str(user.get("token") or "")
    if not token and not (certificate and key):
        raise JoinError(
            "the current context of the kubeconfig has no token and no client certificate with its key: "
            "other logins are not supported"
        )
    return Access(found.server, found.authority, token, certificate, key)


def _document(text: str) -> Json:
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise JoinError(f"the kubeconfig is not YAML: {error}") from error
    if not isinstance(found, dict):
        raise JoinError("the kubeconfig is not a document of kind Config")
    return found


def _cluster_of(document: Json, name: str = "") -> Access:
    """Return the server and CA of a cluster in a kubeconfig, of its only one without a name."""
    every = [one for one in document.get("clusters") or () if not name or one.get("name") == name]
    cluster: dict[str, Any] = (every[0].get("cluster") or {}) if every else {}
    server, authority = str(cluster.get("server") or ""), _data(cluster, "certificate-authority-data")
    if not server.startswith("https://"):
        raise JoinError("the kubeconfig names no server with https://")
    if not authority:
        raise JoinError("the kubeconfig has no certificate-authority-data, by which the server is known")
    return Access(server.rstrip("/"), authority)


def _data(owner: dict[str, Any], key: str) -> str:
    try:
        return base64.b64decode(str(owner.get(key) or ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise JoinError(f"{key} of the kubeconfig is not base64 of a PEM text") from error

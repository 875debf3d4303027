"""A small API server for tests of a node that has joined a cluster: HTTP over TLS, list and watch with field selectors,
410 for what is too old, patches, deletion in two steps, bootstrap tokens, certificates that it signs at once, tokens.

It has no admission, no controllers and no authorization: what it answers is what kube-apiserver 1.36 answered to the
same requests, as far as a node looks at it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from kubelite.kube.json import Json
from kubelite.kube.times import rfc3339

TOKEN_ID, TOKEN_SECRET = "abcdef", "0123456789abcdef"
TOKEN = f"{TOKEN_ID}.{TOKEN_SECRET}"
HISTORY = 1000  # events that a watch may begin at
_LISTS = {
    "pods": "Pod",
    "nodes": "Node",
    "services": "Service",
    "configmaps": "ConfigMap",
    "secrets": "Secret",
    "events": "Event",
    "leases": "Lease",
    "persistentvolumes": "PersistentVolume",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "certificatesigningrequests": "CertificateSigningRequest",
}


class Authority:
    """The cluster's CA."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
        made = self._builder(self.name, self.key.public_key()).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        usage = x509.KeyUsage(
            digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
            key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        made = made.add_extension(usage, critical=True).add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        self.certificate = made.sign(self.key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()
        (directory / "ca.crt").write_text(self.pem)

    def _builder(self, subject: x509.Name, key: Any, hours: float = 24) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return x509.CertificateBuilder(
            self.name,
            subject,
            key,
            x509.random_serial_number(),
            now - dt.timedelta(minutes=5),
            now + dt.timedelta(hours=hours),
        )

    @property
    def hash(self) -> str:
        info = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return f"sha256:{hashlib.sha256(info).hexdigest()}"

    def sign(self, request: str) -> str:
        """Sign a node's certificate request."""
        asked = x509.load_pem_x509_csr(request.encode())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        made = self._builder(asked.subject, asked.public_key()).add_extension(usage, critical=False)
        return self._issued(made).public_bytes(Encoding.PEM).decode()

    def _issued(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return builder.add_extension(identifier, critical=False).sign(self.key, hashes.SHA256())

    def login(self, file: str, user: str, *groups: str, address: str = "") -> Path:
        """Make a certificate and key; of a server, if `address` is given. Return the PEM file."""
        import ipaddress

        key = ec.generate_private_key(ec.SECP256R1())
        parts = [*(x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in groups)]
        subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, user)])
        made = self._builder(subject, key.public_key())
        use = ExtendedKeyUsageOID.SERVER_AUTH if address else ExtendedKeyUsageOID.CLIENT_AUTH
        made = made.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        if address:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            made = made.add_extension(names, critical=False)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.directory / file
        path.write_bytes(self._issued(made).public_bytes(Encoding.PEM) + secret)
        return path


class FakeApi:
    """The objects, by path, and those who watch them."""

    def __init__(self, directory: Path, address: str = "127.0.0.1") -> None:
        self.authority = Authority(directory)
        self.address = address
        self.port = 0
        self.objects: dict[str, Json] = {}
        self.version = 100
        self.oldest = 0  # watches from before this resourceVersion get 410
        self.history: list[tuple[int, str, str, Json]] = []  # version, type, path, object
        self.requests: list[tuple[str, str]] = []  # method and path, as they came
        self.changed = asyncio.Event()
        self.down = False  # whether every request is answered with 503
        self.signs = True  # whether certificate requests are approved
        self.allows = True  # what SubjectAccessReviews say
        self.allowed: set[str] = set()  # the subresources for which they say so, all if empty
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"

    @property
    def line(self) -> str:
        what = f"--token {TOKEN} --discovery-token-ca-cert-hash {self.authority.hash}"
        return f"kubeadm join {self.address}:{self.port} {what}"

    @contextlib.asynccontextmanager
    async def serving(self, port: int = 0) -> AsyncIterator[FakeApi]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority.login("server.pem", "kube-apiserver", address=self.address))
        context.load_verify_locations(cadata=self.authority.pem)
        context.verify_mode = ssl.CERT_OPTIONAL
        server = await asyncio.start_server(self._connection, self.address, port, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        self._publish()
        try:
            yield self
        finally:
            server.close()
            self.drop()

    def drop(self) -> None:
        """Cut all connections."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    def _publish(self) -> None:
        """Put cluster-info where anybody finds it."""
        data = base64.b64encode(self.authority.pem.encode()).decode()
        cluster = {"server": self.url, "certificate-authority-data": data}
        text = json.dumps(
            {"apiVersion": "v1", "kind": "Config", "clusters": [{"name": "", "cluster": cluster}]}
        )
        head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"abcdef"}').rstrip(b"=").decode()
        body = base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
        made = hmac.new(TOKEN_SECRET.encode(), f"{head}.{body}".encode(), hashlib.sha256).digest()
        signature = f"{head}..{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}"
        info = {"kubeconfig": text, f"jws-kubeconfig-{TOKEN_ID}": signature}
        self.put("/api/v1/namespaces/kube-public/configmaps/cluster-info", {"data": info})

    # -- objects ------------------------------------------------------------------------------------------------

    def put(self, path: str, doc: Json) -> Json:
        """Create or replace an object, as an administrator or a controller does."""
        parts = path.strip("/").split("/")
        old = self.objects.get(path)
        metadata = {**(old["metadata"] if old else {}), **doc.get("metadata", {}), "name": parts[-1]}
        if "namespaces" in parts:
            metadata["namespace"] = parts[parts.index("namespaces") + 1]
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata.setdefault("creationTimestamp", rfc3339(time.time()))
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        made = {**doc, "kind": _LISTS.get(parts[-2], "Unknown"), "apiVersion": "v1", "metadata": metadata}
        self._happened("MODIFIED" if old else "ADDED", path, made)
        return made

    def remove(self, path: str) -> Json:
        self.version += 1
        last = {
            **self.objects[path],
            "metadata": {**self.objects[path]["metadata"], "resourceVersion": str(self.version)},
        }
        self._happened("DELETED", path, last)
        return last

    def _happened(self, kind: str, path: str, doc: Json) -> None:
        if kind == "DELETED":
            self.objects.pop(path, None)
        else:
            self.objects[path] = doc
        self.history.append((self.version, kind, path, doc))
        if len(self.history) > HISTORY:
            self.oldest = self.history.pop(0)[0]
        self.changed.set()
        self.changed = asyncio.Event()

    def terminate(self, path: str, grace: int = 30) -> None:
        """Delete a pod gracefully, as kubectl does."""
        metadata = self.objects[path]["metadata"]
        end = {"deletionTimestamp": rfc3339(time.time() + grace), "deletionGracePeriodSeconds": grace}
        self.put(path, {**self.objects[path], "metadata": {**metadata, **end}})

    # -- HTTP ---------------------------------------------------------------------------------------------------

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                method, target, _ = lines[0].split(" ")
                headers = {
                    k.lower(): v.strip() for k, _, v in (one.partition(":") for one in lines[1:] if one)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(writer, method, target, headers, json.loads(body) if body else {})
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, method: str, target: str, headers: dict[str, str], body: Json
    ) -> None:
        from urllib.parse import parse_qsl, urlsplit

        path, query = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query))
        self.requests.append((method, path))
        if self.down:
            return await _send(writer, 503, {"message": "not now"})
        if query.get("watch"):
            return await self._watch(writer, path, query)
        code, found = self.request(method, path, query, body)
        await _send(writer, code, found)

    def request(self, method: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Json]:
        """Answer one request."""
        resource = path.strip("/").split("/")[-1]
        if method == "GET":
            if path in self.objects:
                return 200, self.objects[path]
            return (200, self._list(path, query)) if resource in _LISTS else _status(404, "NotFound", path)
        if method == "POST":
            return self._create(path, resource, body)
        if method == "PUT":
            known = self.objects[path]["metadata"]["resourceVersion"] if path in self.objects else None
            if body["metadata"].get("resourceVersion") != known:
                return _status(409, "Conflict", path)
            return 200, self.put(path, body)
        base = path.removesuffix("/status")
        if base not in self.objects:
            return _status(404, "NotFound", path)
        if method == "PATCH":
            uid = (body.get("metadata") or {}).get("uid")
            if uid and uid != self.objects[base]["metadata"]["uid"]:
                return _status(409, "Conflict", path)
            return 200, self.put(base, merged(self.objects[base], body))
        return self._delete(base, body)

    def _list(self, path: str, query: dict[str, str]) -> Json:
        items = [doc for place, doc in sorted(self.objects.items()) if _belongs(place, doc, path, query)]
        bare = [{k: v for k, v in one.items() if k not in ("kind", "apiVersion")} for one in items]
        kind = f"{_LISTS[path.strip('/').split('/')[-1]]}List"
        return {
            "kind": kind,
            "apiVersion": "v1",
            "metadata": {"resourceVersion": str(self.version)},
            "items": bare,
        }

    def _create(self, path: str, resource: str, body: Json) -> tuple[int, Json]:
        if resource == "token":
            expires = rfc3339(time.time() + body["spec"]["expirationSeconds"])
            return 201, {**body, "status": {"token": f"token-{uuid.uuid4()}", "expirationTimestamp": expires}}
        if resource == "eviction":
            self.terminate(path.removesuffix("/eviction"))
            return 201, {"kind": "Status", "status": "Success"}
        if resource == "subjectaccessreviews":
            wanted = body["spec"]["resourceAttributes"]["subresource"]
            allowed = self.allows and (not self.allowed or wanted in self.allowed)
            return 201, {**body, "status": {"allowed": allowed}}
        if resource == "tokenreviews":
            user = {
                "username": "system:serviceaccount:monitoring:prometheus",
                "groups": ["system:serviceaccounts"],
            }
            good = body["spec"]["token"] == "good"
            return 201, {**body, "status": {"authenticated": good, **({"user": user} if good else {})}}
        name = (
            body["metadata"].get("name")
            or f"{body['metadata'].get('generateName', '')}{uuid.uuid4().hex[:5]}"
        )
        if f"{path}/{name}" in self.objects:
            return _status(409, "AlreadyExists", f"{path}/{name}")
        if resource == "certificatesigningrequests" and self.signs:
            signed = self.authority.sign(base64.b64decode(body["spec"]["request"]).decode())
            body = {**body, "status": {"certificate": base64.b64encode(signed.encode()).decode()}}
        return 201, self.put(f"{path}/{name}", body)

    def _delete(self, path: str, options: Json) -> tuple[int, Json]:
        metadata = self.objects[path]["metadata"]
        uid = (options.get("preconditions") or {}).get("uid")
        if uid and uid != metadata["uid"]:
            return _status(409, "Conflict", path)
        if "/nodes/" in path:
            return _status(403, "Forbidden", path)
        if "/pods/" in path and options.get("gracePeriodSeconds") != 0:
            self.terminate(path)
            return 200, self.objects[path]
        return 200, self.remove(path)

    async def _watch(self, writer: asyncio.StreamWriter, path: str, query: dict[str, str]) -> None:
        since = int(query.get("resourceVersion") or 0)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        while not self.down:
            waiting = self.changed
            if since < self.oldest:
                _, status = _status(410, "Expired", path)
                await _chunk(writer, {"type": "ERROR", "object": status})
                break
            for version, kind, place, doc in [one for one in self.history if one[0] > since]:
                since = version
                if _belongs(place, doc, path, query):
                    await _chunk(writer, {"type": kind, "object": doc})
            await waiting.wait()
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def _belongs(place: str, doc: Json, path: str, query: dict[str, str]) -> bool:
    """Whether an object is of a list, and chosen by the field selector."""
    resource = path.strip("/").split("/")[-1]
    parts = place.strip("/").split("/")
    if parts[-2] != resource or ("/namespaces/" in path and not place.startswith(f"{path}/")):
        return False
    for field in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, value = field.partition("=")
        found = (
            doc["metadata"]["name"] if name == "metadata.name" else (doc.get("spec") or {}).get("nodeName")
        )
        if found != value:
            return False
    return True


def merged(old: Any, patch: Any, key: str = "") -> Any:
    """A strategic merge patch, as far as a node sends one: maps are merged, lists replaced, except for conditions (by
    type) and what says `$patch: replace`."""
    if isinstance(patch, dict) and isinstance(old, dict):
        made = {**old}
        for name, value in patch.items():
            if value is None:
                made.pop(name, None)
            else:
                made[name] = merged(old.get(name), value, name)
        return made
    if isinstance(patch, list):
        plain = [one for one in patch if not (isinstance(one, dict) and "$patch" in one)]
        if key == "conditions":
            gone = {one["type"] for one in patch if one.get("$patch") == "delete"}
            new = {one["type"]: {k: v for k, v in one.items() if v is not None} for one in plain}
            kept = [one for one in old or () if one["type"] not in gone and one["type"] not in new]
            return [*kept, *new.values()]
        return plain
    return patch


def _status(code: int, reason: str, path: str) -> tuple[int, Json]:
    message = f"{path}: {reason}"
    return code, {"kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": message}


async def _send(writer: asyncio.StreamWriter, code: int, doc: Json) -> None:
    body = json.dumps(doc).encode()
    head = f"HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def _chunk(writer: asyncio.StreamWriter, doc: Json) -> None:
    line = json.dumps(doc).encode() + b"\n"
    writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
    await writer.drain()


async def main(directory: Path) -> None:
    """Serve on 127.0.0.1:6443, and without TLS on `admin.sock` for the test, until this is killed."""
    api = FakeApi(directory)
    api.authority.login("admin.pem", "admin", "system:masters")
    async with api.serving(6443), await asyncio.start_unix_server(api._connection, directory / "admin.sock"):
        (directory / "line").write_text(api.line)
        print("up", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    import sys

    asyncio.run(main(Path(sys.argv[1])))

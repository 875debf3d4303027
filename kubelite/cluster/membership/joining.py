"""How the node becomes a member of a cluster, step by step. Each step can be repeated; the last one writes
membership.json, so a node that is killed before has not joined.

    discovery: who is the cluster? → key and certificate request → an approver signs → files → membership

Source: Kubernetes pkg/kubelet/certificate/bootstrap/bootstrap.go (LoadClientCert, requestNodeCertificate).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable

from kubelite.api.secure.certificates import ask
from kubelite.cluster.client import ClusterClient, ClusterError, Refusal, Unreachable, context
from kubelite.cluster.membership import files
from kubelite.cluster.membership.discovery import Access, JoinError, JoinLine, NotYetSigned, trusted
from kubelite.cluster.membership.files import Membership
from kubelite.kube.json import Json

log = logging.getLogger(__name__)

SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
#: `key encipherment` says nothing for an elliptic curve, but approvers of older clusters require it.
USAGES = ("digital signature", "key encipherment", "client auth")
POLL = 0.5  # seconds between looks
PATIENCE = 60.0  # seconds for the signature of cluster-info, and for the approval of a certificate
Say = Callable[[str], None]


async def discover(line: JoinLine, say: Say) -> Access:
    """Return the cluster that a join command names, once it is known to be that one. Raises JoinError."""
    deadline = time.monotonic() + PATIENCE
    say(f"asking {line.server} which cluster it is")
    while True:
        try:
            found = trusted(await _cluster_info(line.server, _anyone()), line)
            break
        except (NotYetSigned, Unreachable) as error:
            if time.monotonic() > deadline:
                raise JoinError(str(error)) from error
        except Refusal as error:
            raise JoinError(f"{line.server} does not show its cluster-info: {error}") from error
        await asyncio.sleep(POLL)
    try:  # the first answer came over a connection that nobody vouches for; this one must say the same
        again = trusted(await _cluster_info(line.server, context(found)), line)
    except (ClusterError, OSError) as error:
        raise JoinError(f"{line.server} is not a server of the cluster that it names: {error}") from error
    if again != found:
        raise JoinError(f"{line.server} names another cluster over TLS than before")
    return found


def _anyone() -> ssl.SSLContext:
    """Return a context that verifies nothing: what is read over it is verified by its signature."""
    made = ssl.create_default_context()
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


async def _cluster_info(server: str, verify: ssl.SSLContext) -> Json:
    client = ClusterClient(server, verify)
    try:
        return await client.get("/api/v1/namespaces/kube-public/configmaps/cluster-info")
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def client_of(access: Access, root: str) -> AsyncIterator[ClusterClient]:
    """A client with the login of an Access. Its certificate and key are in a file only while they are read."""
    if access.certificate:
        files.write(root, "bootstrap.pem", access.certificate + access.key)
        login = files.directory(root) / "bootstrap.pem"
        try:
            verify = context(access, str(login))
        finally:
            login.unlink(missing_ok=True)
    else:
        verify = context(access)
    client = ClusterClient(access.server, verify, access.token)
    try:
        yield client
    finally:
        await client.close()


async def certify(client: ClusterClient, node: str, say: Say) -> str:
    """Return a certificate of the node with its key, PEM. Raises JoinError, ClusterError, RuntimeFault."""
    made = await ask("kubelite.cluster.membership.keys", {"request": {"node": node}})
    request = {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "csr-"},
        "spec": {
            "request": base64.b64encode(made["request"].encode()).decode(),
            "signerName": SIGNER,
            "usages": list(USAGES),
        },
    }
    name = (await client.post(REQUESTS, request))["metadata"]["name"]
    say(f"certificate request {name} waits for its approval")
    deadline = time.monotonic() + PATIENCE
    while True:
        status = (await client.get(f"{REQUESTS}/{name}")).get("status") or {}
        if signed := status.get("certificate"):
            return base64.b64decode(signed).decode() + str(made["key"])
        for condition in status.get("conditions") or ():
            if condition["type"] in ("Denied", "Failed"):
                words = condition.get("message") or condition.get("reason") or "no reason is given"
                raise JoinError(f"certificate request {name} is {condition['type'].lower()}: {words}")
        if time.monotonic() > deadline:
            raise JoinError(
                f"nobody has approved certificate request {name} within {PATIENCE:.0f} s: run "
                f"`kubectl certificate approve {name}` on the cluster and join again, or let the cluster approve the "
                "requests of its nodes"
            )
        await asyncio.sleep(POLL)


async def join(root: str, node: str, access: Access, say: Say) -> Membership:
    """Make the node a member of the cluster. Raises JoinError, OSError, RuntimeFault."""
    try:
        async with client_of(access, root) as client:
            login = await certify(client, node, say)
    except ClusterError as error:
        raise JoinError(f"the cluster gives node {node} no certificate: {error}") from error
    files.write(root, "ca.crt", access.authority)
    files.write(root, "client.pem", login)
    joined = Membership(access.server, node, time.time())
    files.save(root, joined)
    say(f"node {node} has a certificate of the cluster at {access.server}")
    return joined


def member_client(root: str, found: Membership) -> ClusterClient:
    """Return the client of a member. Raises OSError, ssl.SSLError."""
    return ClusterClient(found.server, member_context(root, found))


def member_context(root: str, found: Membership) -> ssl.SSLContext:
    where = files.directory(root)
    authority = (where / "ca.crt").read_text(encoding="ascii")
    return context(Access(found.server, authority), str(where / "client.pem"))

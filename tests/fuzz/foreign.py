"""Bytes that others write, damaged at random, for every parser of them: each ends in a value or in its own error,
within seconds. A parser, a seed and a number name a case."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

from kubelite.node.spec import users
from kubelite.node.worker.pull_records import _read_record
from manifests.yaml import loader
from runtime.builder.errors import BuildError
from runtime.builder.language import graph, ignore, lexer
from runtime.errors import RuntimeFault
from runtime.images import imageconfig, manifests, reference
from runtime.images.layers import streams, tarstream
from runtime.images.registry import auth, policy, transport
from runtime.network.ipam import LeaseStore
from runtime.network.plan import Subnet
from runtime.oci import execve_stub, handshake
from runtime.shim import state
from tests.fuzz import mutate

MOST_SECONDS: Final = 2.0  # of processor time for a case; the slowest sound one takes a few milliseconds
_RECORD: Final[dict[str, Any]] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "ImagePulledRecord", "imageRef": "sha256:a",
    "credentialMapping": {"a/b": {"kubernetesSecrets": [{"uid": "u", "namespace": "n", "credentialHash": "h"}]}},
}  # fmt: skip


class Parser(NamedTuple):
    """`samples`: bytes that it reads. `allowed`: its errors. `parse` gets the bytes and a directory of its own."""

    samples: Callable[[], tuple[bytes, ...]]
    parse: Callable[[bytes, Path], object]
    allowed: tuple[type[BaseException], ...] = (RuntimeFault,)


def case(parser: Parser, seed: int, number: int) -> bytes:
    random = Random(f"{seed} {number}")
    sample = random.choice(parser.samples())
    if random.random() < 0.5:
        try:
            return mutate.mutated(json.loads(sample), random)
        except ValueError:
            pass
    return damaged(sample, random, parser.samples())


def damaged(sample: bytes, random: Random, others: tuple[bytes, ...]) -> bytes:
    """One to five changes: bytes, ranges, numbers and whole pieces of other samples."""
    data = bytearray(sample)
    for _ in range(random.randint(1, 5)):
        at, kind = random.randrange(len(data) + 1), random.randrange(8)
        length = random.choice((1, 2, 8, 100, 512))
        if kind == 0:
            data[at : at + 1] = bytes([random.randrange(256)])
        elif kind == 1:
            del data[at : at + length]
        elif kind == 2:
            data[at:at] = data[at : at + length] * random.choice((1, 2, 50))
        elif kind == 3:
            data[at:at] = random.choice(
                (b"\0", b"\n", b"\\", b'"', b"{", b"[" * 5000, b"\xff\xfe", b"${", b"<<E\n")
            )
        elif kind == 4:
            data[at : at + length] = random.randbytes(length)
        elif kind == 5:
            number = random.choice((0, 1, -1, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 10**30))
            data[at : at + length] = str(number).encode()
        elif kind == 6:
            other = random.choice(others)
            begin = random.randrange(len(other) + 1)
            data[at:at] = other[begin : begin + random.choice((1, 20, 512, 4096))]
        else:
            data[at + length :] = b""
    return bytes(data)


def attempt(name: str, data: bytes, where: Path) -> bool:
    """Parse. False for one of the parser's errors. AssertionError for anything else."""
    parser, began = PARSERS[name], time.process_time()
    try:
        parser.parse(data, where)
        sound = True
    except parser.allowed:
        sound = False
    except (Exception, RecursionError) as error:
        raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
    took = time.process_time() - began
    assert took < MOST_SECONDS, f"{name}: took {took:.1f} s of processor time"
    return sound


# --- samples ---


def texts(*found: str) -> Callable[[], tuple[bytes, ...]]:
    return lambda: tuple(text.encode() for text in found)


def documents(*found: Any) -> Callable[[], tuple[bytes, ...]]:
    return lambda: tuple(
        json.dumps(one, indent=random_indent).encode() for one in found for random_indent in (None, 1)
    )


@cache
def archives() -> tuple[bytes, ...]:
    """An archive in each format, with long names, links, devices and sparse files."""
    return tuple(_archive(kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT))


def _archive(kind: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for number, (name, type_) in enumerate(
            (
                ("etc", tarfile.DIRTYPE), ("etc/file", tarfile.REGTYPE), ("etc/.wh.gone", tarfile.REGTYPE),
                ("etc/link", tarfile.SYMTYPE), ("etc/hard", tarfile.LNKTYPE), ("dev/x", tarfile.CHRTYPE),
                ("p" * (90 if kind == tarfile.USTAR_FORMAT else 200), tarfile.REGTYPE), ("fifo", tarfile.FIFOTYPE),
            )
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.uid, info.mtime = type_, 0o644, number * 1000, 1_700_000_000 + number
            info.linkname = "etc/file" if type_ in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            if kind == tarfile.PAX_FORMAT:
                info.pax_headers = {"SCHILY.xattr.user.x": "y", "mtime": "1.5"}
            data = b"data of a file" * 40 if type_ == tarfile.REGTYPE and "wh" not in name else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


@cache
def compressed() -> tuple[bytes, ...]:
    import gzip
    import lzma

    found = [archives()[0], gzip.compress(archives()[0], mtime=0), lzma.compress(archives()[0])]
    return tuple(found)


_DIGEST: Final = "sha256:" + "ab" * 32
_INDEX: Final = {
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
    "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": _DIGEST, "size": 7,
                   "platform": {"os": "linux", "architecture": "amd64"}}],
}  # fmt: skip
_MANIFEST: Final = {
    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 7},
    "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": _DIGEST, "size": 9}],
}  # fmt: skip
_CONFIG: Final = {
    "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [_DIGEST]},
    "config": {"Cmd": ["sh"], "Entrypoint": None, "Env": ["A=b"], "User": "1:2", "WorkingDir": "/x",
               "ExposedPorts": {"1/tcp": {}}, "Volumes": {"/v": {}}, "Labels": {"a": "b"}, "StopSignal": "SIGTERM",
               "Healthcheck": {"Test": ["CMD", "x"]}},
    "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}],
}  # fmt: skip
_LOGINS: Final = {
    "auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "*.x.example:5": {"username": "a", "password": "b"}},
    "credHelpers": {"r.example": "pass"}, "credsStore": "x",
}  # fmt: skip
_POLICY: Final = {
    "default": [{"type": "reject"}],
    "transports": {"docker": {"a.example": [{"type": "sigstoreSigned", "keyData": "YQ==",
                   "signedIdentity": {"type": "exactRepository", "dockerRepository": "a.example/x"}}]}},
}  # fmt: skip
_CONTAINERFILE: Final = """# syntax=docker/dockerfile:1
# escape=\\
ARG V=1
FROM busybox:${V:-2} AS base
ENV A="b $V" C=${A%%x*}
RUN --mount=type=cache,target=/c <<EOF
echo $A
EOF
COPY --from=base --chown=1:2 ["a", "b/"]
ADD --checksum=sha256:00 https://x.example/y.git#v1:d /z/
HEALTHCHECK --interval=5s CMD true
ONBUILD RUN x \\
  y
SHELL ["sh", "-c"]
STOPSIGNAL SIGTERM
"""
_POD: Final = """apiVersion: v1
kind: Pod
metadata: {name: a, labels: &l {x: "y"}}
spec:
  restartPolicy: Always
  securityContext: {runAsUser: 5, fsGroup: 7}
  containers:
  - name: c
    image: busybox
    command: [sh, -c, "sleep 1"]
    resources: {limits: {cpu: 100m, memory: 10Mi}}
    ports: [{containerPort: 80, hostPort: 8080}]
    livenessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 3}
    volumeMounts: [{name: v, mountPath: /v}]
  volumes:
  - {name: v, emptyDir: {sizeLimit: 1Gi}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: m}
data: *l
"""
_STATE: Final = {
    "version": 1, "uid": "u", "sandbox_id": "s", "pid": 7, "pid_start": 9, "created_at": 1.5, "cgroup": "/k",
    "hostname": "h", "host_network": False, "containers": [{"id": "c", "name": "c", "pid": 8}],
}  # fmt: skip
_LEASE: Final = {
    "uid": "u", "ip": "10.88.0.2", "mac": "02:00:00:00:00:01", "host_ifname": "v", "netns": "/n", "netns_id": "1:2",
    "ports": [{"host_port": 80, "container_port": 8080, "protocol": "TCP", "host_ip": ""}],
}  # fmt: skip


# --- parsers ---


def _layer(data: bytes, _where: Path) -> None:
    stream = tarstream.TarStream(
        tarstream.ChunkSource([data[at : at + 700] for at in range(0, len(data), 700)])
    )
    for entry in stream:
        stream.copy_data(entry, lambda _view: None)


def _compressed(data: bytes, _where: Path) -> None:
    most = 64 << 20
    for chunk in streams.decompress(io.BytesIO(data)):
        most -= len(chunk)
        if most < 0:
            break


def _image(data: bytes, _where: Path) -> None:
    document = manifests.parse_json(data, "it")
    if "manifests" in document:
        manifests.choose(document, manifests.Platform("linux", "amd64"))
    elif "rootfs" in document:
        imageconfig.check(document)
    else:
        manifests.read_manifest(document)


def _accounts(data: bytes, _where: Path) -> None:
    passwd, _, group = data.partition(b"--\n")
    found = users.accounts_of(passwd, group)
    for user in found.users:
        assert 0 <= user.uid < 1 << 31 and found.memberships(user.name) is not None


def _containerfile(data: bytes, _where: Path) -> None:
    parsed = lexer.parse(data.decode(errors="replace"), "Containerfile")
    graph.plan(parsed, target="", args={"V": "3"}, platform_args={"TARGETPLATFORM": "linux/amd64"})


def _ignored(data: bytes, _where: Path) -> None:
    ignore.read(data.decode(errors="replace")).matches("a/b/c/d.txt")


def _manifest(data: bytes, where: Path) -> None:
    path = where / "pod.yaml"
    path.write_bytes(data)
    loader.load_file(path)


def _policy(data: bytes, where: Path) -> None:
    path = where / "policy.json"
    path.write_bytes(data)
    found = policy.load(str(path))
    found.requirements(reference.parse("a.example/x:1"))


def _shim_state(data: bytes, where: Path) -> None:
    for name in (state.STATE, state.CONFIG):
        (where / name).write_bytes(data)
    state.read_state(str(where))
    state.read_config(str(where))


def _leases(data: bytes, where: Path) -> None:
    directory = where / "network"
    for name in ("u.json", "u.part"):
        (directory / "leases").mkdir(parents=True, exist_ok=True)
        (directory / "leases" / name).write_bytes(data)
    found = LeaseStore(str(directory), Subnet.parse("10.88.0.0/16"), "n")
    try:
        for lease in found.all():
            found.get(lease.uid)
    finally:
        os.close(found._last_file)
        for path in (directory / "leases").iterdir():
            path.unlink()


def _packet(data: bytes, _where: Path) -> None:
    if execve_stub.failure(data) is None and not execve_stub.announced(data):
        handshake._parsed(data, "it")


def _pull_record(data: bytes, where: Path) -> None:
    (where / "record").write_bytes(data)
    _read_record(str(where / "record"))


PARSERS: Final[dict[str, Parser]] = {
    "tar": Parser(archives, _layer),
    "compressed layer": Parser(compressed, _compressed),
    "image": Parser(documents(_INDEX, _MANIFEST, _CONFIG), _image),
    "logins": Parser(documents(_LOGINS), lambda data, _: auth.read_config(json.loads(data), "it"),
                     (RuntimeFault, ValueError, RecursionError)),
    "challenge": Parser(texts('Bearer realm="https://a/t",service="x y",scope="r:pull", Basic realm="z\\"q"', "Basic"),
                        lambda data, _: transport._challenges(data.decode("latin-1")), ()),
    "accounts": Parser(texts("root:x:0:0:root:/root:/bin/sh\na:x:5:6::/:\n--\nroot:x:0:\nw:x:7:a,root\n"), _accounts,
                       ()),
    "Containerfile": Parser(texts(_CONTAINERFILE), _containerfile, (BuildError,)),
    "ignore file": Parser(texts("**/*.py\n!a/[b-d]?/**\n#c\n\\x\n"), _ignored, (ignore.PatternError,)),
    "manifest": Parser(texts(_POD), _manifest, ()),
    "policy": Parser(documents(_POLICY), _policy),
    "name of an image": Parser(texts("r.example:5000/a/b_c:v1@" + _DIGEST, "busybox", "[::1]:5/x"),
                               lambda data, _: reference.parse(data.decode("latin-1"))),
    "state of a shim": Parser(documents(_STATE), _shim_state, ()),
    "lease": Parser(documents(_LEASE), _leases, ()),
    "packet of an init": Parser(
        lambda: (*documents({"error": {"class": "OSError", "errno": 2}}, {"warnings": ["x"], "cloned": 5})(),
                 struct.pack("=3q", 0, 12, 59), struct.pack("=8si4x", b"\0cloned\0", 7)), _packet),
    "record of a pull": Parser(documents(_RECORD), _pull_record, ()),
}  # fmt: skip

"""The files of the node's membership in a cluster, and the time at which its certificate is renewed.

The node is a member exactly while `<root>/cluster/membership.json` exists: joining writes this file last, and leaving
removes it first. The directory (mode 0700) also has `ca.crt`, `client.pem` (certificate and key) and `serving.pem`
(certificate and key of the node's server). Every file has the mode 0600 and is written by rename.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from kubelite.cluster.membership.der import Validity, certificates, validity

#: kubelet renews a certificate when between 70 and 90 % of its life is over (client-go
#: util/certificate/certificate_manager.go, nextRotationDeadline).
EARLIEST, SPREAD = 0.7, 0.2


@dataclass(frozen=True, slots=True)
class Membership:
    """`server`: https://HOST:PORT; `node`: the node's name in the cluster; `joined`: Unix seconds."""

    server: str
    node: str
    joined: float


def directory(root: str) -> Path:
    return Path(root, "cluster")


def is_member(root: str) -> bool:
    """Whether the node on this root directory has joined a cluster."""
    return os.path.exists(f"{root}/cluster/membership.json")


def load(root: str) -> Membership | None:
    """Return the membership, None if there is none. Raises OSError, ValueError (the file is damaged)."""
    try:
        text = (directory(root) / "membership.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return Membership(**json.loads(text))
    except TypeError as error:
        raise ValueError(f"{directory(root)}/membership.json is damaged: {error}") from error


def save(root: str, membership: Membership) -> None:
    """Make the node a member. Everything else must be on disk before. Raises OSError."""
    write(root, "membership.json", json.dumps(asdict(membership)))


def write(root: str, name: str, text: str) -> None:
    """Replace a file of the directory. Raises OSError."""
    where = directory(root)
    where.mkdir(mode=0o700, exist_ok=True)
    where.chmod(0o700)
    temporary = where / f".{name}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(temporary, flags, 0o600), "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, where / name)


def forget(root: str) -> None:
    """End the membership. If a crash interrupts this, the next call removes the other files. Raises OSError."""
    where = directory(root)
    (where / "membership.json").unlink(missing_ok=True)
    shutil.rmtree(where, ignore_errors=True)


def dates(root: str) -> Validity:
    """Return the validity of the client's certificate. Raises OSError, ValueError."""
    found = certificates((directory(root) / "client.pem").read_text(encoding="ascii"))
    if not found:
        raise ValueError(f"{directory(root)}/client.pem has no certificate")
    return validity(found[0])


def renewal(life: Validity, chance: float) -> float:
    """Return the time at which the node renews its certificate, in Unix seconds. `chance`, from 0 to 1, is random: the
    nodes of a cluster must not all ask at the same time."""
    return life.begin + (life.end - life.begin) * (EARLIEST + SPREAD * chance)

"""Which credentials pulled which image, and whether a pod may use an image that is present (KEP-2535).

Kubernetes: pkg/kubelet/images/pullmanager. Without these records, a pod that names a private image which another
namespace's Secret has pulled would start without that Secret. Two kinds of files below the node's directory have
kubelet's format in its version v1beta1, to which kubelet also converts older files (fs_pullrecords_test.go,
TestNewFSPullRecordsAccessor):

- image_manager/pulling/sha256-…: a pull that has begun (ImagePullIntent). After a crash, an image of such a pull counts
  as pulled with unknown credentials.
- image_manager/pulled/sha256-…: an image that pods have pulled (ImagePulledRecord), with the Secrets that the registry
  accepted, or that any pod may use it, because it was pulled without a login or with the node's own.

An image without either is preloaded: loaded, built, or pulled by a command. A file is named after the hash of the
image, so an unreadable record still counts as one, of an image that no Secret has pulled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from kubelite.kube.times import rfc3339
from kubelite.node.decide.starting import LOCAL
from kubelite.node.model.cri import ObservedImage
from kubelite.node.spec.image_verification import NEVER, PRELOADED, Policy
from kubelite.node.spec.pull_secrets import Secret

log = logging.getLogger(__name__)
MOST_SECRETS: Final = 100  # of a record that grows without a pull (kubelet's writeRecordWhileMatchingLimit)
_API: Final = "kubelet.config.k8s.io/v1beta1"


@dataclass(slots=True)
class _Users:
    """Who may use an image by one name."""

    everyone: bool = False
    secrets: list[Secret] = field(default_factory=list)

    def add(self, secret: Secret | None) -> bool:
        """Add a Secret, or everyone (None). False if nothing has changed. A Secret's older content is replaced."""
        if self.everyone or secret in self.secrets:
            return False
        if secret is None:
            self.everyone, self.secrets = True, []
        else:
            self.secrets = [one for one in self.secrets if one[:3] != secret[:3]] + [secret]
        return True

    def document(self) -> dict[str, Any]:
        if self.everyone:
            return {"nodePodsAccessible": True}
        return {
            "kubernetesSecrets": [
                {"uid": uid, "namespace": namespace, "name": name, "credentialHash": digest}
                for uid, namespace, name, digest in self.secrets
            ]
        }


class PullRecords:
    """The records of one node. `begin` and `ended` wait for the disk each time: call them in a thread."""

    def __init__(
        self,
        root: str,
        policy: Policy,
        image: Callable[[str], ObservedImage | None],
        clock: Callable[[], float],
    ) -> None:
        """Read the records. `image` finds a present image by its name."""
        self._clock = clock
        self._policy = policy
        self._pulling = f"{root}/image_manager/pulling"
        self._pulled = f"{root}/image_manager/pulled"
        self._lock = threading.Lock()  # several pods may pull one image at the same time, each in a thread
        self._running: dict[str, int] = {}  # reference → pulls that have begun
        self._records: dict[str, dict[str, _Users]] = {}  # file → name of the image → its users
        for file in _names(self._pulled):
            self._records[file] = _read_record(f"{self._pulled}/{file}")
        for file in _names(self._pulling):
            self._recover(file, image)

    def _recover(self, file: str, image: Callable[[str], ObservedImage | None]) -> None:
        """Turn the record of a pull without an end into one of an image that was pulled with unknown credentials."""
        reference = str(_read(f"{self._pulling}/{file}").get("image") or "")
        found = image(reference) if reference else None
        if found is not None and _file(found.id) not in self._records:
            self._records[_file(found.id)] = {}
            self._write_record(found.id, self._records[_file(found.id)])
        with contextlib.suppress(OSError):
            os.unlink(f"{self._pulling}/{file}")

    def begin(self, reference: str) -> None:
        """Record that a pull begins. OSError if that cannot be written: then nothing may be pulled."""
        if self._policy.name == NEVER:
            return
        document = {"apiVersion": _API, "kind": "ImagePullIntent", "image": reference}
        with self._lock:
            self._running[reference] = self._running.get(reference, 0) + 1
            try:
                _write(f"{self._pulling}/{_file(reference)}", document)
            except OSError:
                self._ended(reference)
                raise

    def ended(self, reference: str, image: ObservedImage | None, secret: Secret | None) -> None:
        """Record the end of a pull. `image`: None if it failed. `secret`: the one that the registry accepted; None:
        it was pulled without a login, or with the node's own."""
        if self._policy.name == NEVER:
            return
        with self._lock:
            if image is not None:
                self._add(image, secret)
            self._ended(reference)

    def _ended(self, reference: str) -> None:
        left = self._running.get(reference, 1) - 1
        if left > 0:
            self._running[reference] = left
            return
        self._running.pop(reference, None)
        with contextlib.suppress(OSError):
            os.unlink(f"{self._pulling}/{_file(reference)}")

    def _add(self, image: ObservedImage, secret: Secret | None) -> None:
        users = self._records.setdefault(_file(image.id), {})
        if users.setdefault(_name(image.reference), _Users()).add(secret):
            self._write_record(image.id, users)

    def _write_record(self, identity: str, users: Mapping[str, _Users]) -> None:
        document = {
            "apiVersion": _API,
            "kind": "ImagePulledRecord",
            "lastUpdatedTime": rfc3339(self._clock()),
            "imageRef": identity,
            "credentialMapping": {name: one.document() for name, one in users.items()},
        }
        try:
            _write(f"{self._pulled}/{_file(identity)}", document)
        except OSError as error:  # the next start of the node asks for the credentials once more
            log.warning("cannot record who pulled an image", extra={"image": identity, "error": str(error)})

    def forget(self, identities: Iterable[str]) -> None:
        """Delete the records of removed images."""
        with self._lock:
            for identity in identities:
                if self._records.pop(_file(identity), None) is not None:
                    with contextlib.suppress(OSError):
                        os.unlink(f"{self._pulled}/{_file(identity)}")

    def unverified(
        self, images: Mapping[str, ObservedImage | None], secrets: Callable[[str], Iterable[Secret]]
    ) -> frozenset[str]:
        """The references of present images that the pod may use only after a pull of its own. `secrets(name)`: the
        pod's logins for an image of this name."""
        if self._policy.name == NEVER or (
            self._policy.name == PRELOADED and not self._records and not self._running
        ):
            return frozenset()
        return frozenset(
            reference
            for reference, image in images.items()
            if image is not None and not self._verified(reference, image, secrets)
        )

    def _verified(
        self, reference: str, image: ObservedImage, secrets: Callable[[str], Iterable[Secret]]
    ) -> bool:
        name = _name(image.reference or reference)
        if name.startswith(LOCAL):  # built on this node, in no registry
            return True
        record = self._records.get(_file(image.id))
        if not self._policy.verifies(name, pulled=record is not None or reference in self._running):
            return True
        users = (record or {}).get(name)
        if users is None:
            return False
        return users.everyone or any(self._knows(image, users, secret) for secret in secrets(name))

    def _knows(self, image: ObservedImage, users: _Users, secret: Secret) -> bool:
        """Whether a Secret has pulled the image: this Secret, with its present or an earlier content, or one with the
        same login. A Secret that is accepted is recorded, and from then on needs no other one."""
        if not any(one[:3] == secret[:3] or (one.hash and one.hash == secret.hash) for one in users.secrets):
            return False
        if secret not in users.secrets:
            with self._lock:
                if len(users.secrets) < MOST_SECRETS:
                    self._add(image, secret)
        return True


def _name(reference: str) -> str:
    """A normalized reference without tag and digest."""
    path, slash, last = reference.partition("@")[0].rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}"


def _file(image: str) -> str:
    return f"sha256-{hashlib.sha256(image.encode()).hexdigest()}"


def _names(directory: str) -> list[str]:
    """The names of the records in a directory, without files that were being written when the node ended."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [name for name in names if name.startswith("sha256-") and not name.endswith(".new")]


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(1 << 20))
    except (OSError, ValueError, RecursionError) as error:
        log.warning("a record of an image pull is unreadable", extra={"path": path, "error": str(error)})
        return {}
    return found if isinstance(found, dict) else {}


def _read_record(path: str) -> dict[str, _Users]:
    mapping = _read(path).get("credentialMapping")
    found = {}
    for name, users in mapping.items() if isinstance(mapping, dict) else ():
        if isinstance(users, dict):
            listed = users.get("kubernetesSecrets")
            secrets = [
                Secret(*(str(one.get(key) or "") for key in ("uid", "namespace", "name", "credentialHash")))
                for one in (listed if isinstance(listed, list) else ())
                if isinstance(one, dict)
            ]
            found[str(name)] = _Users(users.get("nodePodsAccessible") is True, secrets)
    return found


def _write(path: str, document: Mapping[str, Any]) -> None:
    """Write a file so that a power cut leaves the old one or the new one. OSError leaves no part of the new one."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    try:
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(f"{path}.new")
        raise
    directory = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
